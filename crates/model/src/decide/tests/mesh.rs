//! A small language for meshes. One object a line, indented lines belong to the line before; the
//! line's number is its age. `/` parts names from namespaces, `->` rules from what they do.
//!
//! ```text
//! me sidecar|gateway NS/POD IP k=v… [on-demand]
//! mesh [registry-only|dynamic] [plain] [near=off] [eject] [connect=S] [h2] [domain=D] [aliases=D,…] [paths=none|merge|decode] [provider=NAME[:http]]…
//! service NS/NAME IP|- proto:port[>target]…  [export=NS] [same=zone|node]
//! entry NS/HOST IP,…|- proto:port… [dns|first|dynamic|none] [vip=IP,…] [san=NAME] [inside]
//! pod NS/NAME IP serves=NAME,… [k=v]… [sa=NAME] [unready|draining] [plain] [named] [locality=R/Z/S] [node=N] [weight=N]
//! policy NS/NAME host=H [rr|random|passthrough] [tls=MODE] [sni=NAME] [san=NAME] [at=PORT:TLSMODE]… [eject]
//!        [near=off|LABEL,…] [failover=R:R] [distribute=FROM>TO:SHARE,…] [conns=N] [requests=N]
//!        [subset=NAME:k=v[:rr][:tls=MODE]]… [select=k=v] [export=NS]
//! peers NS/NAME [MODE] [select=k=v] [at=PORT:MODE]…
//! allow|deny|audit|custom NS/NAME [select=k=v] [target=KIND/NAME] [dry] [provider=NAME]
//!   rule [from|to [FIELD=VALUE,…]…]… [when [!]ATTRIBUTE=VALUE,…]…
//! tokens NS/NAME [select=k=v] issuer=I
//! secret NS/NAME [pair] [ca]
//! routes NS/NAME hosts=H,… [gateways=G,…] [export=NS]
//!   http [name=N] [match…] -> host[:port][/subset][=weight]… [option…]
//!   tcp|tls [match…] -> host…
//! gateway NS/NAME k=v
//!   server proto:port hosts=H,… [redirect] [cred=NAME,…] [mutual|mesh]
//! scope NS/NAME [egress=NS/HOST[:port],…] [except=NS/HOST,…] [select=k=v] [registry-only] [through=H:port]
//!        [in=proto:port[>ADDRESS|>port],…]
//! ```

mod rules;
mod security;
mod traffic;

use super::super::resources::ResourceSet;
use super::super::snapshot::Snapshot;
use crate::gateway::Gateway;
use crate::mesh::{
    EgressHost, IngressEndpoint, IngressListener, MeshSettings, OutboundMode, PathNormalization,
    Role, Scope, SidecarScope,
};
use crate::name::{Origin, ServiceKey, Visibility};
use crate::resource::Resource;
use crate::service::{Address, Location, Port, Protocol, Resolution, Service, TrafficDistribution};
use crate::tls::{CertificateFiles, ClientTls, ClientTlsMode};
use crate::traffic::{
    Balancer, LoadBalancer, OutlierDetection, Subset, TrafficPolicy, TrafficSettings,
};
use crate::workload::{Health, ServicePorts, Workload};
use lateen_base::Str;
use rules::{add_rule, table};
pub use security::provider;
use std::collections::BTreeMap;

pub struct Mesh {
    pub set: ResourceSet,
    pub scope: Scope,
}

pub fn snapshot(config: &str) -> Snapshot {
    let Mesh { set, scope } = parse(config);
    Snapshot::build(&set, &scope)
}

pub fn parse(config: &str) -> Mesh {
    let mut resources: Vec<Resource> = Vec::new();
    let mut scope = scope_of("sidecar", "default/sleep", &["10.244.0.99", "app=sleep"]);
    let mut services: Vec<Service> = Vec::new();
    for (age, line) in config.lines().enumerate() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let Some(first) = words.first() else {
            continue;
        };
        let rest = &words[1..];
        if is_rule(first) {
            add_rule(resources.last_mut().expect("an object"), first, rest);
            continue;
        }
        let age = age as u64;
        match *first {
            "me" => scope = scope_of(rest[0], rest[1], &rest[2..]),
            "mesh" => resources.push(Resource::MeshSettings(settings(rest))),
            "peers" | "allow" | "deny" | "audit" | "custom" | "tokens" | "secret" => {
                resources.push(security::object(first, rest, age));
            }
            "service" | "entry" => {
                let service = service(first, rest, age);
                services.push(service.clone());
                resources.push(Resource::Service(service));
            }
            "pod" => resources.push(Resource::Workload(pod(rest, &services))),
            "policy" => resources.push(Resource::TrafficPolicy(policy(rest, age))),
            "routes" => resources.push(Resource::RouteTable(table(rest, age))),
            "gateway" => resources.push(Resource::Gateway(Gateway {
                origin: origin("Gateway", rest[0], age),
                selector: pairs(&rest[1..]),
                servers: Vec::new(),
            })),
            "scope" => resources.push(Resource::SidecarScope(sidecar(rest, age))),
            other => panic!("unknown line {other}"),
        }
    }
    let set = ResourceSet::of(resources);
    Mesh { set, scope }
}

fn is_rule(word: &str) -> bool {
    matches!(word, "http" | "tcp" | "tls" | "server" | "rule")
}

fn split(name: &str) -> (Str, Str) {
    let (ns, name) = name.split_once('/').expect("namespace/name");
    (ns.into(), name.into())
}

fn origin(kind: &str, name: &str, created: u64) -> Origin {
    let (namespace, name) = split(name);
    Origin {
        kind: kind.into(),
        namespace,
        name,
        created,
    }
}

fn option<'a>(words: &[&'a str], key: &str) -> Option<&'a str> {
    words
        .iter()
        .find_map(|w| w.strip_prefix(key)?.strip_prefix('='))
}

fn pairs(words: &[&str]) -> BTreeMap<Str, Str> {
    let pairs = words.iter().filter_map(|w| w.split_once('='));
    pairs.map(|(k, v)| (k.into(), v.into())).collect()
}

fn visibility(words: &[&str]) -> Visibility {
    match option(words, "export") {
        None => Visibility::Public,
        Some(list) => Visibility::Namespaces(list.split(',').map(Str::from).collect()),
    }
}

/// Full host of a short one in `default`; names with a dot stay.
fn full(name: &str) -> Str {
    if name.contains('.') || name == "*" || name.contains('*') {
        name.into()
    } else {
        format!("{name}.default.svc.cluster.local").into()
    }
}

fn scope_of(role: &str, pod: &str, rest: &[&str]) -> Scope {
    let (namespace, pod) = split(pod);
    Scope {
        on_demand: rest.contains(&"on-demand"),
        role: if role == "gateway" {
            Role::Gateway
        } else {
            Role::Sidecar
        },
        pod,
        namespace,
        labels: pairs(rest),
        addresses: rest.iter().filter_map(|w| w.parse().ok()).collect(),
        service_account: "default".into(),
        workload_name: "w".into(),
        canonical_name: "w".into(),
        canonical_revision: "latest".into(),
        cluster: "Kubernetes".into(),
        domain: "cluster.local".into(),
    }
}

fn protocol(word: &str) -> Protocol {
    match word {
        "http" => Protocol::Http,
        "http2" => Protocol::Http2,
        "grpc" => Protocol::Grpc,
        "tcp" => Protocol::Tcp,
        "tls" => Protocol::Tls,
        "udp" => Protocol::Udp,
        "any" => Protocol::Detect,
        other => panic!("unknown protocol {other}"),
    }
}

fn service(kind: &str, rest: &[&str], age: u64) -> Service {
    let (namespace, name) = split(rest[0]);
    let kubernetes = kind == "service";
    let hostname: Str = match kubernetes {
        true => format!("{name}.{namespace}.svc.cluster.local").into(),
        false => name.clone(),
    };
    let ports = rest[2..].iter().filter_map(|w| {
        let (kind, number) = w.split_once(':')?;
        let (number, target) = number.split_once('>').unwrap_or((number, number));
        Some(Port {
            number: number.parse().ok()?,
            name: kind.into(),
            protocol: protocol(kind),
            target: target.parse().ok(),
        })
    });
    let addresses = rest[1].split(',').filter_map(|text| {
        let whole = if text.contains(':') { "128" } else { "32" };
        let (ip, prefix) = text.split_once('/').unwrap_or((text, whole));
        Some(Address {
            ip: ip.parse().ok()?,
            prefix: prefix.parse().ok()?,
        })
    });
    Service {
        key: ServiceKey {
            namespace: namespace.clone(),
            hostname,
        },
        origin: origin(
            if kubernetes {
                "Service"
            } else {
                "ServiceEntry"
            },
            rest[0],
            age,
        ),
        addresses: addresses.collect(),
        allocated: option(rest, "vip")
            .into_iter()
            .flat_map(|list| list.split(','))
            .map(|ip| ip.parse().expect("an address"))
            .collect(),
        ports: ports.collect(),
        resolution: match rest {
            r if r.contains(&"dns") => Resolution::Dns,
            r if r.contains(&"first") => Resolution::DnsFirst,
            r if r.contains(&"dynamic") => Resolution::DynamicDns,
            r if r.contains(&"none") => Resolution::None,
            _ => Resolution::Static,
        },
        location: if kubernetes || rest.contains(&"inside") {
            Location::Internal
        } else {
            Location::External
        },
        visibility: visibility(rest),
        traffic_distribution: match option(rest, "same") {
            Some("zone") => Some(TrafficDistribution::SameZone),
            Some("node") => Some(TrafficDistribution::SameNode),
            _ => None,
        },
        aliases: match kubernetes {
            true => vec![
                format!("{name}.{namespace}").into(),
                format!("{name}.{namespace}.svc").into(),
            ],
            false => Vec::new(),
        },
        sans: option(rest, "san").into_iter().map(Str::from).collect(),
        name,
    }
}

fn pod(rest: &[&str], services: &[Service]) -> Workload {
    let (namespace, name) = split(rest[0]);
    let health = match rest {
        r if r.contains(&"unready") => Health::Unready,
        r if r.contains(&"draining") => Health::Draining,
        _ => Health::Ready,
    };
    let served = option(rest, "serves").unwrap_or_default();
    let served = served.split(',').filter_map(|wanted| {
        let service = services.iter().find(|s| {
            *s.name == *wanted && (s.key.namespace == namespace || wanted.contains('.'))
        })?;
        let ports = service
            .ports
            .iter()
            .filter_map(|p| Some((p.number, p.target?)));
        let ports = ports.collect();
        Some((
            service.key.clone(),
            ServicePorts {
                ports,
                health,
                hostname: rest.contains(&"named").then(|| name.clone()),
            },
        ))
    });
    Workload {
        uid: format!("Pod/{namespace}/{name}").into(),
        addresses: rest[1].parse().into_iter().collect(),
        hostname: rest[1]
            .parse::<std::net::IpAddr>()
            .is_err()
            .then(|| rest[1].into()),
        labels: pairs(&rest[2..]),
        service_account: option(rest, "sa").unwrap_or("default").into(),
        workload_name: name.clone(),
        canonical_name: name.clone(),
        canonical_revision: "latest".into(),
        node: option(rest, "node").unwrap_or("lateen").into(),
        locality: option(rest, "locality").unwrap_or_default().into(),
        weight: option(rest, "weight").map_or(1, |n| n.parse().expect("weight")),
        has_sidecar: true,
        takes_mtls: !rest.contains(&"plain"),
        trust_domain: "".into(),
        services: served.collect(),
        namespace,
        name,
    }
}

fn balancer(word: &str) -> Option<LoadBalancer> {
    let algorithm = match word {
        "rr" => Balancer::RoundRobin,
        "random" => Balancer::Random,
        "passthrough" => Balancer::Passthrough,
        _ => return None,
    };
    Some(LoadBalancer {
        algorithm,
        ..LoadBalancer::default()
    })
}

fn policy(rest: &[&str], age: u64) -> TrafficPolicy {
    let subsets = rest.iter().filter_map(|w| w.strip_prefix("subset="));
    let subsets = subsets.map(|text| {
        let parts: Vec<_> = text.split(':').collect();
        let mut labels = pairs(&parts[1..]);
        labels.remove("tls");
        Subset {
            name: parts[0].into(),
            labels,
            settings: TrafficSettings {
                balancer: parts.iter().find_map(|p| balancer(p)),
                tls: option(&parts, "tls").map(|mode| client_tls(mode, &[])),
                ..TrafficSettings::default()
            },
        }
    });
    TrafficPolicy {
        origin: origin("DestinationRule", rest[0], age),
        host: full(option(rest, "host").expect("host")),
        visibility: visibility(rest),
        workload_selector: option(rest, "select")
            .map(|s| pairs(&[s]))
            .unwrap_or_default(),
        settings: TrafficSettings {
            balancer: traffic::balancer_of(rest),
            pool: traffic::pool(rest),
            outlier: rest.contains(&"eject").then(OutlierDetection::default),
            tls: option(rest, "tls").map(|mode| client_tls(mode, rest)),
            ports: rest
                .iter()
                .filter_map(|w| w.strip_prefix("at=")?.split_once(':'))
                .map(|(port, mode)| {
                    let settings = TrafficSettings {
                        tls: (mode != "none").then(|| client_tls(mode, &[])),
                        ..TrafficSettings::default()
                    };
                    (port.parse().expect("port"), settings)
                })
                .collect(),
            ..TrafficSettings::default()
        },
        subsets: subsets.collect(),
    }
}

fn client_tls(mode: &str, rest: &[&str]) -> ClientTls {
    ClientTls {
        mode: match mode {
            "disable" => ClientTlsMode::Disable,
            "simple" => ClientTlsMode::Simple,
            "mutual" => ClientTlsMode::Mutual,
            _ => ClientTlsMode::IstioMutual,
        },
        sans: option(rest, "san").into_iter().map(Str::from).collect(),
        sni: option(rest, "sni").map(Str::from),
        credential: None,
        files: CertificateFiles::default(),
        skip_verify: false,
    }
}

fn settings(rest: &[&str]) -> MeshSettings {
    let usual = MeshSettings::default();
    let aliases = option(rest, "aliases").into_iter();
    let providers = rest.iter().filter_map(|w| w.strip_prefix("provider="));
    MeshSettings {
        outbound: match rest.contains(&"registry-only") {
            true => OutboundMode::RegistryOnly,
            false if rest.contains(&"dynamic") => OutboundMode::AllowAnyDynamicDns,
            false => OutboundMode::AllowAny,
        },
        auto_mtls: !rest.contains(&"plain"),
        trust_domain: option(rest, "domain").map_or(usual.trust_domain.clone(), Str::from),
        trust_domain_aliases: aliases
            .flat_map(|list| list.split(','))
            .map(Str::from)
            .collect(),
        path_normalization: match option(rest, "paths") {
            Some("none") => PathNormalization::None,
            Some("merge") => PathNormalization::MergeSlashes,
            Some("decode") => PathNormalization::DecodeAndMergeSlashes,
            _ => PathNormalization::Base,
        },
        authz_providers: providers.map(provider).collect(),
        traffic: traffic::defaults(rest),
        ..usual
    }
}

/// `proto:port[>address|>port]`.
fn listener(text: &str) -> IngressListener {
    let (declared, endpoint) = match text.split_once('>') {
        Some((declared, endpoint)) => (declared, Some(endpoint)),
        None => (text, None),
    };
    let (protocol, port) = declared.split_once(':').expect("proto:port");
    IngressListener {
        port: port.parse().expect("port"),
        protocol: self::protocol(protocol),
        endpoint: endpoint.map(|to| match to.parse() {
            Ok(address) => IngressEndpoint::Address(address),
            Err(_) => IngressEndpoint::Instance(to.parse().expect("port")),
        }),
        pool: None,
    }
}

fn sidecar(rest: &[&str], age: u64) -> SidecarScope {
    let hosts = |list: &str| {
        let hosts = list.split(',').map(|text| {
            let (ns, host) = split(text);
            let (host, port) = match host.split_once(':') {
                Some((host, port)) => (Str::from(host), port.parse().ok()),
                None => (host, None),
            };
            EgressHost {
                namespace: (&*ns != "*").then_some(ns),
                host,
                port,
            }
        });
        hosts.collect::<Vec<_>>()
    };
    let listeners = option(rest, "in").map(|list| list.split(',').map(listener).collect());
    SidecarScope {
        origin: origin("Sidecar", rest[0], age),
        workload_selector: option(rest, "select")
            .map(|s| pairs(&[s]))
            .unwrap_or_default(),
        egress: option(rest, "egress").map(hosts),
        excluded: option(rest, "except").map(hosts).unwrap_or_default(),
        outbound: rest
            .contains(&"registry-only")
            .then_some(OutboundMode::RegistryOnly),
        egress_proxy: option(rest, "through").map(|to| {
            let (host, port) = to.split_once(':').expect("host:port");
            crate::route::Destination {
                host: full(host),
                subset: None,
                port: port.parse().ok(),
            }
        }),
        ingress: listeners,
        inbound_pool: option(rest, "conns").map(|most| crate::traffic::ConnectionPool {
            max_connections: most.parse().ok(),
            ..Default::default()
        }),
    }
}
