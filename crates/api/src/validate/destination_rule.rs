//! DestinationRules: host, subsets, settings that exclude each other.

mod balancer;

use super::Findings;
use crate::destination_rule::pool::{ConnectionPoolSettings, OutlierDetection};
use crate::destination_rule::{
    ClientTlsMode, ClientTlsSettings, DestinationRule, PortTrafficPolicy, TrafficPolicy,
    TunnelSettings,
};
use crate::fields::DurationText;
use crate::meta::Config;
use crate::notice::{Notice, Subject};
use std::time::Duration;

/// Validates a DestinationRule.
pub fn destination_rule(config: &Config<DestinationRule>) -> Vec<Notice> {
    let spec = &config.spec;
    let mut findings = Findings::new(Subject::new("DestinationRule", &config.meta));
    let f = &mut findings;
    f.host("spec.host", &spec.host);
    f.export_to(&spec.export_to);
    if let Some(policy) = &spec.traffic_policy {
        traffic_policy(f, "spec.trafficPolicy", policy);
    }
    for (i, subset) in spec.subsets.iter().enumerate() {
        let field = format!("spec.subsets[{i}]");
        if !super::is_label(&subset.name) {
            f.error(
                format!("{field}.name"),
                format!(
                    "{:?} is not a subset name: use letters, digits and -",
                    subset.name
                ),
            );
        }
        let first = spec.subsets.iter().position(|s| s.name == subset.name);
        if first != Some(i) {
            f.error(
                format!("{field}.name"),
                format!("subset {:?} is defined twice: rename one", subset.name),
            );
        }
        f.labels(&format!("{field}.labels"), &subset.labels);
        if let Some(policy) = &subset.traffic_policy {
            traffic_policy(f, &format!("{field}.trafficPolicy"), policy);
        }
    }
    findings.notices
}

fn traffic_policy(f: &mut Findings, field: &str, policy: &TrafficPolicy) {
    let ejects = policy.outlier_detection.is_some();
    if let Some(settings) = &policy.load_balancer {
        balancer::load_balancer(f, &format!("{field}.loadBalancer"), settings, ejects);
    }
    if let Some(tunnel) = &policy.tunnel {
        self::tunnel(f, &format!("{field}.tunnel"), tunnel);
    }
    if let Some(budget) = &policy.retry_budget {
        let percent = budget.percent.unwrap_or(20.0);
        if !(0.0..=100.0).contains(&percent) {
            let message = format!("{percent} is no percentage; use 0 to 100");
            f.error(format!("{field}.retryBudget.percent"), message);
        }
        let interval = budget.budget_interval.as_ref();
        f.duration(&format!("{field}.retryBudget.budgetInterval"), interval);
    }
    if let Some(pool) = &policy.connection_pool {
        connection_pool(f, &format!("{field}.connectionPool"), pool);
    }
    if let Some(outlier) = &policy.outlier_detection {
        outlier_detection(f, &format!("{field}.outlierDetection"), outlier);
    }
    if let Some(tls) = &policy.tls {
        client_tls(f, &format!("{field}.tls"), tls);
    }
    for (i, port) in policy.port_level_settings.iter().enumerate() {
        let field = format!("{field}.portLevelSettings[{i}]");
        let number = port.port.as_ref().and_then(|p| p.number);
        f.port(&format!("{field}.port.number"), number);
        let of = |p: &PortTrafficPolicy| p.port.as_ref().and_then(|p| p.number);
        let before = &policy.port_level_settings[..i];
        if number.is_some() && before.iter().any(|other| of(other) == number) {
            f.warning(
                format!("{field}.port.number"),
                "has settings already, and the first ones count: merge the two",
            );
        }
        let ejects = port.outlier_detection.is_some();
        if let Some(settings) = &port.load_balancer {
            balancer::load_balancer(f, &format!("{field}.loadBalancer"), settings, ejects);
        }
        if let Some(pool) = &port.connection_pool {
            connection_pool(f, &format!("{field}.connectionPool"), pool);
        }
        if let Some(outlier) = &port.outlier_detection {
            outlier_detection(f, &format!("{field}.outlierDetection"), outlier);
        }
        if let Some(tls) = &port.tls {
            client_tls(f, &format!("{field}.tls"), tls);
        }
    }
}

fn connection_pool(f: &mut Findings, field: &str, pool: &ConnectionPoolSettings) {
    if pool.tcp.is_none() && pool.http.is_none() {
        f.error(field, "says nothing: give tcp or http, or leave it out");
    }
    if let Some(tcp) = &pool.tcp {
        let field = format!("{field}.tcp");
        not_negative(f, &field, &[("maxConnections", tcp.max_connections)]);
        let alive = tcp.tcp_keepalive.as_ref();
        let durations = [
            ("connectTimeout", tcp.connect_timeout.as_ref()),
            (
                "maxConnectionDuration",
                tcp.max_connection_duration.as_ref(),
            ),
            ("tcpKeepalive.time", alive.and_then(|k| k.time.as_ref())),
            (
                "tcpKeepalive.interval",
                alive.and_then(|k| k.interval.as_ref()),
            ),
        ];
        for (name, written) in durations {
            positive(f, format!("{field}.{name}"), written);
        }
        let idle = tcp.idle_timeout.as_ref();
        f.duration(&format!("{field}.idleTimeout"), idle);
    }
    if let Some(http) = &pool.http {
        let field = format!("{field}.http");
        let numbers = [
            ("http1MaxPendingRequests", http.http1_max_pending_requests),
            ("http2MaxRequests", http.http2_max_requests),
            ("maxRequestsPerConnection", http.max_requests_per_connection),
            ("maxRetries", http.max_retries),
            ("maxConcurrentStreams", http.max_concurrent_streams),
        ];
        not_negative(f, &field, &numbers);
        let idle = http.idle_timeout.as_ref();
        f.duration(&format!("{field}.idleTimeout"), idle);
        if let Some(ping) = &http.http2_keep_alive {
            for (name, written) in [("interval", &ping.interval), ("timeout", &ping.timeout)] {
                let field = format!("{field}.http2KeepAlive.{name}");
                positive(f, field, written.as_ref());
            }
        }
        if http.use_client_protocol == Some(true) && http.h2_upgrade_policy.is_some() {
            f.warning(
                format!("{field}.h2UpgradePolicy"),
                "has no effect beside useClientProtocol: remove one",
            );
        }
    }
}

fn not_negative(f: &mut Findings, field: &str, numbers: &[(&str, Option<i32>)]) {
    for (name, number) in numbers {
        if let Some(number) = number.filter(|n| *n < 0) {
            let message = format!("{number} is negative; use 0 for no limit, or more");
            f.error(format!("{field}.{name}"), message);
        }
    }
}

/// A duration of at least a millisecond (Istio: `ValidateDuration`).
fn positive(f: &mut Findings, field: String, written: Option<&DurationText>) {
    f.duration(&field, written);
    let parsed = written.and_then(|text| text.parse().ok());
    if parsed.is_some_and(|time| time < Duration::from_millis(1)) {
        f.error(field, "is too short: use 1ms or more");
    }
}

fn outlier_detection(f: &mut Findings, field: &str, outlier: &OutlierDetection) {
    positive(f, format!("{field}.interval"), outlier.interval.as_ref());
    positive(
        f,
        format!("{field}.baseEjectionTime"),
        outlier.base_ejection_time.as_ref(),
    );
    let percentages = [
        ("maxEjectionPercent", outlier.max_ejection_percent),
        ("minHealthPercent", outlier.min_health_percent),
    ];
    for (name, percent) in percentages {
        if let Some(percent) = percent.filter(|p| !(0..=100).contains(p)) {
            let message = format!("{percent} is no percentage; use 0 to 100");
            f.error(format!("{field}.{name}"), message);
        }
    }
    for (i, code) in outlier
        .outlier_detection_http_error_codes
        .iter()
        .enumerate()
    {
        if !(200..=599).contains(code) {
            f.error(
                format!("{field}.outlierDetectionHttpErrorCodes[{i}]"),
                format!("{code} is not a status that an answer can have; use 200 to 599"),
            );
        }
    }
    if outlier.consecutive_errors.is_some() {
        f.deprecated(
            format!("{field}.consecutiveErrors"),
            "is deprecated and has no effect: use consecutive5xxErrors or consecutiveGatewayErrors",
        );
    }
    if outlier.split_external_local_origin_errors != Some(true)
        && outlier
            .consecutive_local_origin_failures
            .is_some_and(|n| n > 0)
    {
        f.error(
            format!("{field}.consecutiveLocalOriginFailures"),
            "works only with splitExternalLocalOriginErrors: true",
        );
    }
}

fn tunnel(f: &mut Findings, field: &str, tunnel: &TunnelSettings) {
    if let Some(protocol) = &tunnel.protocol
        && !matches!(protocol.to_ascii_uppercase().as_str(), "CONNECT" | "POST")
    {
        let message = format!("{protocol:?} is no way to ask for a tunnel: use CONNECT or POST");
        f.error(format!("{field}.protocol"), message);
    }
    match tunnel.target_host.as_deref() {
        None | Some("") => f.error(
            format!("{field}.targetHost"),
            "is missing: name the host at the tunnel's far end",
        ),
        Some(host) if host.starts_with('*') => f.error(
            format!("{field}.targetHost"),
            "cannot be a wildcard: name one host",
        ),
        Some(host) => f.host(&format!("{field}.targetHost"), host),
    }
    f.port(&format!("{field}.targetPort"), tunnel.target_port);
}

fn client_tls(f: &mut Findings, field: &str, tls: &ClientTlsSettings) {
    // An empty name is none (protobuf JSON).
    let given = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
    let files = [
        &tls.client_certificate,
        &tls.private_key,
        &tls.ca_certificates,
    ];
    let has_files = files.into_iter().any(given);
    let has_credential = given(&tls.credential_name);
    if has_credential && has_files {
        f.error(
            field,
            "credentialName and file names exclude each other: keep one of them",
        );
    }
    if tls.mode == Some(ClientTlsMode::IstioMutual) && (has_files || has_credential) {
        f.error(
            field,
            "ISTIO_MUTUAL uses the mesh's own certificates: remove the others",
        );
    }
    if tls.mode == Some(ClientTlsMode::Mutual)
        && !has_credential
        && (!given(&tls.client_certificate) || !given(&tls.private_key))
    {
        f.error(
            field,
            "MUTUAL needs clientCertificate and privateKey, or credentialName",
        );
    }
}
