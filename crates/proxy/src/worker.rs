//! One worker thread: its listeners, its way out, its ledger. Nothing here is shared but the snapshot.

use crate::authorize::Guard;
use crate::connection;
use crate::exchange::Ledger;
use crate::labels::Labels;
use crate::limits::Leases;
use crate::live::Watchlist;
use crate::shared::Shared;
use crate::upstream::Upstream;
use lateen_model::decide::plan::{Fault, FaultReason};
use lateen_net::http::ServeError;
use lateen_net::{listen, panics};
use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::LocalRuntime;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::AbortHandle;

/// A sentence about the same refusal is logged at most this often.
const SAY_AGAIN: Duration = Duration::from_secs(10);
/// Different refusals remembered for that.
const MOST_SAID: usize = 256;

/// Where a worker's connections come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Entry {
    /// Captured, from the application.
    Outbound,
    /// Captured, to the application.
    Inbound,
    /// A gateway's server: the port that the pod listens on.
    Gateway {
        bind: u16,
        /// Absent: every address.
        address: Option<IpAddr>,
    },
}

/// What the control thread tells a worker.
pub(crate) enum Command {
    /// Accept on this listener, too.
    Open(Entry, TcpListener),
    /// Accept no longer; connections stay.
    Close(Entry),
    /// Policies have changed; with `true`, certificates or trust as well: look at live connections again.
    Review(bool),
    /// Account for what is finished and end.
    Stop,
}

/// A worker's state, shared by its tasks.
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) upstream: Upstream,
    pub(crate) ledger: Rc<Ledger>,
    pub(crate) labels: Labels,
    /// Connections that are looked at again when policies change.
    pub(crate) watchlist: Rc<Watchlist>,
    pub(crate) guard: Guard,
    /// What rate-limit services granted and refused.
    pub(crate) leases: RefCell<Leases>,
    said: RefCell<HashMap<(Option<FaultReason>, String), Instant>>,
}

impl Worker {
    /// Logs a refusal's sentence, unless the same was said a moment ago.
    pub(crate) fn say(&self, fault: &Fault, sentence: impl FnOnce() -> String) {
        if self.is_news((Some(fault.reason), fault.subject.clone())) {
            tracing::info!("{}", sentence());
        }
    }

    /// Logs what somebody should look at, unless the same was said a moment ago.
    pub(crate) fn warn(&self, sentence: &str) {
        if self.is_news((None, sentence.to_owned())) {
            tracing::warn!("{sentence}");
        }
    }

    /// Logs how a connection ended other than well: what its peer did against HTTP, the rest only where asked for.
    pub(crate) fn note_end(&self, error: &ServeError, source: IpAddr) {
        match error {
            ServeError::Violation(why) => self.warn(&format!("{source} was cut off: {why}")),
            ServeError::Engine(_) => tracing::debug!("connection ended: {error}"),
        }
    }

    // Clients choose what there is to say: how much is said in a while is bounded, too.
    fn is_news(&self, key: (Option<FaultReason>, String)) -> bool {
        let mut said = self.said.borrow_mut();
        if said.get(&key).is_some_and(|at| at.elapsed() < SAY_AGAIN) {
            return false;
        }
        if said.len() >= MOST_SAID {
            said.retain(|_, at| at.elapsed() < SAY_AGAIN);
        }
        let is_news = said.len() < MOST_SAID;
        if is_news {
            said.insert(key, Instant::now());
        }
        is_news
    }
}

/// Runs a worker until it is told to stop; returns at once when its runtime cannot be made.
pub(crate) fn run(shared: Arc<Shared>, commands: UnboundedReceiver<Command>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // Only name resolution blocks.
        .max_blocking_threads(2)
        .thread_stack_size(256 * 1024)
        .build_local(Default::default());
    match runtime {
        Ok(runtime) => work(&runtime, shared, commands),
        Err(error) => tracing::error!("a worker cannot start: {error}"),
    }
}

fn work(runtime: &LocalRuntime, shared: Arc<Shared>, commands: UnboundedReceiver<Command>) {
    let watchlist = Rc::new(Watchlist::default());
    let worker = Rc::new(Worker {
        upstream: Upstream::new(&shared, &watchlist),
        watchlist,
        ledger: Ledger::new(&shared),
        labels: Labels::new(&shared.scope),
        guard: Guard::default(),
        leases: RefCell::default(),
        said: RefCell::default(),
        shared,
    });
    runtime.block_on(async {
        let (ledger, upstream) = (Rc::clone(&worker), Rc::clone(&worker));
        tokio::task::spawn_local(async move { ledger.ledger.keep().await });
        tokio::task::spawn_local(async move { upstream.upstream.keep().await });
        let shared = Arc::clone(&worker.shared);
        tokio::task::spawn_local(async move { shared.overload.keep().await });
        obey(&worker, commands).await;
        worker.ledger.settle();
    });
}

async fn obey(worker: &Rc<Worker>, mut commands: UnboundedReceiver<Command>) {
    let mut accepting: HashMap<Entry, Vec<AbortHandle>> = HashMap::new();
    while let Some(command) = commands.recv().await {
        match command {
            Command::Open(entry, listener) => {
                let task = tokio::task::spawn_local(accept(Rc::clone(worker), entry, listener));
                accepting
                    .entry(entry)
                    .or_default()
                    .push(task.abort_handle());
            }
            Command::Close(entry) => {
                for task in accepting.remove(&entry).unwrap_or_default() {
                    task.abort();
                }
            }
            Command::Review(trust) => {
                if trust {
                    worker.upstream.renewed();
                }
                let worker = Rc::clone(worker);
                tokio::task::spawn_local(async move {
                    worker.watchlist.review(&worker.shared).await;
                });
            }
            Command::Stop => return,
        }
    }
}

// The client was gone before it was accepted.
fn is_of_one_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionReset | Interrupted
    )
}

async fn accept(worker: Rc<Worker>, entry: Entry, listener: TcpListener) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!("a listener cannot be used: {error}"),
    };
    loop {
        match listener.accept().await {
            Ok((stream, remote)) => {
                let place = match worker.shared.overload.admit(entry) {
                    Ok(place) => place,
                    Err(full) => {
                        listen::reset_on_close(&stream);
                        worker.warn(full.sentence());
                        continue;
                    }
                };
                let served = connection::run(Rc::clone(&worker), entry, stream, remote);
                tokio::task::spawn_local(async move {
                    let _place = place;
                    panics::caught(served).await;
                });
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                // Out of descriptors or memory: others must end before more can begin.
                worker.warn(&format!("cannot accept a connection: {error}"));
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}
