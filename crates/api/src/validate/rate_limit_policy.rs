//! RateLimitPolicies: one limiter for each rule, entries that are one thing, numbers that mean something.

use super::{Findings, bad_host, is_token};
use crate::meta::Config;
use crate::notice::{Notice, Subject};
use crate::path;
use crate::rate_limit_policy::{
    GlobalRateLimit, LocalRateLimit, RateLimitDescriptor, RateLimitEntry, RateLimitMatch,
    RateLimitPolicy, RateLimitRule,
};
use std::time::Duration;

/// Longest interval of a bucket: a year.
const LONGEST_INTERVAL: Duration = Duration::from_secs(365 * 24 * 3600);
/// Longest time that a service may be asked for.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Validates a RateLimitPolicy.
pub fn rate_limit_policy(config: &Config<RateLimitPolicy>) -> Vec<Notice> {
    let spec = &config.spec;
    let mut findings = Findings::new(Subject::new("RateLimitPolicy", &config.meta));
    let f = &mut findings;
    if let Some(selector) = &spec.selector {
        super::attachment::selector(f, selector);
    }
    if let Some(status) = spec.status
        && !(400..=599).contains(&status)
    {
        let message = format!("{status} does not refuse a request: use 400 to 599");
        f.error("spec.status", message);
    }
    if spec.rules.is_empty() {
        f.warning("spec.rules", "is empty, so nothing is limited: add a rule");
    }
    for (i, one) in spec.rules.iter().enumerate() {
        rule(f, &path::index("spec.rules", i), one);
    }
    findings.notices
}

fn rule(f: &mut Findings, field: &str, rule: &RateLimitRule) {
    for (i, one) in rule.matches.iter().enumerate() {
        condition(f, &format!("{field}.match[{i}]"), one);
    }
    match (&rule.local, &rule.global) {
        (Some(_), Some(_)) => f.error(field, "local and global exclude each other: keep one"),
        (None, None) => f.error(field, "has no limit: add local or global"),
        (Some(one), None) => local(f, field, one, &rule.descriptors),
        (None, Some(one)) => global(f, field, one, &rule.descriptors),
    }
    for (i, one) in rule.descriptors.iter().enumerate() {
        descriptor(f, &format!("{field}.descriptors[{i}]"), one);
    }
}

fn condition(f: &mut Findings, field: &str, one: &RateLimitMatch) {
    for (name, wanted) in [
        ("uri", &one.uri),
        ("method", &one.method),
        ("authority", &one.authority),
    ] {
        if let Some(wanted) = wanted {
            f.string_match(&format!("{field}.{name}"), wanted);
        }
    }
    for (name, map) in [
        ("headers", &one.headers),
        ("withoutHeaders", &one.without_headers),
        ("queryParams", &one.query_params),
    ] {
        for (key, wanted) in map {
            let field = path::key(&format!("{field}.{name}"), key);
            if key.is_empty() || name != "queryParams" && !is_token(key) {
                f.error(&field, format!("{key:?} is not a name"));
            }
            f.string_match(&field, wanted);
        }
    }
}

fn local(f: &mut Findings, field: &str, one: &LocalRateLimit, all: &[RateLimitDescriptor]) {
    let own = format!("{field}.local");
    if one.tokens.is_none() && all.is_empty() {
        f.error(
            format!("{own}.tokens"),
            "is missing: say how many requests an interval has, or add descriptors with limits",
        );
    }
    if one.tokens.is_none() && (one.interval.is_some() || one.burst.is_some()) {
        f.error(
            format!("{own}.tokens"),
            "is missing: interval and burst go with it",
        );
    }
    if one.burst.is_some_and(|burst| burst == 0) && one.tokens != Some(0) {
        f.error(
            format!("{own}.burst"),
            "is 0, so nothing would pass: use 1 or more",
        );
    }
    f.duration(&format!("{own}.interval"), one.interval.as_ref());
    if let Some(Ok(interval)) = one.interval.as_ref().map(|i| i.parse())
        && !(Duration::from_millis(1)..=LONGEST_INTERVAL).contains(&interval)
    {
        f.error(
            format!("{own}.interval"),
            "is out of bounds: use 1ms to 8760h",
        );
    }
    for (i, descriptor) in all.iter().enumerate() {
        if descriptor.limit.is_none() {
            f.error(
                format!("{field}.descriptors[{i}].limit"),
                "is missing: a local rule limits each descriptor by itself",
            );
        }
    }
}

fn global(f: &mut Findings, field: &str, one: &GlobalRateLimit, all: &[RateLimitDescriptor]) {
    let own = format!("{field}.global");
    if one.domain.is_empty() {
        f.error(
            format!("{own}.domain"),
            "is missing: name the domain of the service's limits",
        );
    }
    if let Some(provider) = &one.provider {
        let field = format!("{own}.provider.host");
        match bad_host(&provider.host) {
            Some(message) => f.error(field, message),
            None if provider.host.starts_with('*') => {
                f.error(field, "cannot be a wildcard: name one host");
            }
            None => {}
        }
        if provider.port.is_some() {
            f.port(&format!("{own}.provider.port"), provider.port);
        }
    }
    f.duration(&format!("{own}.timeout"), one.timeout.as_ref());
    if let Some(Ok(timeout)) = one.timeout.as_ref().map(|t| t.parse())
        && !(Duration::from_millis(1)..=LONGEST_TIMEOUT).contains(&timeout)
    {
        f.error(format!("{own}.timeout"), "is out of bounds: use 1ms to 60s");
    }
    if all.is_empty() {
        f.error(
            format!("{field}.descriptors"),
            "is empty, so the service would be asked about nothing: add one, such as entries: [{literal: {value: all}}]",
        );
    }
    for (i, descriptor) in all.iter().enumerate() {
        if descriptor.limit.is_some() {
            f.error(
                format!("{field}.descriptors[{i}].limit"),
                "is for local rules: the service has the limits of global ones",
            );
        }
    }
}

fn descriptor(f: &mut Findings, field: &str, one: &RateLimitDescriptor) {
    if one.entries.is_empty() {
        let message = "is empty: add an entry, such as remoteAddress: {}";
        f.error(format!("{field}.entries"), message);
    }
    for (i, one) in one.entries.iter().enumerate() {
        entry(f, &format!("{field}.entries[{i}]"), one);
    }
}

fn entry(f: &mut Findings, field: &str, one: &RateLimitEntry) {
    let given = [
        one.header.is_some(),
        one.remote_address.is_some(),
        one.route.is_some(),
        one.principal.is_some(),
        one.claim.is_some(),
        one.destination.is_some(),
        one.literal.is_some(),
    ];
    if given.into_iter().filter(|given| *given).count() != 1 {
        f.error(
            field,
            "must be exactly one of header, remoteAddress, route, principal, claim, destination and literal",
        );
    }
    if let Some(header) = &one.header
        && !is_token(&header.name)
    {
        let message = format!("{:?} is not a name of a header", header.name);
        f.error(format!("{field}.header.name"), message);
    }
    if let Some(claim) = &one.claim
        && claim.name.split('.').any(str::is_empty)
    {
        let message = format!("{:?} is not a name of a claim", claim.name);
        f.error(format!("{field}.claim.name"), message);
    }
    if let Some(literal) = &one.literal
        && literal.value.is_empty()
    {
        f.error(format!("{field}.literal.value"), "is empty: give a value");
    }
}
