//! Mesh-wide settings: MeshConfig as written → the model's, with Istio's defaults.

use crate::{NOT_YET, Translated};
use lateen_api::mesh_config::{AccessLogEncoding, MeshConfig};
use lateen_api::meta::Meta;
use lateen_api::notice::{Notice, Severity, Subject};
use lateen_api::sidecar::OutboundMode as Written;
use lateen_base::Str;
use lateen_model::mesh::{MeshSettings, OutboundMode};
use lateen_model::resource::Resource;
use std::time::Duration;

/// What every transform may need to know of the mesh.
#[derive(Debug, Clone, PartialEq)]
pub struct Mesh {
    /// Cluster domain, such as `cluster.local`.
    pub domain: Str,
    /// Mesh-wide configuration as written.
    pub config: MeshConfig,
}

impl Default for Mesh {
    fn default() -> Self {
        Self {
            domain: "cluster.local".into(),
            config: MeshConfig::default(),
        }
    }
}

/// The settings that proxies need.
pub fn settings(mesh: &Mesh) -> Translated {
    let config = &mesh.config;
    let meta = Meta {
        name: "istio".into(),
        ..Meta::default()
    };
    let subject = Subject::new("MeshConfig", &meta);
    let mut notices = Vec::new();
    let mut not_yet = |field: &str| {
        notices.push(Notice::warning(&subject, field, NOT_YET));
    };
    if config.access_log_encoding == Some(AccessLogEncoding::Json) {
        not_yet("accessLogEncoding");
    }
    let connect = config.connect_timeout.as_ref().and_then(|d| d.parse().ok());
    if connect.is_some_and(|timeout| timeout != Duration::from_secs(10)) {
        not_yet("connectTimeout");
    }
    let written = config.outbound_traffic_policy.as_ref();
    if written.is_some_and(|policy| policy.egress_proxy.is_some()) {
        not_yet("outboundTrafficPolicy.egressProxy");
    }
    if config.enable_auto_mtls == Some(true) {
        not_yet("enableAutoMtls");
    }
    for field in proxy_defaults(config) {
        not_yet(&format!("defaultConfig.{field}"));
    }
    let file = config.access_log_file.as_deref().unwrap_or_default();
    if !matches!(file, "" | "/dev/stdout") {
        let message = format!("{file:?} is not written: only /dev/stdout is");
        notices.push(Notice::warning(&subject, "accessLogFile", message));
    }
    let outbound = match written.and_then(|policy| policy.mode) {
        Some(mode) => outbound_mode(mode, "outboundTrafficPolicy.mode", &subject, &mut notices),
        None => OutboundMode::AllowAny,
    };
    let format = config.access_log_format.as_deref().unwrap_or_default();
    let settings = MeshSettings {
        outbound,
        access_log: file == "/dev/stdout",
        access_log_format: (!format.is_empty()).then(|| format.into()),
        domain: mesh.domain.clone(),
        root_namespace: root_namespace(config).into(),
        ..MeshSettings::default()
    };
    crate::done(Resource::MeshSettings(settings), notices)
}

/// Fields of ProxyConfig that are given and change nothing yet.
fn proxy_defaults(config: &MeshConfig) -> Vec<&'static str> {
    let Some(defaults) = &config.default_config else {
        return Vec::new();
    };
    let other = |port: Option<i32>, usual| port.is_some_and(|port| port != usual);
    [
        ("drainDuration", defaults.drain_duration.is_some()),
        (
            "terminationDrainDuration",
            defaults.termination_drain_duration.is_some(),
        ),
        ("proxyAdminPort", other(defaults.proxy_admin_port, 15000)),
        ("statusPort", other(defaults.status_port, 15020)),
    ]
    .into_iter()
    .filter_map(|(field, is_given)| is_given.then_some(field))
    .collect()
}

/// The root namespace: `istio-system` unless the configuration says otherwise.
pub fn root_namespace(config: &MeshConfig) -> &str {
    config
        .root_namespace
        .as_deref()
        .filter(|name| !name.is_empty())
        .unwrap_or("istio-system")
}

/// The model's outbound mode; `field` is named in a notice when the mode is not in force yet.
pub(crate) fn outbound_mode(
    mode: Written,
    field: &str,
    subject: &Subject,
    notices: &mut Vec<Notice>,
) -> OutboundMode {
    match mode {
        Written::RegistryOnly => OutboundMode::RegistryOnly,
        Written::AllowAny => OutboundMode::AllowAny,
        Written::AllowAnyDynamicDns => {
            let message = "ALLOW_ANY_DYNAMIC_DNS works as ALLOW_ANY for now";
            notices.push(Notice::new(Severity::Warning, subject, field, message));
            OutboundMode::AllowAny
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, want: MeshSettings, said: &[&str]) {
        let (config, notices) = lateen_api::mesh_config::parse(text);
        assert_eq!(notices, [], "{text}");
        let mesh = Mesh {
            config: config.expect("good"),
            ..Mesh::default()
        };
        let (resources, notices) = settings(&mesh);
        assert_eq!(resources, [Resource::MeshSettings(want)], "{text}");
        let notices = notices.iter().map(|n| &*n.field).collect::<Vec<_>>();
        assert_eq!(notices, said, "{text}");
    }

    #[test]
    fn defaults_are_istios() {
        let defaults = MeshSettings {
            access_log: false,
            ..MeshSettings::default()
        };
        check("", defaults.clone(), &[]);
        check(
            "accessLogFile: /dev/stdout\nconnectTimeout: 10s\n",
            MeshSettings {
                access_log: true,
                ..defaults.clone()
            },
            &[],
        );
        check(
            "outboundTrafficPolicy: {mode: REGISTRY_ONLY}\nrootNamespace: x\naccessLogFormat: a\n",
            MeshSettings {
                outbound: OutboundMode::RegistryOnly,
                root_namespace: "x".into(),
                access_log_format: Some("a".into()),
                ..defaults.clone()
            },
            &[],
        );
        check(
            "accessLogEncoding: JSON\nconnectTimeout: 1s\naccessLogFile: /tmp/x\n",
            defaults.clone(),
            &["accessLogEncoding", "connectTimeout", "accessLogFile"],
        );
        check(
            "enableAutoMtls: true\ndefaultConfig: {statusPort: 15020, proxyAdminPort: 1, drainDuration: 5s}\n",
            defaults,
            &[
                "enableAutoMtls",
                "defaultConfig.drainDuration",
                "defaultConfig.proxyAdminPort",
            ],
        );
    }
}
