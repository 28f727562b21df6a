//! Events about pods, written in the background so that no container waits for them. When too many are
//! pending, new ones are dropped: they are news, not state.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::mpsc;

const PENDING_LIMIT: usize = 512;

/// Publishes events.
#[derive(Debug, Clone)]
pub(crate) struct Events {
    queue: mpsc::Sender<(Event, ObjectReference)>,
}

impl Events {
    /// Starts the background writer.
    pub(crate) fn start(client: Client) -> Self {
        let (queue, mut pending) = mpsc::channel::<(Event, ObjectReference)>(PENDING_LIMIT);
        let reporter = Reporter {
            controller: "kubelet".into(),
            instance: Some("lateen".into()),
        };
        let recorder = Recorder::new(client, reporter);
        tokio::spawn(async move {
            while let Some((event, about)) = pending.recv().await {
                if let Err(error) = recorder.publish(&event, &about).await {
                    tracing::debug!(%error, reason = event.reason, "an event was not written");
                }
            }
        });
        Self { queue }
    }

    /// Something ordinary.
    pub(crate) fn normal(&self, about: ObjectReference, reason: &str, note: String) {
        self.send(EventType::Normal, about, reason, note);
    }

    /// Something that needs attention.
    pub(crate) fn warning(&self, about: ObjectReference, reason: &str, note: String) {
        self.send(EventType::Warning, about, reason, note);
    }

    fn send(&self, type_: EventType, about: ObjectReference, reason: &str, note: String) {
        let event = Event {
            type_,
            reason: reason.into(),
            note: Some(note),
            action: reason.into(),
            secondary: None,
        };
        let _ = self.queue.try_send((event, about));
    }
}
