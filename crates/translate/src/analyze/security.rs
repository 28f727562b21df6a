//! Analyzers of security policies: who they reach, what they refer to, and where they contradict other objects.

use super::{Inputs, Known, NOT_FOUND};
use crate::mesh::root_namespace;
use crate::names::full_host;
use crate::protocol;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use lateen_api::authorization_policy::{Action, AuthorizationPolicy, Rule};
use lateen_api::destination_rule::{ClientTlsMode, DestinationRule};
use lateen_api::fields::{Labels, MatchLabels, TargetReference};
use lateen_api::meta::{Config, Meta};
use lateen_api::notice::{Notice, Severity, Subject};
use lateen_api::peer_authentication::{MutualTlsMode, PeerAuthentication};
use lateen_api::request_authentication::RequestAuthentication;
use lateen_model::matching::host_covers;
use lateen_model::service::Protocol;

/// Istio's code for a selector that no workload carries.
pub const NO_WORKLOAD: &str = "IST0127";
/// Istio's code for a client that speaks plain text to a server that wants mutual TLS.
pub const MTLS_CONFLICT: &str = "IST0113";

pub(super) fn analyze(inputs: &Inputs<'_>, known: &Known, notices: &mut Vec<Notice>) {
    for config in inputs.peer_authentications {
        let subject = Subject::new("PeerAuthentication", &config.meta);
        let selector = config.spec.selector.as_ref();
        notices.extend(unmatched(inputs, &subject, &config.meta, selector));
    }
    for config in inputs.request_authentications {
        let subject = Subject::new("RequestAuthentication", &config.meta);
        let spec = &config.spec;
        notices.extend(unmatched(
            inputs,
            &subject,
            &config.meta,
            spec.selector.as_ref(),
        ));
        notices.extend(targets(
            known,
            &subject,
            &config.meta,
            &spec.target_refs,
            inputs,
        ));
        notices.extend(not_required(inputs, config));
    }
    for config in inputs.authorization_policies {
        let subject = Subject::new("AuthorizationPolicy", &config.meta);
        let spec = &config.spec;
        notices.extend(unmatched(
            inputs,
            &subject,
            &config.meta,
            spec.selector.as_ref(),
        ));
        notices.extend(targets(
            known,
            &subject,
            &config.meta,
            &spec.target_refs,
            inputs,
        ));
        notices.extend(provider(inputs, config));
        http_on_tcp(inputs, config, notices);
    }
    for config in inputs.destination_rules {
        notices.extend(mtls_conflict(inputs, config));
    }
}

fn is_root(inputs: &Inputs<'_>, namespace: &str) -> bool {
    namespace == root_namespace(&inputs.mesh.config)
}

/// Whether labels, in whatever map, carry all of a selector's.
fn carries<'a>(selector: &Labels, find: impl Fn(&str) -> Option<&'a str>) -> bool {
    selector
        .iter()
        .all(|(key, value)| find(key) == Some(value.as_str()))
}

/// A selector that no workload carries.
fn unmatched(
    inputs: &Inputs<'_>,
    subject: &Subject,
    meta: &Meta,
    selector: Option<&MatchLabels>,
) -> Option<Notice> {
    let selector = &selector
        .filter(|s| !s.match_labels.is_empty())?
        .match_labels;
    let workloads = inputs.workloads?;
    let anywhere = is_root(inputs, &meta.namespace);
    let matched = workloads.iter().any(|(namespace, labels)| {
        (anywhere || *namespace == meta.namespace)
            && carries(selector, |key| labels.get(key).map(|value| &**value))
    });
    let shown: Vec<String> = selector.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let place = match anywhere {
        true => "of the mesh".to_owned(),
        false => format!("in namespace {}", meta.namespace),
    };
    let message = format!(
        "no workload {place} has the labels {}, so it is for nothing yet: correct them, or start the workload",
        shown.join(", ")
    );
    let field = "spec.selector.matchLabels";
    (!matched).then(|| Notice::warning(subject, field, message).code(NO_WORKLOAD))
}

/// Services and ServiceEntries that a policy is attached to and that do not exist; and what is not in force yet.
fn targets(
    known: &Known,
    subject: &Subject,
    meta: &Meta,
    targets: &[TargetReference],
    inputs: &Inputs<'_>,
) -> Vec<Notice> {
    let mut notices = Vec::new();
    for (i, target) in targets.iter().enumerate() {
        let field = format!("spec.targetRefs[{i}]");
        let exists = match target.kind.as_str() {
            "Service" => {
                let host = full_host(&target.name, &meta.namespace, &inputs.mesh.domain);
                known.hosts.contains_key(&host)
            }
            "ServiceEntry" => inputs
                .service_entries
                .iter()
                .any(|e| e.meta.name == target.name && e.meta.namespace == meta.namespace),
            _ => continue,
        };
        let message = match exists {
            true => "policies of services are enforced by waypoints, which are not there yet: use a selector".to_owned(),
            false => format!("there is no {} {} in namespace {}", target.kind, target.name, meta.namespace),
        };
        let notice = Notice::warning(subject, field, message);
        notices.push(match exists {
            true => notice,
            false => notice.code(NOT_FOUND),
        });
    }
    notices
}

/// A CUSTOM policy whose provider nobody configured.
fn provider(inputs: &Inputs<'_>, config: &Config<AuthorizationPolicy>) -> Option<Notice> {
    if config.spec.action != Some(Action::Custom) {
        return None;
    }
    let name = config.spec.provider.as_ref()?.name.as_deref()?;
    let providers = &inputs.mesh.config.extension_providers;
    let found = providers.iter().find(|one| one.name == name);
    let is_asked =
        found.is_some_and(|p| p.envoy_ext_authz_http.is_some() || p.envoy_ext_authz_grpc.is_some());
    if is_asked {
        return None;
    }
    let what = match found {
        Some(_) => "is not a provider of external authorization".to_owned(),
        None => {
            let names = providers.iter().map(|one| one.name.as_str());
            let near = lateen_api::check::nearest(name, names);
            let near = near.map_or_else(String::new, |near| format!(" (did you mean {near:?}?)"));
            format!("is not among extensionProviders of the mesh's configuration{near}")
        }
    };
    let subject = Subject::new("AuthorizationPolicy", &config.meta);
    let message =
        format!("{name:?} {what}, so whatever the policy matches is denied: add it there");
    Some(Notice::error(&subject, "spec.provider.name", message).code(NOT_FOUND))
}

/// Whether a rule looks at tokens.
fn asks_for_token(rule: &Rule) -> bool {
    let sources = rule
        .from
        .iter()
        .flatten()
        .filter_map(|from| from.source.as_ref());
    let mut sources =
        sources.map(|s| !s.request_principals.is_empty() || !s.not_request_principals.is_empty());
    sources.any(|asks| asks)
        || rule
            .when
            .iter()
            .any(|when| when.key.starts_with("request.auth."))
}

/// A RequestAuthentication whose tokens no policy requires.
fn not_required(inputs: &Inputs<'_>, config: &Config<RequestAuthentication>) -> Option<Notice> {
    let spec = &config.spec;
    if spec.jwt_rules.is_empty() {
        return None;
    }
    let own = spec.selector.as_ref().map(|s| &s.match_labels);
    let overlaps = |other: Option<&MatchLabels>| match (own, other) {
        (Some(own), Some(other)) => {
            let differ =
                |(key, value): (&String, &String)| own.get(key).is_some_and(|v| v != value);
            !other.match_labels.iter().any(differ)
        }
        _ => true,
    };
    let required = inputs.authorization_policies.iter().any(|policy| {
        let namespace = &policy.meta.namespace;
        let near = *namespace == config.meta.namespace
            || is_root(inputs, namespace)
            || is_root(inputs, &config.meta.namespace);
        near && overlaps(policy.spec.selector.as_ref())
            && policy.spec.rules.iter().any(asks_for_token)
    });
    let message = "requests without a token pass: an AuthorizationPolicy with requestPrincipals: [\"*\"] requires one";
    let subject = Subject::new("RequestAuthentication", &config.meta);
    (!required).then(|| Notice::new(Severity::Info, &subject, "spec.jwtRules", message))
}

/// Whether a rule speaks of what only HTTP has; and the ports that it is for.
fn http_ports(rule: &Rule) -> Option<Vec<&str>> {
    let operations = || {
        rule.to
            .iter()
            .flatten()
            .filter_map(|to| to.operation.as_ref())
    };
    let http = operations().any(|o| o.patterns().iter().any(|(_, list)| !list.is_empty()));
    let conditions = rule
        .when
        .iter()
        .any(|when| when.key.starts_with("request.") || when.key == "remote.ip");
    let mut ports = Vec::new();
    for operation in operations() {
        if operation.ports.is_empty() {
            // One operation without ports is for all of them.
            return (http || conditions || asks_for_token(rule)).then(Vec::new);
        }
        ports.extend(operation.ports.iter().map(String::as_str));
    }
    (http || conditions || asks_for_token(rule)).then_some(ports)
}

/// Rules about HTTP on ports that carry opaque TCP.
fn http_on_tcp(
    inputs: &Inputs<'_>,
    config: &Config<AuthorizationPolicy>,
    notices: &mut Vec<Notice>,
) {
    let consequence = match config.spec.action {
        None | Some(Action::Allow) => "there the rule never matches, so connections are denied",
        Some(Action::Deny) => "there its HTTP part is passed over, so it denies more than it says",
        Some(Action::Audit | Action::Custom) => return,
    };
    let subject = Subject::new("AuthorizationPolicy", &config.meta);
    for service in inputs.services {
        if !reaches(inputs, config, service) {
            continue;
        }
        let spec = service.spec.as_ref();
        let ports = spec.and_then(|s| s.ports.as_ref()).into_iter().flatten();
        for port in ports.filter(|port| is_tcp(port)) {
            let target = match &port.target_port {
                Some(IntOrString::Int(number)) => number.to_string(),
                Some(IntOrString::String(_)) => continue,
                None => port.port.to_string(),
            };
            let named = config.spec.rules.iter().enumerate().find(|(_, rule)| {
                http_ports(rule).is_some_and(|of| of.is_empty() || of.contains(&target.as_str()))
            });
            let Some((at, _)) = named else {
                continue;
            };
            let message = format!(
                "uses fields of HTTP, but port {} of Service {}/{} is TCP: {consequence}; name the HTTP ports in to.operation.ports",
                port.port,
                service.metadata.namespace.as_deref().unwrap_or_default(),
                service.metadata.name.as_deref().unwrap_or_default(),
            );
            notices.push(Notice::warning(
                &subject,
                format!("spec.rules[{at}]"),
                message,
            ));
        }
    }
}

/// Whether a port is declared as opaque TCP.
fn is_tcp(port: &core::ServicePort) -> bool {
    let number = u16::try_from(port.port).unwrap_or_default();
    let name = port.name.as_deref().unwrap_or_default();
    let transport = port.protocol.as_deref().unwrap_or("TCP");
    let application = port.app_protocol.as_deref();
    protocol::of_service_port(number, name, application, transport) == Protocol::Tcp
}

/// Whether some workload of a service is selected by a policy.
fn reaches(
    inputs: &Inputs<'_>,
    config: &Config<AuthorizationPolicy>,
    service: &core::Service,
) -> bool {
    let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
    if namespace != config.meta.namespace && !is_root(inputs, &config.meta.namespace) {
        return false;
    }
    if !config.spec.target_refs.is_empty() || config.spec.target_ref.is_some() {
        return false;
    }
    let serves = service
        .spec
        .as_ref()
        .and_then(|spec| spec.selector.as_ref());
    let Some(serves) = serves.filter(|labels| !labels.is_empty()) else {
        return false;
    };
    let wanted = config.spec.selector.as_ref().map(|s| &s.match_labels);
    // Without sight of workloads: only when the service's own selector says it.
    let Some(workloads) = inputs.workloads else {
        return wanted
            .is_none_or(|wanted| carries(wanted, |key| serves.get(key).map(String::as_str)));
    };
    workloads.iter().any(|(of, labels)| {
        let find = |key: &str| labels.get(key).map(|value| &**value);
        *of == namespace
            && carries(serves, find)
            && wanted.is_none_or(|wanted| carries(wanted, find))
    })
}

/// A DestinationRule by which clients do not speak the mutual TLS that servers insist on.
fn mtls_conflict(inputs: &Inputs<'_>, rule: &Config<DestinationRule>) -> Option<Notice> {
    let tls = rule.spec.traffic_policy.as_ref()?.tls.as_ref()?;
    let mode = match tls.mode {
        None | Some(ClientTlsMode::Disable) => "plain text",
        Some(ClientTlsMode::Simple | ClientTlsMode::Mutual) => {
            "TLS without the mesh's certificates"
        }
        Some(ClientTlsMode::IstioMutual) => return None,
    };
    let host = full_host(&rule.spec.host, &rule.meta.namespace, &inputs.mesh.domain);
    let strict = inputs.services.iter().find_map(|service| {
        let key = crate::service::key(&service.metadata, inputs.mesh);
        let covered = host_covers(&host, &key.hostname);
        covered.then(|| strict_policy(inputs, service)).flatten()
    })?;
    let subject = Subject::new("DestinationRule", &rule.meta);
    let message = format!(
        "clients send {mode}, but PeerAuthentication {}/{} is STRICT there, so connections are reset: use ISTIO_MUTUAL, or leave tls out",
        strict.meta.namespace, strict.meta.name
    );
    Some(Notice::error(&subject, "spec.trafficPolicy.tls", message).code(MTLS_CONFLICT))
}

/// The PeerAuthentication that makes every port of a service's workloads strict; absent: none does. The nearest one
/// that says something decides, the oldest of several.
fn strict_policy<'a>(
    inputs: &Inputs<'a>,
    service: &core::Service,
) -> Option<&'a Config<PeerAuthentication>> {
    let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
    let serves = service
        .spec
        .as_ref()
        .and_then(|spec| spec.selector.as_ref());
    let serves = serves.filter(|labels| !labels.is_empty())?;
    let says = |config: &&&Config<PeerAuthentication>| {
        let mode = config.spec.mtls.and_then(|tls| tls.mode);
        mode.is_some_and(|mode| mode != MutualTlsMode::Unset)
    };
    // 2: for these workloads, 1: for the namespace, 0: for the mesh.
    let level = |config: &Config<PeerAuthentication>| {
        let selector = config.spec.selector.as_ref();
        let selector = selector
            .map(|s| &s.match_labels)
            .filter(|labels| !labels.is_empty());
        let own = config.meta.namespace == namespace;
        match selector {
            Some(labels) if own && !is_root(inputs, namespace) => {
                carries(labels, |key| serves.get(key).map(String::as_str)).then_some(2)
            }
            None if own => Some(1),
            None if is_root(inputs, &config.meta.namespace) => Some(0),
            _ => None,
        }
    };
    let all = inputs.peer_authentications.iter().filter(says);
    let nearest = all
        .filter_map(|config| Some((level(config)?, *config)))
        .min_by_key(|(level, config)| {
            (
                std::cmp::Reverse(*level),
                config.meta.created,
                &config.meta.name,
            )
        });
    let (_, config) = nearest?;
    let mode = config.spec.mtls.and_then(|tls| tls.mode);
    let strict = mode == Some(MutualTlsMode::Strict) && config.spec.port_level_mtls.is_empty();
    strict.then_some(config)
}
