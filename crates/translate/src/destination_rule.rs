//! DestinationRule → traffic policy.

use crate::mesh::Mesh;
use crate::names::{full_host, labels, origin, visibility};
use crate::{NOT_YET, Translated, tls};
use lateen_api::destination_rule::balancer::{LoadBalancerSettings, SimpleBalancer};
use lateen_api::destination_rule::pool::ConnectionPoolSettings;
use lateen_api::destination_rule::{DestinationRule, TrafficPolicy as Written};
use lateen_api::meta::Config;
use lateen_api::notice::{Notice, Subject, any_error};
use lateen_api::validate;
use lateen_model::resource::Resource;
use lateen_model::traffic::{Balancer, Subset, TrafficPolicy, TrafficSettings};
use std::collections::BTreeMap;
use std::time::Duration;

/// What a DestinationRule is translated from.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// The DestinationRule.
    pub config: &'a Config<DestinationRule>,
    /// The mesh.
    pub mesh: &'a Mesh,
}

/// Translates a DestinationRule.
pub fn destination_rule(inputs: Inputs<'_>) -> Translated {
    let Inputs { config, mesh } = inputs;
    let mut notices = validate::destination_rule(config);
    if any_error(&notices) {
        return (Vec::new(), notices);
    }
    let spec = &config.spec;
    let mut reading = Reading {
        subject: Subject::new("DestinationRule", &config.meta),
        notices: &mut notices,
    };
    let settings = spec
        .traffic_policy
        .as_ref()
        .map(|policy| reading.settings(policy, "spec.trafficPolicy"))
        .unwrap_or_default();
    let subsets = spec
        .subsets
        .iter()
        .enumerate()
        .map(|(i, subset)| Subset {
            name: subset.name.as_str().into(),
            labels: labels(&subset.labels),
            settings: subset
                .traffic_policy
                .as_ref()
                .map(|p| reading.settings(p, &format!("spec.subsets[{i}].trafficPolicy")))
                .unwrap_or_default(),
        })
        .collect();
    let selector = spec.workload_selector.as_ref();
    let policy = TrafficPolicy {
        origin: origin("DestinationRule", &config.meta),
        host: full_host(&spec.host, &config.meta.namespace, &mesh.domain),
        visibility: visibility(
            &spec.export_to,
            &mesh.config.default_destination_rule_export_to,
            &config.meta.namespace,
        ),
        workload_selector: selector
            .map(|s| labels(&s.match_labels))
            .unwrap_or_default(),
        settings,
        subsets,
    };
    crate::done(Resource::TrafficPolicy(policy), notices)
}

struct Reading<'a> {
    subject: Subject,
    notices: &'a mut Vec<Notice>,
}

impl Reading<'_> {
    fn not_yet(&mut self, field: String, is_given: bool) {
        if is_given {
            self.notices
                .push(Notice::warning(&self.subject, field, NOT_YET));
        }
    }

    fn settings(&mut self, policy: &Written, field: &str) -> TrafficSettings {
        let balancer = policy
            .load_balancer
            .as_ref()
            .and_then(|b| self.balancer(b, &format!("{field}.loadBalancer")));
        let pool = policy.connection_pool.as_ref();
        if let Some(pool) = pool {
            self.pool(pool, &format!("{field}.connectionPool"));
        }
        let outlier = policy.outlier_detection.is_some();
        self.not_yet(format!("{field}.outlierDetection"), outlier);
        self.not_yet(format!("{field}.tunnel"), policy.tunnel.is_some());
        self.not_yet(
            format!("{field}.proxyProtocol"),
            policy.proxy_protocol.is_some(),
        );
        self.not_yet(
            format!("{field}.retryBudget"),
            policy.retry_budget.is_some(),
        );
        TrafficSettings {
            balancer,
            connect_timeout: pool.and_then(connect_timeout),
            tls: policy.tls.as_ref().map(tls::client),
            ports: self.ports(policy, field),
        }
    }

    /// Settings of single ports. They inherit nothing: what they leave out has Istio's default.
    fn ports(&mut self, policy: &Written, field: &str) -> BTreeMap<u16, TrafficSettings> {
        let mut ports = BTreeMap::new();
        for (i, one) in policy.port_level_settings.iter().enumerate() {
            let field = format!("{field}.portLevelSettings[{i}]");
            let number = one.port.as_ref().and_then(|p| p.number);
            let Some(number) = number.and_then(|n| u16::try_from(n).ok()) else {
                continue;
            };
            let balancer = one
                .load_balancer
                .as_ref()
                .and_then(|b| self.balancer(b, &format!("{field}.loadBalancer")));
            let pool = one.connection_pool.as_ref();
            if let Some(pool) = pool {
                self.pool(pool, &format!("{field}.connectionPool"));
            }
            let outlier = one.outlier_detection.is_some();
            self.not_yet(format!("{field}.outlierDetection"), outlier);
            let settings = TrafficSettings {
                balancer,
                connect_timeout: pool.and_then(connect_timeout),
                tls: one.tls.as_ref().map(tls::client),
                ports: BTreeMap::new(),
            };
            // Validation refuses a port that is given twice.
            ports.entry(number).or_insert(settings);
        }
        ports
    }

    fn balancer(&mut self, balancer: &LoadBalancerSettings, field: &str) -> Option<Balancer> {
        let given = [
            ("consistentHash", balancer.consistent_hash.is_some()),
            ("localityLbSetting", balancer.locality_lb_setting.is_some()),
            (
                "zoneAwareLbSetting",
                balancer.zone_aware_lb_setting.is_some(),
            ),
            ("warmup", balancer.warmup.is_some()),
            (
                "warmupDurationSecs",
                balancer.warmup_duration_secs.is_some(),
            ),
            ("backendUtilization", balancer.backend_utilization.is_some()),
        ];
        for (name, is_given) in given {
            self.not_yet(format!("{field}.{name}"), is_given);
        }
        match balancer.simple? {
            SimpleBalancer::Unspecified => None,
            SimpleBalancer::LeastConn | SimpleBalancer::LeastRequest => {
                Some(Balancer::LeastRequest)
            }
            SimpleBalancer::Random => Some(Balancer::Random),
            SimpleBalancer::Passthrough => Some(Balancer::Passthrough),
            SimpleBalancer::RoundRobin => Some(Balancer::RoundRobin),
        }
    }

    fn pool(&mut self, pool: &ConnectionPoolSettings, field: &str) {
        if let Some(tcp) = &pool.tcp {
            let given = [
                ("maxConnections", tcp.max_connections.is_some()),
                ("tcpKeepalive", tcp.tcp_keepalive.is_some()),
                (
                    "maxConnectionDuration",
                    tcp.max_connection_duration.is_some(),
                ),
                ("idleTimeout", tcp.idle_timeout.is_some()),
            ];
            for (name, is_given) in given {
                self.not_yet(format!("{field}.tcp.{name}"), is_given);
            }
        }
        self.not_yet(format!("{field}.http"), pool.http.is_some());
    }
}

fn connect_timeout(pool: &ConnectionPoolSettings) -> Option<Duration> {
    let timeout = pool.tcp.as_ref()?.connect_timeout.as_ref()?;
    timeout.parse().ok().filter(|timeout| !timeout.is_zero())
}

#[cfg(test)]
mod tests;
