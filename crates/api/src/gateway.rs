//! Gateway as users write it (Istio: networking.istio.io, `Gateway`).

use crate::fields::{Labels, Port};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Ports that load balancers at the mesh's edge open, and the hosts they serve.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Gateway {
    /// What is opened.
    pub servers: Vec<Server>,
    /// Labels of the gateway's pods, in any namespace.
    pub selector: Labels,
}

/// One port with the hosts it serves.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["port", "hosts"]))]
pub struct Server {
    /// The port.
    pub port: Option<Port>,
    /// Address to listen on; all when absent.
    pub bind: Option<String>,
    /// Hosts, as `[namespace/]name`; VirtualServices must match them. `*` and `*.suffix` are allowed.
    pub hosts: Vec<String>,
    /// TLS settings.
    pub tls: Option<ServerTlsSettings>,
    /// Not used.
    pub default_endpoint: Option<String>,
    /// A name, unique among all servers.
    pub name: Option<String>,
}

/// TLS settings of a server.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ServerTlsSettings {
    /// Answer every HTTP request with a redirect to HTTPS.
    pub https_redirect: Option<bool>,
    /// How TLS is served.
    pub mode: Option<ServerTlsMode>,
    /// Path of the certificate.
    pub server_certificate: Option<String>,
    /// Path of the key.
    pub private_key: Option<String>,
    /// Path of the certificates that clients are verified with.
    pub ca_certificates: Option<String>,
    /// Path of a revocation list.
    pub ca_crl: Option<String>,
    /// Name of the secret that holds certificate and key.
    pub credential_name: Option<String>,
    /// Names of one or two such secrets, with keys of different types.
    pub credential_names: Vec<String>,
    /// One or two certificates with keys of different types.
    pub tls_certificates: Vec<TlsCertificate>,
    /// Name of the secret or config map that holds the certificates that clients are verified with.
    pub ca_cert_credential_name: Option<String>,
    /// Names that clients' certificates may carry.
    pub subject_alt_names: Vec<String>,
    /// Base64 SHA-256 hashes of clients' public keys.
    pub verify_certificate_spki: Vec<String>,
    /// Hex SHA-256 hashes of clients' certificates.
    pub verify_certificate_hash: Vec<String>,
    /// Lowest protocol version; TLS 1.2 when absent.
    pub min_protocol_version: Option<TlsProtocol>,
    /// Highest protocol version.
    pub max_protocol_version: Option<TlsProtocol>,
    /// Cipher suites.
    pub cipher_suites: Vec<String>,
    /// Elliptic curves.
    pub ecdh_curves: Vec<String>,
    /// Whether clients' certificates are left unverified.
    pub insecure_skip_verify: Option<bool>,
}

/// A certificate and its key.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TlsCertificate {
    /// Path of the certificate.
    pub server_certificate: Option<String>,
    /// Path of the key.
    pub private_key: Option<String>,
    /// Path of the certificates that clients are verified with.
    pub ca_certificates: Option<String>,
}

/// How TLS is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ServerTlsMode {
    /// Passed through by server name.
    Passthrough,
    /// Ended here.
    Simple,
    /// Ended here; clients show a certificate.
    Mutual,
    /// Passed through; the server name says which service and port.
    AutoPassthrough,
    /// Ended here with the mesh's own certificates.
    IstioMutual,
    /// Ended here; clients may show a certificate.
    OptionalMutual,
}

/// Versions of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TlsProtocol {
    /// The best that both sides have.
    #[serde(rename = "TLS_AUTO")]
    Auto,
    /// TLS 1.0.
    #[serde(rename = "TLSV1_0")]
    V1_0,
    /// TLS 1.1.
    #[serde(rename = "TLSV1_1")]
    V1_1,
    /// TLS 1.2.
    #[serde(rename = "TLSV1_2")]
    V1_2,
    /// TLS 1.3.
    #[serde(rename = "TLSV1_3")]
    V1_3,
}
