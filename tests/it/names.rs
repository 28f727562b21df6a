//! Names that no DNS server knows: two TCP services on one port, told apart by the addresses that the proxy's DNS tells.

use crate::mesh::{Mesh, eventually};
use anyhow::{Context as _, Result, ensure};

/// A server outside of the mesh, and the ServiceEntry `NAME.example` for it.
fn outside(mesh: &Mesh, name: &str, version: &str) -> Result<()> {
    let pod = format!("helloworld-{version}");
    mesh.kubectl(&[
        "rollout",
        "status",
        "-n",
        "legacy",
        "--timeout=60s",
        &format!("deploy/{pod}"),
    ])?;
    let pods = mesh.object(&["pods", "-n", "legacy", "-l", &format!("version={version}")])?;
    let ip = pods["items"][0]["status"]["podIP"].as_str();
    let ip = ip.context("a pod address")?;
    mesh.apply(&format!(
        "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {name}}}
spec:
  hosts: [{name}.example]
  ports: [{{number: 7000, name: tcp, protocol: TCP, targetPort: 5000}}]
  resolution: STATIC
  endpoints: [{{address: {ip}}}]
"
    ))?;
    Ok(())
}

#[test]
fn one_port_and_two_names() -> Result<()> {
    let mesh = Mesh::up(&[])?;
    mesh.kubectl(&["label", "namespace", "default", "istio-injection=enabled"])?;
    mesh.kubectl(&["create", "namespace", "legacy"])?;
    mesh.kubectl(&[
        "apply",
        "-n",
        "legacy",
        "-f",
        "samples/helloworld/helloworld.yaml",
    ])?;
    outside(&mesh, "one", "v1")?;
    outside(&mesh, "two", "v2")?;
    mesh.apply(
        "
apiVersion: apps/v1
kind: Deployment
metadata: {name: asker}
spec:
  selector: {matchLabels: {app: asker}}
  template:
    metadata:
      labels: {app: asker}
      annotations:
        proxy.istio.io/config: |
          proxyMetadata: {ISTIO_META_DNS_CAPTURE: 'true'}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
        - name: asker
          image: curlimages/curl
          command: ['/bin/sleep', 'infinity']
",
    )?;
    mesh.kubectl(&["rollout", "status", "--timeout=60s", "deploy/asker"])?;
    let entry = mesh.object(&["serviceentry", "one"])?;
    let address = entry["status"]["addresses"][0]["value"].as_str();
    let address = address.context("status.addresses")?.to_owned();
    ensure!(address.starts_with("240.240."), "{address}");
    let ask = |url: &str| {
        let target = ["exec", "deploy/asker", "-c", "asker", "--"];
        let curl = ["curl", "-sS", "-m", "10", "-w", " from %{remote_ip}", url];
        mesh.kubectl(&[&target[..], &curl[..]].concat())
    };
    eventually("the first name", 10, || {
        let said = ask("http://one.example:7000/hello").unwrap_or_default();
        Ok(said.contains("version: v1") && said.ends_with(&format!(" from {address}")))
    })?;
    let said = ask("http://two.example:7000/hello")?;
    ensure!(said.contains("version: v2"), "{said}");
    // The cluster's own names, and those that only its name server knows.
    let said = ask("http://helloworld.legacy:5000/hello")?;
    ensure!(said.contains("Hello"), "{said}");
    let pods = mesh.object(&["pods", "-n", "legacy", "-l", "version=v2"])?;
    let ip = pods["items"][0]["status"]["podIP"].as_str();
    let name = ip.context("a pod address")?.replace('.', "-");
    let said = ask(&format!(
        "http://{name}.legacy.pod.cluster.local:5000/hello"
    ))?;
    ensure!(said.contains("version: v2"), "{said}");

    // An address does not change while its object lives.
    mesh.kubectl(&["rollout", "restart", "-n", "istio-system", "deploy/istiod"])?;
    mesh.kubectl(&[
        "rollout",
        "status",
        "-n",
        "istio-system",
        "--timeout=60s",
        "deploy/istiod",
    ])?;
    mesh.kubectl(&["annotate", "serviceentry", "one", "seen=yes"])?;
    let entry = mesh.object(&["serviceentry", "one"])?;
    ensure!(
        entry["status"]["addresses"][0]["value"] == address.as_str(),
        "{entry}"
    );
    Ok(())
}
