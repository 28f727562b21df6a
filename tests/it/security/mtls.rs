//! Mutual TLS: STRICT, PERMISSIVE, DISABLE, per port; probes; and the name in the certificate.

use super::{LEGACY, SLEEP, bookinfo_with_callers, call};
use crate::mesh::{Mesh, eventually};
use anyhow::{Context as _, Result, ensure};

const PAGE: &str = "http://productpage.default:9080/productpage";

fn mode(mesh: &Mesh, namespace: &str, mode: &str) -> Result<()> {
    mesh.apply(&format!(
        "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: default, namespace: {namespace}}}
spec: {{mtls: {{mode: {mode}}}}}
"
    ))?;
    Ok(())
}

#[test]
fn strict_takes_members_and_nobody_else() -> Result<()> {
    let mesh = bookinfo_with_callers()?;
    for who in [SLEEP, LEGACY] {
        let outcome = call(&mesh, who, &[PAGE])?;
        ensure!(
            outcome.status() == 200,
            "without policy, {who:?}: {outcome:?}"
        );
    }
    mode(&mesh, "istio-system", "STRICT")?;
    eventually("plain text is refused", 5, || {
        Ok(call(&mesh, LEGACY, &[PAGE])?.is_reset())
    })?;
    let member = call(&mesh, SLEEP, &[PAGE])?;
    ensure!(member.status() == 200, "a member: {member:?}");
    let (status, _) = mesh.curl("/productpage", &[])?;
    ensure!(status == 200, "through the gateway: {status}");
    probes_go_on(&mesh)?;
    the_certificate_names_the_account(&mesh)?;
    the_refusal_is_explained(&mesh)?;

    mode(&mesh, "istio-system", "PERMISSIVE")?;
    eventually("plain text is taken again", 5, || {
        Ok(call(&mesh, LEGACY, &[PAGE])?.status() == 200)
    })?;
    ensure!(call(&mesh, SLEEP, &[PAGE])?.status() == 200);
    narrower_objects_win(&mesh)?;
    pod_addresses_are_called_as_members(&mesh)?;
    connections_are_encrypted(&mesh)
}

fn probes_go_on(mesh: &Mesh) -> Result<()> {
    mesh.apply(
        "
apiVersion: apps/v1
kind: Deployment
metadata: {name: probed}
spec:
  selector: {matchLabels: {app: probed}}
  template:
    metadata: {labels: {app: probed}}
    spec:
      containers:
        - name: probed
          image: lateen/httpbin
          args: ['--port', '8080']
          ports: [{containerPort: 8080}]
          readinessProbe: {httpGet: {path: /status/200, port: 8080}, periodSeconds: 1}
          livenessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
",
    )?;
    let done = mesh.kubectl(&["rollout", "status", "--timeout=30s", "deploy/probed"]);
    done.context("the kubelet's probes pass under STRICT")?;
    mesh.kubectl(&["delete", "deploy/probed"])?;
    Ok(())
}

fn the_certificate_names_the_account(mesh: &Mesh) -> Result<()> {
    let pods = mesh.object(&["pods", "-l", "app=productpage"])?;
    let ip = pods["items"][0]["status"]["podIP"]
        .as_str()
        .context("a pod address")?;
    let script = format!(
        "openssl s_client -connect {ip}:9080 -alpn istio -showcerts </dev/null 2>/dev/null \
         | openssl x509 -noout -ext subjectAltName"
    );
    // A caller outside the mesh sees the server's certificate before it is turned away for having none itself.
    let target = [
        "exec",
        "-n",
        "legacy",
        "deploy/sleep",
        "--",
        "sh",
        "-c",
        &script,
    ];
    let shown = mesh.kubectl(&target)?;
    println!("openssl s_client: {}", shown.trim());
    ensure!(
        shown.contains("URI:spiffe://cluster.local/ns/default/sa/bookinfo-productpage"),
        "{shown}"
    );
    Ok(())
}

fn the_refusal_is_explained(mesh: &Mesh) -> Result<()> {
    let log = mesh.kubectl(&["logs", "deploy/productpage-v1", "-c", "istio-proxy"])?;
    ensure!(
        log.contains("PeerAuthentication istio-system/default"),
        "the proxy's log names the policy:\n{log}"
    );
    Ok(())
}

fn narrower_objects_win(mesh: &Mesh) -> Result<()> {
    mode(mesh, "default", "STRICT")?;
    eventually("the namespace's object wins", 5, || {
        Ok(call(mesh, LEGACY, &[PAGE])?.is_reset())
    })?;
    mesh.apply(
        "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: productpage, namespace: default}
spec:
  selector: {matchLabels: {app: productpage}}
  mtls: {mode: STRICT}
  portLevelMtls: {'9080': {mode: DISABLE}}
",
    )?;
    eventually("the port's own mode wins", 5, || {
        Ok(call(mesh, LEGACY, &[PAGE])?.status() == 200)
    })?;
    let member = call(mesh, SLEEP, &[PAGE])?;
    ensure!(
        member.status() == 200,
        "members call a port without mutual TLS in plain text: {member:?}"
    );
    let details = call(mesh, LEGACY, &["http://details.default:9080/details/0"])?;
    ensure!(details.is_reset(), "others of the namespace: {details:?}");
    mesh.kubectl(&["delete", "peerauthentication", "default", "productpage"])?;
    Ok(())
}

fn pod_addresses_are_called_as_members(mesh: &Mesh) -> Result<()> {
    mode(mesh, "default", "STRICT")?;
    let pods = mesh.object(&["pods", "-l", "app=details"])?;
    let ip = pods["items"][0]["status"]["podIP"]
        .as_str()
        .context("a pod address")?;
    let url = format!("http://{ip}:9080/details/0");
    eventually("a member reaches a pod by its address", 5, || {
        Ok(call(mesh, SLEEP, &[&url])?.status() == 200)
    })?;
    ensure!(call(mesh, LEGACY, &[&url])?.is_reset());
    mesh.kubectl(&["delete", "peerauthentication", "default"])?;
    Ok(())
}

fn connections_are_encrypted(mesh: &Mesh) -> Result<()> {
    for _ in 0..5 {
        call(mesh, SLEEP, &["http://details:9080/details/0"])?;
    }
    let stats = mesh.exec(
        "deploy/details-v1",
        "istio-proxy",
        &["curl", "-s", "localhost:15020/stats/prometheus"],
    );
    // The proxy's container has the tools of the machine here; elsewhere the pod's port shows the same.
    let stats = stats?;
    let wanted = [
        "istio_requests_total",
        "connection_security_policy=\"mutual_tls\"",
        "source_principal=\"spiffe://cluster.local/ns/default/sa/sleep\"",
    ];
    ensure!(
        stats
            .lines()
            .any(|line| wanted.iter().all(|part| line.contains(part))),
        "a series of encrypted requests of sleep:\n{stats}"
    );
    Ok(())
}

#[test]
fn a_policy_that_makes_no_sense_opens_nothing() -> Result<()> {
    let mesh = Mesh::up(&[])?;
    for (what, policy, says) in [
        (
            "an unclosed CIDR",
            "rules: [{from: [{source: {ipBlocks: ['10.0.0.0/']}}]}]",
            "10.0.0.0/",
        ),
        (
            "an unknown field",
            "rules: [{from: [{source: {principal: [a]}}]}]",
            "principal",
        ),
        (
            "a custom action without provider",
            "action: CUSTOM\n  rules: [{}]",
            "provider",
        ),
    ] {
        let yaml = format!(
            "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: broken}}
spec:
  {policy}
"
        );
        let file = mesh.home.join("broken.yaml");
        std::fs::write(&file, yaml)?;
        let path = file.to_str().context("path is UTF-8")?;
        let said = mesh.kubectl_fails(&["apply", "--validate=strict", "-f", path])?;
        println!("{what}: {}", said.trim());
        ensure!(said.contains(says), "{what}: {said}");
    }
    Ok(())
}
