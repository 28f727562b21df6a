//! Headers that every response gets.

use crate::Context;
use http::HeaderValue;
use http::header::{DATE, HeaderMap, HeaderName, SERVER};
use lateen_model::decide::plan::Direction;
use std::cell::RefCell;
use std::time::{SystemTime, UNIX_EPOCH};

const UPSTREAM_TIME: HeaderName = HeaderName::from_static("x-envoy-upstream-service-time");

pub(super) fn on_response(cx: &Context, headers: &mut HeaderMap) {
    // Istio: an application sees `envoy` from its own sidecar, everybody else `istio-envoy`.
    let server = match cx.direction {
        Direction::Outbound => "envoy",
        Direction::Inbound | Direction::Gateway => "istio-envoy",
    };
    headers.insert(SERVER, HeaderValue::from_static(server));
    if let Some(time) = cx.upstream_time {
        headers.insert(UPSTREAM_TIME, HeaderValue::from(time.as_millis() as u64));
    }
    headers.entry(DATE).or_insert_with(date);
}

thread_local! {
    static DATE_NOW: RefCell<(u64, HeaderValue)> =
        const { RefCell::new((0, HeaderValue::from_static(""))) };
}

// Formatted once a second.
fn date() -> HeaderValue {
    let now = SystemTime::now();
    let second = now.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    DATE_NOW.with_borrow_mut(|(held, value)| {
        if *held != second {
            *held = second;
            let text = httpdate::fmt_http_date(now);
            *value = HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""));
        }
        value.clone()
    })
}
