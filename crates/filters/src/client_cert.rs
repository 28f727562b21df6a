//! `x-forwarded-client-cert`: what the application is told of its client's certificate (Envoy's format).

use crate::Context;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue};
use lateen_model::decide::plan::Direction;
use lateen_model::mesh::ForwardClientCert;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use std::fmt::Write;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
use x509_parser::x509::X509Name;

const FORWARDED_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");

/// What Envoy encodes in a certificate.
const IN_PEM: &AsciiSet = &CONTROLS.add(b' ').add(b'+').add(b'/').add(b'=');

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
    // Its own escapes are those of a quoted value, too.
    let _ = write!(out, ";Subject=\"{}\"", subject(certificate.subject()));
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
    utf8_percent_encode(&pem(der), IN_PEM).to_string()
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

// RFC 2253, as OpenSSL and Envoy write it: the most specific part first, every byte that is no plain ASCII escaped.
fn subject(name: &X509Name<'_>) -> String {
    let mut parts: Vec<String> = Vec::new();
    for set in name.iter_rdn() {
        for (at, attribute) in set.iter().enumerate() {
            let oid = attribute.attr_type().to_id_string();
            let value = attribute.attr_value();
            let text = attribute.as_str().map_or(value.data, str::as_bytes);
            let said = match short_name(&oid) {
                Some(short) => format!("{short}={}", escaped(text)),
                // Nobody knows what it means: its bytes.
                None => format!("{oid}=#{}", hex(value.data)),
            };
            parts.push(if at == 0 { said } else { format!("{said}+") });
        }
    }
    let mut out = String::new();
    for part in parts.iter().rev() {
        if !out.is_empty() && !out.ends_with('+') {
            out.push(',');
        }
        out.push_str(part);
    }
    out
}

fn short_name(oid: &str) -> Option<&'static str> {
    Some(match oid {
        "2.5.4.3" => "CN",
        "2.5.4.4" => "SN",
        "2.5.4.5" => "serialNumber",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "street",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "2.5.4.12" => "title",
        "2.5.4.42" => "GN",
        "0.9.2342.19200300.100.1.1" => "UID",
        "0.9.2342.19200300.100.1.25" => "DC",
        "1.2.840.113549.1.9.1" => "emailAddress",
        _ => return None,
    })
}

fn escaped(text: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    for (at, byte) in text.iter().copied().enumerate() {
        let is_edge = at == 0 || at + 1 == text.len();
        match byte {
            b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';' => {
                out.push('\\');
                out.push(char::from(byte));
            }
            b'#' if at == 0 => out.push_str("\\#"),
            b' ' if is_edge => out.push_str("\\ "),
            b' '..=b'~' => out.push(char::from(byte)),
            _ => {
                let _ = write!(out, "\\{byte:02X}");
            }
        }
    }
    out
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
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
