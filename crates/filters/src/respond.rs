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
        headers.insert(UPSTREAM_TIME, number(time.as_millis() as u64));
    }
    headers.entry(DATE).or_insert_with(date);
}

/// A number as a header's value; small ones, which most are, cost nothing.
pub fn number(n: u64) -> HeaderValue {
    const SMALL: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
    let small = usize::try_from(n).ok().and_then(|n| SMALL.get(n));
    small.map_or_else(
        || HeaderValue::from(n),
        |text| HeaderValue::from_static(text),
    )
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
