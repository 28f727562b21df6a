//! DestinationRule → traffic policy.

mod balancer;
mod pool;

pub(crate) use balancer::locality;
pub(crate) use pool::{keepalive, outlier, pool};

use crate::mesh::Mesh;
use crate::names::{full_host, labels, origin, visibility};
use crate::{NOT_YET, Translated, tls};
use lateen_api::destination_rule::{
    DestinationRule, PortTrafficPolicy, ProxyProtocolVersion, TrafficPolicy as Written,
    TunnelSettings,
};
use lateen_api::meta::Config;
use lateen_api::notice::{Notice, Subject, any_error};
use lateen_api::validate;
use lateen_model::resource::Resource;
use lateen_model::traffic::{
    ProxyProtocol, RetryBudget, Subset, TrafficPolicy, TrafficSettings, Tunnel,
};
use std::collections::BTreeMap;

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
        let of_host = PortTrafficPolicy {
            port: None,
            load_balancer: policy.load_balancer.clone(),
            connection_pool: policy.connection_pool.clone(),
            outlier_detection: policy.outlier_detection.clone(),
            tls: policy.tls.clone(),
        };
        let budget = policy.retry_budget.as_ref();
        self.not_yet(
            format!("{field}.retryBudget.budgetInterval"),
            budget.is_some_and(|b| b.budget_interval.is_some()),
        );
        TrafficSettings {
            tunnel: policy.tunnel.as_ref().and_then(tunnel),
            proxy_protocol: policy.proxy_protocol.as_ref().map(|p| match p.version {
                None | Some(ProxyProtocolVersion::V1) => ProxyProtocol::V1,
                Some(ProxyProtocolVersion::V2) => ProxyProtocol::V2,
            }),
            retry_budget: budget.map(|b| RetryBudget {
                percent: b.percent.unwrap_or(20.0),
                least: b.min_retry_concurrency.unwrap_or(3),
            }),
            ports: self.ports(policy, field),
            ..self.blocks(&of_host, field)
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
            let settings = self.blocks(one, &field);
            // Validation refuses a port that is given twice.
            ports.entry(number).or_insert(settings);
        }
        ports
    }

    /// The blocks that a host and a port have in common.
    fn blocks(&mut self, policy: &PortTrafficPolicy, field: &str) -> TrafficSettings {
        let balancer = policy.load_balancer.as_ref();
        TrafficSettings {
            balancer: balancer.map(|b| self.balancer(b, &format!("{field}.loadBalancer"))),
            pool: policy.connection_pool.as_ref().map(pool),
            outlier: policy.outlier_detection.as_ref().map(outlier),
            tls: policy.tls.as_ref().map(tls::client),
            ..TrafficSettings::default()
        }
    }
}

fn tunnel(written: &TunnelSettings) -> Option<Tunnel> {
    let protocol = written.protocol.as_deref().unwrap_or_default();
    Some(Tunnel {
        post: protocol.eq_ignore_ascii_case("POST"),
        host: written.target_host.as_deref()?.into(),
        port: u16::try_from(written.target_port?).ok()?,
    })
}

#[cfg(test)]
mod tests;
