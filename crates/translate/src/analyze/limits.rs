//! Analyzers of RateLimitPolicies: whom they reach, and whether there is who they ask.

use super::security::unmatched;
use super::{Inputs, Known, NOT_FOUND};
use crate::rate_limit_policy::{Inputs as Written, rate_limit_policy};
use lateen_api::notice::{Notice, Subject};
use lateen_model::limit::Limiter;
use lateen_model::resource::Resource;

pub(super) fn analyze(inputs: &Inputs<'_>, known: &Known, notices: &mut Vec<Notice>) {
    for config in inputs.rate_limit_policies {
        let subject = Subject::new("RateLimitPolicy", &config.meta);
        let selector = config.spec.selector.as_ref();
        notices.extend(unmatched(inputs, &subject, &config.meta, selector));
        let mesh = inputs.mesh;
        let (resources, _) = rate_limit_policy(Written { config, mesh });
        let Some(Resource::RateLimitPolicy(policy)) = resources.first() else {
            continue;
        };
        for (i, rule) in policy.rules.iter().enumerate() {
            let Limiter::Global(service) = &rule.limiter else {
                continue;
            };
            let ports = known.hosts.get(&service.host);
            let (host, port) = (&service.host, service.port);
            let means = match service.fail_open {
                true => "so nothing is limited",
                false => "so requests are refused with 500",
            };
            let (field, message) = match ports {
                None if known.has_host(host) => continue,
                None => (
                    "host",
                    format!(
                        "there is no rate-limit service {host}, {means}: start one, or correct the name"
                    ),
                ),
                Some(ports) if !ports.contains(&u32::from(port)) => (
                    "port",
                    format!("{host} has no port {port}, {means}: use the port of its Service"),
                ),
                Some(_) => continue,
            };
            let field = format!("spec.rules[{i}].global.provider.{field}");
            notices.push(Notice::warning(&subject, field, message).code(NOT_FOUND));
        }
    }
}
