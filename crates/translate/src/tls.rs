//! TLS settings of DestinationRules and Gateways → the model's. Whether certificates exist is not looked at here.

use lateen_api::destination_rule::{ClientTlsMode as WrittenClientMode, ClientTlsSettings};
use lateen_api::gateway::{ServerTlsMode as WrittenServerMode, ServerTlsSettings, TlsProtocol};
use lateen_api::notice::{Notice, Subject};
use lateen_base::Str;
use lateen_model::tls::{
    CertificateFiles, ClientTls, ClientTlsMode, ServerTls, ServerTlsMode, TlsVersion,
};

/// Cipher suites of TLS 1.2 that are spoken, by OpenSSL's names: forward secret and authenticated ones only.
pub const CIPHERS: [&str; 6] = [
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-RSA-CHACHA20-POLY1305",
];

/// Groups for key exchange that are spoken, by Envoy's names.
pub const CURVES: [&str; 4] = ["X25519MLKEM768", "X25519", "P-256", "P-384"];

fn path(text: Option<&String>) -> Option<Str> {
    text.filter(|text| !text.is_empty())
        .map(|text| text.as_str().into())
}

fn list(texts: &[String]) -> Vec<Str> {
    texts.iter().map(|text| text.as_str().into()).collect()
}

/// A secret's name; `kubernetes://` before it says nothing new.
fn credential(text: &str) -> Str {
    let text = text.strip_prefix("kubernetes://").unwrap_or(text);
    text.strip_prefix("kubernetes-gateway://")
        .unwrap_or(text)
        .into()
}

/// How connections to endpoints are secured. Without a mode: plain text (Istio: `DISABLE` is the enum's zero).
pub fn client(tls: &ClientTlsSettings) -> ClientTls {
    ClientTls {
        mode: match tls.mode {
            None | Some(WrittenClientMode::Disable) => ClientTlsMode::Disable,
            Some(WrittenClientMode::Simple) => ClientTlsMode::Simple,
            Some(WrittenClientMode::Mutual) => ClientTlsMode::Mutual,
            Some(WrittenClientMode::IstioMutual) => ClientTlsMode::IstioMutual,
        },
        sans: list(&tls.subject_alt_names),
        sni: path(tls.sni.as_ref()),
        credential: path(tls.credential_name.as_ref()).map(|name| credential(&name)),
        files: CertificateFiles {
            chain: path(tls.client_certificate.as_ref()),
            key: path(tls.private_key.as_ref()),
            ca: path(tls.ca_certificates.as_ref()),
            crl: path(tls.ca_crl.as_ref()),
        },
        skip_verify: tls.insecure_skip_verify == Some(true),
    }
}

/// The mode in which a gateway's server ends TLS; absent: it passes TLS through.
pub fn server_mode(tls: &ServerTlsSettings) -> Option<ServerTlsMode> {
    match tls.mode? {
        WrittenServerMode::Passthrough | WrittenServerMode::AutoPassthrough => None,
        WrittenServerMode::Simple => Some(ServerTlsMode::Simple),
        WrittenServerMode::Mutual => Some(ServerTlsMode::Mutual),
        WrittenServerMode::OptionalMutual => Some(ServerTlsMode::OptionalMutual),
        WrittenServerMode::IstioMutual => Some(ServerTlsMode::IstioMutual),
    }
}

/// How a gateway's server ends TLS in `mode`; what is not done as written is told.
pub fn server(
    tls: &ServerTlsSettings,
    mode: ServerTlsMode,
    field: &str,
    subject: &Subject,
    notices: &mut Vec<Notice>,
) -> ServerTls {
    let mut warn = |name: &str, message: String| {
        notices.push(Notice::warning(subject, format!("{field}.{name}"), message));
    };
    let ciphers = ciphers(tls, &mut warn);
    let curves = curves(tls, &mut warn);
    let one = tls.credential_name.iter();
    let credentials = one
        .chain(&tls.credential_names)
        .filter(|name| !name.is_empty())
        .map(|name| credential(name))
        .collect();
    ServerTls {
        mode,
        credentials,
        ca_credential: path(tls.ca_cert_credential_name.as_ref()).map(|name| credential(&name)),
        files: files(tls),
        sans: list(&tls.subject_alt_names),
        spki: list(&tls.verify_certificate_spki),
        hashes: tls
            .verify_certificate_hash
            .iter()
            .map(|hash| hash.replace(':', "").to_ascii_lowercase().into())
            .collect(),
        min: version(tls.min_protocol_version, "minProtocolVersion", &mut warn)
            .unwrap_or(TlsVersion::V1_2),
        max: version(tls.max_protocol_version, "maxProtocolVersion", &mut warn)
            .unwrap_or(TlsVersion::V1_3),
        ciphers,
        curves,
        skip_verify: tls.insecure_skip_verify == Some(true),
    }
}

fn ciphers(tls: &ServerTlsSettings, warn: &mut impl FnMut(&str, String)) -> Vec<Str> {
    let mut spoken: Vec<Str> = Vec::new();
    for (i, name) in tls.cipher_suites.iter().enumerate() {
        if CIPHERS.contains(&name.as_str()) {
            if !spoken.iter().any(|known| **known == **name) {
                spoken.push(name.as_str().into());
            }
            continue;
        }
        let known = CIPHERS.join(", ");
        warn(
            &format!("cipherSuites[{i}]"),
            format!("{name:?} is not spoken and left out; those of TLS 1.2 are {known}"),
        );
    }
    if spoken.is_empty() && !tls.cipher_suites.is_empty() {
        let message = "none of them is spoken: clients of TLS 1.2 get the safe ones";
        warn("cipherSuites", message.to_owned());
    }
    spoken
}

fn curves(tls: &ServerTlsSettings, warn: &mut impl FnMut(&str, String)) -> Vec<Str> {
    let mut spoken: Vec<Str> = Vec::new();
    for (i, name) in tls.ecdh_curves.iter().enumerate() {
        match CURVES.iter().find(|known| known.eq_ignore_ascii_case(name)) {
            Some(known) if spoken.iter().any(|have| **have == **known) => {}
            Some(known) => spoken.push((*known).into()),
            None => {
                let known = CURVES.join(", ");
                let message = format!("{name:?} is not spoken and left out; spoken are {known}");
                warn(&format!("ecdhCurves[{i}]"), message);
            }
        }
    }
    if spoken.is_empty() && !tls.ecdh_curves.is_empty() {
        let message = "none of them is spoken: clients get the safe ones";
        warn("ecdhCurves", message.to_owned());
    }
    spoken
}

/// Certificates in files: those of the settings themselves, then those of the list.
fn files(tls: &ServerTlsSettings) -> Vec<CertificateFiles> {
    let own = CertificateFiles {
        chain: path(tls.server_certificate.as_ref()),
        key: path(tls.private_key.as_ref()),
        ca: path(tls.ca_certificates.as_ref()),
        crl: path(tls.ca_crl.as_ref()),
    };
    let listed = tls.tls_certificates.iter().map(|one| CertificateFiles {
        chain: path(one.server_certificate.as_ref()),
        key: path(one.private_key.as_ref()),
        ca: path(one.ca_certificates.as_ref()).or_else(|| own.ca.clone()),
        crl: own.crl.clone(),
    });
    let is_given = own.chain.is_some() || own.key.is_some() || tls.tls_certificates.is_empty();
    let own = (is_given && own != CertificateFiles::default()).then(|| own.clone());
    own.into_iter().chain(listed).collect()
}

/// A version; absent: the default. TLS 1.0 and 1.1 are not spoken (RFC 8996).
pub(crate) fn version(
    written: Option<TlsProtocol>,
    name: &str,
    warn: &mut impl FnMut(&str, String),
) -> Option<TlsVersion> {
    match written? {
        TlsProtocol::Auto => None,
        TlsProtocol::V1_0 | TlsProtocol::V1_1 => {
            let message = "TLS 1.0 and 1.1 are broken and not spoken (RFC 8996): works as TLSV1_2";
            warn(name, message.to_owned());
            Some(TlsVersion::V1_2)
        }
        TlsProtocol::V1_2 => Some(TlsVersion::V1_2),
        TlsProtocol::V1_3 => Some(TlsVersion::V1_3),
    }
}
