//! One connection to a cluster, for bytes that are not HTTP.

use super::pool::Place;
use super::secure::{self, ConnectError, Purpose, Security};
use super::{Failed, Load, Picked, Upstream};
use crate::config::Destinations;
use crate::live::Held;
use lateen_model::decide::cluster::{Cluster, Discovery};
use lateen_model::decide::plan::{ConnectionFacts, Direction, FaultReason};
use lateen_model::workload::Workload;
use lateen_net::capture::{PASSTHROUGH_SOURCE, PASSTHROUGH_SOURCE_V6};
use lateen_net::dial::DialError;
use lateen_net::stream::Stream;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// Endpoints tried before giving up.
pub(super) const MOST_ENDPOINTS: usize = 8;

/// How long one endpoint may hold up a connection while there are others.
pub(super) const IMPATIENCE: Duration = Duration::from_secs(1);

/// How often a call that waits to connect looks whether its endpoint is still there.
const RECHECK: Duration = Duration::from_millis(50);

/// A connection to an endpoint of a cluster.
pub(crate) struct Dialed {
    pub(crate) stream: Stream,
    place: Place,
    /// Keeps an eye on the endpoint's certificate; absent without TLS.
    _held: Option<Held>,
    pub(crate) workload: Option<Arc<Workload>>,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) _load: Load,
}

impl Dialed {
    /// The endpoint's address.
    pub(crate) fn address(&self) -> SocketAddr {
        self.place.address
    }

    /// How it is secured.
    pub(crate) fn security(&self) -> &Security {
        &self.place.security
    }
}

impl Upstream {
    /// Connects to an endpoint of `cluster`; as long as connecting fails, to the next. `name` is the server name that the
    /// client asks for; empty: none.
    pub(crate) async fn dial(
        &self,
        cluster: &Arc<Cluster>,
        facts: &ConnectionFacts,
        name: &str,
    ) -> Result<Dialed, Failed> {
        // It says where to, never how.
        let is_dynamic = matches!(cluster.discovery, Discovery::DynamicDns(_));
        let host = (is_dynamic && !name.is_empty()).then_some(name);
        let mut tried = Vec::new();
        let mut failed = Failed::new(FaultReason::NoEndpoint);
        let mut again = true;
        while tried.len() < MOST_ENDPOINTS {
            let picked = self.pick(cluster, facts.destination, host, &tried).await;
            let Some(picked) = picked else {
                break;
            };
            let load = self.loads.begin(picked.address);
            let place = self.place(&picked, facts.direction);
            let timeout = patience(cluster, picked.more);
            let connecting = secure::connect(&self.shared, &place, Purpose::Bytes, timeout);
            let connected = self.unless_gone(cluster, picked.address, connecting).await;
            match connected.and_then(|c| c.watched(&self.shared, &self.watchlist)) {
                Ok((stream, held)) => {
                    return Ok(Dialed {
                        stream,
                        place,
                        _held: held,
                        workload: picked.workload,
                        cluster: Arc::clone(cluster),
                        _load: load,
                    });
                }
                // Certificates may just have been renewed at either end.
                Err(error) if error.is_handshake() && std::mem::take(&mut again) => {}
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
        connecting: impl Future<Output = Result<T, ConnectError>>,
    ) -> Result<T, ConnectError> {
        tokio::select! {
            biased;
            done = connecting => done,
            () = self.gone(cluster, address) => Err(DialError::OutOfUse { address }.into()),
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
        // One that agreed on another protocol cannot be used for HTTP.
        if *dialed.security() == Security::Plain {
            self.pool.offer(dialed.place, dialed.stream).await;
        }
    }

    /// Where and from where an endpoint is called. The application is called from an address that capture leaves
    /// alone (Istio: 127.0.0.6), or the call would come back to us.
    pub(super) fn place(&self, picked: &Picked, direction: Direction) -> Place {
        let address = picked.address;
        let captured = self.shared.destinations == Destinations::Kernel;
        let source = match address {
            _ if !captured || direction != Direction::Inbound => None,
            SocketAddr::V4(_) => Some(IpAddr::V4(PASSTHROUGH_SOURCE)),
            SocketAddr::V6(_) => Some(IpAddr::V6(PASSTHROUGH_SOURCE_V6)),
        };
        Place {
            address,
            source,
            beside: direction == Direction::Inbound,
            security: picked.security.clone(),
            generation: self.generation(&picked.security),
        }
    }

    /// Which certificates a new connection would use.
    fn generation(&self, security: &Security) -> u64 {
        match security {
            Security::Plain => 0,
            Security::Mesh { .. } => self.shared.generation(),
            Security::Origin { settings, .. } => {
                self.shared.origins.generation(&self.shared, settings)
            }
        }
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
