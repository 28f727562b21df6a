//! `lateen sandbox status` and `lateen proxy-status`: tables of what runs and whether it is in step.

use crate::args::Connection;
use crate::cluster::{Cluster, text};
use crate::forward;
use crate::sandbox::pod_name;
use crate::table::aligned;
use anyhow::{Context as _, Result};
use lateen_sandbox::Home;
use serde_json::Value;
use std::time::{SystemTime, UNIX_EPOCH};

/// Prints how the sandbox is: addresses, and the memory of every part.
///
/// # Errors
/// None runs.
pub fn print(home: &Home) -> Result<()> {
    let status = lateen_sandbox::status(home)?;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs() as i64);
    println!(
        "running for {} s (pid {})",
        (now - status.started).max(0),
        status.pid
    );
    println!("  API server   https://{}", status.api);
    println!("  kubeconfig   {}", status.kubeconfig.display());
    for publish in &status.published {
        let target = &publish.target;
        println!(
            "  http://{} → {}/{}:{}",
            publish.listen, target.namespace, target.service, target.port
        );
    }
    let mut rows = vec![
        ["NAMESPACE", "POD", "CONTAINER", "MEMORY"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for part in &status.components {
        rows.push(vec![
            part.namespace.clone(),
            part.pod.clone(),
            part.container.clone(),
            format!("{:.1} MB", part.resident as f64 / 1e6),
        ]);
    }
    println!();
    print!("{}", aligned(&rows));
    Ok(())
}

/// Prints every connected proxy with the state of each kind of resource.
///
/// # Errors
/// The control plane is not there.
pub async fn proxies(connection: &Connection) -> Result<()> {
    let cluster = Cluster::connect(connection.kubeconfig.as_deref(), None).await?;
    let (namespace, istiod) = pod_name(&cluster, "deploy/istiod.istio-system")
        .await
        .context("the control plane")?;
    let body = forward::fetch(&cluster, &namespace, &istiod, 8080, "/debug/syncz").await?;
    let proxies: Value = serde_json::from_slice(&body)?;
    let mut rows = vec![
        [
            "NAME",
            "CLUSTER",
            "ISTIOD",
            "VERSION",
            "STATE",
            "SUBSCRIBED TYPES",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    for proxy in proxies.as_array().into_iter().flatten() {
        let kinds = proxy["kinds"].as_object().cloned().unwrap_or_default();
        let behind: Vec<String> = kinds
            .iter()
            .filter(|(_, state)| *state != "SYNCED")
            .map(|(kind, state)| format!("{kind} {}", text(state)))
            .collect();
        rows.push(vec![
            text(&proxy["proxy"]),
            text(&proxy["cluster_id"]),
            istiod.clone(),
            text(&proxy["istio_version"]),
            if behind.is_empty() {
                "SYNCED".to_owned()
            } else {
                behind.join(", ")
            },
            kinds.len().to_string(),
        ]);
    }
    if rows.len() == 1 {
        eprintln!("No proxy is connected.");
        return Ok(());
    }
    print!("{}", aligned(&rows));
    Ok(())
}
