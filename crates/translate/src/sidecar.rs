//! Sidecar → what proxies take in and what they reach.

use crate::destination_rule::pool;
use crate::mesh::{Mesh, outbound_mode};
use crate::names::{full_host, labels, origin};
use crate::{NOT_YET, Translated, protocol};
use lateen_api::meta::Config;
use lateen_api::notice::{Notice, Subject, any_error};
use lateen_api::sidecar::{CaptureMode, IngressListener as Written, Sidecar};
use lateen_api::validate;
use lateen_model::mesh::{EgressHost, IngressEndpoint, IngressListener, SidecarScope};
use lateen_model::resource::Resource;
use lateen_model::route::Destination;
use lateen_model::service::Protocol;
use std::net::SocketAddr;

/// What a Sidecar is translated from.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// The Sidecar.
    pub config: &'a Config<Sidecar>,
    /// The mesh.
    pub mesh: &'a Mesh,
}

/// Translates a Sidecar.
pub fn sidecar(inputs: Inputs<'_>) -> Translated {
    let Inputs { config, mesh } = inputs;
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
    let namespace = &config.meta.namespace;
    let selector = spec.workload_selector.as_ref();
    let (egress, excluded) = egress(spec, namespace);
    let proxy = policy.and_then(|policy| policy.egress_proxy.as_ref());
    let scope = SidecarScope {
        origin: origin("Sidecar", &config.meta),
        workload_selector: selector.map(|s| labels(&s.labels)).unwrap_or_default(),
        egress: (!spec.egress.is_empty()).then_some(egress),
        excluded,
        outbound,
        egress_proxy: proxy.map(|to| Destination {
            host: full_host(&to.host, namespace, &mesh.domain),
            subset: to.subset.as_deref().map(Into::into),
            port: to.port.as_ref().and_then(|p| narrow(p.number)),
        }),
        ingress: ingress(spec, &subject, &mut notices),
        inbound_pool: spec.inbound_connection_pool.as_deref().map(pool),
    };
    crate::done(Resource::SidecarScope(scope), notices)
}

/// Fields that are given and have no effect yet.
fn not_in_force(spec: &Sidecar) -> Vec<String> {
    let mut fields = Vec::new();
    for (i, listener) in spec.ingress.iter().enumerate() {
        let given = [
            ("bind", listener.bind.is_some()),
            (
                "captureMode",
                listener.capture_mode == Some(CaptureMode::None),
            ),
            ("tls", listener.tls.is_some()),
        ];
        let given = given.into_iter().filter(|(_, is_given)| *is_given);
        fields.extend(given.map(|(name, _)| format!("spec.ingress[{i}].{name}")));
    }
    for (i, listener) in spec.egress.iter().enumerate() {
        if listener.bind.is_some() {
            fields.push(format!("spec.egress[{i}].bind"));
        }
        if listener.capture_mode == Some(CaptureMode::None) {
            fields.push(format!("spec.egress[{i}].captureMode"));
        }
    }
    fields
}

/// Ports of the workload; absent: those of its services. One that cannot be served as written is told and left out.
fn ingress(
    spec: &Sidecar,
    subject: &Subject,
    notices: &mut Vec<Notice>,
) -> Option<Vec<IngressListener>> {
    let mut listeners = Vec::new();
    for (i, written) in spec.ingress.iter().enumerate() {
        let field = format!("spec.ingress[{i}]");
        match listener(written) {
            Ok(listener) => listeners.extend(listener),
            Err((name, message)) => {
                notices.push(Notice::warning(subject, format!("{field}.{name}"), message));
            }
        }
    }
    (!spec.ingress.is_empty()).then_some(listeners)
}

/// A listener; absent: validation has refused its port. Fails with the field and what is wrong with it.
fn listener(written: &Written) -> Result<Option<IngressListener>, (&'static str, String)> {
    let Some(number) = written.port.as_ref().and_then(|p| narrow(p.number)) else {
        return Ok(None);
    };
    let declared = written.port.as_ref().and_then(|p| p.protocol.as_deref());
    let declared = declared.unwrap_or_default();
    let protocol = match protocol::named(declared) {
        Some(protocol) => protocol,
        None if declared.is_empty() => Protocol::Detect,
        None => {
            let message = format!(
                "{declared:?} is not a known protocol, so the listener is left out: use HTTP, HTTP2, GRPC, HTTPS, TLS or TCP"
            );
            return Err(("port.protocol", message));
        }
    };
    let endpoint = match written.default_endpoint.as_deref() {
        None | Some("") => None,
        Some(text) => match text.parse::<SocketAddr>() {
            Ok(address) if address.ip().is_unspecified() => {
                Some(IngressEndpoint::Instance(address.port()))
            }
            Ok(address) => Some(IngressEndpoint::Address(address)),
            Err(_) => {
                let message =
                    "sockets are not called, so the listener is left out: use 127.0.0.1:port";
                return Err(("defaultEndpoint", message.to_owned()));
            }
        },
    };
    Ok(Some(IngressListener {
        port: number,
        protocol,
        endpoint,
        pool: written.connection_pool.as_ref().map(pool),
    }))
}

fn narrow(number: Option<u32>) -> Option<u16> {
    number
        .and_then(|number| u16::try_from(number).ok())
        .filter(|number| *number > 0)
}

/// The services that are imported, and those that are left out of them (`~namespace/host`). `~/…` names none.
fn egress(spec: &Sidecar, own: &str) -> (Vec<EgressHost>, Vec<EgressHost>) {
    let (mut hosts, mut excluded) = (Vec::new(), Vec::new());
    for listener in &spec.egress {
        let port = listener.port.as_ref().and_then(|p| narrow(p.number));
        for text in &listener.hosts {
            let Some((namespace, host)) = text.split_once('/') else {
                continue;
            };
            let (namespace, list) = match namespace.strip_prefix('~') {
                None => (namespace, &mut hosts),
                Some("") => continue,
                Some(namespace) => (namespace, &mut excluded),
            };
            list.push(EgressHost {
                namespace: match namespace {
                    "*" => None,
                    "." => Some(own.into()),
                    name => Some(name.into()),
                },
                host: host.trim_end_matches('.').to_ascii_lowercase().into(),
                port,
            });
        }
    }
    (hosts, excluded)
}

#[cfg(test)]
mod tests;
