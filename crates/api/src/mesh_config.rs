//! MeshConfig as users write it: key `mesh` of ConfigMap `istio` (Istio: `MeshConfig`), in the part that is used.
//! Defaults are applied by whoever uses a field; absence here means that the user said nothing.

use crate::check::check;
use crate::fields::{DurationText, Labels};
use crate::meta::Meta;
use crate::notice::{Notice, Place, Severity, Subject, any_error};
use crate::schema::structural;
use crate::sidecar::OutboundTrafficPolicy;
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
    /// Whether application metrics are merged with the proxy's; true when absent.
    pub enable_prometheus_merge: Option<bool>,
    /// Defaults for proxies.
    pub default_config: Option<ProxyConfig>,
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
}

/// Fields that Istio has and Lateen does not use yet: they are named as such, not as mistakes.
const LATER: [&str; 38] = [
    "proxyListenPort",
    "proxyInboundListenPort",
    "proxyHttpPort",
    "hboneIdleTimeout",
    "protocolDetectionTimeout",
    "tcpKeepalive",
    "dnsRefreshRate",
    "ingressClass",
    "ingressService",
    "ingressControllerMode",
    "ingressSelector",
    "enableTracing",
    "enableEnvoyAccessLogService",
    "disableEnvoyListenerLog",
    "inboundTrafficPolicy",
    "h2UpgradePolicy",
    "defaultHttpRetryPolicy",
    "defaultInboundHttpRetryPolicy",
    "defaultTrafficPolicy",
    "localityLbSetting",
    "zoneAwareLbSetting",
    "pathNormalization",
    "discoverySelectors",
    "serviceSettings",
    "serviceScopeConfigs",
    "serviceEntryVisibility",
    "trustDomainAliases",
    "caCertificates",
    "ca",
    "certificates",
    "meshMTLS",
    "tlsDefaults",
    "verifyCertificateAtClient",
    "defaultProviders",
    "inboundClusterStatName",
    "outboundClusterStatName",
    "extensionProviders",
    "configSources",
];

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
                let message = "is not in force yet: it has no effect";
                notices.push(Notice::new(Severity::Info, &subject, name, message));
            }
        }
    }
    notices.extend(check(&SCHEMA, &value, "", &subject));
    for notice in &mut notices {
        notice.place = Some(place(lines(&notice.field)));
    }
    if any_error(&notices) {
        return (None, notices);
    }
    match serde_json::from_value(value) {
        Ok(config) => (Some(config), notices),
        Err(e) => {
            notices.push(Notice::error(&subject, "", e.to_string()));
            (None, notices)
        }
    }
}

fn place(line: usize) -> Place {
    Place {
        file: "mesh".into(),
        line,
    }
}

#[cfg(test)]
mod tests;
