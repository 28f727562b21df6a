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
mod hash;
mod limits;
mod loads;
mod outlier;
mod own;
mod pool;
mod preface;
mod replay;
mod retry;
mod secure;
mod send;
mod tunnel;

pub(crate) use bound::Bound;
pub(crate) use dial::Dialed;
pub(crate) use failure::Failed;
pub(crate) use limits::States;
pub(crate) use loads::Load;
pub(crate) use own::Own;
pub(crate) use replay::Replay;
pub(crate) use secure::Security;
pub(crate) use send::{Order, Sent, UNREACHED};

use crate::live::Watchlist;
use crate::shared::Shared;
use balance::{Choice, Turns};
pub(crate) use dns::Names;
use lateen_base::{Map, Str};
use lateen_model::decide::cluster::{Cluster, ClusterTls, Discovery};
use lateen_model::identity::SpiffeId;
use lateen_model::matching::host_covers;
use lateen_model::workload::Workload;
use limits::{Slot, State};
use loads::Loads;
use outlier::{Ejected, Outcome};
use pool::{Connection, Pool};
use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

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
    /// What all workers know of clusters, where it is kept: the map that they share is asked once for each.
    states: RefCell<Map<Str, Arc<State>>>,
}

/// What an endpoint is chosen for.
struct Asked<'a> {
    /// Where the client wanted to go.
    original: SocketAddr,
    /// What the client called it, for TLS settings that do not say.
    host: Option<&'a str>,
    /// The hash of the key, for consistent hashing; absent: there is no key.
    hash: Option<u64>,
    /// Endpoints that will not do.
    tried: &'a [SocketAddr],
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
    /// Its place among the cluster's requests.
    _counted: Option<Slot>,
    connection: Box<Connection>,
    pool: Rc<Pool>,
}

impl Lease {
    /// How the endpoint is called.
    pub(crate) fn security(&self) -> &Security {
        self.connection.security()
    }

    /// The response is over: the connection may serve another.
    pub(crate) fn finish(self) {
        self.pool.give_back(self.connection);
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
            states: RefCell::default(),
        }
    }

    /// Drops idle connections that are old or ended, and state of endpoints that are gone; runs for the worker's life.
    pub(crate) async fn keep(&self) {
        loop {
            tokio::time::sleep(SWEEP).await;
            self.pool.sweep();
            self.loads.sweep();
            self.states.borrow_mut().clear();
        }
    }

    /// The cluster of the same name in the snapshot in force, when it is another than this.
    fn newer(&self, cluster: &Arc<Cluster>) -> Option<Arc<Cluster>> {
        let live = self.shared.live.load();
        let current = live.snapshot.cluster(&cluster.name)?;
        (!Arc::ptr_eq(current, cluster)).then(|| Arc::clone(current))
    }

    /// What all workers know of the cluster; none when its settings ask for nothing of the kind.
    fn state(&self, cluster: &Cluster) -> Option<Arc<State>> {
        if !limits::matters(&cluster.settings) {
            return None;
        }
        let mut states = self.states.borrow_mut();
        if let Some(state) = states.get(&cluster.name) {
            return Some(Arc::clone(state));
        }
        let state = self.shared.states.of(&cluster.name);
        states.insert(cluster.name.clone(), Arc::clone(&state));
        Some(state)
    }

    /// Takes note of what came of a try at an endpoint.
    fn note(&self, cluster: &Cluster, address: SocketAddr, outcome: Outcome) {
        let Some(settings) = &cluster.settings.outlier else {
            return;
        };
        let total = match &cluster.discovery {
            Discovery::Endpoints(endpoints) => endpoints.len(),
            Discovery::Dns(hosts) => hosts.len(),
            // There is nowhere else to go.
            Discovery::OriginalDestination
            | Discovery::Fixed(_)
            | Discovery::DnsFirst(_)
            | Discovery::DynamicDns(_) => return,
        };
        if let Some(state) = self.state(cluster) {
            let mut detector = state.outlier.lock();
            let seen = (address, outcome);
            if detector.note(settings, seen, total, Instant::now()) {
                tracing::info!("{address} of {} is ejected: {outcome:?}", cluster.name);
            }
        }
    }

    /// Endpoints of the cluster that are left out because they fail.
    fn ejected(&self, cluster: &Cluster) -> Option<Ejected> {
        let settings = cluster.settings.outlier.as_ref()?;
        let state = self.state(cluster)?;
        let ejected = state.outlier.lock().ejected(settings, Instant::now());
        (!ejected.is_empty()).then_some(ejected)
    }

    /// Certificates have changed: idle connections that used the old ones go.
    pub(crate) fn renewed(&self) {
        self.pool.renewed();
    }

    /// Chooses an endpoint of `cluster`; none when there is no other, or all fail.
    async fn pick(&self, cluster: &Arc<Cluster>, asked: &Asked<'_>) -> Option<Picked> {
        let &Asked {
            original,
            host,
            tried,
            ..
        } = asked;
        let unknown = |address: SocketAddr, more: bool| Picked {
            address,
            workload: None,
            security: inside(cluster, false, None, host),
            more,
        };
        match &cluster.discovery {
            Discovery::Endpoints(endpoints) => {
                let choice = Choice {
                    loads: &self.loads,
                    ejected: self.ejected(cluster),
                    state: cluster.settings.warmup.and_then(|_| self.state(cluster)),
                    hash: asked.hash,
                    tried,
                    now: Instant::now(),
                };
                let (at, more) = self.turns.pick(cluster, endpoints, &choice)?;
                let endpoint = &endpoints[at];
                Some(Picked {
                    address: endpoint.address,
                    workload: Some(Arc::clone(&endpoint.workload)),
                    security: inside(cluster, endpoint.mutual, endpoint.identity.clone(), host),
                    more,
                })
            }
            Discovery::OriginalDestination if tried.contains(&original) => None,
            Discovery::OriginalDestination => Some(self.at_original(cluster, original, host)),
            Discovery::Fixed(address) => {
                (!tried.contains(address)).then(|| unknown(*address, false))
            }
            Discovery::Dns(hosts) => {
                let mut found = Box::pin(self.names.resolve(hosts)).await;
                found.retain(|(address, _)| !tried.contains(address));
                if let Some(ejected) = self.ejected(cluster) {
                    found.retain(|(address, _)| !ejected.contains(address));
                }
                let drawn = asked.hash.unwrap_or_else(|| fastrand::u64(..));
                let at = drawn % found.len().max(1) as u64;
                let (address, named) = *found.get(at as usize)?;
                let identity = named.identity.clone();
                Some(Picked {
                    security: inside(cluster, named.mutual, identity, host),
                    ..unknown(address, found.len() > 1)
                })
            }
            Discovery::DnsFirst(named) => {
                let found = Box::pin(self.names.one(&named.host)).await;
                let address = SocketAddr::new(*found.first()?, named.port);
                (!tried.contains(&address)).then(|| Picked {
                    security: inside(cluster, named.mutual, named.identity.clone(), host),
                    ..unknown(address, false)
                })
            }
            Discovery::DynamicDns(port) => {
                let name = asked_name(cluster, host?)?;
                let port = port.unwrap_or(original.port());
                let found = Box::pin(self.names.one(&name)).await;
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
                    sans: Arc::default(),
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
            sans: Arc::clone(sans),
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
