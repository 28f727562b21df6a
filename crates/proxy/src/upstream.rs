//! Sending: which endpoint, over which connection, and whether once more.
//!
//! ```text
//! send: pick (balance) -> connect or reuse (pool) -> one try -> response | next endpoint | retry | fault
//! dial: pick -> connect, next endpoint while connecting fails                        (TCP)
//! ```
//! State lives per worker and under addresses and cluster names, so that it survives a change of configuration.

mod balance;
mod dial;
mod dns;
mod failure;
mod loads;
mod pool;
mod replay;
mod retry;
mod send;

pub(crate) use dial::Dialed;
pub(crate) use failure::Failed;
pub(crate) use loads::Load;
pub(crate) use replay::Replay;
pub(crate) use send::{Order, Sent, UNREACHED};

use crate::shared::Shared;
use balance::Turns;
use dns::Names;
use lateen_model::decide::cluster::{Cluster, Discovery, Endpoint};
use lateen_model::workload::Workload;
use loads::Loads;
use pool::{Connection, Place, Pool};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// How often idle connections and unused state are looked through.
const SWEEP: Duration = Duration::from_secs(10);

/// A worker's way out.
pub(crate) struct Upstream {
    shared: Arc<Shared>,
    pool: Rc<Pool>,
    loads: Loads,
    turns: Turns,
    names: Names,
}

/// A chosen endpoint.
#[derive(Debug, Clone)]
pub(crate) struct Picked {
    pub(crate) address: SocketAddr,
    pub(crate) workload: Option<Arc<Workload>>,
    /// Whether there are others that were not tried yet.
    pub(crate) more: bool,
}

/// An endpoint and a connection in use by one exchange.
pub(crate) struct Lease {
    _load: Load,
    place: Place,
    connection: Option<Connection>,
    pool: Rc<Pool>,
}

impl Lease {
    /// The response is over: the connection may serve another.
    pub(crate) fn finish(mut self) {
        if let Some(connection) = self.connection.take() {
            self.pool.give_back(self.place, connection);
        }
    }
}

impl Upstream {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        Self {
            shared: Arc::clone(shared),
            pool: Rc::new(Pool::new(shared.limits)),
            loads: Loads::default(),
            turns: Turns::default(),
            names: Names::default(),
        }
    }

    /// Drops idle connections that are old or ended, and state of endpoints that are gone; runs for the worker's life.
    pub(crate) async fn keep(&self) {
        loop {
            tokio::time::sleep(SWEEP).await;
            self.pool.sweep();
            self.loads.sweep();
        }
    }

    /// The cluster of the same name in the snapshot in force, when it is another than this.
    fn newer(&self, cluster: &Arc<Cluster>) -> Option<Arc<Cluster>> {
        let live = self.shared.live.load();
        let current = live.snapshot.cluster(&cluster.name)?;
        (!Arc::ptr_eq(current, cluster)).then(|| Arc::clone(current))
    }

    /// Chooses an endpoint of `cluster` that is not in `tried`; none when there is no other.
    async fn pick(
        &self,
        cluster: &Arc<Cluster>,
        original: SocketAddr,
        tried: &[SocketAddr],
    ) -> Option<Picked> {
        let alone = |address: SocketAddr| {
            (!tried.contains(&address)).then_some(Picked {
                address,
                workload: None,
                more: false,
            })
        };
        match &cluster.discovery {
            Discovery::Endpoints(endpoints) => {
                let at = self.turns.pick(cluster, endpoints, &self.loads, tried)?;
                let Endpoint {
                    address, workload, ..
                } = &endpoints[at];
                let more = endpoints.len() > tried.len() + 1;
                Some(Picked {
                    address: *address,
                    workload: Some(Arc::clone(workload)),
                    more,
                })
            }
            Discovery::OriginalDestination => alone(original),
            Discovery::Fixed(address) => alone(*address),
            Discovery::Dns(hosts) => {
                let addresses = self.names.resolve(hosts).await;
                let free: Vec<_> = addresses.iter().filter(|a| !tried.contains(a)).collect();
                let address = **free.get(fastrand::usize(..free.len().max(1)))?;
                Some(Picked {
                    address,
                    workload: None,
                    more: free.len() > 1,
                })
            }
        }
    }
}
