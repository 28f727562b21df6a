//! Events: what a controller did or could not do, as `kubectl describe` and `kubectl get events`
//! show it. Repetitions raise a count instead of making new objects.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use parking_lot::Mutex;
use serde_json::json;

use super::objects::time;
use super::store::{Key, Store};

/// How many distinct events are remembered for counting.
const REMEMBERED: usize = 2000;

/// Writes events in the background; a failure to write one is not worth a fuss.
#[derive(Clone)]
pub struct Recorder {
    store: Store<Event>,
    component: &'static str,
    known: Arc<Mutex<HashMap<Known, (String, i32)>>>,
}

/// What makes two events the same: object, reason and message.
type Known = (String, &'static str, String);

/// Normal or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// It went as meant.
    Normal,
    /// Somebody should look.
    Warning,
}

impl Recorder {
    /// A recorder that signs as `component`.
    pub(crate) fn new(store: Store<Event>, component: &'static str) -> Recorder {
        Recorder {
            store,
            component,
            known: Arc::default(),
        }
    }

    /// Tells something about an object.
    pub(crate) fn tell<K: Resource<DynamicType = ()>>(
        &self,
        about: &K,
        tone: Tone,
        reason: &'static str,
        message: String,
    ) {
        let uid = about.meta().uid.clone().unwrap_or_default();
        let namespace = about
            .meta()
            .namespace
            .clone()
            .unwrap_or_else(|| "default".to_owned());
        let now = Timestamp::now();
        let known = (uid, reason, message.clone());
        let count = {
            let mut map = self.known.lock();
            match map.get_mut(&known) {
                Some((name, count)) => {
                    *count += 1;
                    Some((name.clone(), *count))
                }
                None => {
                    if map.len() >= REMEMBERED {
                        map.clear();
                    }
                    None
                }
            }
        };
        let store = self.store.clone();
        if let Some((name, count)) = count {
            let key = Key::new(&namespace, &name);
            let patch = json!({ "count": count, "lastTimestamp": time(now) });
            tokio::spawn(async move { store.patch(&key, patch).await });
            return;
        }
        let name = event_name(about.meta().name.as_deref().unwrap_or_default());
        self.known.lock().insert(known, (name.clone(), 1));
        let event = self.event(about, tone, (reason, message), (name, &namespace, now));
        tokio::spawn(async move {
            if let Err(error) = store.create(&namespace, &event).await {
                tracing::debug!(%error, "event not written");
            }
        });
    }

    fn event<K: Resource<DynamicType = ()>>(
        &self,
        about: &K,
        tone: Tone,
        (reason, message): (&str, String),
        (name, namespace, now): (String, &str, Timestamp),
    ) -> Event {
        let meta = about.meta();
        Event {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            involved_object: ObjectReference {
                api_version: Some(K::api_version(&()).into_owned()),
                kind: Some(K::kind(&()).into_owned()),
                name: meta.name.clone(),
                namespace: meta.namespace.clone(),
                uid: meta.uid.clone(),
                resource_version: meta.resource_version.clone(),
                field_path: None,
            },
            reason: Some(reason.to_owned()),
            message: Some(message),
            type_: Some(
                match tone {
                    Tone::Normal => "Normal",
                    Tone::Warning => "Warning",
                }
                .to_owned(),
            ),
            count: Some(1),
            first_timestamp: Some(time(now)),
            last_timestamp: Some(time(now)),
            source: Some(EventSource {
                component: Some(self.component.to_owned()),
                host: None,
            }),
            reporting_component: Some(self.component.to_owned()),
            ..Event::default()
        }
    }
}

/// A name of its own: the object's, cut so that the whole is a valid name, and the time, by which lists then sort.
fn event_name(object: &str) -> String {
    let cut = object.get(..object.len().min(230)).unwrap_or_default();
    format!("{cut}.{:016x}", Timestamp::now().as_nanosecond())
}
