//! CUSTOM policies: an external authorizer, by HTTP and by gRPC, asked, away, and failing open only where told to.

use super::{SLEEP, bookinfo_with_callers, call};
use crate::mesh::{Mesh, eventually};
use anyhow::{Result, ensure};

const AUTHORIZER: &str = "
apiVersion: v1
kind: Service
metadata: {name: ext-authz, namespace: default, labels: {app: ext-authz}}
spec:
  selector: {app: ext-authz}
  ports:
    - {name: http, port: 8000, targetPort: 8000}
    - {name: grpc, port: 9000, targetPort: 9000}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: ext-authz, namespace: default}
spec:
  selector: {matchLabels: {app: ext-authz}}
  template:
    metadata: {labels: {app: ext-authz}}
    spec:
      containers:
        - name: ext-authz
          image: gcr.io/istio-testing/ext-authz:latest
          ports: [{containerPort: 8000}, {containerPort: 9000}]
          readinessProbe: {tcpSocket: {port: 8000}, periodSeconds: 1}
";

const MESH: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system, labels: {istio.io/rev: default}}
data:
  mesh: |
    accessLogFile: /dev/stdout
    extensionProviders:
      - name: by-http
        envoyExtAuthzHttp:
          service: ext-authz.default.svc.cluster.local
          port: 8000
          includeRequestHeadersInCheck: [x-ext-authz]
      - name: by-grpc
        envoyExtAuthzGrpc:
          service: ext-authz.default.svc.cluster.local
          port: 9000
  meshNetworks: 'networks: {}'
";

fn policy(provider: &str) -> String {
    format!(
        "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: ask, namespace: default}}
spec:
  selector: {{matchLabels: {{app: details}}}}
  action: CUSTOM
  provider: {{name: {provider}}}
  rules: [{{to: [{{operation: {{paths: ['/details/*']}}}}]}}]
"
    )
}

const DETAILS: &str = "http://details.default:9080/details/0";

#[test]
fn an_external_authorizer_is_asked() -> Result<()> {
    let mesh = bookinfo_with_callers()?;
    mesh.apply(AUTHORIZER)?;
    mesh.kubectl(&["rollout", "status", "--timeout=60s", "deploy/ext-authz"])?;
    mesh.apply(MESH)?;
    for provider in ["by-http", "by-grpc"] {
        mesh.apply(&policy(provider))?;
        eventually("whoever does not ask nicely is refused", 5, || {
            Ok(call(&mesh, SLEEP, &["-H", "x-ext-authz: deny", DETAILS])?.status() == 403)
        })?;
        let yes = call(&mesh, SLEEP, &["-H", "x-ext-authz: allow", DETAILS])?;
        ensure!(yes.status() == 200, "{provider}: {yes:?}");
        let elsewhere = call(&mesh, SLEEP, &["http://details.default:9080/health"])?;
        ensure!(elsewhere.status() == 200, "{provider}: {elsewhere:?}");
    }
    it_fails_closed(&mesh)
}

fn it_fails_closed(mesh: &Mesh) -> Result<()> {
    mesh.kubectl(&["scale", "deploy/ext-authz", "--replicas=0"])?;
    eventually("an authorizer that is away lets nobody in", 20, || {
        let outcome = call(mesh, SLEEP, &["-H", "x-ext-authz: allow", DETAILS])?;
        Ok(outcome.status() == 403)
    })?;
    let log = mesh.kubectl(&["logs", "deploy/details-v1", "-c", "istio-proxy"])?;
    ensure!(
        log.contains("UAEX"),
        "the flag is in the access log:\n{log}"
    );
    Ok(())
}
