//! MeshConfig as users write it: key `mesh` of ConfigMap `istio` (Istio: `MeshConfig`), in the part that is used.
//! Defaults are applied by whoever uses a field; absence here means that the user said nothing.

pub mod providers;

use crate::check::{Unknown, check};
use crate::destination_rule::balancer::LocalityLbSetting;
use crate::destination_rule::pool::{
    ConnectionPoolSettings, H2UpgradePolicy, OutlierDetection, TcpKeepalive,
};
use crate::fields::{DurationText, Labels};
use crate::gateway::TlsProtocol;
use crate::meta::Meta;
use crate::notice::{Notice, Place, Severity, Subject, any_error};
use crate::schema::structural;
use crate::sidecar::OutboundTrafficPolicy;
use providers::ExtensionProvider;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::LazyLock;

/// Mesh-wide configuration.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MeshConfig {
    /// What happens to destinations that the mesh does not know; ALLOW_ANY when absent.
    pub outbound_traffic_policy: Option<OutboundTrafficPolicy>,
    /// File of the proxies' access log; no log when absent or empty.
    pub access_log_file: Option<String>,
    /// Format of the access log; Istio's default when absent or empty.
    pub access_log_format: Option<String>,
    /// Encoding of the access log; TEXT when absent.
    pub access_log_encoding: Option<AccessLogEncoding>,
    /// Root namespace; `istio-system` when absent.
    pub root_namespace: Option<String>,
    /// Trust domain; `cluster.local` when absent.
    pub trust_domain: Option<String>,
    /// Visibility of Services and ServiceEntries that do not say theirs; `*` when empty.
    pub default_service_export_to: Vec<String>,
    /// Visibility of VirtualServices that do not say theirs; `*` when empty.
    pub default_virtual_service_export_to: Vec<String>,
    /// Visibility of DestinationRules that do not say theirs; `*` when empty.
    pub default_destination_rule_export_to: Vec<String>,
    /// Whether clients use mutual TLS where servers have it; true when absent.
    pub enable_auto_mtls: Option<bool>,
    /// Bound on connecting; 10s when absent.
    pub connect_timeout: Option<DurationText>,
    /// Keep-alive probes towards endpoints; none when absent.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// Whether HTTP/1.1 becomes HTTP/2 towards endpoints; DO_NOT_UPGRADE when absent.
    pub h2_upgrade_policy: Option<H2UpgradePolicy>,
    /// Preference for near endpoints; in force when absent.
    pub locality_lb_setting: Option<LocalityLbSetting>,
    /// What holds where no DestinationRule says otherwise.
    pub default_traffic_policy: Option<DefaultTrafficPolicy>,
    /// Whether application metrics are merged with the proxy's; true when absent.
    pub enable_prometheus_merge: Option<bool>,
    /// Defaults for proxies.
    pub default_config: Option<ProxyConfig>,
    /// Other trust domains whose members count as the mesh's own.
    #[schemars(length(max = 64), inner(length(min = 1, max = 255)))]
    pub trust_domain_aliases: Vec<String>,
    /// TLS between members of the mesh.
    #[serde(rename = "meshMTLS")]
    pub mesh_mtls: Option<TlsConfig>,
    /// TLS with everybody else.
    pub tls_defaults: Option<TlsConfig>,
    /// What is done to paths before anything looks at them.
    pub path_normalization: Option<PathNormalization>,
    /// Services that policies refer to by name.
    #[schemars(length(max = 256))]
    pub extension_providers: Vec<ExtensionProvider>,
}

/// What holds where no DestinationRule says otherwise, block by block.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DefaultTrafficPolicy {
    /// Limits on connections and requests.
    pub connection_pool: Option<ConnectionPoolSettings>,
    /// When failing endpoints are left out.
    pub outlier_detection: Option<OutlierDetection>,
}

/// Settings of TLS.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TlsConfig {
    /// Lowest protocol version; TLS 1.2 when absent.
    pub min_protocol_version: Option<TlsProtocol>,
    /// Cipher suites of TLS 1.2.
    pub cipher_suites: Vec<String>,
    /// Elliptic curves.
    pub ecdh_curves: Vec<String>,
}

/// What is done to paths.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PathNormalization {
    /// The way; BASE when absent.
    pub normalization: Option<NormalizationType>,
}

/// Ways to normalise paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum NormalizationType {
    /// BASE.
    Default,
    /// Nothing is done.
    None,
    /// RFC 3986: dot segments are removed, a backslash is a slash.
    Base,
    /// As BASE, and runs of slashes become one.
    MergeSlashes,
    /// As MERGE_SLASHES, after encoded slashes were decoded.
    DecodeAndMergeSlashes,
}

/// Encodings of the access log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum AccessLogEncoding {
    /// One line of text.
    Text,
    /// One JSON object a line.
    Json,
}

/// Defaults for proxies.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyConfig {
    /// Address of the control plane's xDS server.
    pub discovery_address: Option<String>,
    /// Worker threads; by CPU limit when absent, all when 0.
    #[schemars(range(min = 0))]
    pub concurrency: Option<i32>,
    /// How long connections drain when configuration changes; 45s when absent.
    pub drain_duration: Option<DurationText>,
    /// How long connections drain when the proxy stops; 5s when absent.
    pub termination_drain_duration: Option<DurationText>,
    /// Whether applications start only when their proxy is ready.
    pub hold_application_until_proxy_starts: Option<bool>,
    /// Port of the admin server; 15000 when absent.
    pub proxy_admin_port: Option<i32>,
    /// Port of health and merged metrics; 15020 when absent.
    pub status_port: Option<i32>,
    /// Environment variables of proxies.
    pub proxy_metadata: Labels,
    /// What is in front of gateways.
    pub gateway_topology: Option<Topology>,
}

/// What is in front of gateways.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Topology {
    /// Proxies whose X-Forwarded-For is believed; 0 when absent.
    #[schemars(range(max = 100))]
    pub num_trusted_proxies: Option<u32>,
    /// What becomes of X-Forwarded-Client-Cert; SANITIZE_SET when absent.
    pub forward_client_cert_details: Option<ForwardClientCertDetails>,
    /// PROXY protocol from the load balancer.
    pub proxy_protocol: Option<Value>,
}

/// What becomes of X-Forwarded-Client-Cert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ForwardClientCertDetails {
    /// The default.
    Undefined,
    /// Removed.
    Sanitize,
    /// Kept when the peer showed a certificate.
    ForwardOnly,
    /// Added to when the peer showed a certificate.
    AppendForward,
    /// Replaced by the peer's certificate.
    SanitizeSet,
    /// Kept, whoever sent it.
    AlwaysForwardOnly,
}

/// Fields that Istio has and Lateen does not use yet: they are named as such, not as mistakes.
const LATER: [&str; 29] = [
    "proxyListenPort",
    "proxyInboundListenPort",
    "proxyHttpPort",
    "hboneIdleTimeout",
    "protocolDetectionTimeout",
    "dnsRefreshRate",
    "ingressClass",
    "ingressService",
    "ingressControllerMode",
    "ingressSelector",
    "enableTracing",
    "enableEnvoyAccessLogService",
    "disableEnvoyListenerLog",
    "inboundTrafficPolicy",
    "defaultHttpRetryPolicy",
    "defaultInboundHttpRetryPolicy",
    "zoneAwareLbSetting",
    "discoverySelectors",
    "serviceSettings",
    "serviceScopeConfigs",
    "serviceEntryVisibility",
    "caCertificates",
    "ca",
    "certificates",
    "verifyCertificateAtClient",
    "defaultProviders",
    "inboundClusterStatName",
    "outboundClusterStatName",
    "configSources",
];

/// The sentence about a field that is accepted, kept and without effect.
const NOT_YET: &str = "is not in force yet: it has no effect";

static SCHEMA: LazyLock<Value> = LazyLock::new(structural::<MeshConfig>);

/// Reads the text of key `mesh`. Empty text is a configuration without any field.
/// No configuration comes back when a notice is an error: the last good one stays in force.
pub fn parse(text: &str) -> (Option<MeshConfig>, Vec<Notice>) {
    let subject = Subject::new(
        "MeshConfig",
        &Meta {
            name: "istio".into(),
            ..Meta::default()
        },
    );
    let (mut value, lines) = match crate::yaml::plain(text) {
        Ok(read) => read,
        Err((line, message)) => {
            let mut notice = Notice::error(&subject, "", message);
            notice.place = Some(place(line));
            return (None, vec![notice]);
        }
    };
    if value.is_null() {
        value = Value::Object(serde_json::Map::new());
    }
    let mut notices = Vec::new();
    if let Value::Object(map) = &mut value {
        for name in LATER {
            if map.remove(name).is_some() {
                notices.push(Notice::new(Severity::Info, &subject, name, NOT_YET));
            }
        }
        for field in providers::later(map) {
            notices.push(Notice::new(Severity::Info, &subject, field, NOT_YET));
        }
    }
    notices.extend(check(&SCHEMA, &value, "", &subject, Unknown::Warning));
    let config = match any_error(&notices) {
        true => None,
        false => decode(value, &subject, &mut notices),
    };
    for notice in &mut notices {
        notice.place = Some(place(lines(&notice.field)));
    }
    (config, notices)
}

/// The configuration; absent when something in it cannot be used.
fn decode(value: Value, subject: &Subject, notices: &mut Vec<Notice>) -> Option<MeshConfig> {
    let config: MeshConfig = match serde_json::from_value(value) {
        Ok(config) => config,
        Err(e) => {
            notices.push(Notice::error(subject, "", e.to_string()));
            return None;
        }
    };
    let mut bad = Vec::new();
    let domain = config.trust_domain.iter();
    let domain = domain.map(|d| ("trustDomain".to_owned(), d));
    let aliases = config.trust_domain_aliases.iter().enumerate();
    let aliases = aliases.map(|(i, d)| (format!("trustDomainAliases[{i}]"), d));
    for (field, text) in domain.chain(aliases) {
        if !text.is_empty() && !is_trust_domain(text) {
            let message = format!(
                "{text:?} is not a trust domain: use lower-case letters, digits, dots, - and _"
            );
            bad.push(Notice::error(subject, field, message));
        }
    }
    bad.extend(providers::check(&config.extension_providers, subject));
    let is_good = bad.is_empty();
    notices.extend(bad);
    is_good.then_some(config)
}

/// SPIFFE-ID §2.1.
fn is_trust_domain(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
    text.len() <= 255 && text.bytes().all(allowed)
}

fn place(line: usize) -> Place {
    Place {
        file: "mesh".into(),
        line,
    }
}

#[cfg(test)]
mod tests;
