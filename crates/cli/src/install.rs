//! What `sandbox up` installs: CRDs, istiod, webhooks, the gateways of Istio's demo profile. The manifests lie beside this file.

use crate::cluster::{Cluster, documents};
use crate::objects::label;
use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use std::time::{Duration, Instant};

const CONTROL_PLANE: &str = include_str!("install/control-plane.yaml");
const WEBHOOKS: &str = include_str!("install/webhooks.yaml");
const INGRESS_GATEWAY: &str = include_str!("install/ingress-gateway.yaml");
const EGRESS_GATEWAY: &str = include_str!("install/egress-gateway.yaml");

/// Installs the CRDs of the Istio kinds.
///
/// # Errors
/// The server refuses one.
pub async fn crds(cluster: &mut Cluster) -> Result<()> {
    for crd in lateen_api::crds() {
        cluster.apply(&crd).await.with_context(|| label(&crd))?;
    }
    cluster.refresh().await
}

/// Installs istiod and the webhooks that lead to it.
///
/// # Errors
/// The server refuses an object.
pub async fn control_plane(cluster: &Cluster) -> Result<()> {
    apply(cluster, "control plane", CONTROL_PLANE).await?;
    apply(cluster, "webhooks", WEBHOOKS).await
}

/// Installs the ingress and the egress gateway.
///
/// # Errors
/// The server refuses an object.
pub async fn gateways(cluster: &Cluster) -> Result<()> {
    apply(cluster, "ingress gateway", INGRESS_GATEWAY).await?;
    apply(cluster, "egress gateway", EGRESS_GATEWAY).await
}

async fn apply(cluster: &Cluster, name: &str, manifest: &str) -> Result<()> {
    for object in documents(name, manifest)? {
        cluster
            .apply(&object)
            .await
            .with_context(|| label(&object))?;
    }
    Ok(())
}

/// Waits until every Deployment in `namespace` has all its replicas available.
///
/// # Errors
/// They are not available within `limit`; the sentence names what each still waits for.
pub async fn available(cluster: &Cluster, namespace: &str, limit: Duration) -> Result<()> {
    let start = Instant::now();
    loop {
        let list = cluster
            .read(&format!("/apis/apps/v1/namespaces/{namespace}/deployments"))
            .await?;
        let waiting: Vec<String> = list["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|d| !is_available(d))
            .map(label_short)
            .collect();
        if waiting.is_empty() {
            return Ok(());
        }
        if start.elapsed() > limit {
            let why = pod_reasons(cluster, namespace).await;
            bail!(
                "not ready within {} s in namespace {namespace}: {}{why}",
                limit.as_secs(),
                waiting.join(", ")
            );
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn is_available(deployment: &Value) -> bool {
    let wanted = deployment["spec"]["replicas"].as_i64().unwrap_or(1);
    let status = &deployment["status"];
    let count = |field: &str| status[field].as_i64().unwrap_or_default();
    count("observedGeneration")
        >= deployment["metadata"]["generation"]
            .as_i64()
            .unwrap_or_default()
        && count("updatedReplicas") >= wanted
        && count("availableReplicas") >= wanted
}

fn label_short(object: &Value) -> String {
    object["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

/// What containers of unready pods wait for, as the API server tells it.
async fn pod_reasons(cluster: &Cluster, namespace: &str) -> String {
    let Ok(pods) = cluster
        .read(&format!("/api/v1/namespaces/{namespace}/pods"))
        .await
    else {
        return String::new();
    };
    let mut out = String::new();
    for pod in pods["items"].as_array().into_iter().flatten() {
        for field in ["initContainerStatuses", "containerStatuses"] {
            for status in pod["status"][field].as_array().into_iter().flatten() {
                let waiting = &status["state"]["waiting"];
                if let Some(reason) = waiting["reason"]
                    .as_str()
                    .filter(|r| !r.ends_with("Initializing"))
                {
                    let message = waiting["message"].as_str().unwrap_or_default();
                    let name = status["name"].as_str().unwrap_or_default();
                    out.push_str(&format!(
                        "\n  pod {} container {name}: {reason} {message}",
                        label_short(pod)
                    ));
                }
            }
        }
    }
    out
}
