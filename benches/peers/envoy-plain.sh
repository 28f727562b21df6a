#!/bin/bash
# Envoy passing bytes on in plain text at both sides, to compare with lateen-plain.sh: two processes, one TCP listener
# each, and one that answers 200, by which the benchmark sees that they are up.
set -euo pipefail
BIN=${ENVOY_BIN:-$(python3 -c 'import importlib.util as u,os;print(os.path.join(os.path.dirname(u.find_spec("envoy").origin),"_bin","envoy"))')}
PROTO=type.googleapis.com/envoy.extensions.filters
at() { echo "{socket_address: {address: 127.0.0.1, port_value: $1}}"; }
# listener PORT FILTER-NAME FILTER-SETTINGS
listener() { echo "  - {name: l$1, address: $(at "$1"), filter_chains: [{filters: [{name: $2, typed_config: $3}]}]}"; }
answering() { cat <<Y
{'@type': $PROTO.network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: r,
     http_filters: [{name: router, typed_config: {'@type': $PROTO.http.router.v3.Router}}],
     route_config: {virtual_hosts: [{name: v, domains: ['*'], routes: [{match: {prefix: /}, direct_response: {status: 200}}]}]}}
Y
}
# one ROLE LISTEN-PORT UPSTREAM-PORT [READY-PORT]
one() {
  { echo "static_resources:"; echo "  listeners:"
    listener "$2" tcp "{'@type': $PROTO.network.tcp_proxy.v3.TcpProxy, stat_prefix: t, cluster: up}"
    [ -z "${4:-}" ] || listener "$4" http "$(answering)"
    echo "  clusters: [{name: up, type: STATIC, load_assignment: {cluster_name: up, endpoints: [{lb_endpoints: [{endpoint: {address: $(at "$3")}}]}]}}]"
  } > "$PB_RUN/$1.yaml"
  "$BIN" -c "$PB_RUN/$1.yaml" --concurrency "$PB_WORKERS" --disable-hot-restart -l warning > "$PB_RUN/$1.log" 2>&1 < /dev/null &
  echo "$1 $!" >> "$PB_RUN/pids"
}
case $1 in
  start) : > "$PB_RUN/pids"
         one client "$PB_PORT_OUT_TCP" "$PB_PORT_IN_TCP" "$PB_PORT_OUT_H1"; one server "$PB_PORT_IN_TCP" "$PB_PORT_BACKEND_TCP" ;;
  stop)  while read -r _ p; do kill "$p" 2>/dev/null || true; done < "$PB_RUN/pids" ;;
  caps)  echo "out_tcp" ;;
  version) "$BIN" --version | sed -n 's/.*version: //p' ;;
esac
