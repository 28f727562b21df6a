//! Short words for resources.

use lateen_base::Str;
use lateen_identity::ca::{Authority, KeyKind, Request};
use lateen_identity::source::State;
use lateen_model::identity::SpiffeId;
use lateen_model::matching::StringMatch;
use lateen_model::mesh::{Role, Scope};
use lateen_model::name::{Origin, ServiceKey, Visibility};
use lateen_model::resource::Resource;
use lateen_model::route::{
    Destination, HeaderOperations, HttpAction, HttpDestination, HttpMatch, HttpRoute, RouteTable,
};
use lateen_model::security::{Action, AuthorizationPolicy, Rule, Selection, Source};
use lateen_model::service::{Address, Location, Port, Protocol, Resolution, Service};
use lateen_model::workload::{Health, ServicePorts, Workload};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

const NAMESPACE: &str = "default";
const DOMAIN: &str = "cluster.local";
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A proxy of service account `account` at `address`.
pub(crate) fn scope(role: Role, account: &str, address: &str) -> Scope {
    Scope {
        on_demand: false,
        role,
        pod: format!("{account}-1").into(),
        namespace: NAMESPACE.into(),
        labels: BTreeMap::from([("app".into(), account.into())]),
        addresses: vec![address.parse().expect("an address")],
        service_account: account.into(),
        workload_name: account.into(),
        canonical_name: account.into(),
        canonical_revision: "v1".into(),
        cluster: "Kubernetes".into(),
        domain: DOMAIN.into(),
    }
}

pub(crate) fn host(name: &str) -> Str {
    format!("{name}.{NAMESPACE}.svc.cluster.local").into()
}

fn key(name: &str) -> ServiceKey {
    ServiceKey {
        namespace: NAMESPACE.into(),
        hostname: host(name),
    }
}

fn origin(kind: &str, name: &str) -> Origin {
    Origin {
        kind: kind.into(),
        namespace: NAMESPACE.into(),
        name: name.into(),
        created: 0,
    }
}

/// A service with port 80.
pub(crate) fn service(name: &str, address: [u8; 4], protocol: Protocol) -> Resource {
    Resource::Service(Service {
        key: key(name),
        name: name.into(),
        origin: origin("Service", name),
        addresses: vec![Address {
            ip: address.into(),
            prefix: 32,
        }],
        ports: vec![Port {
            number: 80,
            name: "p".into(),
            protocol,
            target: None,
        }],
        resolution: Resolution::Static,
        location: Location::Internal,
        visibility: Visibility::Public,
        traffic_distribution: None,
        aliases: vec![format!("{name}.{NAMESPACE}").into()],
        allocated: Vec::new(),
        sans: Vec::new(),
    })
}

/// A pod behind a service at `address`; `mutual`: it takes mutual TLS.
pub(crate) fn pod(name: &str, address: SocketAddr, mutual: bool) -> Resource {
    Resource::Workload(Workload {
        uid: format!("Pod/{NAMESPACE}/{name}-{address}").into(),
        name: format!("{name}-1").into(),
        namespace: NAMESPACE.into(),
        addresses: vec![address.ip()],
        hostname: None,
        labels: BTreeMap::from([("app".into(), name.into())]),
        service_account: name.into(),
        workload_name: name.into(),
        canonical_name: name.into(),
        canonical_revision: "v1".into(),
        node: "node".into(),
        locality: "".into(),
        weight: 1,
        has_sidecar: mutual,
        takes_mtls: mutual,
        trust_domain: "".into(),
        services: BTreeMap::from([(
            key(name),
            ServicePorts {
                ports: BTreeMap::from([(80, address.port())]),
                health: Health::Ready,
                hostname: None,
            },
        )]),
    })
}

/// A VirtualService of a service: one rule for each of `count` prefixes, then one for the rest.
pub(crate) fn routes(name: &str, gateway: &str, count: usize) -> Resource {
    let to = || HttpDestination {
        destination: Destination {
            host: host(name),
            subset: None,
            port: None,
        },
        weight: 1,
        headers: HeaderOperations::default(),
    };
    let rule = |prefix: Option<String>| {
        let mut rule = HttpRoute::of(HttpAction::Forward(vec![to()]));
        if let Some(prefix) = prefix {
            rule.matches = vec![HttpMatch {
                uri: Some(StringMatch::Prefix(prefix.into())),
                ..HttpMatch::default()
            }];
        }
        rule
    };
    let mut http: Vec<_> = (0..count)
        .map(|at| rule(Some(format!("/api/v1/items/{at}/"))))
        .collect();
    http.push(rule(None));
    Resource::RouteTable(RouteTable {
        origin: origin("VirtualService", name),
        hosts: vec![host(name)],
        gateways: vec![gateway.into()],
        visibility: Visibility::Public,
        http,
        tls: Vec::new(),
        tcp: Vec::new(),
    })
}

/// A policy that lets one account in.
pub(crate) fn allow(account: &str) -> Resource {
    Resource::AuthorizationPolicy(AuthorizationPolicy {
        origin: origin("AuthorizationPolicy", account),
        selection: Selection::default(),
        visibility: Visibility::Public,
        action: Action::Allow,
        dry_run: false,
        rules: vec![Rule {
            from: vec![Source {
                principals: vec![id(account).principal().into()],
                ..Source::default()
            }],
            ..Rule::default()
        }],
    })
}

pub(crate) fn id(account: &str) -> SpiffeId {
    SpiffeId::of_account(DOMAIN, NAMESPACE, account).expect("an identity")
}

/// A CA.
pub(crate) struct Ca(Authority);

impl Ca {
    pub(crate) fn new() -> Self {
        let made = Authority::self_signed(DOMAIN, 365 * DAY, SystemTime::now());
        Self(made.expect("an authority"))
    }

    pub(crate) fn trust(&self) -> Resource {
        Resource::TrustBundle(self.0.bundle(DOMAIN))
    }

    /// A certificate of an account.
    pub(crate) fn state(&self, account: &str) -> State {
        let request = Request::new(KeyKind::EcdsaP256, None).expect("a request");
        let chain = self
            .0
            .sign(request.pem(), &id(account), DAY, SystemTime::now());
        let svid = request.answered(&chain.expect("a certificate").concat());
        State {
            svid: Some(Arc::new(svid.expect("a certificate"))),
            ..State::default()
        }
    }
}
