//! watch: a stream of events, pulled by the client. Nothing is buffered per client: a client that is too slow for
//! the store's log is told to list anew.

use crate::api::{Api, Call};
use crate::error::ApiError;
use crate::negotiate::Format;
use crate::select::Selection;
use crate::store::{Event, Store};
use crate::verbs::read;
use crate::{table, wire};
use bytes::Bytes;
use futures::stream;
use http::Response;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Events taken from the log at once.
const BATCH: usize = 128;
/// Pause between bookmarks; Kubernetes sends them about every minute.
const BOOKMARK: Duration = Duration::from_secs(30);

struct Watching {
    api: Arc<Api>,
    call: Call,
    selection: Selection,
    newest: watch::Receiver<u64>,
    stopping: watch::Receiver<bool>,
    position: u64,
    initial: Vec<Arc<Value>>,
    /// The end of the initial events is to be marked.
    mark: bool,
    bookmarks: bool,
    next_bookmark: Instant,
    deadline: Instant,
    columns_sent: bool,
    over: bool,
}

/// Answers `watch`.
///
/// # Errors
/// 400 for bad parameters. An old revision is an event of the stream, as clients expect it.
pub fn start(api: &Arc<Api>, mut call: Call) -> Result<Response<wire::Body>, ApiError> {
    if let Some(name) = call.target.name.take() {
        // `GET …/pods/x?watch=true`: a watch on one object.
        let selector = format!("fieldSelector=metadata.name%3D{name}&labelSelector=");
        call.query = crate::target::Query::parse(Some(&selector));
    }
    let selection = Selection::parse(&call.kind, &call.query)?;
    let given = call.query.text("resourceVersion").unwrap_or("0");
    let given: u64 = given
        .parse()
        .map_err(|_| ApiError::bad_request(format!("invalid resourceVersion {given:?}")))?;
    let bookmarks = call.query.flag("allowWatchBookmarks");
    let with_initial = call.query.flag("sendInitialEvents");
    if with_initial && !bookmarks {
        return Err(ApiError::bad_request(
            "sendInitialEvents needs allowWatchBookmarks=true",
        ));
    }
    let newest = api.store.subscribe(&call.kind.resource);
    let (mut initial, mut position) = (Vec::new(), given);
    if with_initial || given == 0 && call.query.text("sendInitialEvents") != Some("false") {
        (initial, position) = api.store.all(&call.kind.resource, call.scope());
        initial.retain(|object| selection.matches(object));
    } else if given == 0 {
        position = api.store.revision();
    }
    if given > api.store.revision() {
        // From another life of the server: the client has to list anew.
        position = 0;
    }
    let seconds = call
        .query
        .number("timeoutSeconds")
        .filter(|seconds| *seconds > 0)
        .unwrap_or(3600)
        .min(86_400);
    let state = Watching {
        stopping: api.stopping.subscribe(),
        api: api.clone(),
        call,
        selection,
        newest,
        position,
        initial,
        mark: with_initial,
        bookmarks,
        next_bookmark: Instant::now() + BOOKMARK,
        deadline: Instant::now() + Duration::from_secs(seconds),
        columns_sent: false,
        over: false,
    };
    let frames = stream::unfold(state, |mut state| async move {
        let bytes = state.next().await?;
        Some((Ok(Frame::data(bytes)), state))
    });
    let mut response = wire::text(200, "application/json", "");
    *response.body_mut() = StreamBody::new(frames).boxed_unsync();
    Ok(response)
}

impl Watching {
    /// The next bytes to send; absent at the end.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(bytes) = self.opening() {
            return Some(bytes);
        }
        loop {
            if self.over || *self.stopping.borrow() || !self.is_served() {
                return None;
            }
            self.newest.borrow_and_update();
            let settled = self.api.store.settled(&self.call.kind.resource);
            let Some(events) =
                self.api
                    .store
                    .events(&self.call.kind.resource, self.position, BATCH)
            else {
                self.over = true;
                return Some(too_old(self.position, &self.api.store));
            };
            if let Some(last) = events.last() {
                self.position = last.revision;
                let lines: String = events.iter().filter_map(|event| self.line(event)).collect();
                if !lines.is_empty() {
                    return Some(lines.into());
                }
                continue;
            }
            self.position = self.position.max(settled);
            let wake = if self.bookmarks {
                self.next_bookmark.min(self.deadline)
            } else {
                self.deadline
            };
            tokio::select! {
                changed = self.newest.changed() => changed.ok()?,
                _ = self.stopping.changed() => return None,
                () = tokio::time::sleep_until(wake) => {
                    if Instant::now() >= self.deadline {
                        return None;
                    }
                    self.next_bookmark = Instant::now() + BOOKMARK;
                    return Some(self.bookmark(false));
                }
            }
        }
    }

    fn opening(&mut self) -> Option<Bytes> {
        let take = self.initial.len().min(BATCH);
        if take > 0 {
            let batch: Vec<Arc<Value>> = self.initial.drain(..take).collect();
            return Some(
                batch
                    .iter()
                    .map(|object| self.event("ADDED", object))
                    .collect::<String>()
                    .into(),
            );
        }
        if std::mem::take(&mut self.mark) {
            return Some(self.bookmark(true));
        }
        None
    }

    fn is_served(&self) -> bool {
        let kind = &self.call.kind;
        self.api
            .registry
            .find(&kind.group, &kind.version, &kind.plural)
            .is_some()
    }

    /// An event as this client sees it through its selectors; absent when it sees nothing.
    fn line(&mut self, event: &Event) -> Option<String> {
        let inside = |object: &Value| {
            let here = self
                .call
                .scope()
                .is_none_or(|scope| crate::meta::text(object, "namespace") == scope);
            here && self.selection.matches(object)
        };
        let was = event.previous.as_deref().is_some_and(inside);
        let is = !event.deleted && inside(&event.object);
        let kind = match (was, is) {
            (false, true) => "ADDED",
            (true, true) => "MODIFIED",
            (true, false) => "DELETED",
            (false, false) => return None,
        };
        let object = match (kind, event.deleted, &event.previous) {
            // It left the selection: clients get its last selected state with the revision of the change.
            ("DELETED", false, Some(previous)) => {
                let mut last = (**previous).clone();
                last["metadata"]["resourceVersion"] = json!(event.revision.to_string());
                Arc::new(last)
            }
            _ => event.object.clone(),
        };
        Some(self.event(kind, &object))
    }

    fn event(&mut self, kind: &str, object: &Arc<Value>) -> String {
        let mut rendered = read::render(&self.call, object);
        if self.call.format == Format::Table && std::mem::replace(&mut self.columns_sent, true) {
            rendered["columnDefinitions"] = Value::Null;
        }
        format!("{{\"type\":\"{kind}\",\"object\":{rendered}}}\n")
    }

    fn bookmark(&self, initial_end: bool) -> Bytes {
        let kind = &self.call.kind;
        let mut metadata =
            json!({"resourceVersion": self.position.to_string(), "creationTimestamp": null});
        if initial_end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object = match self.call.format {
            Format::Plain => {
                json!({"kind": kind.kind, "apiVersion": kind.api_version(), "metadata": metadata})
            }
            Format::Partial => {
                json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
            }
            Format::Table => {
                let object = Arc::new(
                    json!({"kind": kind.kind, "apiVersion": kind.api_version(), "metadata": metadata}),
                );
                table::render(
                    kind,
                    &[object],
                    None,
                    json!({"resourceVersion": self.position.to_string()}),
                )
            }
        };
        format!("{{\"type\":\"BOOKMARK\",\"object\":{object}}}\n").into()
    }
}

fn too_old(position: u64, store: &Store) -> Bytes {
    let error = ApiError::gone(format!(
        "too old resource version: {position} ({})",
        store.revision()
    ));
    format!("{{\"type\":\"ERROR\",\"object\":{}}}\n", error.status()).into()
}
