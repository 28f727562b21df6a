//! What a rule does beside choosing a destination: faults, mirrors, CORS, retries, rewrites; and claims as conditions.

use crate::virtual_service::Reading;
use lateen_api::fields::{DurationText, Percent};
use lateen_api::virtual_service::http as written;
use lateen_base::Str;
use lateen_model::matching::{Replacement, StringMatch};
use lateen_model::route::{
    AbortStatus, ClaimMatch, CorsPolicy, FaultAbort, FaultDelay, FaultInjection, Mirror,
    RetryPolicy, Rewrite, Share,
};
use std::time::Duration;

/// Conditions for retries when a rule names none (Istio: default retry policy).
const RETRY_ON: [&str; 4] = [
    "connect-failure",
    "refused-stream",
    "unavailable",
    "cancelled",
];

/// gRPC status names in order of their codes.
const GRPC_STATUS: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// Faults; absent when they concern no request.
pub(super) fn fault(
    r: &mut Reading<'_>,
    field: &str,
    fault: &written::HttpFaultInjection,
) -> Option<FaultInjection> {
    let delay = fault.delay.as_ref().and_then(|d| delay(r, field, d));
    let abort = fault.abort.as_ref().and_then(|a| abort(r, field, a));
    (delay.is_some() || abort.is_some()).then_some(FaultInjection { delay, abort })
}

fn delay(r: &mut Reading<'_>, field: &str, delay: &written::FaultDelay) -> Option<FaultDelay> {
    if delay.exponential_delay.is_some() {
        let message = "has no effect, as in Istio: use fixedDelay";
        r.warning(format!("{field}.delay.exponentialDelay"), message);
    }
    let whole = delay.percent.and_then(|p| u32::try_from(p).ok());
    let share = share(delay.percentage.as_ref())
        .unwrap_or_else(|| Share::millionths(whole.unwrap_or(0).saturating_mul(10_000)));
    nobody(r, &format!("{field}.delay"), share);
    let delay = time(delay.fixed_delay.as_ref())?;
    (share.parts() > 0).then_some(FaultDelay { share, delay })
}

fn abort(r: &mut Reading<'_>, field: &str, abort: &written::FaultAbort) -> Option<FaultAbort> {
    if abort.http2_error.is_some() {
        let message = "has no effect, as in Istio: use httpStatus or grpcStatus";
        r.warning(format!("{field}.abort.http2Error"), message);
    }
    let share = share(abort.percentage.as_ref()).unwrap_or(Share::millionths(0));
    nobody(r, &format!("{field}.abort"), share);
    let http = abort.http_status.and_then(|code| u16::try_from(code).ok());
    let status = match (http, abort.grpc_status.as_deref()) {
        (_, Some(name)) => AbortStatus::Grpc(grpc_status(r, field, name)?),
        (Some(code), None) => AbortStatus::Http(code),
        (None, None) => return None,
    };
    (share.parts() > 0).then_some(FaultAbort { share, status })
}

// Istio's own gotcha: without a percentage a fault concerns nobody.
fn nobody(r: &mut Reading<'_>, field: &str, share: Share) {
    if share.parts() == 0 {
        let message =
            "concerns no request, as its percentage is 0 or missing: set percentage.value";
        r.warning(field, message);
    }
}

fn grpc_status(r: &mut Reading<'_>, field: &str, name: &str) -> Option<u16> {
    let known = GRPC_STATUS.iter().position(|known| *known == name);
    let code = known.and_then(|code| u16::try_from(code).ok());
    if code.is_none() {
        let message = format!("{name:?} is no gRPC status: use a name such as UNAVAILABLE");
        r.error(format!("{field}.abort.grpcStatus"), message);
    }
    code
}

/// A share of requests in percent; absent when none is given.
fn share(written: Option<&Percent>) -> Option<Share> {
    let percent = written?.value.unwrap_or(0.0).clamp(0.0, 100.0);
    // Validation has refused what is out of range; a float below 2^32 is cut, as in Istio.
    Some(Share::millionths((percent * 10_000.0) as u32))
}

fn time(written: Option<&DurationText>) -> Option<Duration> {
    let time: Duration = written?.parse().ok()?;
    (!time.is_zero()).then_some(time)
}

/// Destinations that get copies; those with a share of 0 are left out.
pub(super) fn mirrors(r: &Reading<'_>, rule: &written::HttpRoute) -> Vec<Mirror> {
    let whole = rule
        .mirror_percent
        .map(|p| Share::millionths(p.saturating_mul(10_000)));
    let single = rule.mirror.iter().map(|to| Mirror {
        destination: r.destination(to),
        share: share(rule.mirror_percentage.as_ref())
            .or(whole)
            .unwrap_or(Share::ALL),
    });
    let several = rule.mirrors.iter().map(|mirror| Mirror {
        destination: r.destination(&mirror.destination),
        share: share(mirror.percentage.as_ref()).unwrap_or(Share::ALL),
    });
    let all = single.chain(several);
    all.filter(|mirror| mirror.share.parts() > 0).collect()
}

/// A cross-origin policy.
pub(super) fn cors(r: &mut Reading<'_>, field: &str, cors: &written::CorsPolicy) -> CorsPolicy {
    let old = cors.allow_origin.iter();
    let mut allow_origins: Vec<_> = old.map(|o| StringMatch::Exact(o.as_str().into())).collect();
    for (i, origin) in cors.allow_origins.iter().enumerate() {
        let field = format!("{field}.allowOrigins[{i}]");
        allow_origins.push(super::string_match(r, &field, origin));
    }
    let texts = |list: &[String]| list.iter().map(|t| Str::from(t.as_str())).collect();
    CorsPolicy {
        allow_origins,
        allow_methods: texts(&cors.allow_methods),
        allow_headers: texts(&cors.allow_headers),
        expose_headers: texts(&cors.expose_headers),
        max_age: cors.max_age.as_ref().and_then(|age| age.parse().ok()),
        allow_credentials: cors.allow_credentials,
        forward_unmatched: cors.unmatched_preflights != Some(written::UnmatchedPreflights::Ignore),
    }
}

/// The rewrite; `authority` comes from a header operation and yields to the rewrite's own.
pub(super) fn rewrite(
    r: &mut Reading<'_>,
    field: &str,
    written: Option<&written::HttpRewrite>,
    authority: Option<Str>,
) -> Option<Rewrite> {
    let regex = written.and_then(|w| w.uri_regex_rewrite.as_ref());
    let regex = regex.and_then(|regex| {
        let pattern = regex.pattern.as_deref().unwrap_or_default();
        let by = regex.rewrite.as_deref().unwrap_or_default();
        match Replacement::new(pattern, by) {
            Ok(replacement) => Some(replacement),
            Err(error) => {
                let field = format!("{field}.rewrite.uriRegexRewrite");
                r.error(field, error.to_string());
                None
            }
        }
    });
    let given = |text: Option<&String>| text.filter(|t| !t.is_empty()).map(|t| t.as_str().into());
    let rewrite = Rewrite {
        uri: given(written.and_then(|w| w.uri.as_ref())),
        authority: given(written.and_then(|w| w.authority.as_ref())).or(authority),
        regex,
    };
    let changes = rewrite.uri.is_some() || rewrite.authority.is_some() || rewrite.regex.is_some();
    changes.then_some(rewrite)
}

/// The retry policy of a rule that has one.
pub(super) fn retries(written: &written::HttpRetry) -> RetryPolicy {
    let conditions = written.retry_on.as_deref().unwrap_or_default();
    let mut retry_on = conditions
        .split(',')
        .map(str::trim)
        .filter(|condition| !condition.is_empty())
        .map(Str::from)
        .collect::<Vec<_>>();
    let careful = retry_on.is_empty();
    if careful {
        retry_on = RETRY_ON.into_iter().map(Str::from).collect();
    }
    RetryPolicy {
        attempts: written
            .attempts
            .and_then(|n| u32::try_from(n).ok())
            .unwrap_or(0),
        per_try_timeout: time(written.per_try_timeout.as_ref()),
        retry_on,
        backoff: time(written.backoff.as_ref()),
        ignore_previous_hosts: written.retry_ignore_previous_hosts != Some(false),
        remote_localities: written.retry_remote_localities == Some(true),
        careful,
    }
}

/// A condition on a claim; `name` is `@request.auth.claims.a.b` or `@request.auth.claims[a][b]` (Istio).
pub(super) fn claim(
    r: &mut Reading<'_>,
    field: String,
    name: &str,
    (wanted, not): (StringMatch, bool),
) -> Option<ClaimMatch> {
    let rest = &name[super::CLAIMS.len()..];
    let path: Option<Vec<&str>> = match rest.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']').map(|t| t.split("][").collect()),
        None => rest.strip_prefix('.').map(|t| t.split('.').collect()),
    };
    let path = path.filter(|path| path.iter().all(|key| !key.is_empty()));
    let Some(path) = path else {
        let message = "names no claim: write @request.auth.claims.group or @request.auth.claims[realm][group]";
        r.error(field, message);
        return None;
    };
    Some(ClaimMatch {
        path: path.into_iter().map(Str::from).collect(),
        wanted,
        not,
    })
}
