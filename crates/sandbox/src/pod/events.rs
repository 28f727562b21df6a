//! Events about pods, written in the background so that no container waits for them. When too many are
//! pending, new ones are dropped: they are news, not state. Repetitions raise a count.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use tokio::sync::mpsc;

use super::fields::NODE_NAME;
use super::state::now_in_seconds;

const PENDING_LIMIT: usize = 512;
/// How many distinct events are remembered for counting.
const KNOWN_LIMIT: usize = 2000;

/// Publishes events.
#[derive(Debug, Clone)]
pub(crate) struct Events {
    queue: mpsc::Sender<News>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    uid: String,
    field_path: Option<String>,
    reason: String,
    note: String,
}

#[derive(Debug)]
struct News {
    about: ObjectReference,
    kind: &'static str,
    reason: String,
    note: String,
}

/// Who says so, in Kubernetes' words: placing pods is another program's work there.
fn component(reason: &str) -> &'static str {
    match reason {
        "Scheduled" | "FailedScheduling" => "default-scheduler",
        _ => "kubelet",
    }
}

impl Events {
    /// Starts the background writer.
    pub(crate) fn start(client: Client) -> Self {
        let (queue, mut pending) = mpsc::channel::<News>(PENDING_LIMIT);
        tokio::spawn(async move {
            let mut known = HashMap::new();
            while let Some(news) = pending.recv().await {
                let reason = news.reason.clone();
                if let Err(error) = write(&client, news, &mut known).await {
                    tracing::debug!(%error, reason, "an event was not written");
                }
            }
        });
        Self { queue }
    }

    /// Something ordinary.
    pub(crate) fn normal(&self, about: ObjectReference, reason: &str, note: String) {
        self.send("Normal", about, reason, note);
    }

    /// Something that needs attention.
    pub(crate) fn warning(&self, about: ObjectReference, reason: &str, note: String) {
        self.send("Warning", about, reason, note);
    }

    fn send(&self, kind: &'static str, about: ObjectReference, reason: &str, note: String) {
        let _ = self.queue.try_send(News {
            about,
            kind,
            reason: reason.to_owned(),
            note,
        });
    }
}

async fn write(
    client: &Client,
    news: News,
    known: &mut HashMap<Key, (String, i32)>,
) -> Result<(), kube::Error> {
    let namespace = news.about.namespace.clone().unwrap_or_default();
    let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
    let now = Time(now_in_seconds());
    let key = Key {
        uid: news.about.uid.clone().unwrap_or_default(),
        field_path: news.about.field_path.clone(),
        reason: news.reason.clone(),
        note: news.note.clone(),
    };
    if let Some((name, count)) = known.get_mut(&key) {
        *count += 1;
        let patch = Patch::Merge(serde_json::json!({"count": *count, "lastTimestamp": now}));
        let parameters = PatchParams::default();
        return api.patch(name, &parameters, &patch).await.map(drop);
    }
    if known.len() >= KNOWN_LIMIT {
        known.clear();
    }
    let subject = news.about.name.clone().unwrap_or_default();
    // Lists come by name: names that grow keep the order of events that share a second.
    let name = format!("{subject}.{:016x}", jiff::Timestamp::now().as_nanosecond());
    let component = component(&news.reason);
    let event = Event {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(namespace),
            ..ObjectMeta::default()
        },
        involved_object: news.about,
        reason: Some(news.reason),
        message: Some(news.note),
        type_: Some(news.kind.to_owned()),
        count: Some(1),
        first_timestamp: Some(now.clone()),
        last_timestamp: Some(now),
        source: Some(EventSource {
            component: Some(component.into()),
            host: Some(NODE_NAME.into()),
        }),
        reporting_component: Some(component.into()),
        reporting_instance: Some(NODE_NAME.into()),
        ..Event::default()
    };
    api.create(&PostParams::default(), &event).await?;
    known.insert(key, (name, 1));
    Ok(())
}
