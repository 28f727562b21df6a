//! TLS settings of both ends as users' objects ask for them. Certificates and handshakes are elsewhere.

use lateen_base::Str;
use serde::Serialize;

/// Versions of TLS that are spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum TlsVersion {
    /// TLS 1.2.
    V1_2,
    /// TLS 1.3.
    V1_3,
}

/// How connections to endpoints are secured (Istio: `ClientTLSSettings`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct ClientTls {
    /// The mode.
    pub mode: ClientTlsMode,
    /// Names of which the server's certificate must carry one; empty: the server name that is sent (SIMPLE, MUTUAL), or
    /// the endpoint's own identity (ISTIO_MUTUAL).
    pub sans: Vec<Str>,
    /// Server name to send; absent: the request's host, or Istio's `outbound_.…` name (ISTIO_MUTUAL).
    pub sni: Option<Str>,
    /// Secret with certificates, in the proxy's namespace; absent: `files`.
    pub credential: Option<Str>,
    /// Files with certificates.
    pub files: CertificateFiles,
    /// Whether the server's certificate is not verified.
    pub skip_verify: bool,
}

/// Modes of [`ClientTls`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub enum ClientTlsMode {
    /// Plain text, also to endpoints that could do mutual TLS.
    Disable,
    /// TLS; the server is verified with `ca`, else with the system's roots.
    Simple,
    /// TLS with a client certificate.
    Mutual,
    /// Mutual TLS with the mesh's certificates.
    IstioMutual,
}

/// Paths of PEM files; absent ones are not used.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize)]
pub struct CertificateFiles {
    /// Certificate chain.
    pub chain: Option<Str>,
    /// Private key.
    pub key: Option<Str>,
    /// Certificates that the peer is verified with.
    pub ca: Option<Str>,
    /// Revocation lists.
    pub crl: Option<Str>,
}

/// How a gateway's server ends TLS (Istio: `ServerTLSSettings`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct ServerTls {
    /// The mode.
    pub mode: ServerTlsMode,
    /// Secrets with certificates, in the gateway's namespace (`name`), first choice first; empty: `files`.
    pub credentials: Vec<Str>,
    /// Secret or ConfigMap with the certificates that clients are verified with; absent: those of `credentials`
    /// (field `ca.crt`/`cacert`, or the secret `<name>-cacert`).
    pub ca_credential: Option<Str>,
    /// Files with certificates.
    pub files: Vec<CertificateFiles>,
    /// Names of which a client's certificate must carry one; empty: any.
    pub sans: Vec<Str>,
    /// Base64 SHA-256 hashes of which a client's public key must have one; empty: any.
    pub spki: Vec<Str>,
    /// Hexadecimal SHA-256 hashes (lower case, no colons) of which a client's certificate must have one; empty: any.
    pub hashes: Vec<Str>,
    /// Lowest version.
    pub min: TlsVersion,
    /// Highest version.
    pub max: TlsVersion,
    /// Cipher suites for TLS 1.2 by OpenSSL's names; empty: the safe ones.
    pub ciphers: Vec<Str>,
    /// Groups for key exchange, by the names `X25519MLKEM768`, `X25519`, `P-256`, `P-384`; empty: all of them.
    pub curves: Vec<Str>,
    /// Whether clients' certificates are asked for and not verified.
    pub skip_verify: bool,
}

/// Modes of [`ServerTls`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub enum ServerTlsMode {
    /// Clients show no certificate.
    Simple,
    /// Clients must show a certificate.
    Mutual,
    /// Clients may show a certificate; one that is shown must be good.
    OptionalMutual,
    /// Clients are members of the mesh.
    IstioMutual,
}
