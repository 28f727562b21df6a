//! How a request stands with its limit, and the headers that tell of it (draft-polli-ratelimit-headers-03, as Envoy).

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use lateen_filters::external::may_change;
use lateen_proto::ratelimit::{HeaderValue as WireHeader, RateLimitResponse};
use std::rc::Rc;
use std::time::Duration;

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// What is left of a limit.
#[derive(Debug, Clone, Default)]
pub(super) struct Standing {
    /// Requests in a window; absent: no limit applies.
    pub(super) limit: Option<u64>,
    /// Every limit that applies, with its window: `, 10;w=60`.
    pub(super) policy: Rc<str>,
    /// Requests that are left.
    pub(super) remaining: u64,
    /// Time until there are more again.
    pub(super) reset: Duration,
    /// What a service said beside that.
    pub(super) extra: Option<Rc<Extra>>,
}

/// Headers and a body of a service.
#[derive(Debug, Default)]
pub(super) struct Extra {
    request: Vec<(HeaderName, HeaderValue)>,
    response: Vec<(HeaderName, HeaderValue)>,
    body: Bytes,
}

impl Standing {
    /// That of a bucket.
    pub(super) fn of_bucket(limit: u64, window: Duration, remaining: u64, reset: Duration) -> Self {
        Self {
            limit: Some(limit),
            policy: format!(", {limit};w={}", window.as_secs().max(1)).into(),
            remaining,
            reset,
            extra: None,
        }
    }

    /// Adds what a service wants to be told on; its body is for refusals.
    pub(super) fn with(mut self, answer: &RateLimitResponse, over: bool) -> Self {
        let read = |list: &[WireHeader]| list.iter().filter_map(header).collect::<Vec<_>>();
        let mut extra = Extra {
            request: read(&answer.request_headers_to_add),
            response: read(&answer.response_headers_to_add),
            body: match over {
                true => Bytes::copy_from_slice(&answer.raw_body),
                false => Bytes::new(),
            },
        };
        extra.request.retain(|(name, _)| may_change(name));
        extra.response.retain(|(name, _)| may_change(name));
        let says = !extra.request.is_empty() || !extra.response.is_empty();
        if says || !extra.body.is_empty() {
            self.extra = Some(Rc::new(extra));
        }
        self
    }

    /// The one of which less is left.
    pub(super) fn least(one: Option<Self>, other: Self) -> Self {
        match one {
            Some(one) if one.limit.is_some() => match other.limit {
                Some(_) if other.remaining < one.remaining => other,
                _ => one,
            },
            _ => other,
        }
    }

    /// The three headers; none where no limit applies.
    pub(super) fn headers(&self) -> Vec<(HeaderName, HeaderValue)> {
        let Some(limit) = self.limit else {
            return Vec::new();
        };
        let policy = HeaderValue::try_from(format!("{limit}{}", self.policy));
        // A client that waits the whole seconds finds something.
        let reset = self.reset.as_secs() + u64::from(self.reset.subsec_nanos() > 0);
        vec![
            (LIMIT, policy.unwrap_or_else(|_| HeaderValue::from(limit))),
            (REMAINING, HeaderValue::from(self.remaining)),
            (RESET, HeaderValue::from(reset)),
        ]
    }

    pub(super) fn request_headers(&self) -> Vec<(HeaderName, HeaderValue)> {
        self.extra
            .as_ref()
            .map(|e| e.request.clone())
            .unwrap_or_default()
    }

    pub(super) fn response_headers(&self) -> Vec<(HeaderName, HeaderValue)> {
        self.extra
            .as_ref()
            .map(|e| e.response.clone())
            .unwrap_or_default()
    }

    pub(super) fn body(&self) -> Bytes {
        self.extra
            .as_ref()
            .map(|e| e.body.clone())
            .unwrap_or_default()
    }
}

fn header(from: &WireHeader) -> Option<(HeaderName, HeaderValue)> {
    let bytes = match from.value.is_empty() {
        true => &from.raw_value[..],
        false => from.value.as_bytes(),
    };
    Some((from.key.parse().ok()?, HeaderValue::from_bytes(bytes).ok()?))
}
