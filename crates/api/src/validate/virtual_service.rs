//! VirtualServices: hosts, conditions, one action per rule, weights.

mod l4;

use super::{Findings, bad_host};
use crate::fields::Destination;
use crate::meta::Config;
use crate::notice::{Notice, Subject};
use crate::path;
use crate::virtual_service::VirtualService;
use crate::virtual_service::http::{
    HttpBody, HttpDirectResponse, HttpFaultInjection, HttpMatchRequest, HttpRedirect, HttpRetry,
    HttpRoute,
};

/// Largest body of a direct response: 1 MiB (Istio: `ValidateHTTPDirectResponse`).
const MAX_BODY: usize = 1 << 20;

/// Validates a VirtualService.
pub fn virtual_service(config: &Config<VirtualService>) -> Vec<Notice> {
    let spec = &config.spec;
    let mut findings = Findings::new(Subject::new("VirtualService", &config.meta));
    let f = &mut findings;
    f.export_to(&spec.export_to);
    for (i, host) in spec.hosts.iter().enumerate() {
        let field = path::index("spec.hosts", i);
        f.host(&field, host);
        let first = spec.hosts.iter().position(|h| h.eq_ignore_ascii_case(host));
        if first != Some(i) {
            f.error(field, format!("{host:?} is given twice: remove one"));
        }
    }
    let is_mesh = spec.gateways.is_empty() || spec.gateways.iter().any(|g| g == "mesh");
    if is_mesh && let Some(i) = spec.hosts.iter().position(|h| h == "*") {
        f.error(
            path::index("spec.hosts", i),
            "\"*\" is for gateways only: name the hosts, or bind to gateways without mesh",
        );
    }
    gateways(f, "spec.gateways", &spec.gateways);
    if spec.http.is_empty() && spec.tcp.is_empty() && spec.tls.is_empty() {
        f.error("spec", "has no rule: add http, tls or tcp rules");
    }
    for (i, rule) in spec.http.iter().enumerate() {
        http_route(f, &path::index("spec.http", i), rule);
    }
    shadowed(f, spec);
    for (i, rule) in spec.tls.iter().enumerate() {
        l4::tls_route(f, &path::index("spec.tls", i), rule, &spec.hosts);
    }
    for (i, rule) in spec.tcp.iter().enumerate() {
        l4::tcp_route(f, &path::index("spec.tcp", i), rule);
    }
    findings.notices
}

/// A rule without conditions takes everything: rules after it never run.
fn shadowed(f: &mut Findings, spec: &VirtualService) {
    let catch_all = spec.http.iter().position(|rule| rule.matches.is_empty());
    if let Some(i) = catch_all
        && i + 1 < spec.http.len()
    {
        f.notices.push(
            Notice::warning(
                &f.subject,
                path::index("spec.http", i + 1),
                format!("never runs: spec.http[{i}] has no match and takes everything; move that rule to the end"),
            )
            .code("IST0130"),
        );
    }
}

fn http_route(f: &mut Findings, field: &str, rule: &HttpRoute) {
    for (i, condition) in rule.matches.iter().enumerate() {
        http_match(f, &format!("{field}.match[{i}]"), condition);
    }
    let actions = [
        ("route", !rule.route.is_empty()),
        ("redirect", rule.redirect.is_some()),
        ("directResponse", rule.direct_response.is_some()),
        ("delegate", rule.delegate.is_some()),
    ];
    let given = actions
        .iter()
        .filter_map(|(name, given)| given.then_some(*name))
        .collect::<Vec<_>>();
    match given[..] {
        [] => f.error(
            field,
            "has no action: add route, redirect, directResponse or delegate",
        ),
        [_] => {}
        _ => f.error(
            field,
            format!(
                "{} exclude each other: keep one of them",
                given.join(" and ")
            ),
        ),
    }
    f.duration(&format!("{field}.timeout"), rule.timeout.as_ref());
    http_destinations(f, field, rule);
    if let Some(redirect) = &rule.redirect {
        http_redirect(f, &format!("{field}.redirect"), redirect);
    }
    if let Some(answer) = &rule.direct_response {
        direct_response(f, &format!("{field}.directResponse"), answer);
    }
    if let Some(retries) = &rule.retries {
        http_retries(f, &format!("{field}.retries"), retries);
    }
    if let Some(fault) = &rule.fault {
        http_fault(f, &format!("{field}.fault"), fault);
    }
    if let Some(rewrite) = &rule.rewrite {
        if !rule.route.is_empty() && rule.redirect.is_some() {
            f.error(format!("{field}.rewrite"), "does not go with a redirect");
        }
        if let Some(regex) = &rewrite.uri_regex_rewrite {
            let field = format!("{field}.rewrite.uriRegexRewrite");
            f.regex(
                &format!("{field}.match"),
                regex.pattern.as_deref().unwrap_or_default(),
            );
            if rewrite.uri.is_some() {
                f.error(
                    field,
                    "uri and uriRegexRewrite exclude each other: keep one of them",
                );
            }
        }
    }
    if rule.mirror_percent.is_some() {
        f.deprecated(
            format!("{field}.mirrorPercent"),
            "is deprecated: use mirrorPercentage",
        );
    }
    if let Some(mirror) = &rule.mirror {
        destination(f, &format!("{field}.mirror"), mirror);
    }
    for (i, mirror) in rule.mirrors.iter().enumerate() {
        let field = format!("{field}.mirrors[{i}].destination");
        destination(f, &field, &mirror.destination);
    }
    for (i, origin) in rule
        .cors_policy
        .iter()
        .flat_map(|cors| &cors.allow_origins)
        .enumerate()
    {
        f.string_match(&format!("{field}.corsPolicy.allowOrigins[{i}]"), origin);
    }
}

fn http_match(f: &mut Findings, field: &str, condition: &HttpMatchRequest) {
    let single = [
        ("uri", &condition.uri),
        ("scheme", &condition.scheme),
        ("method", &condition.method),
        ("authority", &condition.authority),
    ];
    for (name, wanted) in single {
        if let Some(wanted) = wanted {
            f.string_match(&format!("{field}.{name}"), wanted);
        }
    }
    let many = [
        ("headers", &condition.headers),
        ("withoutHeaders", &condition.without_headers),
        ("queryParams", &condition.query_params),
    ];
    for (name, map) in many {
        for (key, wanted) in map {
            let field = path::key(&format!("{field}.{name}"), key);
            if key.is_empty() {
                f.error(&field, "has no name: give one");
            }
            f.string_match(&field, wanted);
        }
    }
    f.labels(&format!("{field}.sourceLabels"), &condition.source_labels);
    gateways(f, &format!("{field}.gateways"), &condition.gateways);
}

fn gateways(f: &mut Findings, field: &str, gateways: &[String]) {
    for (i, gateway) in gateways.iter().enumerate() {
        let name = gateway
            .split_once('/')
            .map_or(gateway.as_str(), |(_, name)| name);
        if name.is_empty() || name.contains('/') || bad_host(name).is_some() {
            f.error(
                path::index(field, i),
                format!("{gateway:?} is not a gateway; use name, namespace/name or mesh"),
            );
        }
    }
}

fn http_destinations(f: &mut Findings, field: &str, rule: &HttpRoute) {
    let weights = rule.route.iter().map(|r| r.weight.unwrap_or(0));
    weight_sum(f, field, weights.collect());
    for (i, route) in rule.route.iter().enumerate() {
        let field = format!("{field}.route[{i}]");
        destination(f, &format!("{field}.destination"), &route.destination);
    }
}

fn weight_sum(f: &mut Findings, field: &str, weights: Vec<i32>) {
    if let Some(i) = weights.iter().position(|w| *w < 0) {
        f.error(
            format!("{field}.route[{i}].weight"),
            "is negative: use 0 or more",
        );
    }
    if weights.len() > 1 && weights.iter().all(|w| *w == 0) {
        f.error(
            format!("{field}.route"),
            "all weights are 0, so nothing would be sent: give weights that say who gets what share",
        );
    }
}

fn destination(f: &mut Findings, field: &str, destination: &Destination) {
    let host = format!("{field}.host");
    if destination.host.starts_with('*') {
        f.error(host, "a destination cannot be a wildcard: name one host");
    } else {
        f.host(&host, &destination.host);
    }
    if let Some(port) = &destination.port {
        f.port(&format!("{field}.port.number"), port.number);
    }
    if destination.subset.as_deref() == Some("") {
        f.error(
            format!("{field}.subset"),
            "is empty: name a subset or leave it out",
        );
    }
}

fn http_redirect(f: &mut Findings, field: &str, redirect: &HttpRedirect) {
    if redirect.uri.is_some() && redirect.prefix_rewrite.is_some() {
        f.error(
            field,
            "uri and prefixRewrite exclude each other: keep one of them",
        );
    }
    if redirect.port.is_some() && redirect.derive_port.is_some() {
        f.error(
            field,
            "port and derivePort exclude each other: keep one of them",
        );
    }
    if !matches!(
        redirect.redirect_code,
        None | Some(0 | 301 | 302 | 303 | 307 | 308)
    ) {
        f.error(
            format!("{field}.redirectCode"),
            "is not a redirect; use 301, 302, 303, 307 or 308",
        );
    }
    let changes = [
        &redirect.uri,
        &redirect.prefix_rewrite,
        &redirect.authority,
        &redirect.scheme,
    ];
    if changes.into_iter().flatten().next().is_none()
        && redirect.port.is_none()
        && redirect.derive_port.is_none()
    {
        f.error(field, "changes nothing, so clients would be sent in a circle: add uri, authority, scheme or port");
    }
}

fn direct_response(f: &mut Findings, field: &str, answer: &HttpDirectResponse) {
    if !(200..=599).contains(&answer.status) {
        f.error(format!("{field}.status"), "is not a status; use 200 to 599");
    }
    let Some(HttpBody { string, bytes }) = &answer.body else {
        return;
    };
    if string.is_some() && bytes.is_some() {
        f.error(
            format!("{field}.body"),
            "string and bytes exclude each other: keep one of them",
        );
    }
    for text in [string, bytes].into_iter().flatten() {
        if text.len() > MAX_BODY {
            f.error(
                format!("{field}.body"),
                format!(
                    "is {} bytes long; at most {MAX_BODY} are allowed",
                    text.len()
                ),
            );
        }
    }
}

fn http_retries(f: &mut Findings, field: &str, retries: &HttpRetry) {
    if retries.attempts.is_some_and(|n| n < 0) {
        f.error(
            format!("{field}.attempts"),
            "is negative: use 0 to switch retries off",
        );
    }
    if retries.attempts.unwrap_or(0) == 0
        && (retries.retry_on.is_some() || retries.per_try_timeout.is_some())
    {
        f.warning(
            format!("{field}.attempts"),
            "is 0 or missing, which switches retries off: give the number of further tries",
        );
    }
    f.duration(
        &format!("{field}.perTryTimeout"),
        retries.per_try_timeout.as_ref(),
    );
    f.duration(&format!("{field}.backoff"), retries.backoff.as_ref());
    let known = [
        "5xx",
        "gateway-error",
        "reset",
        "reset-before-request",
        "connect-failure",
        "envoy-ratelimited",
        "retriable-4xx",
        "refused-stream",
        "retriable-status-codes",
        "retriable-headers",
        "cancelled",
        "deadline-exceeded",
        "internal",
        "resource-exhausted",
        "unavailable",
        "http3-post-connect-failure",
    ];
    let conditions = retries.retry_on.as_deref().unwrap_or_default().split(',');
    for condition in conditions.map(str::trim).filter(|c| !c.is_empty()) {
        let is_status = condition
            .parse::<u16>()
            .is_ok_and(|code| (100..600).contains(&code));
        if !is_status && !known.contains(&condition) {
            let hint = crate::check::nearest(condition, known.into_iter())
                .map_or_else(String::new, |near| format!("; did you mean {near:?}?"));
            f.error(
                format!("{field}.retryOn"),
                format!("{condition:?} is not a condition for retries{hint}"),
            );
        }
    }
}

fn http_fault(f: &mut Findings, field: &str, fault: &HttpFaultInjection) {
    if fault.delay.is_none() && fault.abort.is_none() {
        f.error(field, "has neither delay nor abort: add one");
    }
    if let Some(delay) = &fault.delay {
        let field = format!("{field}.delay");
        f.duration(&format!("{field}.fixedDelay"), delay.fixed_delay.as_ref());
        if delay.fixed_delay.is_none() && delay.exponential_delay.is_none() {
            f.error(format!("{field}.fixedDelay"), "is missing: say how long");
        }
        if delay.percent.is_some() {
            f.deprecated(
                format!("{field}.percent"),
                "is deprecated: use percentage.value",
            );
        }
    }
    if let Some(abort) = &fault.abort {
        let field = format!("{field}.abort");
        if abort.http_status.is_some() == abort.grpc_status.is_some() {
            f.error(&field, "needs exactly one of httpStatus and grpcStatus");
        }
        if abort.http_status.is_some_and(|s| !(200..=599).contains(&s)) {
            f.error(
                format!("{field}.httpStatus"),
                "is not a status; use 200 to 599",
            );
        }
    }
}
