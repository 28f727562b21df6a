//! Namespaces: each gets its default service account and the certificate of the cluster's
//! authority. Deleting what a namespace holds is the API server's own task.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use tokio_util::sync::CancellationToken;

use super::cluster::Cluster;
use super::failure::Failure;
use super::queue::Queue;
use super::store::{Key, is};

/// Name of the service account that pods use unless they name one.
const ACCOUNT: &str = "default";
/// Name of the config map with the authority's certificate.
const ROOT: &str = "kube-root-ca.crt";

/// Runs until `shutdown`; `root_certificate` is PEM.
pub(super) async fn run(
    cluster: Arc<Cluster>,
    root_certificate: Arc<str>,
    shutdown: CancellationToken,
) {
    let queue = Queue::default();
    let changed = queue.clone();
    cluster.namespaces.on_change(move |_, new| {
        changed.retry(new.map(|object| Key::of(&**object)));
    });
    let changed = queue.clone();
    cluster.service_accounts.on_change(move |old, new| {
        if let (Some(old), None) = (old, new)
            && old.name_any() == ACCOUNT
        {
            changed.add(Key::new("", &old.namespace().unwrap_or_default()));
        }
    });
    let work = move |key: Key| {
        let (cluster, root) = (cluster.clone(), root_certificate.clone());
        async move { reconcile(&cluster, &root, &key).await }
    };
    queue.run("namespace", shutdown, work).await;
}

async fn reconcile(cluster: &Cluster, root: &str, key: &Key) -> Result<Option<Duration>, Failure> {
    let Some(namespace) = cluster.namespaces.find(key) else {
        return Ok(None);
    };
    if is_leaving(&namespace) {
        return Ok(None);
    }
    let name = key.name.as_str();
    if cluster
        .service_accounts
        .find(&Key::new(name, ACCOUNT))
        .is_none()
    {
        let account = ServiceAccount {
            metadata: meta(ACCOUNT),
            ..ServiceAccount::default()
        };
        taken_is_fine(cluster.service_accounts.create(name, &account).await)?;
    }
    if !root.is_empty() {
        let map = ConfigMap {
            metadata: meta(ROOT),
            data: Some(BTreeMap::from([("ca.crt".to_owned(), root.to_owned())])),
            ..ConfigMap::default()
        };
        match cluster.config_maps.create(name, &map).await {
            // A cluster whose state was kept may have got a new authority.
            Err(error) if is(&error, 409) => {
                let data = serde_json::json!({ "data": map.data });
                cluster
                    .config_maps
                    .patch(&Key::new(name, ROOT), data)
                    .await?;
            }
            other => drop(other?),
        }
    }
    Ok(None)
}

fn is_leaving(namespace: &Namespace) -> bool {
    let phase = namespace
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    namespace.metadata.deletion_timestamp.is_some() || phase == Some("Terminating")
}

fn meta(name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        ..ObjectMeta::default()
    }
}

fn taken_is_fine<T>(result: kube::Result<T>) -> Result<(), Failure> {
    match result {
        Err(error) if !is(&error, 409) => Err(error.into()),
        _ => Ok(()),
    }
}
