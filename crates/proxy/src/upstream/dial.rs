//! One connection to a cluster, for bytes that are not HTTP.

use super::limits::{Kind, Slot, counts};
use super::outlier::Outcome;
use super::pool::{Place, Preface, Terms};
use super::secure::{self, ConnectError, Connected, Purpose, Security};
use super::{Asked, Failed, Load, Picked, Upstream, hash, tunnel};
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
    /// Its place among the cluster's connections; absent: they are not counted.
    slot: Option<Slot>,
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
        let mut slot = match self.state(cluster).filter(|_| counts(&cluster.settings)) {
            None => None,
            Some(state) => {
                let most = cluster.settings.pool.max_connections;
                let slot = state.begin(Kind::Connection, most);
                Some(slot.ok_or_else(|| Failed::new(FaultReason::Overflow))?)
            }
        };
        let hash = hash::of_connection(&cluster.balancer, facts);
        while tried.len() < MOST_ENDPOINTS {
            let asked = Asked {
                original: facts.destination,
                host,
                hash,
                tried: &tried,
            };
            let picked = self.pick(cluster, &asked).await;
            let Some(picked) = picked else {
                break;
            };
            let load = self.loads.begin(picked.address);
            let place = self.place(cluster, &picked, facts);
            let timeout = patience(cluster, picked.more);
            let connecting = Box::pin(self.open_bytes(cluster, &place, timeout));
            let connected = self.unless_gone(cluster, picked.address, connecting).await;
            match connected.and_then(|c| c.watched(&self.shared, &self.watchlist)) {
                Ok((stream, held)) => {
                    self.note(cluster, picked.address, Outcome::Connected);
                    return Ok(Dialed {
                        stream,
                        place,
                        _held: held,
                        workload: picked.workload,
                        cluster: Arc::clone(cluster),
                        _load: load,
                        slot: slot.take(),
                    });
                }
                // Certificates may just have been renewed at either end.
                Err(error) if error.is_handshake() && std::mem::take(&mut again) => {}
                Err(error) => {
                    self.note(cluster, picked.address, Outcome::Unreachable);
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

    /// A connection for opaque bytes, through the cluster's tunnel if it has one.
    async fn open_bytes(
        &self,
        cluster: &Cluster,
        place: &Place,
        timeout: Duration,
    ) -> Result<Connected, ConnectError> {
        let mut connected = secure::connect(&self.shared, place, Purpose::Bytes, timeout).await?;
        if let Some(tunnel) = &cluster.settings.tunnel {
            let address = place.address;
            let asked = tunnel::ask(&mut connected.stream, tunnel, cluster.connect_timeout);
            let refused = |source| DialError::Refused { address, source };
            asked.await.map_err(refused)?;
        }
        Ok(connected)
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
        let is_plain = *dialed.security() == Security::Plain;
        if is_plain && dialed.cluster.settings.tunnel.is_none() {
            let Dialed {
                place,
                stream,
                slot,
                ..
            } = dialed;
            self.pool.offer(place, stream, slot).await;
        }
    }

    /// Where and from where an endpoint is called. The application is called from an address that capture leaves
    /// alone (Istio: 127.0.0.6), or the call would come back to us.
    pub(super) fn place(
        &self,
        cluster: &Cluster,
        picked: &Picked,
        facts: &ConnectionFacts,
    ) -> Place {
        let address = picked.address;
        let direction = facts.direction;
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
            terms: Terms::of(cluster),
            preface: cluster.settings.proxy_protocol.map(|version| Preface {
                version,
                source: facts.source,
                destination: facts.destination,
            }),
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
