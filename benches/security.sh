#!/bin/bash
# Measures the cost of security against Envoy in one run: new mutual-TLS connections, and requests under 1 and 1,000
# AuthorizationPolicies. Needs the proxy benchmark (HARNESS), its tools, a release build (LATEEN_BIN) and Envoy.
#   HARNESS=/path/to/bench LATEEN_BIN=target/release/lateen benches/security.sh [reps] [seconds]
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
HARNESS=$(cd "${HARNESS:?the folder of the proxy benchmark, with bench.py}" && pwd)
export LATEEN_BIN=$(readlink -f "${LATEEN_BIN:?a release build of lateen}")
REPS=${1:-5} SECS=${2:-5}
WORK=$(mktemp -d "${TMPDIR:-/tmp}/lateen-bench.XXXXXX")
trap 'rm -rf "$WORK"' EXIT
cp -r "$HARNESS/." "$WORK/"
chmod -R u+rwX "$WORK"; chmod +x "$WORK"/peers/*.sh "$WORK"/backend/*.sh "$WORK"/*.sh
cp "$HERE/policies.py" "$WORK/peers/"
for n in 1 1000; do
  sed "2i export PB_POLICIES=$n" "$HERE/peers/lateen.sh" > "$WORK/peers/lateen-p$n.sh"
  sed "s#python3 \"\$H/envoy_config.py\" \"\$1\" >#python3 \"\$H/envoy_config.py\" \"\$1\" | python3 \"\$H/policies.py\" $n >#" \
    "$WORK/peers/envoy.sh" > "$WORK/peers/envoy-p$n.sh"
  chmod +x "$WORK/peers/lateen-p$n.sh" "$WORK/peers/envoy-p$n.sh"
done
cd "$WORK"
OUT=$WORK/security.jsonl
python3 bench.py run --plan pair --only envoy-p1-w1,envoy-p1000-w1,lateen-p1-w1,lateen-p1000-w1 \
  --cases h1-c16,h1-c64,hs-full,hs-resume --reps "$REPS" --secs "$SECS" --out "$OUT"
python3 "$HERE/summary.py" "$OUT"
