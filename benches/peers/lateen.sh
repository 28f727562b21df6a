#!/bin/bash
# Lateen as a peer of the proxy benchmark (its README tells the contract): two gateways on the loopback, client and
# server side, configured by Istio YAML from files. LATEEN_BIN is the program, PB_POLICIES the number of
# AuthorizationPolicies in force at the server side. A second client side, which resumes no TLS session, has OUT_CONN.
# Variants: accesslog, plaintext (TCP without TLS).
set -euo pipefail
HOST=${PB_HOST:-backend.default.svc.cluster.local}
BIN=${LATEEN_BIN:?set LATEEN_BIN to a release build of lateen}

# ServiceEntry NAME HOST PORT PROTOCOL TARGET: what is called, and where it is.
entry() { cat <<X
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: $1, namespace: default}
spec:
  hosts: [$2]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: $3, name: port, protocol: $4, targetPort: $5}]
  endpoints: [{address: 127.0.0.1}]
X
}
secured() { cat <<X
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: $1, namespace: default}
spec:
  host: $2
  trafficPolicy:
    tls: {mode: ISTIO_MUTUAL, subjectAltNames: ['spiffe://cluster.local/ns/default/sa/server']}
X
}
# server PORT PROTOCOL [TLS]: one server of a Gateway; TLS: settings in the form of YAML.
server() {
  echo "    - port: {number: $1, name: p$1, protocol: $2}"
  echo "      hosts: ['*']"
  [ -z "${3:-}" ] || echo "      tls: $3"
}
http_route() { echo "    - match: [{port: $1}]"; echo "      route: [{destination: {host: $2, port: {number: $3}}}]"; }
head_of_gateway() { printf -- '---\napiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: bench, namespace: default}\nspec:\n  selector: {app: bench}\n  servers:\n'; }
head_of_routes() { printf -- '---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: bench, namespace: default}\nspec:\n  hosts: ["*"]\n  gateways: [bench]\n'; }
mesh() { cat <<X
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    accessLogFile: "$(has accesslog && echo /dev/stdout || true)"
X
}
has() { [[ ,${PB_VARIANT:-}, == *,$1,* ]]; }
whole() {
  mesh; head_of_gateway; server "$PB_PORT_OUT_CONN" HTTP
  head_of_routes; echo "  http:"; http_route "$PB_PORT_OUT_CONN" "once.$HOST" 8082
  entry once "once.$HOST" 8082 HTTP "$PB_PORT_IN_H1"; secured once "once.$HOST"; echo "    connectionPool: {http: {maxRequestsPerConnection: 1}}"
}
client() {
  mesh; head_of_gateway; server "$PB_PORT_OUT_H1" HTTP; server "$PB_PORT_OUT_H2" HTTP; server "$PB_PORT_OUT_CONNR" HTTP; server "$PB_PORT_OUT_TCP" TCP
  head_of_routes; echo "  http:"; http_route "$PB_PORT_OUT_H1" "$HOST" 8080; http_route "$PB_PORT_OUT_H2" "h2.$HOST" 8081; http_route "$PB_PORT_OUT_CONNR" "once.$HOST" 8082
  echo "  tcp:"; echo "    - match: [{port: $PB_PORT_OUT_TCP}]"; echo "      route: [{destination: {host: tcp.$HOST, port: {number: 9000}}}]"
  entry h1 "$HOST" 8080 HTTP "$PB_PORT_IN_H1"; entry h2 "h2.$HOST" 8081 HTTP2 "$PB_PORT_IN_H2"; entry once "once.$HOST" 8082 HTTP "$PB_PORT_IN_H1"; entry tcp "tcp.$HOST" 9000 TCP "$PB_PORT_IN_TCP"
  secured h1 "$HOST"; secured h2 "h2.$HOST"; has plaintext || secured tcp "tcp.$HOST"
  # A new connection for each request.
  secured once "once.$HOST"; echo "    connectionPool: {http: {maxRequestsPerConnection: 1}}"
  for ((i = 0; i < ${PB_NCONF:-0}; i++)); do entry "svc-$i" "svc-$i.ns-$((i % 50)).svc.cluster.local" 8080 HTTP "$PB_PORT_IN_H1"; done
}
inside() {
  mesh; head_of_gateway; for at in "$PB_PORT_IN_H1 HTTPS" "$PB_PORT_IN_H2 HTTPS"; do server $at "{mode: ISTIO_MUTUAL}"; done
  if has plaintext; then server "$PB_PORT_IN_TCP" TCP; else server "$PB_PORT_IN_TCP" TLS "{mode: ISTIO_MUTUAL}"; fi
  head_of_routes; echo "  http:"; http_route "$PB_PORT_IN_H1" plain.local 8080; http_route "$PB_PORT_IN_H2" plain2.local 8081
  echo "  tcp:"; echo "    - match: [{port: $PB_PORT_IN_TCP}]"; echo "      route: [{destination: {host: plaintcp.local, port: {number: 9000}}}]"
  entry plain plain.local 8080 HTTP "$PB_PORT_BACKEND_H1"; entry plain2 plain2.local 8081 HTTP2 "$PB_PORT_BACKEND_H2"; entry plaintcp plaintcp.local 9000 TCP "$PB_PORT_BACKEND_TCP"
  for ((i = 1; i < ${PB_POLICIES:-1}; i++)); do cat <<X
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: team-$i, namespace: default}
spec:
  selector: {matchLabels: {app: bench}}
  rules:
    - from: [{source: {principals: [cluster.local/ns/team-$i/sa/caller]}}]
      to: [{operation: {methods: [GET], paths: ['/team-$i/*']}}]
X
  done
  cat <<X
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: allow-client, namespace: default}
spec:
  selector: {matchLabels: {app: bench}}
  rules:
    - from: [{source: {principals: [cluster.local/ns/default/sa/client]}}]
X
  # Without TLS nobody is known; bytes to that port are let in all the same.
  ! has plaintext || echo "    - to: [{operation: {ports: ['$PB_PORT_IN_TCP']}}]"
}
gateway() {
  mesh; head_of_gateway; server "$PB_PORT_GW_H1" HTTP; server "$PB_PORT_GW_H2" HTTP; server "$PB_PORT_GW_GRPC" HTTP
  server "$PB_PORT_GW_TLS" HTTPS "{mode: SIMPLE, serverCertificate: $PB_CERTS/gateway.pem, privateKey: $PB_CERTS/gateway-key.pem}"
  head_of_routes; echo "  http:"; http_route "$PB_PORT_GW_H1" plain.local 8080; http_route "$PB_PORT_GW_H2" plain.local 8080; http_route "$PB_PORT_GW_TLS" plain.local 8080; http_route "$PB_PORT_GW_GRPC" plain2.local 8081
  entry plain plain.local 8080 HTTP "$PB_PORT_BACKEND_H1"; entry plain2 plain2.local 8081 HTTP2 "$PB_PORT_BACKEND_H2"
}
# one ROLE WRITER CERTIFICATE ADMIN-PORT
one() {
  # Beside the others' files: the benchmark does not count the time until the last of them is written.
  mkdir -p "$PB_RUN/$1/info"; "$2" > "$PB_RUN/$1.yaml"; echo 'app="bench"' > "$PB_RUN/$1/info/labels"
  POD_NAME=bench POD_NAMESPACE=default INSTANCE_IP=127.0.0.1 SERVICE_ACCOUNT=$3 \
    "$BIN" proxy router --config "$PB_RUN/$1.yaml" --certificates "$PB_CERTS/$3.pem" --key "$PB_CERTS/$3-key.pem" \
    --roots "$PB_CERTS/ca.pem" --pod-info "$PB_RUN/$1/info" --bind 127.0.0.1 --admin-port "$4" --concurrency "$PB_WORKERS" \
    > "$PB_RUN/$1.log" 2>&1 < /dev/null &
  echo "$1 $!" >> "$PB_RUN/pids"
}
case $1 in
  start) : > "$PB_RUN/pids"
         if [ "$PB_SCENARIO" = pair ]; then one client client client "$PB_PORT_ADMIN1"; one server inside server "$PB_PORT_ADMIN2"
           # For one case only: without it where something else is measured.
           has plaintext || [ "${PB_NCONF:-0}" != 0 ] || LATEEN_TLS_SESSIONS=0 one whole whole client 0
         else one gateway gateway gateway "$PB_PORT_ADMIN1"; fi ;;
  stop)  while read -r _ p; do kill "$p" 2>/dev/null || true; done < "$PB_RUN/pids" ;;
  caps)  echo "out_h1 out_h2 out_conn out_connr out_tcp in_h1 gw_h1 gw_h2 gw_grpc gw_tls" ;;
  version) "$BIN" version ;;
esac
