//! Strategies for any valid resource.

mod limit;
mod mesh;
mod policy;
mod routes;
mod security;
mod tls;
mod traffic;

use lateen_base::Str;
use lateen_model::gateway::{Gateway, Server, ServerHost, ServerProtocol};
use lateen_model::matching::{Pattern, StringMatch};
use lateen_model::mesh::{
    EgressHost, IngressEndpoint, IngressListener, OutboundMode, SidecarScope,
};
use lateen_model::name::{Origin, ServiceKey, Visibility};
use lateen_model::resource::Resource;
use lateen_model::service::{
    Address, Location, Port, Protocol, Resolution, Service, TrafficDistribution,
};
use lateen_model::traffic::{Subset, TrafficPolicy};
use lateen_model::workload::{Health, ServicePorts, Workload};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

pub fn resource() -> impl Strategy<Value = Resource> {
    prop_oneof![
        service().prop_map(Resource::Service).boxed(),
        workload().prop_map(Resource::Workload).boxed(),
        routes::table().prop_map(Resource::RouteTable).boxed(),
        policy().prop_map(Resource::TrafficPolicy).boxed(),
        gateway().prop_map(Resource::Gateway).boxed(),
        scope().prop_map(Resource::SidecarScope).boxed(),
        mesh::settings().prop_map(Resource::MeshSettings).boxed(),
        security::resource().boxed(),
        policy::policy()
            .prop_map(Resource::AuthorizationPolicy)
            .boxed(),
        limit::policy().prop_map(Resource::RateLimitPolicy).boxed(),
    ]
}

/// A text that may be empty and may hold more than ASCII.
fn text() -> impl Strategy<Value = Str> {
    select(vec!["", "a", "reviews", "*.example.com", "ß→x", "x-y_z.0"]).prop_map(Str::from)
}

fn name() -> impl Strategy<Value = Str> {
    select(vec!["a", "reviews", "*.example.com", "é", "b.c"]).prop_map(Str::from)
}

fn port() -> impl Strategy<Value = u16> {
    1..=u16::MAX
}

fn labels() -> impl Strategy<Value = BTreeMap<Str, Str>> {
    btree_map(name(), text(), 0..3)
}

fn ip() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u8; 16]>().prop_map(IpAddr::from)
    ]
}

fn duration() -> impl Strategy<Value = Option<Duration>> {
    option::of(any::<u32>().prop_map(|n| Duration::from_micros(n.into())))
}

fn origin() -> impl Strategy<Value = Origin> {
    (name(), text(), name(), any::<u64>()).prop_map(|(kind, namespace, name, created)| Origin {
        kind,
        namespace,
        name,
        created,
    })
}

fn key() -> impl Strategy<Value = ServiceKey> {
    (name(), name()).prop_map(|(namespace, hostname)| ServiceKey {
        namespace,
        hostname,
    })
}

fn visibility() -> impl Strategy<Value = Visibility> {
    prop_oneof![
        Just(Visibility::Public),
        vec(name(), 0..3).prop_map(Visibility::Namespaces)
    ]
}

fn service() -> impl Strategy<Value = Service> {
    let address = (ip(), 0..=32u8).prop_map(|(ip, prefix)| Address { ip, prefix });
    let protocols = vec![
        Protocol::Http,
        Protocol::Http2,
        Protocol::Grpc,
        Protocol::GrpcWeb,
        Protocol::Tls,
        Protocol::Tcp,
        Protocol::Udp,
        Protocol::Detect,
    ];
    let port = (port(), text(), select(protocols), option::of(port())).prop_map(
        |(number, name, protocol, target)| Port {
            number,
            name,
            protocol,
            target,
        },
    );
    let resolution = select(vec![
        Resolution::Static,
        Resolution::None,
        Resolution::Dns,
        Resolution::DnsFirst,
        Resolution::DynamicDns,
    ]);
    let location = select(vec![Location::Internal, Location::External]);
    let near = select(vec![
        TrafficDistribution::SameZone,
        TrafficDistribution::SameNode,
    ]);
    (
        (key(), name(), origin(), vec(address, 0..3)),
        (vec(port, 0..4), resolution, location),
        (visibility(), vec(name(), 0..3), option::of(near)),
        (vec(ip(), 0..3), vec(name(), 0..3)),
    )
        .prop_map(|(a, b, c, d)| Service {
            key: a.0,
            name: a.1,
            origin: a.2,
            addresses: a.3,
            ports: b.0,
            resolution: b.1,
            location: b.2,
            visibility: c.0,
            aliases: c.1,
            allocated: d.0,
            sans: d.1,
            traffic_distribution: c.2,
        })
}

fn workload() -> impl Strategy<Value = Workload> {
    let health = select(vec![Health::Ready, Health::Draining, Health::Unready]);
    let served = (btree_map(port(), port(), 0..3), health, option::of(name())).prop_map(
        |(ports, health, hostname)| ServicePorts {
            ports,
            health,
            hostname,
        },
    );
    (
        (name(), name(), name(), vec(ip(), 0..3), option::of(name())),
        (labels(), text(), text(), text(), text()),
        (text(), text(), 1..100u32, any::<bool>()),
        (any::<bool>(), text(), btree_map(key(), served, 0..3)),
    )
        .prop_map(|(a, b, c, d)| Workload {
            uid: a.0,
            name: a.1,
            namespace: a.2,
            addresses: a.3,
            hostname: a.4,
            labels: b.0,
            service_account: b.1,
            workload_name: b.2,
            canonical_name: b.3,
            canonical_revision: b.4,
            node: c.0,
            locality: c.1,
            weight: c.2,
            has_sidecar: c.3,
            takes_mtls: d.0,
            trust_domain: d.1,
            services: d.2,
        })
}

fn string_match() -> impl Strategy<Value = StringMatch> {
    let pattern = select(vec!["a.*", "[0-9]+", ""]);
    prop_oneof![
        text().prop_map(StringMatch::Exact),
        text().prop_map(StringMatch::Prefix),
        pattern.prop_map(|p| StringMatch::Regex(Pattern::new(p).expect("valid"))),
        Just(StringMatch::Present),
    ]
}

fn policy() -> impl Strategy<Value = TrafficPolicy> {
    let subset =
        (name(), labels(), traffic::settings()).prop_map(|(name, labels, settings)| Subset {
            name,
            labels,
            settings,
        });
    (
        (origin(), name(), visibility(), labels()),
        (traffic::settings(), vec(subset, 0..3)),
    )
        .prop_map(|(a, b)| TrafficPolicy {
            origin: a.0,
            host: a.1,
            visibility: a.2,
            workload_selector: a.3,
            settings: b.0,
            subsets: b.1,
        })
}

fn gateway() -> impl Strategy<Value = Gateway> {
    let host =
        (option::of(name()), name()).prop_map(|(namespace, host)| ServerHost { namespace, host });
    let plain = select(vec![
        ServerProtocol::Http,
        ServerProtocol::Tcp,
        ServerProtocol::TlsPassthrough,
        ServerProtocol::TlsAutoPassthrough,
    ]);
    let ending = select(vec![ServerProtocol::TlsTerminate, ServerProtocol::Https]);
    let protocol = prop_oneof![
        plain.prop_map(|protocol| (protocol, None)),
        (ending, tls::server()).prop_map(|(protocol, tls)| (protocol, Some(tls))),
    ];
    let server = (
        text(),
        port(),
        text(),
        protocol,
        vec(host, 0..3),
        (any::<bool>(), option::of(ip())),
    )
        .prop_map(
            |(name, port, port_name, (protocol, tls), hosts, https_redirect)| Server {
                name,
                port,
                port_name,
                protocol,
                hosts,
                https_redirect: https_redirect.0,
                bind: https_redirect.1,
                tls,
            },
        );
    (origin(), btree_map(name(), text(), 1..3), vec(server, 0..3)).prop_map(
        |(origin, selector, servers)| Gateway {
            origin,
            selector,
            servers,
        },
    )
}

fn mode() -> impl Strategy<Value = OutboundMode> {
    select(vec![
        OutboundMode::AllowAny,
        OutboundMode::AllowAnyDynamicDns,
        OutboundMode::RegistryOnly,
    ])
}

fn scope() -> impl Strategy<Value = SidecarScope> {
    let host = || {
        (option::of(name()), name(), option::of(port())).prop_map(|(namespace, host, port)| {
            EgressHost {
                namespace,
                host,
                port,
            }
        })
    };
    let endpoint = prop_oneof![
        (ip(), port()).prop_map(|(ip, port)| IngressEndpoint::Address((ip, port).into())),
        port().prop_map(IngressEndpoint::Instance),
    ];
    let listener =
        (port(), any::<bool>(), option::of(endpoint)).prop_map(|(port, is_http, endpoint)| {
            IngressListener {
                port,
                protocol: if is_http {
                    Protocol::Http
                } else {
                    Protocol::Detect
                },
                endpoint,
                pool: is_http.then(Default::default),
            }
        });
    (
        (origin(), labels(), option::of(vec(host(), 0..3))),
        (option::of(mode()), vec(host(), 0..2)),
        option::of(routes::destination()),
        option::of(vec(listener, 0..3)),
    )
        .prop_map(|(a, b, egress_proxy, ingress)| SidecarScope {
            origin: a.0,
            workload_selector: a.1,
            egress: a.2,
            outbound: b.0,
            excluded: b.1,
            egress_proxy,
            inbound_pool: ingress.is_some().then(Default::default),
            ingress,
        })
}
