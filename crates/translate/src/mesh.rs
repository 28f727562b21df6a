//! Mesh-wide settings: MeshConfig as written → the model's, with Istio's defaults.

mod providers;

use crate::{NOT_YET, Translated, destination_rule, tls};
use lateen_api::destination_rule::pool::H2UpgradePolicy;
use lateen_api::mesh_config::{
    AccessLogEncoding, ForwardClientCertDetails, MeshConfig, NormalizationType,
};
use lateen_api::meta::Meta;
use lateen_api::notice::{Notice, Severity, Subject};
use lateen_api::sidecar::OutboundMode as Written;
use lateen_base::Str;
use lateen_model::mesh::{
    ForwardClientCert, MeshSettings, OutboundMode, PathNormalization, TrafficDefaults,
};
use lateen_model::resource::Resource;
use lateen_model::tls::TlsVersion;
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
    let written = config.outbound_traffic_policy.as_ref();
    if written.is_some_and(|policy| policy.egress_proxy.is_some()) {
        not_yet("outboundTrafficPolicy.egressProxy");
    }
    if config.tls_defaults.is_some() {
        not_yet("tlsDefaults");
    }
    if let Some(tls) = &config.mesh_mtls {
        let lists = [
            ("meshMTLS.cipherSuites", &tls.cipher_suites),
            ("meshMTLS.ecdhCurves", &tls.ecdh_curves),
        ];
        for (field, list) in lists {
            if !list.is_empty() {
                not_yet(field);
            }
        }
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
    let defaults = config.default_config.as_ref();
    let topology = defaults.and_then(|defaults| defaults.gateway_topology.as_ref());
    let format = config.access_log_format.as_deref().unwrap_or_default();
    let settings = MeshSettings {
        outbound,
        access_log: file == "/dev/stdout",
        access_log_format: (!format.is_empty()).then(|| format.into()),
        domain: mesh.domain.clone(),
        root_namespace: root_namespace(config).into(),
        trust_domain: trust_domain(config).into(),
        trust_domain_aliases: aliases(config),
        auto_mtls: config.enable_auto_mtls != Some(false),
        mesh_tls_min: mesh_tls_min(config, &subject, &mut notices),
        path_normalization: path_normalization(config),
        trusted_proxies: topology.and_then(|t| t.num_trusted_proxies).unwrap_or(0),
        proxy_protocol: topology.is_some_and(|t| t.proxy_protocol.is_some()),
        forward_client_cert: topology
            .and_then(|t| t.forward_client_cert_details)
            .map_or(ForwardClientCert::SanitizeSet, forward_client_cert),
        authz_providers: providers::providers(mesh),
        traffic: traffic(config),
    };
    crate::done(Resource::MeshSettings(settings), notices)
}

/// What holds where no DestinationRule says otherwise.
fn traffic(config: &MeshConfig) -> TrafficDefaults {
    let usual = TrafficDefaults::default();
    let timeout = config.connect_timeout.as_ref().and_then(|d| d.parse().ok());
    let locality = config.locality_lb_setting.as_ref();
    let policy = config.default_traffic_policy.as_ref();
    TrafficDefaults {
        locality: locality.map_or(usual.locality, destination_rule::locality),
        connect_timeout: timeout
            .filter(|timeout: &Duration| !timeout.is_zero())
            .unwrap_or(usual.connect_timeout),
        keepalive: config
            .tcp_keepalive
            .as_ref()
            .map(destination_rule::keepalive),
        h2_upgrade: config.h2_upgrade_policy == Some(H2UpgradePolicy::Upgrade),
        pool: policy
            .and_then(|p| p.connection_pool.as_ref())
            .map(destination_rule::pool),
        outlier: policy
            .and_then(|p| p.outlier_detection.as_ref())
            .map(destination_rule::outlier),
    }
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

/// The trust domain of the mesh: `cluster.local` unless the configuration says otherwise.
pub fn trust_domain(config: &MeshConfig) -> &str {
    config
        .trust_domain
        .as_deref()
        .filter(|name| !name.is_empty())
        .unwrap_or("cluster.local")
}

/// Other trust domains of the mesh, each once.
fn aliases(config: &MeshConfig) -> Vec<Str> {
    let own = trust_domain(config);
    let mut aliases: Vec<Str> = Vec::new();
    for alias in &config.trust_domain_aliases {
        if !alias.is_empty() && alias != own && !aliases.iter().any(|known| **known == **alias) {
            aliases.push(alias.as_str().into());
        }
    }
    aliases
}

fn mesh_tls_min(config: &MeshConfig, subject: &Subject, notices: &mut Vec<Notice>) -> TlsVersion {
    let written = config.mesh_mtls.as_ref();
    let mut warn = |name: &str, message: String| {
        let field = format!("meshMTLS.{name}");
        notices.push(Notice::warning(subject, field, message));
    };
    let written = written.and_then(|tls| tls.min_protocol_version);
    tls::version(written, "minProtocolVersion", &mut warn).unwrap_or(TlsVersion::V1_2)
}

fn path_normalization(config: &MeshConfig) -> PathNormalization {
    let written = config.path_normalization.as_ref();
    match written.and_then(|path| path.normalization) {
        None | Some(NormalizationType::Default | NormalizationType::Base) => {
            PathNormalization::Base
        }
        Some(NormalizationType::None) => PathNormalization::None,
        Some(NormalizationType::MergeSlashes) => PathNormalization::MergeSlashes,
        Some(NormalizationType::DecodeAndMergeSlashes) => PathNormalization::DecodeAndMergeSlashes,
    }
}

fn forward_client_cert(written: ForwardClientCertDetails) -> ForwardClientCert {
    match written {
        ForwardClientCertDetails::Sanitize => ForwardClientCert::Sanitize,
        ForwardClientCertDetails::ForwardOnly => ForwardClientCert::ForwardOnly,
        ForwardClientCertDetails::AppendForward => ForwardClientCert::AppendForward,
        ForwardClientCertDetails::AlwaysForwardOnly => ForwardClientCert::AlwaysForwardOnly,
        ForwardClientCertDetails::Undefined | ForwardClientCertDetails::SanitizeSet => {
            ForwardClientCert::SanitizeSet
        }
    }
}

/// The model's outbound mode, of the mesh or of a Sidecar object. `field` is named in a notice when the mode cannot be
/// had there (Istio: ALLOW_ANY_DYNAMIC_DNS is for MeshConfig only).
pub(crate) fn outbound_mode(
    mode: Written,
    field: &str,
    subject: &Subject,
    notices: &mut Vec<Notice>,
) -> OutboundMode {
    match mode {
        Written::RegistryOnly => OutboundMode::RegistryOnly,
        Written::AllowAny => OutboundMode::AllowAny,
        Written::AllowAnyDynamicDns if subject.kind != "Sidecar" => {
            OutboundMode::AllowAnyDynamicDns
        }
        Written::AllowAnyDynamicDns => {
            let message =
                "ALLOW_ANY_DYNAMIC_DNS is for MeshConfig only, and works as ALLOW_ANY here";
            notices.push(Notice::new(Severity::Warning, subject, field, message));
            OutboundMode::AllowAny
        }
    }
}

#[cfg(test)]
mod tests;
