//! Sending: which endpoint, over which connection, and whether once more.
//!
//! ```text
//! send: pick (balance) -> connect or reuse (pool) -> one try -> response | next endpoint | retry | fault
//! dial: pick -> connect, next endpoint while connecting fails                        (TCP)
//! ```
//! State lives per worker and under addresses and cluster names, so that it survives a change of configuration.

mod balance;
mod bound;
mod dial;
mod dns;
mod failure;
mod loads;
mod own;
mod pool;
mod replay;
mod retry;
mod secure;
mod send;

pub(crate) use bound::Bound;
pub(crate) use dial::Dialed;
pub(crate) use failure::Failed;
pub(crate) use loads::Load;
pub(crate) use own::Own;
pub(crate) use replay::Replay;
pub(crate) use secure::Security;
pub(crate) use send::{Order, Sent, UNREACHED};

use crate::live::Watchlist;
use crate::shared::Shared;
use balance::Turns;
pub(crate) use dns::Names;
use lateen_base::Str;
use lateen_model::decide::cluster::{Cluster, ClusterTls, Discovery};
use lateen_model::identity::SpiffeId;
use lateen_model::matching::host_covers;
use lateen_model::workload::Workload;
use loads::Loads;
use pool::{Connection, Place, Pool};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// How often idle connections and unused state are looked through.
const SWEEP: Duration = Duration::from_secs(10);

/// A worker's way out.
pub(crate) struct Upstream {
    shared: Arc<Shared>,
    watchlist: Rc<Watchlist>,
    pool: Rc<Pool>,
    loads: Loads,
    turns: Turns,
    names: Rc<Names>,
}

/// A chosen endpoint.
#[derive(Debug, Clone)]
pub(crate) struct Picked {
    pub(crate) address: SocketAddr,
    pub(crate) workload: Option<Arc<Workload>>,
    /// How it is called.
    pub(crate) security: Security,
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
    pub(crate) fn new(shared: &Arc<Shared>, watchlist: &Rc<Watchlist>) -> Self {
        Self {
            shared: Arc::clone(shared),
            watchlist: Rc::clone(watchlist),
            pool: Rc::new(Pool::new(shared, watchlist)),
            loads: Loads::default(),
            turns: Turns::default(),
            names: Names::new(&shared.resolver, &shared.scope.addresses),
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

    /// Certificates have changed: idle connections that used the old ones go.
    pub(crate) fn renewed(&self) {
        self.pool.renewed();
    }

    /// Chooses an endpoint of `cluster` that is not in `tried`; none when there is no other. `host` is what the
    /// client called it, for TLS settings that do not say.
    async fn pick(
        &self,
        cluster: &Arc<Cluster>,
        original: SocketAddr,
        host: Option<&str>,
        tried: &[SocketAddr],
    ) -> Option<Picked> {
        let unknown = |address: SocketAddr, more: bool| Picked {
            address,
            workload: None,
            security: inside(cluster, false, None, host),
            more,
        };
        match &cluster.discovery {
            Discovery::Endpoints(endpoints) => {
                let at = self.turns.pick(cluster, endpoints, &self.loads, tried)?;
                let endpoint = &endpoints[at];
                Some(Picked {
                    address: endpoint.address,
                    workload: Some(Arc::clone(&endpoint.workload)),
                    security: inside(cluster, endpoint.mutual, endpoint.identity.clone(), host),
                    more: endpoints.len() > tried.len() + 1,
                })
            }
            Discovery::OriginalDestination if tried.contains(&original) => None,
            Discovery::OriginalDestination => Some(self.at_original(cluster, original, host)),
            Discovery::Fixed(address) => {
                (!tried.contains(address)).then(|| unknown(*address, false))
            }
            Discovery::Dns(hosts) => {
                let mut found = self.names.resolve(hosts).await;
                found.retain(|(address, _)| !tried.contains(address));
                let (address, named) = *found.get(fastrand::usize(..found.len().max(1)))?;
                let identity = named.identity.clone();
                Some(Picked {
                    security: inside(cluster, named.mutual, identity, host),
                    ..unknown(address, found.len() > 1)
                })
            }
            Discovery::DnsFirst(named) => {
                let found = self.names.one(&named.host).await;
                let address = SocketAddr::new(*found.first()?, named.port);
                (!tried.contains(&address)).then(|| Picked {
                    security: inside(cluster, named.mutual, named.identity.clone(), host),
                    ..unknown(address, false)
                })
            }
            Discovery::DynamicDns(port) => {
                let name = asked_name(cluster, host?)?;
                let port = port.unwrap_or(original.port());
                let found = self.names.one(&name).await;
                let untried = |ip: &&IpAddr| !tried.contains(&SocketAddr::new(**ip, port));
                let mut left = found.iter().filter(untried);
                let address = SocketAddr::new(*left.next()?, port);
                Some(unknown(address, left.next().is_some()))
            }
        }
    }

    /// An address that the client chose itself may be a member of the mesh.
    fn at_original(&self, cluster: &Cluster, address: SocketAddr, host: Option<&str>) -> Picked {
        let live = self.shared.live.load();
        let snapshot = &live.snapshot;
        let workload = snapshot.workload_at(address.ip()).map(Arc::clone);
        let security = match &cluster.tls {
            ClusterTls::Mesh { server_name, .. } => match snapshot.identity_at(address) {
                Some((identity, name)) if server_name.is_empty() => Security::Mesh {
                    server_name: name,
                    identity,
                    sans: Vec::new(),
                },
                known => {
                    let mutual = known.is_some();
                    inside(cluster, mutual, known.and_then(|(id, _)| id), host)
                }
            },
            ClusterTls::Plain | ClusterTls::Origin(_) => outside(cluster, host),
        };
        Picked {
            address,
            workload,
            security,
            more: false,
        }
    }
}

/// The name that a client asks for, as it may be resolved: the service's host covers it. Whoever can send requests chooses
/// it.
fn asked_name(cluster: &Cluster, host: &str) -> Option<String> {
    let name = lateen_model::decide::host::canonical(host);
    let is_covered = match &cluster.service {
        Some(service) => host_covers(&service.key.hostname, &name),
        None => true,
    };
    (is_covered && !name.is_empty()).then(|| name.into_owned())
}

/// How an endpoint of the mesh is called; `mutual`: it takes mutual TLS.
fn inside(
    cluster: &Cluster,
    mutual: bool,
    identity: Option<SpiffeId>,
    host: Option<&str>,
) -> Security {
    match &cluster.tls {
        ClusterTls::Mesh {
            server_name,
            sans,
            required,
        } if *required || mutual => Security::Mesh {
            server_name: server_name.clone(),
            identity,
            sans: sans.clone(),
        },
        _ => outside(cluster, host),
    }
}

/// How an address outside of the mesh is called.
fn outside(cluster: &Cluster, host: Option<&str>) -> Security {
    let ClusterTls::Origin(settings) = &cluster.tls else {
        return Security::Plain;
    };
    // Istio: the request's host where the settings name no server, else the service's.
    let service = || {
        let service = cluster.service.as_ref()?;
        (!service.key.hostname.starts_with('*')).then(|| service.key.hostname.clone())
    };
    let asked = || host.map(|host| Str::from(lateen_model::decide::host::canonical(host).as_ref()));
    let server_name = settings.sni.clone().or_else(asked).or_else(service);
    Security::Origin {
        settings: Arc::clone(settings),
        server_name: server_name.unwrap_or_else(|| Str::from("")),
    }
}
