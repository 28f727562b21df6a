//! Sidecar → outbound scope.

use crate::mesh::outbound_mode;
use crate::names::{labels, origin};
use crate::{NOT_YET, Translated};
use lateen_api::meta::Config;
use lateen_api::notice::{Notice, Subject, any_error};
use lateen_api::sidecar::{CaptureMode, Sidecar};
use lateen_api::validate;
use lateen_model::mesh::{EgressHost, SidecarScope};
use lateen_model::resource::Resource;

/// What a Sidecar is translated from.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// The Sidecar.
    pub config: &'a Config<Sidecar>,
}

/// Translates a Sidecar.
pub fn sidecar(inputs: Inputs<'_>) -> Translated {
    let Inputs { config } = inputs;
    let spec = &config.spec;
    let mut notices = validate::sidecar(config);
    if any_error(&notices) {
        return (Vec::new(), notices);
    }
    let subject = Subject::new("Sidecar", &config.meta);
    let not_yet = not_in_force(spec);
    notices.extend(
        not_yet
            .into_iter()
            .map(|field| Notice::warning(&subject, field, NOT_YET)),
    );
    let policy = spec.outbound_traffic_policy.as_ref();
    let outbound = policy.and_then(|p| p.mode).map(|mode| {
        let field = "spec.outboundTrafficPolicy.mode";
        outbound_mode(mode, field, &subject, &mut notices)
    });
    let selector = spec.workload_selector.as_ref();
    let scope = SidecarScope {
        origin: origin("Sidecar", &config.meta),
        workload_selector: selector.map(|s| labels(&s.labels)).unwrap_or_default(),
        egress: (!spec.egress.is_empty()).then(|| egress(spec, &config.meta.namespace)),
        outbound,
    };
    crate::done(Resource::SidecarScope(scope), notices)
}

/// Fields that are given and have no effect yet.
fn not_in_force(spec: &Sidecar) -> Vec<String> {
    let mut fields = Vec::new();
    if !spec.ingress.is_empty() {
        fields.push("spec.ingress".to_owned());
    }
    if spec.inbound_connection_pool.is_some() {
        fields.push("spec.inboundConnectionPool".to_owned());
    }
    let policy = spec.outbound_traffic_policy.as_ref();
    if policy.is_some_and(|p| p.egress_proxy.is_some()) {
        fields.push("spec.outboundTrafficPolicy.egressProxy".to_owned());
    }
    for (i, listener) in spec.egress.iter().enumerate() {
        if listener.bind.is_some() {
            fields.push(format!("spec.egress[{i}].bind"));
        }
        if listener.capture_mode == Some(CaptureMode::None) {
            fields.push(format!("spec.egress[{i}].captureMode"));
        }
        for (j, host) in listener.hosts.iter().enumerate() {
            if host.starts_with('~') && !host.starts_with("~/") {
                fields.push(format!("spec.egress[{i}].hosts[{j}]"));
            }
        }
    }
    fields
}

/// The visible services. `~/…` names none.
fn egress(spec: &Sidecar, own: &str) -> Vec<EgressHost> {
    let mut hosts = Vec::new();
    for listener in &spec.egress {
        let port = listener.port.as_ref().and_then(|p| p.number);
        for text in &listener.hosts {
            let Some((namespace, host)) = text.split_once('/') else {
                continue;
            };
            if namespace.starts_with('~') {
                continue;
            }
            hosts.push(EgressHost {
                namespace: match namespace {
                    "*" => None,
                    "." => Some(own.into()),
                    name => Some(name.into()),
                },
                host: host.trim_end_matches('.').to_ascii_lowercase().into(),
                port: port.and_then(|p| u16::try_from(p).ok()),
            });
        }
    }
    hosts
}

#[cfg(test)]
mod tests;
