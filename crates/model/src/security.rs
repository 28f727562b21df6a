//! Security as the mesh means it: who may call whom, and how callers are told apart. Data only;
//! `decide::authz` evaluates policies, `filters` verifies tokens.

use crate::name::{Origin, Visibility};
use ipnet::IpNet;
use lateen_base::Str;
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt;

/// Whether a server wants mutual TLS (Istio: `PeerAuthentication.mtls.mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum MtlsMode {
    /// Plain text only; TLS is passed to the application as it is.
    Disable,
    /// Both. Istio's default.
    Permissive,
    /// Mutual TLS only.
    Strict,
}

/// One PeerAuthentication. In the root namespace without labels it is for the whole mesh.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PeerAuthentication {
    /// The object.
    pub origin: Origin,
    /// Workloads of its namespace that it is for; empty: all.
    pub selector: BTreeMap<Str, Str>,
    /// The mode; absent (UNSET): what the wider object says.
    pub mode: Option<MtlsMode>,
    /// Modes of single ports of the workload; absent value (UNSET): as the object's own mode.
    pub ports: BTreeMap<u16, Option<MtlsMode>>,
}

/// What a policy is attached to. Both empty: every workload of the namespace, or of the mesh when the namespace is
/// the root namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Selection {
    /// Labels of workloads.
    pub labels: BTreeMap<Str, Str>,
    /// Objects; used instead of labels.
    pub targets: Vec<TargetRef>,
}

/// An object that a policy is attached to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TargetRef {
    /// Its kind: `Gateway` (of the Gateway API), `GatewayClass`, `Service` or `ServiceEntry`.
    pub kind: Str,
    /// Its name, in the policy's namespace.
    pub name: Str,
}

/// One RequestAuthentication. Rules of several objects are added up.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RequestAuthentication {
    /// The object.
    pub origin: Origin,
    /// What it is for.
    pub selection: Selection,
    /// Which proxies get it: all when its namespace is the root namespace, else those of its namespace.
    pub visibility: Visibility,
    /// Which tokens are taken. A request without a token passes, without a request principal.
    pub rules: Vec<JwtRule>,
}

/// Tokens of one issuer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct JwtRule {
    /// Value of the claim `iss`; absent: any (Istio allows that when the keys' URI is given).
    pub issuer: Option<Str>,
    /// Accepted values of the claim `aud`; empty: any.
    pub audiences: Vec<Str>,
    /// The keys.
    pub keys: JwtKeys,
    /// Headers to look in. With all three lists empty: `Authorization: Bearer` and the query parameter `access_token`.
    pub from_headers: Vec<TokenHeader>,
    /// Query parameters to look in.
    pub from_params: Vec<Str>,
    /// Cookies to look in.
    pub from_cookies: Vec<Str>,
    /// Whether the token travels on.
    pub forward_original: bool,
    /// Header that gets the payload, as base64url; absent: none.
    pub payload_header: Option<Str>,
    /// Headers that get single claims.
    pub claim_headers: Vec<ClaimHeader>,
    /// Claims whose text is a list separated by spaces, beside `scope` and `permission`.
    pub space_delimited: Vec<Str>,
}

/// Where the keys of a rule are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum JwtKeys {
    /// A JSON Web Key Set as text (RFC 7517).
    Inline(Str),
    /// The control plane has no keys: tokens of this rule are refused, whatever they are signed with.
    Unavailable {
        /// Where they were looked for.
        uri: Str,
        /// Why they are not here.
        reason: Str,
    },
}

/// A header that may carry a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TokenHeader {
    /// Name, lower case.
    pub name: Str,
    /// What the token follows in it, such as `Bearer `; empty: nothing.
    pub prefix: Str,
}

/// A header that gets a claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClaimHeader {
    /// Header, lower case.
    pub header: Str,
    /// Claim; nested ones are separated by dots.
    pub claim: Str,
}

/// One AuthorizationPolicy.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AuthorizationPolicy {
    /// The object.
    pub origin: Origin,
    /// What it is for.
    pub selection: Selection,
    /// Which proxies get it: all when its namespace is the root namespace, else those of its namespace.
    pub visibility: Visibility,
    /// What a match means.
    pub action: Action,
    /// Evaluated and reported, not enforced (Istio: annotation `istio.io/dry-run`).
    pub dry_run: bool,
    /// It matches when any rule matches; no rule: it never matches.
    pub rules: Vec<Rule>,
}

/// What a match of a policy means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Action {
    /// Allowed; whatever no ALLOW policy of a workload that has some matches is denied.
    Allow,
    /// Denied.
    Deny,
    /// Noted in the audit log.
    Audit,
    /// A provider of the mesh's settings is asked ([`crate::mesh::AuthzProvider`]).
    Custom {
        /// Its name.
        provider: Str,
    },
}

/// One rule: all three parts must match; an empty part matches everything.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Rule {
    /// Any of these.
    pub from: Vec<Source>,
    /// Any of these.
    pub to: Vec<Operation>,
    /// All of these.
    pub when: Vec<Condition>,
}

/// Who calls. Every list that is not empty must match; values of a list are alternatives. Lists named `not_*` match
/// when none of their values does. Values are Istio's: exact, `prefix*`, `*suffix` or `*` (anything, but present).
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Source {
    /// SPIFFE ids without `spiffe://`.
    pub principals: Vec<Str>,
    /// None of these.
    pub not_principals: Vec<Str>,
    /// `issuer/subject` of a verified token.
    pub request_principals: Vec<Str>,
    /// None of these.
    pub not_request_principals: Vec<Str>,
    /// Namespaces of the peer's certificate.
    pub namespaces: Vec<Str>,
    /// None of these.
    pub not_namespaces: Vec<Str>,
    /// Service accounts of the peer's certificate as `namespace/name`, exact; a bare name is completed in translation.
    pub service_accounts: Vec<Str>,
    /// None of these.
    pub not_service_accounts: Vec<Str>,
    /// Trust domains of the peer's certificate.
    pub trust_domains: Vec<Str>,
    /// None of these.
    pub not_trust_domains: Vec<Str>,
    /// Networks of the connection's source address.
    pub ip_blocks: Vec<IpNet>,
    /// None of these.
    pub not_ip_blocks: Vec<IpNet>,
    /// Networks of the client's address as trusted proxies tell it (`x-forwarded-for`).
    pub remote_ip_blocks: Vec<IpNet>,
    /// None of these.
    pub not_remote_ip_blocks: Vec<IpNet>,
}

/// What is called. As in [`Source`].
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Operation {
    /// Hosts, case-insensitive.
    pub hosts: Vec<Str>,
    /// None of these.
    pub not_hosts: Vec<Str>,
    /// Ports of the workload.
    pub ports: Vec<u16>,
    /// None of these.
    pub not_ports: Vec<u16>,
    /// Methods.
    pub methods: Vec<Str>,
    /// None of these.
    pub not_methods: Vec<Str>,
    /// Paths without query; beside the usual forms templates with `{*}` (one segment) and `{**}` (any number).
    pub paths: Vec<Str>,
    /// None of these.
    pub not_paths: Vec<Str>,
}

impl Operation {
    /// Whether it speaks of anything that only HTTP has.
    pub fn is_http(&self) -> bool {
        let lists = [
            &self.hosts,
            &self.not_hosts,
            &self.methods,
            &self.not_methods,
            &self.paths,
            &self.not_paths,
        ];
        lists.iter().any(|list| !list.is_empty())
    }
}

/// One condition: any of `values` (when there are some) and none of `not_values`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Condition {
    /// What is looked at.
    pub attribute: Attribute,
    /// Wanted values.
    pub values: Vec<Str>,
    /// Unwanted values.
    pub not_values: Vec<Str>,
}

/// What a condition looks at (Istio: "Authorization Policy Conditions").
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Attribute {
    /// `request.headers[name]`, lower case.
    RequestHeader(Str),
    /// `source.ip`: networks.
    SourceIp,
    /// `remote.ip`: networks.
    RemoteIp,
    /// `source.namespace`.
    SourceNamespace,
    /// `source.serviceAccount`.
    SourceServiceAccount,
    /// `source.trustDomain`.
    SourceTrustDomain,
    /// `source.principal`.
    SourcePrincipal,
    /// `request.auth.principal`.
    RequestPrincipal,
    /// `request.auth.audiences`.
    RequestAudiences,
    /// `request.auth.presenter`: the claim `azp`.
    RequestPresenter,
    /// `request.auth.claims[a][b]`: names from the outermost on.
    RequestClaim(Vec<Str>),
    /// `destination.ip`: networks.
    DestinationIp,
    /// `destination.port`.
    DestinationPort,
    /// `connection.sni`.
    ServerName,
}

impl Attribute {
    /// Whether only HTTP requests have it.
    pub fn is_http(&self) -> bool {
        matches!(
            self,
            Self::RequestHeader(_)
                | Self::RequestPrincipal
                | Self::RequestAudiences
                | Self::RequestPresenter
                | Self::RequestClaim(_)
                | Self::RemoteIp
        )
    }
}

/// What identifies members of the mesh: the roots of one trust domain, and what they revoked. Named by its trust domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TrustBundle {
    /// The trust domain.
    pub trust_domain: Str,
    /// Root certificates as PEM, several during a rotation. Never empty.
    pub roots: Str,
    /// Certificate revocation lists as PEM; empty: none.
    pub crls: Str,
}

/// Certificates of a Kubernetes Secret (or a CA of a ConfigMap) for gateways. Only proxies that may read the secret get it.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct Credential {
    /// The Secret.
    pub origin: Origin,
    /// Certificate chain as PEM, leaf first; empty: the secret holds a CA only.
    pub chain: Str,
    /// Private key as PEM; empty as above.
    pub key: Secret,
    /// Certificates that clients are verified with, as PEM; empty: none.
    pub ca: Str,
    /// Revocation lists as PEM; empty: none.
    pub crl: Str,
    /// Service accounts of the secret's namespace whose proxies get it: those that may read the secret.
    pub readers: Vec<Str>,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credential({})", self.origin)
    }
}

/// A text that never shows in logs, dumps or pages.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(Str);

impl Secret {
    /// Wraps a text.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The text, for whoever needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("[redacted]")
    }
}
