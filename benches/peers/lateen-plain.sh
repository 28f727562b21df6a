#!/bin/bash
# Lateen passing bytes on in plain text at both sides: the case `tcp` of this peer.
PB_VARIANT=plaintext exec "$(dirname "$0")/lateen.sh" "$@"
