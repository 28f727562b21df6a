//! One connection to a cluster, for bytes that are not HTTP.

use super::pool::Place;
use super::{Failed, Load, Upstream};
use crate::config::Destinations;
use lateen_model::decide::cluster::{Cluster, Discovery};
use lateen_model::decide::plan::{ConnectionFacts, Direction, FaultReason};
use lateen_model::workload::Workload;
use lateen_net::capture::{PASSTHROUGH_SOURCE, PASSTHROUGH_SOURCE_V6};
use lateen_net::dial::DialError;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;

/// Endpoints tried before giving up.
pub(super) const MOST_ENDPOINTS: usize = 8;

/// How long one endpoint may hold up a connection while there are others.
pub(super) const IMPATIENCE: Duration = Duration::from_secs(1);

/// How often a call that waits to connect looks whether its endpoint is still there.
const RECHECK: Duration = Duration::from_millis(50);

/// A connection to an endpoint of a cluster.
pub(crate) struct Dialed {
    pub(crate) stream: TcpStream,
    place: Place,
    pub(crate) workload: Option<Arc<Workload>>,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) _load: Load,
}

impl Dialed {
    /// The endpoint's address.
    pub(crate) fn address(&self) -> SocketAddr {
        self.place.address
    }
}

impl Upstream {
    /// Connects to an endpoint of `cluster`; as long as connecting fails, to the next.
    pub(crate) async fn dial(
        &self,
        cluster: &Arc<Cluster>,
        facts: &ConnectionFacts,
    ) -> Result<Dialed, Failed> {
        let mut tried = Vec::new();
        let mut failed = Failed::new(FaultReason::NoEndpoint);
        while tried.len() < MOST_ENDPOINTS {
            let Some(picked) = self.pick(cluster, facts.destination, &tried).await else {
                break;
            };
            let load = self.loads.begin(picked.address);
            let place = self.place(picked.address, facts.direction);
            let dialing = place.dial(patience(cluster, picked.more));
            match self.unless_gone(cluster, picked.address, dialing).await {
                Ok(stream) => {
                    return Ok(Dialed {
                        stream,
                        place,
                        workload: picked.workload,
                        cluster: Arc::clone(cluster),
                        _load: load,
                    });
                }
                Err(error) => {
                    tried.push(picked.address);
                    failed.reason = FaultReason::ConnectFailed;
                    failed.transport = error.transport_reason();
                    failed.address = Some(picked.address);
                    failed.workload = picked.workload;
                    failed.attempts += 1;
                }
            }
        }
        Err(failed)
    }

    /// What `connecting` to an endpoint gives, unless the endpoint leaves the cluster meanwhile: the address of a pod
    /// that is gone may answer nothing at all, and nobody should wait for that.
    pub(super) async fn unless_gone<T>(
        &self,
        cluster: &Cluster,
        address: SocketAddr,
        connecting: impl Future<Output = Result<T, DialError>>,
    ) -> Result<T, DialError> {
        tokio::select! {
            biased;
            done = connecting => done,
            () = self.gone(cluster, address) => Err(DialError::OutOfUse { address }),
        }
    }

    /// Returns once the cluster in force no longer has the endpoint; never, where endpoints are not listed.
    async fn gone(&self, cluster: &Cluster, address: SocketAddr) {
        loop {
            tokio::time::sleep(RECHECK).await;
            let live = self.shared.live.load();
            match live.snapshot.cluster(&cluster.name).map(|c| &c.discovery) {
                Some(Discovery::Endpoints(all)) if !all.iter().any(|e| e.address == address) => {
                    return;
                }
                _ => {}
            }
        }
    }

    /// Keeps a connection that turned out not to be needed, for an HTTP/1 request to the same endpoint.
    pub(crate) async fn offer(&self, dialed: Dialed) {
        self.pool.offer(dialed.place, dialed.stream).await;
    }

    /// Where and from where an endpoint is called. The application is called from an address that capture leaves
    /// alone (Istio: 127.0.0.6), or the call would come back to us.
    pub(super) fn place(&self, address: SocketAddr, direction: Direction) -> Place {
        let captured = self.shared.destinations == Destinations::Kernel;
        let source = match address {
            _ if !captured || direction != Direction::Inbound => None,
            SocketAddr::V4(_) => Some(IpAddr::V4(PASSTHROUGH_SOURCE)),
            SocketAddr::V6(_) => Some(IpAddr::V6(PASSTHROUGH_SOURCE_V6)),
        };
        Place { address, source }
    }
}

/// The bound on connecting to one endpoint; short while there are others.
pub(super) fn patience(cluster: &Cluster, more: bool) -> Duration {
    let timeout = cluster.connect_timeout;
    if more {
        timeout.min(IMPATIENCE)
    } else {
        timeout
    }
}
