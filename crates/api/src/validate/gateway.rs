//! Gateways: servers, ports, hosts, TLS.

use super::{Findings, is_label};
use crate::gateway::{Gateway, Server, ServerTlsMode, ServerTlsSettings};
use crate::meta::Config;
use crate::notice::{Notice, Subject};
use crate::path;

/// Protocols of a gateway's port, in upper case.
const PROTOCOLS: [&str; 8] = [
    "HTTP", "HTTPS", "GRPC", "GRPC-WEB", "HTTP2", "MONGO", "TCP", "TLS",
];

/// Validates a Gateway.
pub fn gateway(config: &Config<Gateway>) -> Vec<Notice> {
    let spec = &config.spec;
    let mut findings = Findings::new(Subject::new("Gateway", &config.meta));
    let f = &mut findings;
    if spec.servers.is_empty() {
        f.error("spec.servers", "is empty: add a server with port and hosts");
    }
    if spec.selector.is_empty() {
        f.error(
            "spec.selector",
            "is empty: name the gateway's pods by their labels, such as istio: ingressgateway",
        );
    }
    for (i, one) in spec.servers.iter().enumerate() {
        server(f, &path::index("spec.servers", i), one);
        let name = |s: &Server| s.port.as_ref().and_then(|p| p.name.clone());
        let first = spec.servers.iter().position(|s| name(s) == name(one));
        if name(one).is_some() && first != Some(i) {
            f.error(
                format!("spec.servers[{i}].port.name"),
                "is used by another server: port names must differ",
            );
        }
    }
    findings.notices
}

fn server(f: &mut Findings, field: &str, server: &Server) {
    let port = server.port.as_ref();
    f.port(&format!("{field}.port.number"), port.and_then(|p| p.number));
    let protocol = port
        .and_then(|p| p.protocol.as_deref())
        .unwrap_or_default()
        .to_ascii_uppercase();
    if !PROTOCOLS.contains(&protocol.as_str()) {
        let field = format!("{field}.port.protocol");
        let known = PROTOCOLS.join(", ");
        f.error(
            field,
            format!("{protocol:?} is not a protocol of gateways; use one of {known}"),
        );
    }
    if port
        .and_then(|p| p.name.as_deref())
        .unwrap_or_default()
        .is_empty()
    {
        f.error(
            format!("{field}.port.name"),
            "is missing: give the port a name",
        );
    }
    if server.hosts.is_empty() {
        f.error(
            format!("{field}.hosts"),
            "is empty: name hosts, or \"*\" for all",
        );
    }
    for (i, host) in server.hosts.iter().enumerate() {
        let field = format!("{field}.hosts[{i}]");
        let name = match host.split_once('/') {
            Some((namespace, name)) => {
                if !matches!(namespace, "*" | ".") && !is_label(namespace) {
                    f.error(
                        &field,
                        format!("{namespace:?} is not a namespace; use a name, \".\" or \"*\""),
                    );
                }
                name
            }
            None => host.as_str(),
        };
        f.host(&field, name);
    }
    match (&*protocol, &server.tls) {
        ("HTTPS" | "TLS", None) => f.error(
            format!("{field}.tls"),
            "is missing: HTTPS and TLS servers need TLS settings",
        ),
        ("HTTPS" | "TLS", Some(tls)) => server_tls(f, &format!("{field}.tls"), tls),
        (_, Some(tls)) if tls.https_redirect != Some(true) && tls.mode.is_some() => f.warning(
            format!("{field}.tls"),
            format!("has no effect on a {protocol} port: use protocol HTTPS or TLS"),
        ),
        _ => {}
    }
}

fn server_tls(f: &mut Findings, field: &str, tls: &ServerTlsSettings) {
    if tls.https_redirect == Some(true) {
        f.error(
            format!("{field}.httpsRedirect"),
            "is for plain HTTP ports: put it on a server with protocol HTTP",
        );
    }
    let has_credential = tls.credential_name.is_some()
        || !tls.credential_names.is_empty()
        || !tls.tls_certificates.is_empty();
    let has_files = tls.server_certificate.is_some() && tls.private_key.is_some();
    match tls.mode.unwrap_or(ServerTlsMode::Passthrough) {
        ServerTlsMode::Simple | ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual
            if !has_credential && !has_files =>
        {
            f.error(
                field,
                "has no certificate: give credentialName, or serverCertificate and privateKey",
            );
        }
        ServerTlsMode::IstioMutual if has_credential || has_files => {
            f.error(
                field,
                "ISTIO_MUTUAL uses the mesh's own certificates: remove the others",
            );
        }
        _ => {}
    }
}
