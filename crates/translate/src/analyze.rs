//! Analyzers: what several objects mean together, such as a route to a host that nobody declares.
//! What is wrong with a single object is `lateen_api::validate`'s business.

pub mod conflicts;
pub mod exposure;
mod limits;
pub mod security;

use crate::mesh::{Mesh, root_namespace};
use crate::names::{full_host, gateway_name, visibility};
use crate::protocol;
use k8s_openapi::api::core::v1 as core;
use lateen_api::authorization_policy::AuthorizationPolicy;
use lateen_api::destination_rule::DestinationRule;
use lateen_api::fields::Destination;
use lateen_api::gateway::Gateway;
use lateen_api::meta::Config;
use lateen_api::notice::{Notice, Severity, Subject};
use lateen_api::peer_authentication::PeerAuthentication;
use lateen_api::rate_limit_policy::RateLimitPolicy;
use lateen_api::request_authentication::RequestAuthentication;
use lateen_api::service_entry::ServiceEntry;
use lateen_api::sidecar::Sidecar;
use lateen_api::virtual_service::VirtualService;
use lateen_base::Str;
use lateen_model::matching::host_covers;
use std::collections::{BTreeMap, BTreeSet};

/// Istio's code for a reference to something that does not exist.
pub const NOT_FOUND: &str = "IST0101";
/// Istio's code for a destination that must say which of a service's ports it means.
pub const PORT_NEEDED: &str = "IST0112";
/// Istio's code for VirtualServices that claim the same host for all sidecars.
pub const HOST_CONFLICT: &str = "IST0109";
/// Istio's code for a port name that declares no protocol.
pub const PORT_NAME: &str = "IST0118";

/// Everything that is looked at together.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// The mesh.
    pub mesh: &'a Mesh,
    /// Kubernetes Services of every namespace.
    pub services: &'a [&'a core::Service],
    /// ServiceEntries.
    pub service_entries: &'a [&'a Config<ServiceEntry>],
    /// VirtualServices.
    pub virtual_services: &'a [&'a Config<VirtualService>],
    /// DestinationRules.
    pub destination_rules: &'a [&'a Config<DestinationRule>],
    /// Gateways.
    pub gateways: &'a [&'a Config<Gateway>],
    /// PeerAuthentications.
    pub peer_authentications: &'a [&'a Config<PeerAuthentication>],
    /// RequestAuthentications.
    pub request_authentications: &'a [&'a Config<RequestAuthentication>],
    /// AuthorizationPolicies.
    pub authorization_policies: &'a [&'a Config<AuthorizationPolicy>],
    /// RateLimitPolicies.
    pub rate_limit_policies: &'a [&'a Config<RateLimitPolicy>],
    /// Sidecars.
    pub sidecars: &'a [&'a Config<Sidecar>],
    /// Namespaces and labels of workloads; absent: they are not known.
    pub workloads: Option<&'a [(&'a str, &'a BTreeMap<Str, Str>)]>,
}

/// Looks at everything; the notices come in the order of the inputs, each about one object.
pub fn analyze(inputs: &Inputs<'_>) -> Vec<Notice> {
    let known = Known::of(inputs);
    let mut notices = Vec::new();
    for config in inputs.virtual_services {
        routes(inputs, &known, config, &mut notices);
        mirrors(inputs, &known, config, &mut notices);
        gateways(&known, config, &mut notices);
    }
    mesh_conflicts(inputs, &mut notices);
    for service in inputs.services {
        port_names(service, &mut notices);
    }
    security::analyze(inputs, &known, &mut notices);
    limits::analyze(inputs, &known, &mut notices);
    conflicts::analyze(inputs, &mut notices);
    exposure::analyze(inputs, &mut notices);
    notices
}

/// What can be referred to.
struct Known {
    /// Hosts of Services and ServiceEntries, with their ports.
    hosts: BTreeMap<Str, BTreeSet<u32>>,
    /// Hosts with a wildcard.
    wildcards: Vec<Str>,
    /// Gateways as `namespace/name`.
    gateways: BTreeSet<Str>,
}

impl Known {
    fn of(inputs: &Inputs<'_>) -> Self {
        let mut hosts = BTreeMap::<Str, BTreeSet<u32>>::new();
        for service in inputs.services {
            let host = crate::service::key(&service.metadata, inputs.mesh).hostname;
            let spec = service.spec.as_ref();
            let ports = spec.and_then(|s| s.ports.as_ref()).into_iter().flatten();
            let numbers = ports.filter_map(|port| u32::try_from(port.port).ok());
            hosts.entry(host).or_default().extend(numbers);
        }
        for entry in inputs.service_entries {
            for host in &entry.spec.hosts {
                let host = crate::service_entry::key("", host).hostname;
                let numbers = entry.spec.ports.iter().filter_map(|port| port.number);
                hosts.entry(host).or_default().extend(numbers);
            }
        }
        let wildcards = hosts.keys().filter(|host| host.starts_with('*')).cloned();
        Self {
            wildcards: wildcards.collect(),
            hosts,
            gateways: inputs
                .gateways
                .iter()
                .map(|g| format!("{}/{}", g.meta.namespace, g.meta.name).into())
                .collect(),
        }
    }

    fn has_host(&self, host: &str) -> bool {
        self.hosts.contains_key(host) || self.wildcards.iter().any(|w| host_covers(w, host))
    }
}

/// Every destination of a VirtualService with its field path. Mirrors fail nothing: see [`mirrors`].
fn destinations(spec: &VirtualService) -> Vec<(String, &Destination)> {
    let mut all = Vec::new();
    for (i, rule) in spec.http.iter().enumerate() {
        let field = format!("spec.http[{i}]");
        for (j, to) in rule.route.iter().enumerate() {
            all.push((format!("{field}.route[{j}].destination"), &to.destination));
        }
    }
    let tls = spec.tls.iter().map(|rule| &rule.route).enumerate();
    let tcp = spec.tcp.iter().map(|rule| &rule.route).enumerate();
    for (kind, (i, routes)) in tls.map(|r| ("tls", r)).chain(tcp.map(|r| ("tcp", r))) {
        for (j, to) in routes.iter().enumerate() {
            let field = format!("spec.{kind}[{i}].route[{j}].destination");
            all.push((field, &to.destination));
        }
    }
    all
}

/// Destinations without a service or subset.
fn routes(
    inputs: &Inputs<'_>,
    known: &Known,
    config: &Config<VirtualService>,
    notices: &mut Vec<Notice>,
) {
    let subject = Subject::new("VirtualService", &config.meta);
    let namespace = &config.meta.namespace;
    for (field, destination) in destinations(&config.spec) {
        let host = full_host(&destination.host, namespace, &inputs.mesh.domain);
        if !known.has_host(&host) {
            let message = format!(
                "no Service or ServiceEntry has the host {host}, so requests fail with 503: create it or correct the name"
            );
            notices.push(Notice::error(&subject, format!("{field}.host"), message).code(NOT_FOUND));
            continue;
        }
        notices.extend(ports(known, config, (&field, destination), &host));
        if let Some(subset) = &destination.subset
            && let Some(message) = missing_subset(inputs, namespace, &host, subset)
        {
            notices
                .push(Notice::error(&subject, format!("{field}.subset"), message).code(NOT_FOUND));
        }
    }
}

/// Mirrors without a service or subset: requests go on, copies do not.
fn mirrors(
    inputs: &Inputs<'_>,
    known: &Known,
    config: &Config<VirtualService>,
    notices: &mut Vec<Notice>,
) {
    let subject = Subject::new("VirtualService", &config.meta);
    let namespace = &config.meta.namespace;
    for (i, rule) in config.spec.http.iter().enumerate() {
        let one = rule
            .mirror
            .iter()
            .map(|to| (format!("spec.http[{i}].mirror"), to));
        let several = rule.mirrors.iter().enumerate().map(|(j, mirror)| {
            let field = format!("spec.http[{i}].mirrors[{j}].destination");
            (field, &mirror.destination)
        });
        for (field, to) in one.chain(several) {
            let host = full_host(&to.host, namespace, &inputs.mesh.domain);
            let subset = to.subset.as_deref().unwrap_or_default();
            let (part, what) = match known.has_host(&host) {
                false => (
                    "host",
                    format!("no Service or ServiceEntry has the host {host}"),
                ),
                true if subset.is_empty() => continue,
                true if missing_subset(inputs, namespace, &host, subset).is_none() => continue,
                true => (
                    "subset",
                    format!("no DestinationRule defines subset {subset:?} of {host}"),
                ),
            };
            let message =
                format!("{what}, so nothing is copied there: create it or correct the name");
            notices
                .push(Notice::error(&subject, format!("{field}.{part}"), message).code(NOT_FOUND));
        }
    }
}

/// The notice about a destination whose port its service does not have, or that should name one.
fn ports(
    known: &Known,
    config: &Config<VirtualService>,
    (field, destination): (&str, &Destination),
    host: &str,
) -> Option<Notice> {
    let has = known.hosts.get(host).filter(|ports| !ports.is_empty())?;
    let list = has
        .iter()
        .map(u32::to_string)
        .collect::<Vec<_>>()
        .join(", ");
    let subject = Subject::new("VirtualService", &config.meta);
    let field = format!("{field}.port");
    match destination.port.as_ref().and_then(|port| port.number) {
        Some(number) if !has.contains(&number) => {
            let message = format!(
                "{host} has no port {number}, so requests fail with 503: use one of {list}"
            );
            Some(Notice::error(&subject, format!("{field}.number"), message).code(NOT_FOUND))
        }
        None if has.len() > 1 && config.spec.gateways.iter().any(|g| g != "mesh") => {
            let message = format!(
                "is missing: {host} has several ports ({list}) and gateways cannot tell which is meant; name one"
            );
            Some(Notice::warning(&subject, field, message).code(PORT_NEEDED))
        }
        _ => None,
    }
}

/// The sentence about a subset that no DestinationRule defines. Absent: one does.
fn missing_subset(
    inputs: &Inputs<'_>,
    namespace: &str,
    host: &str,
    subset: &str,
) -> Option<String> {
    let for_host = inputs
        .destination_rules
        .iter()
        .filter(|rule| {
            let rule_host = full_host(&rule.spec.host, &rule.meta.namespace, &inputs.mesh.domain);
            host_covers(&rule_host, host) && is_seen(inputs, rule, namespace)
        })
        .collect::<Vec<_>>();
    if for_host
        .iter()
        .any(|rule| rule.spec.subsets.iter().any(|s| s.name == subset))
    {
        return None;
    }
    Some(match for_host.first() {
        None => format!(
            "subset {subset:?} is not defined, so requests fail with 503: no DestinationRule is for the host {host}; create one with this subset"
        ),
        Some(rule) => {
            let names = rule.spec.subsets.iter().map(|s| s.name.as_str());
            let near = lateen_api::check::nearest(subset, names)
                .map_or_else(String::new, |near| format!(" (did you mean {near:?}?)"));
            format!(
                "subset {subset:?} is not defined, so requests fail with 503{near}: add it to DestinationRule {}/{}",
                rule.meta.namespace, rule.meta.name
            )
        }
    })
}

/// Whether clients of `namespace` see a rule.
fn is_seen(inputs: &Inputs<'_>, rule: &Config<DestinationRule>, namespace: &str) -> bool {
    let config = &inputs.mesh.config;
    rule.meta.namespace == namespace
        || rule.meta.namespace == root_namespace(config)
        || visibility(
            &rule.spec.export_to,
            &config.default_destination_rule_export_to,
            &rule.meta.namespace,
        )
        .includes(namespace)
}

/// Gateways that do not exist.
fn gateways(known: &Known, config: &Config<VirtualService>, notices: &mut Vec<Notice>) {
    let subject = Subject::new("VirtualService", &config.meta);
    let spec = &config.spec;
    let top = spec
        .gateways
        .iter()
        .enumerate()
        .map(|(i, g)| (format!("spec.gateways[{i}]"), g));
    let in_rules = spec.http.iter().enumerate().flat_map(|(i, rule)| {
        let matches = rule.matches.iter().enumerate();
        matches.flat_map(move |(j, m)| {
            let gateways = m.gateways.iter().enumerate();
            gateways.map(move |(k, g)| (format!("spec.http[{i}].match[{j}].gateways[{k}]"), g))
        })
    });
    for (field, gateway) in top.chain(in_rules) {
        let name = gateway_name(gateway, &config.meta.namespace);
        if &*name != "mesh" && !known.gateways.contains(&name) {
            let message = format!(
                "there is no Gateway {name}, so the rules do not reach it: create it or correct the name"
            );
            notices.push(Notice::error(&subject, field, message).code(NOT_FOUND));
        }
    }
}

/// VirtualServices that claim the same host for sidecars: only the oldest is in force there.
fn mesh_conflicts(inputs: &Inputs<'_>, notices: &mut Vec<Notice>) {
    let mut claims = BTreeMap::<Str, Vec<&Config<VirtualService>>>::new();
    for config in inputs.virtual_services {
        let gateways = &config.spec.gateways;
        if !gateways.is_empty() && !gateways.iter().any(|g| g == "mesh") {
            continue;
        }
        for host in &config.spec.hosts {
            let host = full_host(host, &config.meta.namespace, &inputs.mesh.domain);
            claims.entry(host).or_default().push(config);
        }
    }
    for (host, mut rivals) in claims {
        rivals.sort_by_key(|c| (c.meta.created, &c.meta.namespace, &c.meta.name));
        for (i, loser) in rivals.iter().enumerate() {
            let is_rival = |w: &&&Config<VirtualService>| {
                !std::ptr::eq(**w, *loser) && share_clients(inputs, w, loser)
            };
            let Some(winner) = rivals[..i].iter().find(is_rival) else {
                continue;
            };
            let subject = Subject::new("VirtualService", &loser.meta);
            let message = format!(
                "VirtualService {}/{} is older and binds {host} for sidecars too, so these rules have no effect there: merge the two",
                winner.meta.namespace, winner.meta.name
            );
            notices.push(Notice::error(&subject, "spec.hosts", message).code(HOST_CONFLICT));
        }
    }
}

/// Whether some namespace sees both.
fn share_clients(
    inputs: &Inputs<'_>,
    a: &Config<VirtualService>,
    b: &Config<VirtualService>,
) -> bool {
    use lateen_model::name::Visibility::{Namespaces, Public};
    let default = &inputs.mesh.config.default_virtual_service_export_to;
    let seen =
        |c: &Config<VirtualService>| visibility(&c.spec.export_to, default, &c.meta.namespace);
    match (seen(a), seen(b)) {
        (Public, Public) => true,
        (Public, Namespaces(names)) | (Namespaces(names), Public) => !names.is_empty(),
        (Namespaces(a), Namespaces(b)) => a.iter().any(|name| b.contains(name)),
    }
}

/// Ports whose name declares no protocol.
fn port_names(service: &core::Service, notices: &mut Vec<Notice>) {
    let meta = &service.metadata;
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    if namespace.starts_with("kube-") {
        return;
    }
    let spec = service.spec.as_ref();
    let ports = spec.and_then(|s| s.ports.as_ref()).into_iter().flatten();
    for (i, port) in ports.enumerate() {
        let name = port.name.as_deref().unwrap_or_default();
        let is_tcp = port.protocol.as_deref().unwrap_or("TCP") == "TCP";
        if is_tcp && port.app_protocol.is_none() && protocol::of_port_name(name).is_none() {
            let subject = crate::service::subject("Service", meta);
            let message = format!(
                "port {} has the name {name:?}, which declares no protocol, so it is detected: name it http-…, grpc-… or tcp-…, or set appProtocol",
                port.port
            );
            let field = format!("spec.ports[{i}].name");
            notices.push(Notice::new(Severity::Info, &subject, field, message).code(PORT_NAME));
        }
    }
}

#[cfg(test)]
mod tests;
