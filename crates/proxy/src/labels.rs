//! Metric labels of workloads and services, made once and shared, so that a series is found by address.

use lateen_base::{Map, Str};
use lateen_model::decide::cluster::Cluster;
use lateen_model::identity::SpiffeId;
use lateen_model::mesh::Scope;
use lateen_model::workload::Workload;
use lateen_telemetry::metrics::{Peer, Target};
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Entries kept before everything is forgotten and made anew: a bound, not a tuning.
const MOST: usize = 4096;

/// Hosts without a service that are named in metrics; what comes beyond is `unknown`. Requests choose them.
const MOST_HOSTS: usize = 256;

/// After this time other hosts may take the places.
const FORGET_HOSTS: Duration = Duration::from_secs(3600);

/// A value and the labels made from it.
type Of<V, L> = (Arc<V>, Arc<L>);

/// Whom a proved name belongs to, and its labels; absent: nobody who is known.
type Member = (Option<Arc<Workload>>, Arc<Peer>);

/// A worker's labels.
#[derive(Debug)]
pub(crate) struct Labels {
    cluster: Str,
    own: Arc<Peer>,
    /// This proxy's own workload where it has proved who it is.
    proved: RefCell<Option<(SpiffeId, Arc<Peer>)>>,
    unknown: Arc<Peer>,
    // Keyed by address; the value keeps the address taken.
    peers: RefCell<Map<usize, Of<Workload, Peer>>>,
    /// Peers that have proved who they are, by that and by the address of their workload.
    members: RefCell<Map<(SpiffeId, usize), Member>>,
    targets: RefCell<Map<usize, Of<Cluster, Target>>>,
    hosts: RefCell<Hosts>,
    no_target: Arc<Target>,
}

#[derive(Debug)]
struct Hosts {
    known: HashMap<(Str, String), Arc<Target>>,
    since: Instant,
}

impl Labels {
    pub(crate) fn new(scope: &Scope) -> Self {
        let own = Arc::new(Peer {
            workload: known(&scope.workload_name),
            namespace: known(&scope.namespace),
            principal: "unknown".into(),
            app: app(&scope.labels, &scope.canonical_name),
            version: version(&scope.labels),
            canonical_service: known(&scope.canonical_name),
            canonical_revision: revision(&scope.canonical_revision),
            cluster: known(&scope.cluster),
        });
        let unknown: Str = "unknown".into();
        Self {
            cluster: known(&scope.cluster),
            own,
            proved: RefCell::default(),
            members: RefCell::default(),
            unknown: Arc::new(Peer::unknown()),
            peers: RefCell::default(),
            targets: RefCell::default(),
            hosts: RefCell::new(Hosts {
                known: HashMap::new(),
                since: Instant::now(),
            }),
            no_target: Arc::new(Target {
                service: unknown.clone(),
                name: unknown.clone(),
                namespace: unknown,
            }),
        }
    }

    /// This proxy's own workload; `identity` is what it proved to be in the exchange, if it did.
    pub(crate) fn own(&self, identity: Option<&SpiffeId>) -> Arc<Peer> {
        let Some(identity) = identity else {
            return Arc::clone(&self.own);
        };
        let mut proved = self.proved.borrow_mut();
        match &*proved {
            Some((known, peer)) if known == identity => Arc::clone(peer),
            _ => {
                let peer = Arc::new(Peer {
                    principal: identity.uri().into(),
                    ..(*self.own).clone()
                });
                *proved = Some((identity.clone(), Arc::clone(&peer)));
                peer
            }
        }
    }

    /// A workload, or nobody known; `identity` is what it proved to be in the exchange, if it did.
    pub(crate) fn peer(
        &self,
        workload: Option<&Arc<Workload>>,
        identity: Option<&SpiffeId>,
    ) -> Arc<Peer> {
        if let Some(identity) = identity {
            return self.member(workload, identity);
        }
        let Some(workload) = workload else {
            return Arc::clone(&self.unknown);
        };
        let mut peers = self.peers.borrow_mut();
        bound(&mut peers);
        let key = Arc::as_ptr(workload) as usize;
        let (_, peer) = peers
            .entry(key)
            .or_insert_with(|| (Arc::clone(workload), Arc::new(self.describe(workload))));
        Arc::clone(peer)
    }

    fn member(&self, workload: Option<&Arc<Workload>>, identity: &SpiffeId) -> Arc<Peer> {
        let mut members = self.members.borrow_mut();
        bound(&mut members);
        let at = workload.map_or(0, |workload| Arc::as_ptr(workload) as usize);
        let (_, peer) = members.entry((identity.clone(), at)).or_insert_with(|| {
            let plain = workload.map_or_else(|| (*self.unknown).clone(), |w| self.describe(w));
            // Istio: the certificate's namespace counts before what is known by address.
            let namespace = identity.namespace().map_or(plain.namespace, Str::from);
            let peer = Peer {
                principal: identity.uri().into(),
                namespace,
                ..plain
            };
            (workload.cloned(), Arc::new(peer))
        });
        Arc::clone(peer)
    }

    fn describe(&self, workload: &Workload) -> Peer {
        Peer {
            workload: known(&workload.workload_name),
            namespace: known(&workload.namespace),
            principal: "unknown".into(),
            app: app(&workload.labels, &workload.canonical_name),
            version: version(&workload.labels),
            canonical_service: known(&workload.canonical_name),
            canonical_revision: revision(&workload.canonical_revision),
            cluster: self.cluster.clone(),
        }
    }

    /// The service that a cluster stands for. A cluster without a service is named by itself, with `host` as the
    /// service when it is given (Istio: host-header fallback; ours is for the application's own requests only).
    pub(crate) fn target(&self, cluster: Option<&Arc<Cluster>>, host: Option<&str>) -> Arc<Target> {
        let Some(cluster) = cluster else {
            return self.host(None, host);
        };
        let Some(service) = &cluster.service else {
            return self.host(Some(&cluster.name), host);
        };
        let mut targets = self.targets.borrow_mut();
        bound(&mut targets);
        let (_, target) = targets
            .entry(Arc::as_ptr(cluster) as usize)
            .or_insert_with(|| {
                let target = Target {
                    service: service.key.hostname.clone(),
                    name: service.name.clone(),
                    namespace: service.key.namespace.clone(),
                };
                (Arc::clone(cluster), Arc::new(target))
            });
        Arc::clone(target)
    }

    fn host(&self, cluster: Option<&Str>, host: Option<&str>) -> Arc<Target> {
        // Inbound clusters without a service carry a port in their name: not a service's name.
        let name = cluster.filter(|n| n.ends_with("Cluster"));
        if host.is_none() && name.is_none() {
            return Arc::clone(&self.no_target);
        }
        let unknown: Str = "unknown".into();
        let name = name.unwrap_or(&unknown);
        let mut hosts = self.hosts.borrow_mut();
        if hosts.since.elapsed() >= FORGET_HOSTS {
            hosts.known.clear();
            hosts.since = Instant::now();
        }
        let mut key = (name.clone(), host.unwrap_or("unknown").to_owned());
        if hosts.known.len() >= MOST_HOSTS && !hosts.known.contains_key(&key) {
            key.1 = "unknown".to_owned();
        }
        let target = Target {
            service: Str::from(key.1.as_str()),
            name: name.clone(),
            namespace: unknown,
        };
        let target = hosts.known.entry(key).or_insert_with(|| Arc::new(target));
        Arc::clone(target)
    }
}

fn bound<K, V>(map: &mut Map<K, V>) {
    if map.len() >= MOST {
        map.clear();
    }
}

fn known(text: &Str) -> Str {
    if text.is_empty() {
        "unknown".into()
    } else {
        text.clone()
    }
}

fn revision(text: &Str) -> Str {
    if text.is_empty() {
        "latest".into()
    } else {
        text.clone()
    }
}

// Istio: app -> app.kubernetes.io/name -> canonical name.
fn app(labels: &BTreeMap<Str, Str>, canonical: &Str) -> Str {
    let label = labels
        .get("app")
        .or_else(|| labels.get("app.kubernetes.io/name"));
    known(label.unwrap_or(canonical))
}

fn version(labels: &BTreeMap<Str, Str>) -> Str {
    let label = labels
        .get("version")
        .or_else(|| labels.get("app.kubernetes.io/version"));
    label.map_or_else(|| "unknown".into(), known)
}
