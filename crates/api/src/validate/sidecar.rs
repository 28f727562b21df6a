//! Sidecars: listeners and the hosts they name.

use super::{Findings, is_label};
use crate::meta::Config;
use crate::notice::{Notice, Subject};
use crate::path;
use crate::sidecar::{CaptureMode, EgressListener, IngressListener, Sidecar};

/// Validates a Sidecar.
pub fn sidecar(config: &Config<Sidecar>) -> Vec<Notice> {
    let spec = &config.spec;
    let mut findings = Findings::new(Subject::new("Sidecar", &config.meta));
    let f = &mut findings;
    for (i, listener) in spec.egress.iter().enumerate() {
        egress(f, &path::index("spec.egress", i), listener);
    }
    let without_port = spec.egress.iter().filter(|l| l.port.is_none()).count();
    let last_has_port = spec.egress.last().is_some_and(|l| l.port.is_some());
    if without_port > 1 || (without_port == 1 && last_has_port) {
        f.error(
            "spec.egress",
            "only the last listener may be without a port: it takes what the others leave",
        );
    }
    for (i, listener) in spec.ingress.iter().enumerate() {
        ingress(f, &path::index("spec.ingress", i), listener);
    }
    if let Some(proxy) = spec
        .outbound_traffic_policy
        .as_ref()
        .and_then(|policy| policy.egress_proxy.as_ref())
    {
        f.host("spec.outboundTrafficPolicy.egressProxy.host", &proxy.host);
    }
    findings.notices
}

fn egress(f: &mut Findings, field: &str, listener: &EgressListener) {
    if let Some(port) = &listener.port {
        f.port(&format!("{field}.port.number"), port.number);
    }
    if listener.hosts.is_empty() {
        f.error(
            format!("{field}.hosts"),
            "is empty: name hosts as namespace/host, such as ./*",
        );
    }
    for (i, host) in listener.hosts.iter().enumerate() {
        let field = format!("{field}.hosts[{i}]");
        let Some((namespace, name)) = host.split_once('/') else {
            f.error(
                field,
                format!("{host:?} has no namespace: write namespace/host, such as */{host}"),
            );
            continue;
        };
        let bare = namespace.strip_prefix('~').unwrap_or(namespace);
        let is_known =
            matches!(namespace, "*" | "." | "~") || matches!(bare, "*" | ".") || is_label(bare);
        if !is_known {
            f.error(
                &field,
                format!("{namespace:?} is not a namespace; use a name, \".\", \"*\" or \"~\""),
            );
        }
        f.host(&field, name);
    }
}

fn ingress(f: &mut Findings, field: &str, listener: &IngressListener) {
    f.port(
        &format!("{field}.port.number"),
        listener.port.as_ref().and_then(|p| p.number),
    );
    if listener.capture_mode == Some(CaptureMode::None) && listener.bind.is_none() {
        f.warning(
            format!("{field}.bind"),
            "is missing: without capture, clients must connect to an address that you name",
        );
    }
    if let Some(endpoint) = &listener.default_endpoint {
        let is_socket = endpoint.starts_with("unix://");
        let is_local = endpoint.rsplit_once(':').is_some_and(|(ip, port)| {
            matches!(ip, "127.0.0.1" | "0.0.0.0" | "[::1]" | "[::]")
                && port.parse::<u16>().is_ok_and(|p| p > 0)
        });
        if !is_socket && !is_local {
            f.error(
                format!("{field}.defaultEndpoint"),
                format!("{endpoint:?} is not 127.0.0.1:port, 0.0.0.0:port or a unix:// path"),
            );
        }
    }
}
