//! Analyzers of security policies: who they reach, what they refer to, and where they contradict other objects.

mod layers;

use super::{Inputs, Known, NOT_FOUND};
use crate::mesh::root_namespace;
use crate::names::full_host;
use k8s_openapi::api::core::v1 as core;
use lateen_api::authorization_policy::{Action, AuthorizationPolicy};
use lateen_api::destination_rule::{ClientTlsMode, DestinationRule};
use lateen_api::fields::{Labels, MatchLabels, TargetReference};
use lateen_api::meta::{Config, Meta};
use lateen_api::notice::{Notice, Severity, Subject};
use lateen_api::peer_authentication::{MutualTlsMode, PeerAuthentication};
use lateen_api::request_authentication::RequestAuthentication;
use lateen_model::matching::host_covers;
use layers::{asks_for_token, http_on_tcp};

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
            (spec.target_ref.as_ref(), &spec.target_refs),
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
            (spec.target_ref.as_ref(), &spec.target_refs),
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
pub(super) fn unmatched(
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
    (one, many): (Option<&TargetReference>, &[TargetReference]),
    inputs: &Inputs<'_>,
) -> Vec<Notice> {
    let mut notices = Vec::new();
    let many = many.iter().enumerate();
    let many = many.map(|(i, target)| (format!("spec.targetRefs[{i}]"), target));
    let one = one.map(|target| ("spec.targetRef".to_owned(), target));
    for (field, target) in one.into_iter().chain(many) {
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
