#!/bin/bash
# Lateen with an access log, as a peer of its own: the benchmark knows variants of its own peers only.
PB_VARIANT=accesslog exec "$(dirname "$0")/lateen.sh" "$@"
