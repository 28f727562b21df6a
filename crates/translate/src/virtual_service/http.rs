//! HTTP rules.

use super::{Reading, labels, port, weighted};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lateen_api::fields::StringMatch as WrittenMatch;
use lateen_api::path;
use lateen_api::virtual_service::http as written;
use lateen_base::Str;
use lateen_model::matching::{Pattern, StringMatch};
use lateen_model::route::{
    DirectResponse, HeaderEdit, HeaderOperations, HttpAction, HttpDestination, HttpMatch,
    HttpRoute, Redirect, RetryPolicy, Rewrite,
};
use std::collections::BTreeMap;

/// Conditions for retries when a rule names none (Istio: default retry policy).
pub(super) const RETRY_ON: [&str; 4] = [
    "connect-failure",
    "refused-stream",
    "unavailable",
    "cancelled",
];

/// Header keys that Istio ignores in `headers`: they have fields of their own.
const OWN_FIELDS: [&str; 4] = ["uri", "scheme", "method", "authority"];

/// Translates one rule found at `field`. What cannot be compiled becomes an error notice, which refuses the object.
pub(super) fn rule(r: &mut Reading<'_>, field: &str, rule: &written::HttpRoute) -> HttpRoute {
    not_in_force(r, field, rule);
    let matches = rule
        .matches
        .iter()
        .enumerate()
        .map(|(i, m)| condition(r, &format!("{field}.match[{i}]"), m))
        .collect();
    let (headers, authority) = headers(rule.headers.as_ref());
    HttpRoute {
        name: rule.name.as_deref().unwrap_or_default().into(),
        matches,
        action: action(r, field, rule),
        rewrite: rewrite(rule.rewrite.as_ref(), authority),
        timeout: rule
            .timeout
            .as_ref()
            .and_then(|timeout| timeout.parse().ok())
            .filter(|timeout| !timeout.is_zero()),
        retries: rule.retries.as_ref().map(retries),
        headers,
    }
}

/// Says which given fields have no effect yet.
fn not_in_force(r: &mut Reading<'_>, field: &str, rule: &written::HttpRoute) {
    let given = [
        ("fault", rule.fault.is_some()),
        ("mirror", rule.mirror.is_some()),
        ("mirrors", !rule.mirrors.is_empty()),
        ("corsPolicy", rule.cors_policy.is_some()),
    ];
    for (name, is_given) in given {
        r.not_yet(format!("{field}.{name}"), is_given);
    }
    if let Some(rewrite) = &rule.rewrite {
        let is_given = rewrite.uri_regex_rewrite.is_some();
        r.not_yet(format!("{field}.rewrite.uriRegexRewrite"), is_given);
    }
    if let Some(retries) = &rule.retries {
        let given = [
            ("backoff", retries.backoff.is_some()),
            (
                "retryRemoteLocalities",
                retries.retry_remote_localities == Some(true),
            ),
            (
                "retryIgnorePreviousHosts",
                retries.retry_ignore_previous_hosts == Some(false),
            ),
        ];
        for (name, is_given) in given {
            r.not_yet(format!("{field}.retries.{name}"), is_given);
        }
    }
}

fn condition(r: &mut Reading<'_>, field: &str, m: &written::HttpMatchRequest) -> HttpMatch {
    r.not_yet(format!("{field}.statPrefix"), m.stat_prefix.is_some());
    let mut single = |name: &str, wanted: &Option<WrittenMatch>| {
        let wanted = wanted.as_ref()?;
        // A match without a value asks nothing of what every request has.
        match string_match(r, &format!("{field}.{name}"), wanted) {
            StringMatch::Present => None,
            wanted => Some(wanted),
        }
    };
    let uri = single("uri", &m.uri);
    let scheme = single("scheme", &m.scheme);
    let method = single("method", &m.method);
    let authority = single("authority", &m.authority);
    let headers = header_matches(r, &format!("{field}.headers"), &m.headers);
    let without_headers = header_matches(r, &format!("{field}.withoutHeaders"), &m.without_headers);
    let query = m
        .query_params
        .iter()
        .map(|(name, wanted)| {
            let field = path::key(&format!("{field}.queryParams"), name);
            (name.as_str().into(), string_match(r, &field, wanted))
        })
        .collect();
    HttpMatch {
        name: m.name.as_deref().unwrap_or_default().into(),
        uri,
        ignore_uri_case: m.ignore_uri_case == Some(true),
        scheme,
        method,
        authority,
        headers,
        without_headers,
        query,
        port: port(m.port),
        source_labels: labels(&m.source_labels),
        source_namespace: m
            .source_namespace
            .as_deref()
            .filter(|namespace| !namespace.is_empty())
            .map(Into::into),
        gateways: r.gateways(&m.gateways),
    }
}

fn header_matches(
    r: &mut Reading<'_>,
    field: &str,
    wanted: &BTreeMap<String, WrittenMatch>,
) -> BTreeMap<Str, StringMatch> {
    let mut headers = BTreeMap::new();
    for (name, wanted) in wanted {
        let field = path::key(field, name);
        if name.starts_with("@request.auth.claims") {
            r.error(field, "matching on token claims is not supported yet, and without it the rule would take other requests too: remove the rule");
            continue;
        }
        if OWN_FIELDS.contains(&name.as_str()) {
            let message = format!("is ignored, as in Istio: use match.{name}");
            r.warning(field, message);
            continue;
        }
        let wanted = string_match(r, &field, wanted);
        headers.insert(name.to_ascii_lowercase().into(), wanted);
    }
    headers
}

fn string_match(r: &mut Reading<'_>, field: &str, wanted: &WrittenMatch) -> StringMatch {
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
            r.error(format!("{field}.regex"), e.to_string());
            StringMatch::Present
        }
    }
}

fn action(r: &mut Reading<'_>, field: &str, rule: &written::HttpRoute) -> HttpAction {
    if rule.delegate.is_some() {
        let message = "delegation is not supported yet, so the rule would have no action: put the other object's rules here";
        r.error(format!("{field}.delegate"), message);
    }
    if let Some(redirect) = &rule.redirect {
        return HttpAction::Redirect(redirection(r, &format!("{field}.redirect"), redirect));
    }
    if let Some(answer) = &rule.direct_response {
        return HttpAction::Direct(direct(r, &format!("{field}.directResponse"), answer));
    }
    let all = rule.route.iter().map(|to| (to, to.weight)).collect();
    let mut destinations = Vec::new();
    for (to, weight) in weighted(all) {
        let (headers, authority) = headers(to.headers.as_ref());
        if authority.is_some() {
            let message = "setting the authority for one destination only is not in force yet: set it on the rule";
            r.warning(format!("{field}.route"), message);
        }
        destinations.push(HttpDestination {
            destination: r.destination(&to.destination),
            weight,
            headers,
        });
    }
    HttpAction::Forward(destinations)
}

fn redirection(r: &mut Reading<'_>, field: &str, redirect: &written::HttpRedirect) -> Redirect {
    if redirect.prefix_rewrite.is_some() {
        let message =
            "is not supported yet, and without it clients would be sent to the wrong path: use uri";
        r.error(format!("{field}.prefixRewrite"), message);
    }
    r.not_yet(
        format!("{field}.derivePort"),
        redirect.derive_port.is_some(),
    );
    Redirect {
        uri: redirect.uri.as_deref().map(Into::into),
        authority: redirect.authority.as_deref().map(Into::into),
        scheme: redirect.scheme.as_deref().map(Into::into),
        port: port(redirect.port),
        status: redirect
            .redirect_code
            .and_then(|code| u16::try_from(code).ok())
            .filter(|code| *code > 0)
            .unwrap_or(301),
    }
}

fn direct(
    r: &mut Reading<'_>,
    field: &str,
    answer: &written::HttpDirectResponse,
) -> DirectResponse {
    let body = answer.body.as_ref();
    let body = match body.map(|b| (&b.string, &b.bytes)) {
        Some((Some(text), _)) => text.clone().into_bytes(),
        Some((None, Some(text))) => STANDARD.decode(text).unwrap_or_else(|e| {
            r.error(format!("{field}.body.bytes"), format!("is not base64: {e}"));
            Vec::new()
        }),
        _ => Vec::new(),
    };
    DirectResponse {
        status: u16::try_from(answer.status).unwrap_or(500),
        body,
    }
}

/// The rewrite; `authority` comes from a header operation and yields to the rewrite's own.
fn rewrite(written: Option<&written::HttpRewrite>, authority: Option<Str>) -> Option<Rewrite> {
    let rewrite = Rewrite {
        uri: written.and_then(|w| w.uri.as_deref()).map(Into::into),
        authority: written
            .and_then(|w| w.authority.as_deref())
            .map(Into::into)
            .or(authority),
    };
    (rewrite.uri.is_some() || rewrite.authority.is_some()).then_some(rewrite)
}

fn retries(written: &written::HttpRetry) -> RetryPolicy {
    let conditions = written.retry_on.as_deref().unwrap_or_default();
    let mut retry_on = conditions
        .split(',')
        .map(str::trim)
        .filter(|condition| !condition.is_empty())
        .map(Str::from)
        .collect::<Vec<_>>();
    if retry_on.is_empty() {
        retry_on = RETRY_ON.into_iter().map(Str::from).collect();
    }
    RetryPolicy {
        attempts: written
            .attempts
            .and_then(|n| u32::try_from(n).ok())
            .unwrap_or(0),
        per_try_timeout: written
            .per_try_timeout
            .as_ref()
            .and_then(|timeout| timeout.parse().ok())
            .filter(|timeout| !timeout.is_zero()),
        retry_on,
    }
}

/// Header operations, and the new authority if they set one (Istio: setting `Host` or `:authority` is a
/// rewrite of the authority).
fn headers(written: Option<&written::Headers>) -> (HeaderOperations, Option<Str>) {
    let mut operations = operations(written);
    let set = &mut operations.request.set;
    let at = set
        .iter()
        .position(|(name, _)| name.eq_ignore_ascii_case("host") || &**name == ":authority");
    let authority = at.map(|at| set.remove(at).1);
    (operations, authority)
}

fn operations(written: Option<&written::Headers>) -> HeaderOperations {
    HeaderOperations {
        request: edit(written.and_then(|w| w.request.as_ref())),
        response: edit(written.and_then(|w| w.response.as_ref())),
    }
}

fn edit(written: Option<&written::HeaderOperations>) -> HeaderEdit {
    let Some(written) = written else {
        return HeaderEdit::default();
    };
    let pairs = |map: &BTreeMap<String, String>| {
        map.iter()
            .map(|(name, value)| (name.as_str().into(), value.as_str().into()))
            .collect()
    };
    HeaderEdit {
        set: pairs(&written.set),
        add: pairs(&written.add),
        remove: written
            .remove
            .iter()
            .map(|name| name.as_str().into())
            .collect(),
    }
}
