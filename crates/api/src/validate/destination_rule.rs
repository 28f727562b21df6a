//! DestinationRules: host, subsets, settings that exclude each other.

use super::Findings;
use crate::destination_rule::balancer::{ConsistentHash, LoadBalancerSettings, LocalityLbSetting};
use crate::destination_rule::pool::{ConnectionPoolSettings, OutlierDetection};
use crate::destination_rule::{
    ClientTlsMode, ClientTlsSettings, DestinationRule, PortTrafficPolicy, TrafficPolicy,
};
use crate::meta::Config;
use crate::notice::{Notice, Subject};

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
    if let Some(balancer) = &policy.load_balancer {
        load_balancer(f, &format!("{field}.loadBalancer"), balancer);
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
        if let Some(balancer) = &port.load_balancer {
            load_balancer(f, &format!("{field}.loadBalancer"), balancer);
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

fn load_balancer(f: &mut Findings, field: &str, balancer: &LoadBalancerSettings) {
    if balancer.simple.is_some() && balancer.consistent_hash.is_some() {
        f.error(
            field,
            "simple and consistentHash exclude each other: keep one of them",
        );
    }
    if let Some(hash) = &balancer.consistent_hash {
        consistent_hash(f, &format!("{field}.consistentHash"), hash);
    }
    if let Some(locality) = &balancer.locality_lb_setting {
        if balancer.zone_aware_lb_setting.is_some() {
            f.error(
                field,
                "localityLbSetting and zoneAwareLbSetting exclude each other: keep one of them",
            );
        }
        locality_setting(f, &format!("{field}.localityLbSetting"), locality);
    }
    if balancer.warmup_duration_secs.is_some() {
        f.deprecated(
            format!("{field}.warmupDurationSecs"),
            "is deprecated: use warmup.duration",
        );
    }
}

fn consistent_hash(f: &mut Findings, field: &str, hash: &ConsistentHash) {
    let keys = [
        hash.http_header_name.is_some(),
        hash.http_cookie.is_some(),
        hash.use_source_ip.is_some(),
        hash.http_query_parameter_name.is_some(),
    ];
    if keys.into_iter().filter(|given| *given).count() != 1 {
        f.error(
            field,
            "needs exactly one of httpHeaderName, httpCookie, useSourceIp and httpQueryParameterName",
        );
    }
    if hash.ring_hash.is_some() && hash.maglev.is_some() {
        f.error(
            field,
            "ringHash and maglev exclude each other: keep one of them",
        );
    }
    if hash.minimum_ring_size.is_some() {
        f.deprecated(
            format!("{field}.minimumRingSize"),
            "is deprecated: use ringHash.minimumRingSize",
        );
    }
}

fn locality_setting(f: &mut Findings, field: &str, locality: &LocalityLbSetting) {
    let given = [
        !locality.distribute.is_empty(),
        !locality.failover.is_empty(),
        !locality.failover_priority.is_empty(),
    ];
    if given.into_iter().filter(|given| *given).count() > 1 {
        f.error(
            field,
            "distribute, failover and failoverPriority exclude each other: keep one of them",
        );
    }
    for (i, distribute) in locality.distribute.iter().enumerate() {
        let sum = distribute.to.values().map(|w| u64::from(*w)).sum::<u64>();
        if sum != 100 {
            f.error(
                format!("{field}.distribute[{i}].to"),
                format!("the shares add up to {sum}; make it 100"),
            );
        }
    }
    for (i, failover) in locality.failover.iter().enumerate() {
        if failover.from == failover.to {
            f.error(
                format!("{field}.failover[{i}]"),
                "a region cannot take over for itself: name another",
            );
        }
    }
}

fn connection_pool(f: &mut Findings, field: &str, pool: &ConnectionPoolSettings) {
    if let Some(tcp) = &pool.tcp {
        f.duration(
            &format!("{field}.tcp.connectTimeout"),
            tcp.connect_timeout.as_ref(),
        );
        f.duration(
            &format!("{field}.tcp.idleTimeout"),
            tcp.idle_timeout.as_ref(),
        );
    }
    if let Some(http) = &pool.http {
        f.duration(
            &format!("{field}.http.idleTimeout"),
            http.idle_timeout.as_ref(),
        );
        if http.use_client_protocol == Some(true) && http.h2_upgrade_policy.is_some() {
            f.warning(
                format!("{field}.http.h2UpgradePolicy"),
                "has no effect beside useClientProtocol: remove one",
            );
        }
    }
}

fn outlier_detection(f: &mut Findings, field: &str, outlier: &OutlierDetection) {
    f.duration(&format!("{field}.interval"), outlier.interval.as_ref());
    f.duration(
        &format!("{field}.baseEjectionTime"),
        outlier.base_ejection_time.as_ref(),
    );
    if outlier.consecutive_errors.is_some() {
        f.deprecated(
            format!("{field}.consecutiveErrors"),
            "is deprecated: use consecutive5xxErrors or consecutiveGatewayErrors",
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
