//! Gateways: servers, ports, hosts, TLS.

use super::{Findings, is_label};
use crate::gateway::{Gateway, Server, ServerTlsMode, ServerTlsSettings, TlsProtocol};
use crate::meta::Config;
use crate::notice::{Notice, Subject};
use crate::path;
use base64::Engine;

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
    let has_credential = is_given(tls.credential_name.as_ref())
        || !tls.credential_names.is_empty()
        || !tls.tls_certificates.is_empty();
    let has_files = is_given(tls.server_certificate.as_ref()) && is_given(tls.private_key.as_ref());
    let mode = tls.mode.unwrap_or(ServerTlsMode::Passthrough);
    match mode {
        ServerTlsMode::Simple | ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual
            if !has_credential && !has_files =>
        {
            f.error(
                field,
                "has no certificate: give credentialName, or serverCertificate and privateKey",
            );
        }
        ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual
            if !has_credential && !is_given(tls.ca_certificates.as_ref()) && tls.insecure_skip_verify != Some(true) =>
        {
            f.error(
                format!("{field}.caCertificates"),
                "is missing: clients' certificates could not be verified",
            );
        }
        ServerTlsMode::IstioMutual if has_credential || has_files => {
            f.error(
                field,
                "ISTIO_MUTUAL uses the mesh's own certificates: remove the others",
            );
        }
        ServerTlsMode::Passthrough if has_credential || has_files => f.warning(
            field,
            "PASSTHROUGH, the mode when none is given, uses no certificate: set mode SIMPLE to end TLS here",
        ),
        _ => {}
    }
    credentials(f, field, tls, has_files);
    versions(f, field, tls);
    for (i, hash) in tls.verify_certificate_hash.iter().enumerate() {
        let plain = hash.replace(':', "");
        if plain.len() != 64 || !plain.bytes().all(|b| b.is_ascii_hexdigit()) {
            let field = format!("{field}.verifyCertificateHash[{i}]");
            f.error(
                field,
                format!("{hash:?} is not a SHA-256 hash: it has 64 hexadecimal digits"),
            );
        }
    }
    for (i, hash) in tls.verify_certificate_spki.iter().enumerate() {
        let bytes = base64::engine::general_purpose::STANDARD.decode(hash);
        if !bytes.is_ok_and(|bytes| bytes.len() == 32) {
            let field = format!("{field}.verifyCertificateSpki[{i}]");
            f.error(field, format!("{hash:?} is not a SHA-256 hash in base64"));
        }
    }
}

/// Ways to name certificates, of which there is one.
fn credentials(f: &mut Findings, field: &str, tls: &ServerTlsSettings, has_files: bool) {
    let given = [
        is_given(tls.credential_name.as_ref()),
        !tls.credential_names.is_empty(),
        !tls.tls_certificates.is_empty(),
        has_files,
    ];
    if given.into_iter().filter(|given| *given).count() > 1 {
        f.error(
            field,
            "credentialName, credentialNames, tlsCertificates and serverCertificate exclude each other: keep one of them",
        );
    }
    for (name, count) in [
        ("credentialNames", tls.credential_names.len()),
        ("tlsCertificates", tls.tls_certificates.len()),
    ] {
        if count > 2 {
            let message =
                format!("has {count} entries; two are allowed, with keys of different types");
            f.error(format!("{field}.{name}"), message);
        }
    }
    let one = tls.credential_name.iter();
    let one = one.map(|text| ("credentialName".to_owned(), text));
    let ca = tls.ca_cert_credential_name.iter();
    let ca = ca.map(|text| ("caCertCredentialName".to_owned(), text));
    let listed = tls.credential_names.iter().enumerate();
    let listed = listed.map(|(i, text)| (format!("credentialNames[{i}]"), text));
    for (name, text) in one.chain(ca).chain(listed) {
        let elsewhere = [
            "sds://",
            "file-cert:",
            "file-root:",
            "builtin://",
            "invalid://",
        ];
        if elsewhere.iter().any(|scheme| text.starts_with(scheme)) {
            let message = format!("{text:?} is not a secret: name one of the gateway's namespace");
            f.error(format!("{field}.{name}"), message);
        }
    }
}

/// Whether a name is there; an empty one is not (protobuf JSON).
fn is_given(name: Option<&String>) -> bool {
    name.is_some_and(|name| !name.is_empty())
}

fn versions(f: &mut Findings, field: &str, tls: &ServerTlsSettings) {
    let rank = |version: Option<TlsProtocol>| match version? {
        TlsProtocol::Auto => None,
        TlsProtocol::V1_0 => Some(0),
        TlsProtocol::V1_1 => Some(1),
        TlsProtocol::V1_2 => Some(2),
        TlsProtocol::V1_3 => Some(3),
    };
    let least = rank(tls.min_protocol_version);
    let most = rank(tls.max_protocol_version);
    if let (Some(least), Some(most)) = (least, most)
        && least > most
    {
        f.error(
            format!("{field}.maxProtocolVersion"),
            "is lower than minProtocolVersion: no client could connect",
        );
    }
}
