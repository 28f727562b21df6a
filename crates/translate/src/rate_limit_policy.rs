//! RateLimitPolicy → limits: defaults filled in, hosts full, conditions compiled.

use crate::Translated;
use crate::mesh::{Mesh, root_namespace};
use crate::names::{full_host, labels, origin, service_host};
use crate::policy::visibility;
use lateen_api::fields::{DurationText, StringMatch as WrittenMatch};
use lateen_api::meta::Config;
use lateen_api::notice::{Notice, Subject, any_error};
use lateen_api::rate_limit_policy::{
    GlobalRateLimit, LocalRateLimit, Per, RateLimitDescriptor, RateLimitEntry, RateLimitMatch,
    RateLimitPolicy as Written, RateLimitRule, RequestLimit,
};
use lateen_api::{path, validate};
use lateen_base::Str;
use lateen_model::limit::{
    Bucket, Descriptor, Entry, EntryValue, LimitMatch, LimitRule, Limiter, RateLimitPolicy, Service,
};
use lateen_model::matching::{Pattern, StringMatch};
use lateen_model::resource::Resource;
use lateen_model::route::HttpMatch;
use std::collections::BTreeMap;
use std::time::Duration;

/// Status of refused requests (RFC 6585 §4).
const STATUS: u16 = 429;
/// The service's name where none is given.
const SERVICE: &str = "ratelimit";
/// Its port (envoyproxy/ratelimit).
const PORT: u16 = 8081;
/// Time for its answer (Envoy).
const TIMEOUT: Duration = Duration::from_millis(20);

/// What a RateLimitPolicy is translated from.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// The RateLimitPolicy.
    pub config: &'a Config<Written>,
    /// The mesh.
    pub mesh: &'a Mesh,
}

/// Translates a RateLimitPolicy.
pub fn rate_limit_policy(inputs: Inputs<'_>) -> Translated {
    let Inputs { config, mesh } = inputs;
    let spec = &config.spec;
    let notices = validate::rate_limit_policy(config);
    if any_error(&notices) {
        return (Vec::new(), notices);
    }
    let mut reading = Reading {
        subject: Subject::new("RateLimitPolicy", &config.meta),
        namespace: &config.meta.namespace,
        mesh,
        notices,
    };
    let rules = spec.rules.iter().enumerate();
    let rules = rules
        .map(|(i, one)| reading.rule(&path::index("spec.rules", i), one))
        .collect();
    let selector = spec.selector.as_ref();
    let policy = RateLimitPolicy {
        origin: origin("RateLimitPolicy", &config.meta),
        selector: selector
            .map(|s| labels(&s.match_labels))
            .unwrap_or_default(),
        visibility: visibility(&config.meta, mesh),
        status: spec
            .status
            .and_then(|status| u16::try_from(status).ok())
            .unwrap_or(STATUS),
        headers: spec.response_headers == Some(true),
        rules,
    };
    crate::done(Resource::RateLimitPolicy(policy), reading.notices)
}

struct Reading<'a> {
    subject: Subject,
    namespace: &'a str,
    mesh: &'a Mesh,
    notices: Vec<Notice>,
}

impl Reading<'_> {
    fn rule(&mut self, field: &str, rule: &RateLimitRule) -> LimitRule {
        let matches = rule.matches.iter().enumerate();
        let matches = matches
            .map(|(i, one)| self.condition(&format!("{field}.match[{i}]"), one))
            .collect();
        let limiter = match &rule.global {
            Some(global) => Limiter::Global(self.service(global)),
            None => Limiter::Local {
                bucket: rule.local.as_ref().and_then(bucket),
            },
        };
        LimitRule {
            name: rule.name.as_deref().unwrap_or_default().into(),
            matches,
            limiter,
            descriptors: rule.descriptors.iter().map(descriptor).collect(),
        }
    }

    fn service(&self, global: &GlobalRateLimit) -> Service {
        let domain = &self.mesh.domain;
        let provider = global.provider.as_ref();
        let host = match provider {
            Some(provider) => full_host(&provider.host, self.namespace, domain),
            None => service_host(SERVICE, root_namespace(&self.mesh.config), domain),
        };
        let port = provider.and_then(|p| p.port);
        Service {
            domain: global.domain.as_str().into(),
            host,
            port: port
                .and_then(|port| u16::try_from(port).ok())
                .unwrap_or(PORT),
            fail_open: global.fail_open != Some(false),
            timeout: positive(global.timeout.as_ref()).unwrap_or(TIMEOUT),
            leases: global.leases != Some(false),
        }
    }

    fn condition(&mut self, field: &str, one: &RateLimitMatch) -> LimitMatch {
        let mut single = |name: &str, wanted: &Option<WrittenMatch>| {
            let wanted = wanted.as_ref()?;
            // A match without a value asks nothing of what every request has.
            match self.string_match(&format!("{field}.{name}"), wanted) {
                StringMatch::Present => None,
                wanted => Some(wanted),
            }
        };
        let uri = single("uri", &one.uri);
        let method = single("method", &one.method);
        let authority = single("authority", &one.authority);
        let http = HttpMatch {
            uri,
            ignore_uri_case: one.ignore_uri_case == Some(true),
            method,
            authority,
            headers: self.all(&format!("{field}.headers"), &one.headers, true),
            without_headers: self.all(
                &format!("{field}.withoutHeaders"),
                &one.without_headers,
                true,
            ),
            query: self.all(&format!("{field}.queryParams"), &one.query_params, false),
            ..HttpMatch::default()
        };
        LimitMatch {
            http,
            route: one.route.as_deref().map(Into::into),
        }
    }

    fn all(
        &mut self,
        field: &str,
        written: &BTreeMap<String, WrittenMatch>,
        lower: bool,
    ) -> BTreeMap<Str, StringMatch> {
        let mut out = BTreeMap::new();
        for (name, wanted) in written {
            let wanted = self.string_match(&path::key(field, name), wanted);
            let name: Str = match lower {
                true => name.to_ascii_lowercase().into(),
                false => name.as_str().into(),
            };
            out.insert(name, wanted);
        }
        out
    }

    fn string_match(&mut self, field: &str, wanted: &WrittenMatch) -> StringMatch {
        if let Some(exact) = &wanted.exact {
            return StringMatch::Exact(exact.as_str().into());
        }
        if let Some(prefix) = &wanted.prefix {
            return StringMatch::Prefix(prefix.as_str().into());
        }
        let Some(regex) = &wanted.regex else {
            return StringMatch::Present;
        };
        match Pattern::new(regex) {
            Ok(pattern) => StringMatch::Regex(pattern),
            Err(e) => {
                // The error refuses the object, so this value is never used.
                let notice = Notice::error(&self.subject, format!("{field}.regex"), e.to_string());
                self.notices.push(notice);
                StringMatch::Present
            }
        }
    }
}

fn positive(written: Option<&DurationText>) -> Option<Duration> {
    let parsed = written?.parse().ok();
    parsed.filter(|duration| !duration.is_zero())
}

fn bucket(local: &LocalRateLimit) -> Option<Bucket> {
    let tokens = local.tokens?;
    Some(Bucket {
        tokens,
        interval: positive(local.interval.as_ref()).unwrap_or(Duration::from_secs(1)),
        burst: local.burst.unwrap_or(tokens),
    })
}

fn descriptor(written: &RateLimitDescriptor) -> Descriptor {
    let limit = |limit: &RequestLimit| Bucket {
        tokens: limit.requests,
        interval: match limit.per {
            None | Some(Per::Second) => Duration::from_secs(1),
            Some(Per::Minute) => Duration::from_secs(60),
            Some(Per::Hour) => Duration::from_secs(3600),
            Some(Per::Day) => Duration::from_secs(24 * 3600),
        },
        burst: limit.requests,
    };
    Descriptor {
        entries: written.entries.iter().filter_map(entry).collect(),
        limit: written.limit.as_ref().map(limit),
    }
}

/// An entry; validation has refused what is none.
fn entry(written: &RateLimitEntry) -> Option<Entry> {
    let key = |given: &Option<String>, default: &str| -> Str {
        match given.as_deref() {
            None | Some("") => default.into(),
            Some(key) => key.into(),
        }
    };
    let plain = [
        (
            &written.remote_address,
            "remote_address",
            EntryValue::RemoteAddress,
        ),
        (&written.route, "route", EntryValue::Route),
        (&written.principal, "principal", EntryValue::Principal),
        (&written.destination, "destination", EntryValue::Destination),
    ];
    for (given, default, value) in plain {
        if let Some(given) = given {
            return Some(Entry {
                key: key(&given.key, default),
                value,
            });
        }
    }
    if let Some(header) = &written.header {
        return Some(Entry {
            key: key(&header.key, &header.name),
            value: EntryValue::Header(header.name.to_ascii_lowercase().into()),
        });
    }
    if let Some(claim) = &written.claim {
        return Some(Entry {
            key: key(&claim.key, &claim.name),
            value: EntryValue::Claim(claim.name.split('.').map(Into::into).collect()),
        });
    }
    let literal = written.literal.as_ref()?;
    Some(Entry {
        // Envoy's key of fixed entries.
        key: key(&literal.key, "generic_key"),
        value: EntryValue::Literal(literal.value.as_str().into()),
    })
}

#[cfg(test)]
mod tests;
