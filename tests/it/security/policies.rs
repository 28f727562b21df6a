//! AuthorizationPolicy as Istio's documentation tells it: by principal, by method, refusals that name the policy.

use super::{LEGACY, NOTSLEEP, SLEEP, bookinfo_with_callers, call};
use crate::mesh::{Mesh, eventually};
use anyhow::{Result, ensure};

const PAGE: &str = "http://productpage.default:9080/productpage";

const BY_PRINCIPAL: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: productpage-viewer, namespace: default}
spec:
  selector: {matchLabels: {app: productpage}}
  action: ALLOW
  rules:
    - from:
        - source:
            principals:
              - cluster.local/ns/default/sa/sleep
              - cluster.local/ns/istio-system/sa/istio-ingressgateway-service-account
";

const BY_METHOD: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: productpage-viewer, namespace: default}
spec:
  selector: {matchLabels: {app: productpage}}
  action: ALLOW
  rules:
    - from:
        - source:
            principals:
              - cluster.local/ns/default/sa/sleep
              - cluster.local/ns/istio-system/sa/istio-ingressgateway-service-account
      to:
        - operation: {methods: [GET]}
";

#[test]
fn productpage_viewer_lets_in_whom_it_names() -> Result<()> {
    let mesh = bookinfo_with_callers()?;
    mesh.apply(BY_PRINCIPAL)?;
    eventually("notsleep is refused", 5, || {
        Ok(call(&mesh, NOTSLEEP, &[PAGE])?.status() == 403)
    })?;
    let refused = call(&mesh, NOTSLEEP, &[PAGE])?;
    ensure!(
        refused == super::Outcome::Answer(403, "RBAC: access denied".to_owned()),
        "{refused:?}"
    );
    ensure!(call(&mesh, SLEEP, &[PAGE])?.status() == 200);
    ensure!(
        call(&mesh, LEGACY, &[PAGE])?.status() == 403,
        "who shows no certificate is nobody"
    );
    ensure!(mesh.curl("/productpage", &[])?.0 == 200, "the gateway");

    mesh.apply(BY_METHOD)?;
    eventually("only GET is allowed", 5, || {
        Ok(call(&mesh, SLEEP, &["-X", "DELETE", PAGE])?.status() == 403)
    })?;
    ensure!(call(&mesh, SLEEP, &[PAGE])?.status() == 200);
    let (status, body) = mesh.curl("/productpage", &["-X", "DELETE"])?;
    ensure!(
        (status, body.as_str()) == (403, "RBAC: access denied"),
        "DELETE through the gateway: {status} {body:?}"
    );
    the_decision_is_explained(&mesh)?;
    deny_all_and_tcp(&mesh)?;
    paths_cannot_be_dressed_up(&mesh)
}

fn the_decision_is_explained(mesh: &Mesh) -> Result<()> {
    eventually("the access log tells of it", 5, || {
        let log = mesh.kubectl(&["logs", "deploy/productpage-v1", "-c", "istio-proxy"])?;
        Ok(log.contains("rbac_access_denied_matched_policy[none]"))
    })?;
    let why = mesh.lateen(&[
        "why",
        "--from",
        "deploy/notsleep",
        "productpage:9080/productpage",
    ])?;
    let said = String::from_utf8_lossy(&why.stdout).into_owned();
    println!("{said}");
    ensure!(
        said.contains("denied") && said.contains("default/productpage-viewer"),
        "why names the policy:\n{said}{}",
        String::from_utf8_lossy(&why.stderr)
    );
    Ok(())
}

fn deny_all_and_tcp(mesh: &Mesh) -> Result<()> {
    mesh.apply(
        "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-delete, namespace: default}
spec:
  selector: {matchLabels: {app: details}}
  action: DENY
  rules:
    - from: [{source: {notPrincipals: [cluster.local/ns/default/sa/bookinfo-productpage]}}]
",
    )?;
    let details = "http://details.default:9080/details/0";
    eventually("a DENY policy by principal", 5, || {
        Ok(call(mesh, SLEEP, &[details])?.status() == 403)
    })?;
    let log = || mesh.kubectl(&["logs", "deploy/details-v1", "-c", "istio-proxy"]);
    eventually("its name is in the log", 5, || {
        Ok(log()?
            .contains("rbac_access_denied_matched_policy[ns[default]-policy[no-delete]-rule[0]]"))
    })?;
    let (status, page) = mesh.curl("/productpage", &[])?;
    ensure!(
        status == 200 && page.contains("Book Details"),
        "productpage itself still reads details"
    );
    mesh.kubectl(&["delete", "authorizationpolicy", "no-delete"])?;
    Ok(())
}

fn paths_cannot_be_dressed_up(mesh: &Mesh) -> Result<()> {
    mesh.apply(
        "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-health, namespace: default}
spec:
  selector: {matchLabels: {app: details}}
  action: DENY
  rules:
    - to: [{operation: {paths: [/health]}}]
",
    )?;
    let url = |path: &str| format!("http://details.default:9080{path}");
    eventually("the plain path is refused", 5, || {
        Ok(call(mesh, SLEEP, &[&url("/health")])?.status() == 403)
    })?;
    for path in [
        "/./health",
        "/details/../health",
        "/%68ealth",
        "/details/%2e%2e/health",
        "/health?x=1",
        "/details\\..\\health",
    ] {
        let outcome = call(mesh, SLEEP, &["--path-as-is", &url(path)])?;
        ensure!(outcome.status() == 403, "{path}: {outcome:?}");
    }
    let host = call(
        mesh,
        SLEEP,
        &["-H", "Host: DETAILS.default.:9080", &url("/health")],
    )?;
    ensure!(host.status() == 403, "a dressed-up host: {host:?}");
    mesh.kubectl(&["delete", "authorizationpolicy", "no-health"])?;
    Ok(())
}
