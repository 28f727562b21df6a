//! One watch: lists, follows, and starts again with back-off for as long as it must.

use super::{Delta, Event, Id, Seen};
use futures::StreamExt;
use kube::api::Api;
use kube::runtime::watcher::{self, Event as Watched};
use lateen_base::backoff::Backoff;
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Where a watch reports to and when it ends.
#[derive(Clone)]
pub(super) struct Out {
    pub(super) sender: mpsc::Sender<Seen>,
    pub(super) shutdown: CancellationToken,
}

impl Out {
    /// Whether the engine is still there.
    async fn send(&self, event: Event) -> bool {
        let seen = Seen {
            at: Instant::now(),
            event,
        };
        self.sender.send(seen).await.is_ok()
    }
}

/// Follows one kind until shutdown. A kind that the server does not serve counts as empty, so that the rest of
/// the mesh works; it is looked for again and again.
pub(super) async fn follow<K, T>(
    api: Api<K>,
    config: watcher::Config,
    mut slim: impl FnMut(K) -> (Id, T) + Send,
    wrap: impl Fn(Delta<T>) -> Event + Send,
    out: Out,
) where
    K: kube::Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let path = api.resource_url().to_owned();
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    let mut events = watcher::watcher(api, config).boxed();
    let mut listed = Vec::new();
    let mut reported = false;
    loop {
        let event = tokio::select! {
            () = out.shutdown.cancelled() => return,
            event = events.next() => event,
        };
        let alive = match event {
            None => return,
            Some(Ok(event)) => {
                backoff.reset();
                match event {
                    Watched::Init => {
                        listed = Vec::new();
                        true
                    }
                    Watched::InitApply(object) => {
                        listed.push(slim(object));
                        true
                    }
                    Watched::InitDone => {
                        reported = true;
                        out.send(wrap(Delta::Replace(std::mem::take(&mut listed))))
                            .await
                    }
                    Watched::Apply(object) => {
                        let (id, value) = slim(object);
                        out.send(wrap(Delta::Set(id, value))).await
                    }
                    Watched::Delete(object) => out.send(wrap(Delta::Remove(slim(object).0))).await,
                }
            }
            Some(Err(e)) => {
                let delay = backoff.next_delay();
                tracing::warn!("watching {path}: {e}; trying again in {delay:?}");
                let first = is_missing(&e) && !std::mem::replace(&mut reported, true);
                if first && !out.send(wrap(Delta::Replace(Vec::new()))).await {
                    return;
                }
                tokio::select! {
                    () = out.shutdown.cancelled() => return,
                    () = tokio::time::sleep(delay) => true,
                }
            }
        };
        if !alive {
            return;
        }
    }
}

/// Whether the server does not know the kind.
fn is_missing(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::InitialListFailed(kube::Error::Api(status)) if status.code == 404)
}
