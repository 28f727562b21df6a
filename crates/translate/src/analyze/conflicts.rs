//! Analyzers of objects that claim the same: Sidecars, Gateways, matches of a VirtualService, and hosts that no Gateway
//! takes.

use super::Inputs;
use crate::names::{full_host, gateway_name};
use lateen_api::gateway::{Gateway, Server};
use lateen_api::meta::Config;
use lateen_api::notice::{Notice, Severity, Subject};
use lateen_api::sidecar::Sidecar;
use lateen_api::virtual_service::VirtualService;
use lateen_api::virtual_service::http::HttpMatchRequest;
use lateen_model::matching::host_covers;
use std::collections::BTreeMap;

/// Istio's code for Sidecars that select the same workloads.
pub const SIDECAR_CONFLICT: &str = "IST0110";
/// Istio's code for several Sidecars without a selector in one namespace.
pub const SIDECARS_WITHOUT_SELECTOR: &str = "IST0111";
/// Istio's code for a rule that never runs.
pub const UNREACHABLE: &str = "IST0130";
/// Istio's code for a condition that an earlier rule has already.
pub const INEFFECTIVE: &str = "IST0131";
/// Istio's code for a host that a VirtualService's gateway does not have.
pub const HOST_NOT_IN_GATEWAY: &str = "IST0132";
/// Istio's code for a certificate that several Gateways use.
pub const SHARED_CERTIFICATE: &str = "IST0138";
/// Istio's code for Gateways that claim the same port and hosts.
pub const GATEWAY_CONFLICT: &str = "IST0145";

pub(super) fn analyze(inputs: &Inputs<'_>, notices: &mut Vec<Notice>) {
    sidecars(inputs, notices);
    gateways(inputs, notices);
    for config in inputs.virtual_services {
        hosts_in_gateways(inputs, config, notices);
        repeated(config, notices);
    }
}

/// A Sidecar, and where it stands among those of its age.
fn age<'c>(config: &'c &Config<Sidecar>) -> (u64, &'c str) {
    (config.meta.created, &config.meta.name)
}

/// Sidecars that an older one keeps from being in force.
fn sidecars(inputs: &Inputs<'_>, notices: &mut Vec<Notice>) {
    let mut all: Vec<&Config<Sidecar>> = inputs.sidecars.to_vec();
    all.sort_by(|a, b| age(a).cmp(&age(b)));
    for (i, config) in all.iter().enumerate() {
        let namespace = &config.meta.namespace;
        let before = all[..i].iter().filter(|c| c.meta.namespace == *namespace);
        let labels = labels(config);
        let subject = Subject::new("Sidecar", &config.meta);
        for older in before {
            let theirs = self::labels(older);
            let name = &older.meta.name;
            let notice = match (labels.is_empty(), theirs.is_empty()) {
                (true, true) => {
                    let message = format!(
                        "Sidecar {namespace}/{name} is older and has no selector either, so this one has no effect: merge the two"
                    );
                    let field = "spec.workloadSelector";
                    Notice::error(&subject, field, message).code(SIDECARS_WITHOUT_SELECTOR)
                }
                (false, false) if select_alike(inputs, namespace, labels, theirs) => {
                    let message = format!(
                        "Sidecar {namespace}/{name} is older and selects some of the same workloads, so this one has no effect on them: merge the two, or select apart"
                    );
                    let field = "spec.workloadSelector.labels";
                    Notice::error(&subject, field, message).code(SIDECAR_CONFLICT)
                }
                _ => continue,
            };
            notices.push(notice);
            break;
        }
    }
}

fn labels<'c>(config: &&'c Config<Sidecar>) -> &'c lateen_api::fields::Labels {
    static NONE: lateen_api::fields::Labels = BTreeMap::new();
    let selector = config.spec.workload_selector.as_ref();
    selector.map_or(&NONE, |selector| &selector.labels)
}

/// Whether some workload of a namespace carries the labels of both. Where workloads are not known: whether they are equal.
fn select_alike(
    inputs: &Inputs<'_>,
    namespace: &str,
    a: &lateen_api::fields::Labels,
    b: &lateen_api::fields::Labels,
) -> bool {
    let Some(workloads) = inputs.workloads else {
        return a == b;
    };
    workloads.iter().any(|(at, labels)| {
        let carries = |(key, value): (&String, &String)| {
            labels.get(key.as_str()).is_some_and(|v| **v == **value)
        };
        *at == namespace && a.iter().all(carries) && b.iter().all(carries)
    })
}

/// Gateways of one workload that claim the same port and hosts, or use the same certificate.
fn gateways(inputs: &Inputs<'_>, notices: &mut Vec<Notice>) {
    let mut all: Vec<&Config<Gateway>> = inputs.gateways.to_vec();
    all.sort_by_key(|c| (c.meta.created, &c.meta.namespace, &c.meta.name));
    for (i, config) in all.iter().enumerate() {
        let subject = Subject::new("Gateway", &config.meta);
        for (j, server) in config.spec.servers.iter().enumerate() {
            let rivals = all[..i]
                .iter()
                .filter(|older| older.spec.selector == config.spec.selector);
            for older in rivals {
                let name = format!("{}/{}", older.meta.namespace, older.meta.name);
                let clash = older.spec.servers.iter().find_map(|o| clash(o, server));
                if let Some(host) = clash {
                    let number = server.port.as_ref().and_then(|p| p.number).unwrap_or(0);
                    let message = format!(
                        "Gateway {name} is older and has {host} at port {number} of the same workloads: leave it out of one of them"
                    );
                    let field = format!("spec.servers[{j}].hosts");
                    notices.push(Notice::error(&subject, field, message).code(GATEWAY_CONFLICT));
                    break;
                }
                let shared = older.spec.servers.iter().find_map(|o| shared(o, server));
                if let Some(credential) = shared {
                    let message = format!(
                        "Gateway {name} uses {credential}, too: browsers use one connection for hosts of one certificate, and get 404 for those of the other Gateway; merge the two, or use certificates apart"
                    );
                    let field = format!("spec.servers[{j}].tls.credentialName");
                    let notice = Notice::warning(&subject, field, message);
                    notices.push(notice.code(SHARED_CERTIFICATE));
                    break;
                }
            }
        }
    }
}

/// A host that both have at one port. Different hosts of TLS servers are told apart by server name.
fn clash<'s>(a: &Server, b: &'s Server) -> Option<&'s str> {
    let number = |s: &Server| s.port.as_ref().and_then(|p| p.number);
    if number(a) != number(b) || a.bind != b.bind {
        return None;
    }
    let hosts = b.hosts.iter().map(String::as_str);
    hosts
        .into_iter()
        .find(|host| a.hosts.iter().any(|h| h == host))
}

fn shared<'s>(a: &Server, b: &'s Server) -> Option<&'s str> {
    let names = |s: &'s Server| s.tls.as_ref()?.credential_name.as_deref();
    let theirs = a.tls.as_ref()?.credential_name.as_deref()?;
    names(b).filter(|name| *name == theirs && !name.is_empty())
}

/// Hosts of a VirtualService that a gateway it names does not take.
fn hosts_in_gateways(
    inputs: &Inputs<'_>,
    config: &Config<VirtualService>,
    notices: &mut Vec<Notice>,
) {
    let namespace = &config.meta.namespace;
    let subject = Subject::new("VirtualService", &config.meta);
    for (i, written) in config.spec.gateways.iter().enumerate() {
        let name = gateway_name(written, namespace);
        let named =
            |g: &&&Config<Gateway>| *name == *format!("{}/{}", g.meta.namespace, g.meta.name);
        // That one is missing is said elsewhere.
        let Some(gateway) = inputs.gateways.iter().find(named) else {
            continue;
        };
        let takes = |host: &str| {
            let host = full_host(host, namespace, &inputs.mesh.domain);
            let servers = gateway.spec.servers.iter().flat_map(|s| &s.hosts);
            servers.into_iter().any(|entry| {
                let (at, pattern) = entry.split_once('/').unwrap_or(("*", entry));
                let at = if at == "." {
                    &*gateway.meta.namespace
                } else {
                    at
                };
                let pattern = full_host(pattern, &gateway.meta.namespace, &inputs.mesh.domain);
                (at == "*" || at == namespace)
                    && (host_covers(&pattern, &host) || host_covers(&host, &pattern))
            })
        };
        let missing = config.spec.hosts.iter().filter(|host| !takes(host));
        let missing: Vec<&str> = missing.map(String::as_str).collect();
        if !missing.is_empty() {
            let message = format!(
                "no server of this Gateway takes {}, so requests for it get 404 there: add it to the Gateway's hosts, or correct the name",
                missing.join(", ")
            );
            let field = format!("spec.gateways[{i}]");
            notices.push(Notice::warning(&subject, field, message).code(HOST_NOT_IN_GATEWAY));
        }
    }
}

/// Conditions that an earlier rule has already.
fn repeated(config: &Config<VirtualService>, notices: &mut Vec<Notice>) {
    let subject = Subject::new("VirtualService", &config.meta);
    let mut seen: Vec<(usize, HttpMatchRequest)> = Vec::new();
    for (i, rule) in config.spec.http.iter().enumerate() {
        let mut dead = Vec::new();
        for (j, one) in rule.matches.iter().enumerate() {
            let one = HttpMatchRequest {
                name: None,
                stat_prefix: None,
                ..one.clone()
            };
            match seen.iter().find(|(_, other)| *other == one) {
                Some((first, _)) => dead.push((j, *first)),
                None => seen.push((i, one)),
            }
        }
        let all = !dead.is_empty() && dead.len() == rule.matches.len();
        if all && dead.iter().all(|(_, first)| *first != i) {
            let first = dead[0].1;
            let message = format!(
                "never runs: spec.http[{first}] and those before it match the same; remove it, or match something else"
            );
            let field = format!("spec.http[{i}]");
            notices.push(Notice::warning(&subject, field, message).code(UNREACHABLE));
            continue;
        }
        for (j, first) in dead {
            let message = format!(
                "is the same as a condition of spec.http[{first}], which is looked at before: remove it"
            );
            let field = format!("spec.http[{i}].match[{j}]");
            let notice = Notice::new(Severity::Info, &subject, field, message);
            notices.push(notice.code(INEFFECTIVE));
        }
    }
}
