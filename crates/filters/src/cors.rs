//! Cross-origin requests (Fetch: "CORS protocol"), as Envoy's filter of that name treats them: who may read what a rule
//! serves, said in headers. It keeps nobody out: what browsers do with the headers is theirs.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderName, ORIGIN,
};
use http::{HeaderValue, Method, Response};
use lateen_base::Str;
use lateen_model::decide::plan::RoutePolicy;
use lateen_model::route::CorsPolicy;
use std::sync::Arc;

/// What a policy says of a request.
#[derive(Debug)]
pub enum Verdict {
    /// It goes on, and its answer is left alone.
    Pass,
    /// It goes on, and its answer is marked for this origin by [`mark`].
    Mark(HeaderValue),
    /// It is a preflight: this is the answer.
    Answer(Response<()>),
}

/// An answer that is to be marked, and how.
#[derive(Debug, Clone)]
pub struct Marked {
    /// The rule's policy.
    pub policy: Arc<RoutePolicy>,
    /// The request's origin, which the policy allows.
    pub origin: HeaderValue,
}

impl Marked {
    /// Marks the answer.
    pub fn apply(&self, headers: &mut HeaderMap) {
        if let Some(policy) = &self.policy.cors {
            mark(policy, self.origin.clone(), headers);
        }
    }
}

/// Looks at a request.
pub fn judge(policy: &CorsPolicy, method: &Method, headers: &HeaderMap) -> Verdict {
    let given = |name: &HeaderName| headers.get(name).filter(|value| !value.is_empty());
    let Some(origin) = given(&ORIGIN) else {
        return Verdict::Pass;
    };
    let is_preflight = method == Method::OPTIONS && given(&ACCESS_CONTROL_REQUEST_METHOD).is_some();
    match (allows(policy, origin), is_preflight) {
        (true, true) => Verdict::Answer(preflight(policy, origin)),
        (true, false) => Verdict::Mark(origin.clone()),
        (false, true) if !policy.forward_unmatched => Verdict::Answer(Response::new(())),
        (false, _) => Verdict::Pass,
    }
}

/// Marks the answer to a request of `origin`.
pub fn mark(policy: &CorsPolicy, origin: HeaderValue, headers: &mut HeaderMap) {
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    credentials(policy, headers);
    list(
        &policy.expose_headers,
        ACCESS_CONTROL_EXPOSE_HEADERS,
        headers,
    );
}

fn preflight(policy: &CorsPolicy, origin: &HeaderValue) -> Response<()> {
    let mut response = Response::new(());
    let headers = response.headers_mut();
    mark(policy, origin.clone(), headers);
    list(&policy.allow_methods, ACCESS_CONTROL_ALLOW_METHODS, headers);
    list(&policy.allow_headers, ACCESS_CONTROL_ALLOW_HEADERS, headers);
    if let Some(age) = policy.max_age {
        headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from(age.as_secs()));
    }
    response
}

// A policy that takes the origin `*` takes every origin (Envoy).
fn allows(policy: &CorsPolicy, origin: &HeaderValue) -> bool {
    let origin = String::from_utf8_lossy(origin.as_bytes());
    let mut wanted = policy.allow_origins.iter();
    wanted.any(|wanted| wanted.matches("*", false) || wanted.matches(&origin, false))
}

fn credentials(policy: &CorsPolicy, headers: &mut HeaderMap) {
    if policy.allow_credentials == Some(true) {
        headers.insert(
            ACCESS_CONTROL_ALLOW_CREDENTIALS,
            HeaderValue::from_static("true"),
        );
    }
}

fn list(values: &[Str], name: HeaderName, headers: &mut HeaderMap) {
    let joined = values.join(",");
    if let Ok(value) = HeaderValue::from_str(&joined)
        && !joined.is_empty()
    {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests;
