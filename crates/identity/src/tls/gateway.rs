//! TLS that a gateway's server ends (Gateway modes SIMPLE, MUTUAL and OPTIONAL_MUTUAL). ISTIO_MUTUAL is [`super::MeshTls`].

use super::outside::{Outside, OutsideClient, Peers};
use super::{TlsError, explain, protocols, provider, refused, versions};
use crate::certificate::{Facts, show};
use crate::pem;
use lateen_base::Str;
use lateen_model::tls::{ServerTls, ServerTlsMode};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{Ticketer, cipher_suite};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{NamedGroup, ProtocolVersion, ServerConfig, SupportedCipherSuite};
use rustls_pki_types::{CertificateDer, UnixTime};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// TLS 1.2 suites by OpenSSL's names. Those without forward secrecy or authenticated encryption are not spoken.
const SUITES: [(&str, SupportedCipherSuite); 6] = [
    (
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "ECDHE-RSA-AES128-GCM-SHA256",
        cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "ECDHE-RSA-AES256-GCM-SHA384",
        cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "ECDHE-RSA-CHACHA20-POLY1305",
        cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
];

/// What a gateway's server shows and asks for.
#[derive(Clone, Copy)]
pub struct GatewayOptions<'a> {
    /// The user's settings; names of secrets and files in it are not looked at.
    pub tls: &'a ServerTls,
    /// Certificate chains and keys as PEM, such as one ECDSA and one RSA; the first that the client can verify is shown.
    pub certificates: &'a [(&'a str, &'a str)],
    /// What clients are verified with, as PEM.
    pub ca: Option<&'a str>,
    /// Revocation lists for clients as PEM; empty: none.
    pub crl: &'a str,
    /// Protocols to choose from, best first; empty: ALPN is not answered.
    pub alpn: &'a [&'a str],
}

/// Settings for accepting, and warnings (a certificate that has expired, a cipher suite that is not spoken).
///
/// # Errors
/// A text is malformed, a key is not its certificate's, there is no certificate, the mode needs a CA and there is
/// none, or no cipher suite or version is left.
pub fn gateway_server(
    options: &GatewayOptions<'_>,
) -> Result<(Arc<ServerConfig>, Vec<String>), TlsError> {
    let tls = options.tls;
    let mut warnings = Vec::new();
    let shown = certificates(options.certificates, &mut warnings)?;
    let provider = with_curves(with_ciphers(&tls.ciphers, &mut warnings)?, &tls.curves);
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions(tls.min, tls.max)?)
        .map_err(refused)?;
    let builder = match clients(options, &mut warnings)? {
        None => builder.with_no_client_auth(),
        Some(clients) => builder.with_client_cert_verifier(Arc::new(clients)),
    };
    let mut server = builder.with_cert_resolver(Arc::new(shown));
    server.alpn_protocols = protocols(options.alpn);
    server.enable_secret_extraction = true;
    if tls.mode == ServerTlsMode::Simple {
        server.ticketer = Ticketer::new().map_err(refused)?;
        server.send_tls13_tickets = 1;
    } else {
        // A resumed session would carry a client's certificate past its end.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
    }
    Ok((Arc::new(server), warnings))
}

fn clients(
    options: &GatewayOptions<'_>,
    warnings: &mut Vec<String>,
) -> Result<Option<OutsideClient>, TlsError> {
    let tls = options.tls;
    let required = match tls.mode {
        ServerTlsMode::Simple => return Ok(None),
        ServerTlsMode::Mutual => true,
        ServerTlsMode::OptionalMutual => false,
        ServerTlsMode::IstioMutual => {
            return Err(TlsError::Missing(
                "mode ISTIO_MUTUAL takes the mesh's certificates, not those of secrets",
            ));
        }
    };
    if options.ca.is_none() && !tls.skip_verify {
        return Err(TlsError::Missing(
            "there is no CA to verify clients with: put ca.crt (or cacert) into the secret, make a secret <name>-cacert, or set caCertCredentialName",
        ));
    }
    let peers = Peers {
        roots: options.ca.filter(|_| !tls.skip_verify),
        crl: options.crl,
        sans: &tls.sans,
        spki: &tls.spki,
        hashes: &tls.hashes,
    };
    Ok(Some(OutsideClient {
        peers: Outside::new(peers, warnings)?,
        required,
    }))
}

/// What a gateway's server verifies clients with, for looking at those again that are connected.
#[derive(Debug)]
pub struct GatewayClients(Option<OutsideClient>);

impl GatewayClients {
    /// Reads it; `certificates` and `alpn` of the options are not looked at.
    ///
    /// # Errors
    /// As [`gateway_server`], as far as it is about clients.
    pub fn of(options: &GatewayOptions<'_>) -> Result<Self, TlsError> {
        // Whoever made the server's settings has heard the warnings.
        clients(options, &mut Vec::new()).map(Self)
    }

    /// Whether a client with this chain, leaf first, would be let in at `now`.
    ///
    /// # Errors
    /// It would not: why, as one sentence.
    pub fn verify(&self, chain: &[CertificateDer<'_>], now: SystemTime) -> Result<(), String> {
        let Some(clients) = &self.0 else {
            return Ok(());
        };
        let Some((leaf, intermediates)) = chain.split_first() else {
            return match clients.required {
                true => Err("it showed no certificate, and the server wants one now".to_owned()),
                false => Ok(()),
            };
        };
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = UnixTime::since_unix_epoch(since);
        let done = clients.verify_client_cert(leaf, intermediates, now);
        done.map(drop).map_err(|error| explain(&error))
    }
}

/// The certificates of a server.
#[derive(Debug)]
struct Shown(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let usable =
            |key: &&Arc<CertifiedKey>| key.key.choose_scheme(hello.signature_schemes()).is_some();
        self.0.iter().find(usable).cloned()
    }
}

fn certificates(pairs: &[(&str, &str)], warnings: &mut Vec<String>) -> Result<Shown, TlsError> {
    let mut out = Vec::new();
    for (chain, key) in pairs {
        let what = "the certificate";
        let chain = pem::certificates(chain).map_err(|source| TlsError::Pem { what, source })?;
        warn_of_dates(&chain[0], what, warnings);
        let what = "the private key";
        let key = pem::private_key(key).map_err(|source| TlsError::Pem { what, source })?;
        let certified = CertifiedKey::from_der(chain, key, provider()).map_err(refused)?;
        out.push(Arc::new(certified));
    }
    if out.is_empty() {
        return Err(TlsError::Missing("the server has no certificate"));
    }
    Ok(Shown(out))
}

/// Expired certificates are shown all the same: a client that verifies says so better than a closed port.
pub(super) fn warn_of_dates(leaf: &CertificateDer<'_>, what: &str, warnings: &mut Vec<String>) {
    let Ok(facts) = Facts::of(leaf) else { return };
    let now = SystemTime::now();
    if facts.not_after < now {
        warnings.push(format!("{what} expired at {}", show(facts.not_after)));
    } else if now < facts.not_before {
        warnings.push(format!(
            "{what} is valid from {} on",
            show(facts.not_before)
        ));
    }
}

/// The same with these groups alone, in their order; those that are not known are left out, and without any stay all.
fn with_curves(provider: Arc<CryptoProvider>, wanted: &[Str]) -> Arc<CryptoProvider> {
    let group = |name: &Str| match &**name {
        "X25519MLKEM768" => Some(NamedGroup::X25519MLKEM768),
        "X25519" => Some(NamedGroup::X25519),
        "P-256" => Some(NamedGroup::secp256r1),
        "P-384" => Some(NamedGroup::secp384r1),
        _ => None,
    };
    let all = &provider.kx_groups;
    let chosen: Vec<_> = wanted
        .iter()
        .filter_map(group)
        .filter_map(|name| all.iter().find(|group| group.name() == name).copied())
        .collect();
    if chosen.is_empty() {
        return provider;
    }
    let mut out = CryptoProvider::clone(&provider);
    out.kx_groups = chosen;
    Arc::new(out)
}

fn with_ciphers(
    wanted: &[Str],
    warnings: &mut Vec<String>,
) -> Result<Arc<CryptoProvider>, TlsError> {
    if wanted.is_empty() {
        return Ok(provider().clone());
    }
    let mut chosen = Vec::new();
    for name in wanted {
        match SUITES.iter().find(|(known, _)| **known == **name) {
            Some((_, suite)) => chosen.push(*suite),
            None => warnings.push(format!(
                "the cipher suite {name} is not supported and left out"
            )),
        }
    }
    if chosen.is_empty() {
        return Err(TlsError::NoCipher(wanted.join(", ")));
    }
    let mut out = CryptoProvider::clone(provider());
    out.cipher_suites.retain(|suite| {
        suite.version().version == ProtocolVersion::TLSv1_3 || chosen.contains(suite)
    });
    Ok(Arc::new(out))
}
