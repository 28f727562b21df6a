//! The proxies: real streams of delta ADS over TCP that acknowledge what comes and keep nothing of it.
//!
//! All of them are sidecars of different services. Names and versions, which they show when they connect again, are
//! written down: by one for all when they are told of everything, by each for itself when they are told on demand.

mod count;
mod stream;

pub use count::Counts;
pub use stream::SHARED;

use anyhow::{Result, bail};
use count::Shared;
use lateen_model::resource::Kind;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Names and versions by kind.
pub type Versions = BTreeMap<Kind, BTreeMap<String, String>>;

/// What proxies have, by number; where there is only the first, all have the same.
pub type Known = BTreeMap<usize, Versions>;

/// What the proxies of a fleet are.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// How many there are.
    pub size: usize,
    /// Services of the mesh.
    pub services: usize,
    /// Services that each uses; absent: proxies are told of everything.
    pub uses: Option<usize>,
}

/// How long the fleet may take to have everything.
const SYNC: Duration = Duration::from_secs(300);

/// Connected proxies.
#[derive(Debug)]
pub struct Fleet {
    size: usize,
    shared: Arc<Shared>,
    stop: CancellationToken,
    tasks: TaskTracker,
    arrivals: mpsc::UnboundedReceiver<Instant>,
}

impl Fleet {
    /// Connects proxies to `address` at once; they show `known` as what they have.
    pub fn start(shape: Shape, address: SocketAddr, known: Known) -> Self {
        let size = shape.size;
        let (arrived, arrivals) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared::new(Mutex::new(known.clone())));
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let known = Arc::new(known);
        for number in 0..size {
            let proxy = stream::Proxy {
                number,
                shape,
                address,
                known: Arc::clone(&known),
                shared: Arc::clone(&shared),
                arrived: arrived.clone(),
            };
            let stop = stop.clone();
            tasks.spawn(async move { stop.run_until_cancelled(proxy.run()).await });
        }
        Self {
            size,
            shared,
            stop,
            tasks,
            arrivals,
        }
    }

    /// Waits until every proxy has had a first whole answer; how long it took.
    ///
    /// # Errors
    /// It takes too long.
    pub async fn synced(&self) -> Result<Duration> {
        let began = Instant::now();
        while began.elapsed() < SYNC {
            if self.shared.synced.load(Ordering::Relaxed) >= self.size {
                return Ok(began.elapsed());
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        bail!(
            "{} of {} proxies have everything after {} s",
            self.shared.synced.load(Ordering::Relaxed),
            self.size,
            SYNC.as_secs()
        )
    }

    /// What came to all of them so far.
    pub fn counts(&self) -> Counts {
        self.shared.counts()
    }

    /// Counts streams that were lost.
    pub fn lost(&self) -> usize {
        self.shared.lost.load(Ordering::Relaxed)
    }

    /// Begins to watch for the route table `name`: from now on its arrivals are told.
    pub fn watch_for(&mut self, name: &str) {
        while self.arrivals.try_recv().is_ok() {}
        name.clone_into(&mut self.shared.watched.lock());
    }

    /// When the watched route table came to each proxy; fewer than there are when it takes longer than 10 s.
    pub async fn arrivals(&mut self) -> Vec<Instant> {
        let mut all = Vec::with_capacity(self.size);
        let most = tokio::time::sleep(Duration::from_secs(10));
        tokio::pin!(most);
        while all.len() < self.size {
            tokio::select! {
                Some(at) = self.arrivals.recv() => all.push(at),
                () = &mut most => break,
            }
        }
        all
    }

    /// Cuts every connection; what a proxy has by now.
    pub async fn stop(self) -> Known {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        std::mem::take(&mut *self.shared.versions.lock())
    }
}
