//! `x-forwarded-client-cert`: what the application is told of its client's certificate (Envoy's format).

use crate::Context;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue};
use lateen_model::decide::plan::Direction;
use lateen_model::mesh::ForwardClientCert;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use std::fmt::Write;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
use x509_parser::x509::X509Name;

const FORWARDED_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");

/// The header's element for a client that showed the certificate `leaf` (DER) to us, who are `own` (a URI).
/// `with_pem` adds the certificate itself, as gateways do (Istio). Absent: it is no certificate.
pub fn element(own: Option<&str>, leaf: &[u8], with_pem: bool) -> Option<HeaderValue> {
    let (_, certificate) = X509Certificate::from_der(leaf).ok()?;
    let mut out = String::new();
    if let Some(own) = own {
        let _ = write!(out, "By={own};");
    }
    out.push_str("Hash=");
    for byte in digest(&SHA256, leaf).as_ref() {
        let _ = write!(out, "{byte:02x}");
    }
    if with_pem {
        let _ = write!(out, ";Cert=\"{}\"", encoded_pem(leaf));
    }
    let _ = write!(
        out,
        ";Subject=\"{}\"",
        quoted(&subject(certificate.subject()))
    );
    let names = certificate.subject_alternative_name().ok().flatten();
    for name in names.iter().flat_map(|names| &names.value.general_names) {
        let _ = match name {
            GeneralName::URI(uri) => write!(out, ";URI={}", plain(uri)?),
            GeneralName::DNSName(dns) => write!(out, ";DNS={}", plain(dns)?),
            _ => Ok(()),
        };
    }
    HeaderValue::from_str(&out).ok()
}

/// A certificate (DER) as percent-encoded PEM.
pub fn encoded_pem(der: &[u8]) -> String {
    utf8_percent_encode(&pem(der), NON_ALPHANUMERIC).to_string()
}

/// Sets, keeps or removes the header.
pub(super) fn on_request(cx: &Context, headers: &mut HeaderMap) {
    let mode = match cx.direction {
        Direction::Outbound => ForwardClientCert::Sanitize,
        Direction::Inbound => ForwardClientCert::AppendForward,
        Direction::Gateway => cx.edge.client_cert,
    };
    let element = cx.client.certificate.as_ref();
    match (mode, element) {
        (ForwardClientCert::AlwaysForwardOnly, _) | (ForwardClientCert::ForwardOnly, Some(_)) => {}
        (ForwardClientCert::AppendForward, Some(element)) => append(headers, element),
        (ForwardClientCert::SanitizeSet, Some(element)) => {
            headers.insert(FORWARDED_CERT, element.clone());
        }
        _ => {
            headers.remove(FORWARDED_CERT);
        }
    }
}

fn append(headers: &mut HeaderMap, element: &HeaderValue) {
    let earlier = headers.get_all(FORWARDED_CERT).iter();
    let mut all: Vec<&[u8]> = earlier.map(HeaderValue::as_bytes).collect();
    all.push(element.as_bytes());
    if let Ok(value) = HeaderValue::from_bytes(&all.join(&b","[..])) {
        headers.insert(FORWARDED_CERT, value);
    }
}

// A name with a separator could say things that the certificate does not.
fn plain(name: &str) -> Option<&str> {
    let bad = |b: u8| matches!(b, b';' | b',' | b'"' | b'=' | b'\\') || !b.is_ascii_graphic();
    (!name.bytes().any(bad)).then_some(name)
}

fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars().filter(|c| !c.is_control()) {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

// RFC 2253: the most specific part first.
fn subject(name: &X509Name<'_>) -> String {
    let mut parts: Vec<String> = Vec::new();
    for attribute in name.iter_attributes() {
        let oid = attribute.attr_type().to_id_string();
        let short = match oid.as_str() {
            "2.5.4.3" => "CN",
            "2.5.4.6" => "C",
            "2.5.4.7" => "L",
            "2.5.4.8" => "ST",
            "2.5.4.10" => "O",
            "2.5.4.11" => "OU",
            other => other,
        };
        let value = attribute.as_str().unwrap_or_default();
        parts.push(format!("{short}={}", value.replace(',', "\\,")));
    }
    parts.reverse();
    parts.join(",")
}

fn pem(der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let mut out = "-----BEGIN CERTIFICATE-----\n".to_owned();
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(64));
        out.push_str(line);
        out.push('\n');
        rest = more;
    }
    out + "-----END CERTIFICATE-----\n"
}
