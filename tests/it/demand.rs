//! Bookinfo with sidecars that are told of services when these are first used: everything works as ever, and each
//! sidecar knows what its application calls, no more.

use crate::mesh::{Mesh, eventually};
use anyhow::{Result, ensure};

/// Services among which the application's are to be found: nobody calls these.
fn crowd(count: usize) -> String {
    let one = |n: usize| {
        format!(
            "---
apiVersion: v1
kind: Service
metadata: {{name: crowd-{n}}}
spec: {{selector: {{app: nobody}}, ports: [{{name: http, port: 9080}}]}}
"
        )
    };
    (0..count).map(one).collect()
}

/// Hosts of the services that a sidecar can send to, in order.
fn known(mesh: &Mesh, target: &str) -> Result<Vec<String>> {
    let output = mesh.lateen(&["proxy-config", "clusters", target])?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let names = text.lines().filter_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        let host = words.first().filter(|_| words.contains(&"outbound"))?;
        Some(host.split('.').next().unwrap_or(host).to_owned())
    });
    let mut names: Vec<_> = names.collect();
    names.sort();
    names.dedup();
    Ok(names)
}

fn metrics(mesh: &Mesh, target: &str, container: &str) -> Result<String> {
    let page = "localhost:15020/stats/prometheus";
    mesh.exec(target, container, &["curl", "-sS", page])
}

#[test]
fn a_sidecar_knows_what_its_application_calls() -> Result<()> {
    let mesh = Mesh::up(&[])?;
    mesh.kubectl(&["label", "namespace", "default", "istio-injection=enabled"])?;
    mesh.apply(&crowd(200))?;
    mesh.kubectl(&[
        "apply",
        "-f",
        "samples/bookinfo/platform/kube/bookinfo.yaml",
    ])?;
    let deployments = mesh.object(&["deployments"])?;
    let on_demand = r#"{"spec":{"template":{"metadata":{"annotations":
        {"proxy.istio.io/config":"proxyMetadata: {LATEEN_ON_DEMAND: 'true'}"}}}}}"#;
    for item in deployments["items"].as_array().into_iter().flatten() {
        let name = item["metadata"]["name"].as_str().unwrap_or_default();
        mesh.kubectl(&["patch", "deployment", name, "--patch", on_demand])?;
        mesh.kubectl(&[
            "rollout",
            "status",
            "--timeout=90s",
            &format!("deploy/{name}"),
        ])?;
    }
    mesh.kubectl(&[
        "apply",
        "-f",
        "samples/bookinfo/networking/bookinfo-gateway.yaml",
    ])?;
    // The first page of all: every call on the way is to a service that was never heard of.
    eventually("the first page", 20, || {
        let (status, page) = mesh.curl("/productpage", &[])?;
        Ok(status == 200 && page.contains("Book Details") && page.contains("Book Reviews"))
    })?;
    for _ in 0..30 {
        let (status, page) = mesh.curl("/productpage", &[])?;
        ensure!(
            status == 200 && !page.contains("currently unavailable"),
            "{page}"
        );
    }
    let page = known(&mesh, "deploy/productpage-v1")?;
    ensure!(
        page == ["details", "productpage", "reviews"],
        "the page's sidecar knows {page:?}"
    );
    let leaf = known(&mesh, "deploy/ratings-v1")?;
    ensure!(leaf == ["ratings"], "the ratings' sidecar knows {leaf:?}");
    // Rules come with their services.
    for rules in ["destination-rule-all", "virtual-service-all-v1"] {
        let file = format!("samples/bookinfo/networking/{rules}.yaml");
        mesh.kubectl(&["apply", "-f", &file])?;
    }
    eventually("all requests go to version 1", 10, || {
        let pages = (0..10).map(|_| mesh.curl("/productpage", &[]));
        let pages = pages.collect::<Result<Vec<_>>>()?;
        Ok(pages.iter().all(|(_, page)| !page.contains(" stars")))
    })?;
    mesh.kubectl(&[
        "delete",
        "-f",
        "samples/bookinfo/networking/virtual-service-all-v1.yaml",
    ])?;
    eventually("all versions answer again", 10, || {
        Ok(mesh.curl("/productpage", &[])?.1.contains(" stars"))
    })?;
    // Who calls is known by name, though nobody at the callee ever called it.
    let told = metrics(&mesh, "deploy/ratings-v1", "ratings")?;
    let from_reviews = told.lines().any(|line| {
        line.starts_with("istio_requests_total")
            && line.contains("reporter=\"destination\"")
            && line.contains("source_workload=\"reviews-v")
    });
    ensure!(from_reviews, "{told}");
    ensure!(
        told.contains("lateen_discovery_lookup_failures_total 0"),
        "{told}"
    );
    Ok(())
}
