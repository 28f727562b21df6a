//! Files about the mesh's edges: what comes in, what goes out.

use super::Walk;
use crate::mesh::{eventually, text};
use anyhow::{Result, ensure};

pub(super) fn opens_the_page(walk: &Walk) -> Result<()> {
    walk.pages(None, "<title>Simple Bookstore App</title>", "")?;
    for (path, wanted) in [
        ("/api/v1/products", 200),
        ("/api/v1/products/0/reviews", 200),
        ("/logout", 302),
        ("/details/0", 404),
        ("/", 404),
    ] {
        let (status, body) = walk.mesh.curl(path, &[])?;
        ensure!(status == wanted, "{path}: {status}\n{body}");
    }
    let form = ["-d", "username=jason"];
    let (status, _) = walk.mesh.curl("/login", &form)?;
    ensure!(status == 302, "login: {status}");
    Ok(())
}

/// Who answers challenges, as far as the gateway is concerned.
const RESOLVER: &str = "
apiVersion: v1
kind: Service
metadata: {name: cert-manager-resolver, namespace: istio-system}
spec:
  selector: {app: resolver}
  ports: [{name: http, port: 8089, targetPort: 5000}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: resolver, namespace: istio-system}
spec:
  selector: {matchLabels: {app: resolver}}
  template:
    metadata: {labels: {app: resolver}}
    spec:
      containers:
        - name: resolver
          image: lateen/httpbin
          args: ['--port', '5000']
          ports: [{containerPort: 5000}]
          readinessProbe: {httpGet: {path: /get, port: 5000}, periodSeconds: 1}
";

/// Challenges go to their resolver, and the page of the other gateway is where it was.
pub(super) fn answers_challenges(walk: &Walk) -> Result<()> {
    let challenge = || walk.mesh.curl("/.well-known/acme-challenge/token", &["-i"]);
    eventually("a route to nobody", 10, || Ok(challenge()?.0 == 503))?;
    walk.mesh.apply(RESOLVER)?;
    let resolver = ["-n", "istio-system", "deploy/resolver"];
    walk.mesh
        .kubectl(&[&["rollout", "status", "--timeout=60s"], &resolver[..]].concat())?;
    eventually("the resolver answers", 10, || {
        let (status, answer) = challenge()?;
        Ok(status == 404 && answer.contains("no such path"))
    })?;
    let (status, answer) = walk.mesh.curl("/.well-known/else", &["-i"])?;
    ensure!(
        status == 404 && !answer.contains("no such path"),
        "{status}\n{answer}"
    );
    walk.pages(None, "<title>Simple Bookstore App</title>", "")?;
    let gone = ["svc/cert-manager-resolver", "deploy/resolver"];
    walk.mesh
        .kubectl(&[&["delete", "-n", "istio-system"], &gone[..]].concat())?;
    Ok(())
}

const REGISTRY_ONLY: &str = "
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: default}
spec:
  egress: [{hosts: ['./*', 'istio-system/*']}]
  outboundTrafficPolicy: {mode: REGISTRY_ONLY}
";

/// Where only the registry's hosts may be called, the file is what lets its host be called: on port 443 by server name,
/// on port 80 by the `Host` header, and from there over TLS to port 443.
pub(super) fn lets_google_out(walk: &Walk) -> Result<()> {
    walk.mesh.apply(REGISTRY_ONLY)?;
    eventually("TLS by server name", 10, || {
        let said = simulate(walk, "https://www.googleapis.com/")?;
        Ok(said.contains("outbound|443||www.googleapis.com") && !said.contains("Answer:"))
    })?;
    let said = simulate(walk, "http://www.googleapis.com/")?;
    ensure!(
        said.contains("outbound|443||www.googleapis.com")
            && said.contains("VirtualService default/rewrite-port-for-googleapis")
            && !said.contains("Answer:"),
        "{said}"
    );
    // There is no such name here, so that the host is known, but has no endpoint.
    let plain = || plain(walk);
    let (status, _) = plain()?;
    ensure!(status == "503", "known, and nobody there: {status}");

    walk.delete("egress-rule-google-apis")?;
    eventually("the host is not called", 10, || Ok(plain()?.0 == "502"))?;
    let log = walk.log()?;
    ensure!(log.contains(" block_all"), "{log}");
    for url in ["https://www.googleapis.com/", "http://www.googleapis.com/"] {
        let said = simulate(walk, url)?;
        ensure!(
            said.contains("BlackHoleCluster") || said.contains("Answer:"),
            "{url}:\n{said}"
        );
    }
    walk.mesh.kubectl(&["delete", "sidecar", "default"])?;
    Ok(())
}

fn simulate(walk: &Walk, url: &str) -> Result<String> {
    let from = ["simulate", "--from", "deploy/productpage-v1", "--to", url];
    let output = walk.mesh.lateen(&from)?;
    Ok(format!("{}{}", text(&output.stdout), text(&output.stderr)))
}

/// A call on port 80, to an address that the name might have.
fn plain(walk: &Walk) -> Result<(String, String)> {
    let said = walk.inside(&[
        "curl",
        "-sS",
        "-m",
        "10",
        "-w",
        "\n%{http_code}",
        "--resolve",
        "www.googleapis.com:80:203.0.113.7",
        "http://www.googleapis.com/",
    ])?;
    let (body, status) = said.rsplit_once('\n').unwrap_or(("", &said));
    Ok((status.to_owned(), body.to_owned()))
}
