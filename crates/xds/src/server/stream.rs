//! One stream on its socket: requests into the session, what the session owes out to the client.
//!
//! A stream opens in turn: only so many at once take in what their clients have and send the difference. The others'
//! requests wait in the kernel, so that a thousand proxies that come back together cost the memory of a few.

use super::frames::Requests;
use super::streams::Shared;
use super::{Answer, Inner};
use crate::server::Identity;
use crate::session::{Refused, Session};
use lateen_proto::discovery::DeltaDiscoveryRequest;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::Instant;
use tonic::Status;

/// A client that does not answer for so long is cut off; it will resume where it was.
const ACK_TIMEOUT: Duration = Duration::from_secs(60);

/// Streams that one proxy (by identity and node id) may have: one, and those that it has lost and that have not been
/// noticed to be gone.
const STREAMS_OF_ONE: usize = 16;

/// Streams of one identity: pods may share a service account.
pub(super) const STREAMS_OF_IDENTITY: usize = 4096;

/// A stream whose client says nothing for so long, and has had what it asked for, is open.
const OPEN_AFTER: Duration = Duration::from_millis(10);

/// A stream counts as open after this, however slow its client is.
const OPENING_MOST: Duration = Duration::from_secs(2);

/// An identity has as many streams as it may.
pub(super) struct TooMany;

/// One stream on its socket. Leaves the store's list when dropped.
pub(super) struct Stream {
    id: u64,
    inner: Arc<Inner>,
    shared: Shared,
    answers: mpsc::Sender<Answer>,
    /// When the client must have answered; absent while nothing waits.
    deadline: Option<Instant>,
    /// Held while the stream opens, until then at the latest.
    opening: Option<(OwnedSemaphorePermit, Instant)>,
    /// When the client last said something.
    heard: Instant,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.inner.streams.lock().remove(self.id);
        self.inner.note_convergence();
    }
}

/// Waits until `at`; for ever without it.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

impl Stream {
    /// A new stream, unless its owner has too many.
    pub(super) fn open(
        inner: Arc<Inner>,
        identity: Option<Identity>,
        answers: mpsc::Sender<Answer>,
    ) -> Result<Self, TooMany> {
        let id = inner.next_stream.fetch_add(1, Ordering::Relaxed);
        let session = Session::new(identity.clone(), SystemTime::now());
        let shared = Shared {
            session: Arc::new(Mutex::new(session)),
            news: Arc::default(),
        };
        let mut streams = inner.streams.lock();
        if !streams.add(id, shared.clone(), identity, STREAMS_OF_IDENTITY) {
            return Err(TooMany);
        }
        drop(streams);
        Ok(Self {
            id,
            inner,
            shared,
            answers,
            deadline: None,
            opening: None,
            heard: Instant::now(),
        })
    }

    /// Works until the client has gone or is refused.
    pub(super) async fn run(mut self, mut requests: Requests) {
        if !self.admit().await {
            return;
        }
        let news = Arc::clone(&self.shared.news);
        loop {
            let end = tokio::select! {
                request = requests.message() => match request {
                    Ok(Some(request)) => self.on_request(request),
                    Ok(None) => return,
                    Err(status) => {
                        tracing::debug!(%status, "a proxy's stream ended");
                        return;
                    }
                },
                () = news.notified() => Ok(()),
                () = until(self.deadline) => Err(Status::deadline_exceeded(format!(
                    "no acknowledgement within {} s: connect again",
                    ACK_TIMEOUT.as_secs()
                ))),
                () = until(self.open_at()) => {
                    self.opening = None;
                    continue;
                }
            };
            let end = match end {
                Ok(()) => self.send().await,
                Err(status) => {
                    // The client may be gone or stuck: it is cut off either way.
                    let _ = self.answers.try_send(Err(status));
                    return;
                }
            };
            if end.is_err() {
                return;
            }
        }
    }

    /// Waits until there is something to serve and it is this stream's turn; false: the client has gone.
    async fn admit(&mut self) -> bool {
        let inner = Arc::clone(&self.inner);
        let mut changed = inner.changed.subscribe();
        let turn = async {
            while !inner.table.read().is_ready() {
                if changed.changed().await.is_err() {
                    return None;
                }
            }
            Arc::clone(&inner.opening).acquire_owned().await.ok()
        };
        let permit = tokio::select! {
            permit = turn => permit,
            () = self.answers.closed() => None,
        };
        self.heard = Instant::now();
        self.opening = permit.map(|permit| (permit, self.heard + OPENING_MOST));
        self.opening.is_some()
    }

    /// When the stream counts as open; absent: it does already.
    fn open_at(&self) -> Option<Instant> {
        let (_, latest) = self.opening.as_ref()?;
        Some(match self.deadline {
            // The client owes an answer.
            Some(_) => *latest,
            None => (self.heard + OPEN_AFTER).min(*latest),
        })
    }

    fn on_request(&mut self, request: DeltaDiscoveryRequest) -> Result<(), Status> {
        self.heard = Instant::now();
        let refusal = request.error_detail.as_ref().map(|e| e.message.clone());
        let mut session = self.shared.session.lock();
        let is_first = session.acked().is_none();
        let taken = {
            let table = self.inner.table.read();
            session.on_request(&table, request, SystemTime::now())
        };
        let node_id = match is_first || refusal.is_some() {
            true => session.node_id().map(str::to_owned),
            false => None,
        };
        drop(session);
        let mut taken = taken.map_err(|refused| match refused {
            Refused::Impostor { .. } => Status::permission_denied(refused.to_string()),
            Refused::TooManyNames => Status::resource_exhausted(refused.to_string()),
            _ => Status::invalid_argument(refused.to_string()),
        });
        if let Some(node_id) = node_id.as_deref().filter(|_| is_first && taken.is_ok()) {
            let others = self.inner.streams.lock().name(self.id, node_id);
            if others >= STREAMS_OF_ONE {
                taken = Err(Status::resource_exhausted(format!(
                    "this proxy has {STREAMS_OF_ONE} streams open already"
                )));
            }
        }
        if let Err(refused) = &taken {
            tracing::warn!("a proxy's stream is refused: {}", refused.message());
        }
        if let Some(reason) = refusal {
            let node = node_id.as_deref().unwrap_or("?");
            tracing::warn!(node, "a proxy refuses: {reason}");
        }
        taken
    }

    /// Sees to it that the table knows who refers to whom, where it has to.
    fn make_directory(&self) {
        let is_missing = || self.inner.table.read().directory().is_none();
        if self.shared.session.lock().needs_directory() && is_missing() {
            self.inner.table.write().make_directory();
        }
    }

    /// Sends what can go out; an error says that the client is gone.
    async fn send(&mut self) -> Result<(), mpsc::error::SendError<Answer>> {
        self.make_directory();
        let (responses, is_waiting, acked, settled) = {
            let mut session = self.shared.session.lock();
            let table = self.inner.table.read();
            let responses = session.pump(&table, SystemTime::now());
            let (acked, settled) = (session.acked(), session.settled());
            (responses, session.is_waiting(), acked, settled)
        };
        // Known before the client hears of it: what it does next counts with it.
        self.inner.streams.lock().note(self.id, acked, settled);
        let sent = !responses.is_empty();
        for response in responses {
            self.answers.send(Ok(response)).await?;
        }
        self.deadline = match (is_waiting, self.deadline) {
            (false, _) => None,
            (true, Some(at)) if !sent => Some(at),
            (true, _) => Some(Instant::now() + ACK_TIMEOUT),
        };
        self.inner.note_convergence();
        Ok(())
    }
}
