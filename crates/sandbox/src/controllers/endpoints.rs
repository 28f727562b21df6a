//! Endpoint slices and legacy endpoints: which pods stand behind a service right now.
//!
//! ```text
//! service + pods ─ derive::slices / derive::endpoints ─▶ compare with what exists ─▶ API server
//! ```
//! A pod's readiness or deletion reaches its slices by the next turn of the queue, which is a
//! matter of milliseconds.

mod derive;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use tokio_util::sync::CancellationToken;

use super::cluster::Cluster;
use super::failure::Failure;
use super::objects::labels;
use super::queue::Queue;
use super::store::{Key, is};
use derive::{MANAGED_BY, OURS, SERVICE_NAME, selects};

/// Runs until `shutdown`.
pub(super) async fn run(cluster: Arc<Cluster>, shutdown: CancellationToken) {
    let queue = Queue::default();
    let changed = queue.clone();
    cluster.services.on_change(move |old, new| {
        changed.retry(new.or(old).map(|object| Key::of(&**object)));
    });
    let changed = queue.clone();
    let services = cluster.services.clone();
    cluster.pods.on_change(move |old, new| {
        if let (Some(old), Some(new)) = (old, new)
            && derive::same_endpoint(old, new)
        {
            return;
        }
        for pod in old.into_iter().chain(new) {
            let namespace = pod.namespace().unwrap_or_default();
            let services = services.within(&namespace);
            let behind = services
                .iter()
                .filter(|service| selects(service, labels(&pod.metadata)));
            behind.for_each(|service| changed.add(Key::of(&**service)));
        }
    });
    // Somebody may delete or change what is derived, and endpoints written by hand are mirrored.
    let changed = queue.clone();
    cluster.slices.on_change(move |old, new| {
        let service = |slice: &Arc<EndpointSlice>| {
            let name = slice.labels().get(SERVICE_NAME)?;
            Some(Key::new(&slice.namespace().unwrap_or_default(), name))
        };
        changed.retry(new.or(old).and_then(service));
    });
    let changed = queue.clone();
    cluster.endpoints.on_change(move |old, new| {
        changed.retry(new.or(old).map(|object| Key::of(&**object)));
    });
    let work = move |key: Key| {
        let cluster = cluster.clone();
        async move { reconcile(&cluster, &key).await }
    };
    queue.run("endpoints", shutdown, work).await;
}

async fn reconcile(cluster: &Cluster, key: &Key) -> Result<Option<Duration>, Failure> {
    let of_service =
        |slice: &Arc<EndpointSlice>| slice.labels().get(SERVICE_NAME) == Some(&key.name);
    let is_ours = |slice: &Arc<EndpointSlice>| {
        slice
            .labels()
            .get(MANAGED_BY)
            .is_some_and(|by| OURS.contains(&&**by))
    };
    let all = cluster
        .slices
        .within(&key.namespace)
        .into_iter()
        .filter(of_service);
    let (existing, foreign): (Vec<_>, Vec<_>) = all.partition(is_ours);
    let service = cluster.services.find(key);
    let alive = |service: &&Arc<Service>| service.metadata.deletion_timestamp.is_none();
    let Some(service) = service.as_ref().filter(alive) else {
        for slice in &existing {
            cluster.slices.delete(slice).await?;
        }
        return Ok(None);
    };
    let wanted = if derive::selector(service).is_some() {
        let pods = cluster.pods.within(&key.namespace);
        let behind: Vec<&Pod> = pods
            .iter()
            .map(|pod| &**pod)
            .filter(|pod| selects(service, labels(&pod.metadata)))
            .collect();
        write_endpoints(cluster, key, derive::endpoints(service, &behind)).await?;
        derive::slices(service, &behind)
    } else if foreign.is_empty() {
        let by_hand = cluster.endpoints.find(key);
        by_hand
            .map(|endpoints| derive::mirror(service, &endpoints))
            .unwrap_or_default()
    } else {
        // Whoever writes slices by hand needs no mirror of the legacy form.
        Vec::new()
    };
    write_slices(cluster, key, &existing, wanted).await?;
    Ok(None)
}

async fn write_slices(
    cluster: &Cluster,
    key: &Key,
    existing: &[Arc<EndpointSlice>],
    wanted: Vec<EndpointSlice>,
) -> Result<(), Failure> {
    for slice in &wanted {
        let known = existing
            .iter()
            .find(|known| known.name_any() == slice.name_any());
        match known {
            Some(known) if derive::same_slice(known, slice) => {}
            Some(known) => {
                let mut slice = slice.clone();
                slice.metadata.resource_version = known.metadata.resource_version.clone();
                slice.metadata.uid = known.metadata.uid.clone();
                cluster.slices.replace(&slice).await?;
            }
            None => match cluster.slices.create(&key.namespace, slice).await {
                // Left by an earlier service of the same name, and about to be collected.
                Err(error) if is(&error, 409) => {
                    return Err(Failure::Again("an older slice has the name".to_owned()));
                }
                other => drop(other?),
            },
        }
    }
    for slice in existing {
        if !wanted.iter().any(|one| one.name_any() == slice.name_any()) {
            cluster.slices.delete(slice).await?;
        }
    }
    Ok(())
}

async fn write_endpoints(cluster: &Cluster, key: &Key, wanted: Endpoints) -> Result<(), Failure> {
    match cluster.endpoints.find(key) {
        Some(known) if known.subsets == wanted.subsets => {}
        Some(known) => {
            let mut wanted = wanted;
            wanted.metadata.resource_version = known.metadata.resource_version.clone();
            wanted.metadata.uid = known.metadata.uid.clone();
            cluster.endpoints.replace(&wanted).await?;
        }
        None => match cluster.endpoints.create(&key.namespace, &wanted).await {
            Err(error) if is(&error, 409) => {
                return Err(Failure::Again("older endpoints have the name".to_owned()));
            }
            other => drop(other?),
        },
    }
    Ok(())
}
