//! HTTP rules.

mod effects;

use super::{Reading, labels, port, weighted};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use effects::{claim, cors, fault, mirrors, retries, rewrite};
use lateen_api::fields::StringMatch as WrittenMatch;
use lateen_api::path;
use lateen_api::virtual_service::http as written;
use lateen_base::Str;
use lateen_model::matching::{Pattern, StringMatch};
use lateen_model::route::{
    ClaimMatch, DirectResponse, HeaderEdit, HeaderOperations, HttpAction, HttpDestination,
    HttpMatch, HttpRoute, Redirect, RedirectPort,
};
use std::collections::BTreeMap;

/// Header keys that mean claims of the verified token begin so.
const CLAIMS: &str = "@request.auth.claims";

/// Header keys that Istio ignores in `headers`: they have fields of their own.
const OWN_FIELDS: [&str; 4] = ["uri", "scheme", "method", "authority"];

/// Translates one rule found at `field`. What cannot be compiled becomes an error notice, which refuses the object.
pub(super) fn rule(r: &mut Reading<'_>, field: &str, rule: &written::HttpRoute) -> HttpRoute {
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
        rewrite: rewrite(r, field, rule.rewrite.as_ref(), authority),
        timeout: rule
            .timeout
            .as_ref()
            .and_then(|timeout| timeout.parse().ok())
            .filter(|timeout| !timeout.is_zero()),
        retries: rule.retries.as_ref().map(retries),
        headers,
        fault: rule
            .fault
            .as_ref()
            .and_then(|f| fault(r, &format!("{field}.fault"), f)),
        mirrors: mirrors(r, rule),
        cors: rule
            .cors_policy
            .as_ref()
            .map(|c| cors(r, &format!("{field}.corsPolicy"), c)),
        delegated: None,
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
    let mut claims = Vec::new();
    let mut of_headers = |name: &str, wanted, not| {
        header_matches(r, &format!("{field}.{name}"), wanted, (not, &mut claims))
    };
    let headers = of_headers("headers", &m.headers, false);
    let without_headers = of_headers("withoutHeaders", &m.without_headers, true);
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
        claims,
    }
}

/// Conditions on headers. Those on claims, which users write among them, go to `claims`.
fn header_matches(
    r: &mut Reading<'_>,
    field: &str,
    wanted: &BTreeMap<String, WrittenMatch>,
    (not, claims): (bool, &mut Vec<ClaimMatch>),
) -> BTreeMap<Str, StringMatch> {
    let mut headers = BTreeMap::new();
    for (name, wanted) in wanted {
        let field = path::key(field, name);
        if name.to_ascii_lowercase().starts_with(CLAIMS) {
            let wanted = string_match(r, &field, wanted);
            claims.extend(claim(r, field, name, (wanted, not)));
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
    if let Some(redirect) = &rule.redirect {
        return HttpAction::Redirect(redirection(redirect));
    }
    if let Some(answer) = &rule.direct_response {
        return HttpAction::Direct(direct(r, &format!("{field}.directResponse"), answer));
    }
    let all = rule.route.iter().map(|to| (to, to.weight)).collect();
    let mut destinations = Vec::new();
    for (to, weight) in weighted(all) {
        destinations.push(HttpDestination {
            destination: r.destination(&to.destination),
            weight,
            headers: operations(to.headers.as_ref()),
        });
    }
    HttpAction::Forward(destinations)
}

fn redirection(redirect: &written::HttpRedirect) -> Redirect {
    let number = port(redirect.port).map(RedirectPort::Number);
    Redirect {
        uri: redirect.uri.as_deref().map(Into::into),
        prefix: redirect.prefix_rewrite.as_deref().map(Into::into),
        authority: redirect.authority.as_deref().map(Into::into),
        scheme: redirect.scheme.as_deref().map(Into::into),
        port: match redirect.derive_port {
            Some(written::RedirectPort::FromRequestPort) => RedirectPort::Request,
            // Istio: the protocol's default is what a kept port comes to.
            Some(written::RedirectPort::FromProtocolDefault) | None => number.unwrap_or_default(),
        },
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
