//! Writes statuses and Events at a bounded rate; of several wishes for one object the latest counts.

use super::Wish;
use crate::metrics::Metrics;
use crate::source::{Id, IstioKind};
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Client;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use kube::core::DynamicObject;
use lateen_base::backoff::Backoff;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Time between two writes: 20 a second at most.
const PACE: Duration = Duration::from_millis(50);

/// Statuses that wait to be written: at most one for each object.
#[derive(Clone, Default)]
pub(crate) struct Wishes {
    waiting: Arc<Mutex<BTreeMap<(IstioKind, Id), Wish>>>,
    more: Arc<Notify>,
}

impl Wishes {
    /// Adds a wish, or replaces the one for the same object.
    pub(crate) fn add(&self, wish: Wish) {
        self.waiting
            .lock()
            .insert((wish.kind, wish.id.clone()), wish);
        self.more.notify_one();
    }

    /// Forgets the wish for an object that is in order again or gone.
    pub(crate) fn forget(&self, kind: IstioKind, id: &Id) {
        self.waiting.lock().remove(&(kind, id.clone()));
    }

    pub(crate) fn take(&self) -> Option<Wish> {
        self.waiting.lock().pop_first().map(|(_, wish)| wish)
    }

    /// Puts a wish back that could not be fulfilled, unless a newer one came.
    fn put_back(&self, wish: Wish) {
        let mut waiting = self.waiting.lock();
        waiting.entry((wish.kind, wish.id.clone())).or_insert(wish);
    }
}

/// Fulfils wishes until `shutdown`.
pub(crate) async fn run(
    client: Client,
    wishes: Wishes,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
) {
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
    loop {
        let Some(wish) = wishes.take() else {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = wishes.more.notified() => continue,
            }
        };
        let pause = match write(&client, &wish).await {
            Ok(()) => {
                metrics.status_writes.add(1);
                backoff.reset();
                PACE
            }
            // Gone, changed meanwhile, or refused for good: the watch brings what is true now.
            Err(kube::Error::Api(status))
                if (400..500).contains(&status.code) && status.code != 429 =>
            {
                tracing::debug!(
                    "status of {} {} was not taken: {}",
                    wish.kind.name(),
                    wish.id,
                    status.message
                );
                PACE
            }
            Err(e) => {
                tracing::warn!(
                    "writing the status of {} {}: {e}; trying again",
                    wish.kind.name(),
                    wish.id
                );
                wishes.put_back(wish);
                backoff.next_delay()
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn write(client: &Client, wish: &Wish) -> Result<(), kube::Error> {
    let namespace = &wish.id.namespace;
    let resource = wish.kind.resource();
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    let patch = Patch::Merge(&wish.patch);
    api.patch_status(&wish.id.name, &PatchParams::default(), &patch)
        .await?;
    if let Some(message) = &wish.event {
        let events: Api<Event> = Api::namespaced(client.clone(), namespace);
        // An Event is a courtesy: whoever may not write it has the status and the log.
        if let Err(e) = events
            .create(&PostParams::default(), &event(wish, message))
            .await
        {
            tracing::debug!(
                "writing an event about {} {}: {e}",
                wish.kind.name(),
                wish.id
            );
        }
    }
    Ok(())
}

fn event(wish: &Wish, message: &str) -> Event {
    let resource = wish.kind.resource();
    let now = Some(Time(jiff::Timestamp::now()));
    Event {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}.", wish.id.name)),
            namespace: Some(wish.id.namespace.to_string()),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some(resource.api_version),
            kind: Some(resource.kind),
            namespace: Some(wish.id.namespace.to_string()),
            name: Some(wish.id.name.to_string()),
            uid: Some(wish.uid.clone()).filter(|uid| !uid.is_empty()),
            ..ObjectReference::default()
        },
        type_: Some("Warning".to_owned()),
        reason: Some("Configuration".to_owned()),
        message: Some(message.to_owned()),
        source: Some(EventSource {
            component: Some("istiod".to_owned()),
            ..EventSource::default()
        }),
        count: Some(1),
        first_timestamp: now.clone(),
        last_timestamp: now,
        ..Event::default()
    }
}
