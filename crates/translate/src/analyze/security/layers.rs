//! Rules about HTTP where there is none: what becomes of them on ports that carry opaque TCP.

use super::{carries, is_root};
use crate::analyze::Inputs;
use crate::protocol;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use lateen_api::authorization_policy::{Action, AuthorizationPolicy, Rule};
use lateen_api::meta::Config;
use lateen_api::notice::{Notice, Subject};
use lateen_model::service::Protocol;

/// Whether a rule looks at tokens.
pub(super) fn asks_for_token(rule: &Rule) -> bool {
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
        .any(|when| when.key.starts_with("request."));
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
pub(super) fn http_on_tcp(
    inputs: &Inputs<'_>,
    config: &Config<AuthorizationPolicy>,
    notices: &mut Vec<Notice>,
) {
    let consequence = match config.spec.action {
        None | Some(Action::Allow) => "there the rule never matches, so connections are denied",
        Some(Action::Deny) => "there its HTTP part is passed over, so it denies more than it says",
        Some(Action::Audit) => "there its HTTP part is passed over, so it notes more than it says",
        Some(Action::Custom) if asks_http(inputs, config) => {
            "there a provider of envoyExtAuthzHttp cannot be asked, so connections are denied"
        }
        Some(Action::Custom) => {
            "there its HTTP part is passed over, so the provider is asked about more than it says"
        }
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

/// Whether the provider of a CUSTOM policy can be asked about HTTP only.
fn asks_http(inputs: &Inputs<'_>, config: &Config<AuthorizationPolicy>) -> bool {
    let provider = config.spec.provider.as_ref();
    let name = provider.and_then(|p| p.name.as_deref());
    let all = &inputs.mesh.config.extension_providers;
    let found = name.and_then(|name| all.iter().find(|one| one.name == name));
    found.is_some_and(|one| one.envoy_ext_authz_http.is_some())
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
