//! What one call looked like from both ends of a proxy, and its form as lines that can be compared.

use crate::case::Step;
use http::HeaderMap;
use std::collections::BTreeMap;

/// Header by which upstreams know which call a request belongs to.
pub const CALL: &str = "x-differential-call";

/// Headers that say something else each time: only that they are there is compared.
const CHANGING: [&str; 4] = [
    "date",
    "x-request-id",
    "x-envoy-upstream-service-time",
    "x-b3-traceid",
];

/// One call, finished.
#[derive(Debug, Clone)]
pub struct Seen {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: String,
    pub trailers: BTreeMap<String, String>,
    /// Requests that reached upstreams, in their order; by name where a mirror may be first.
    pub requests: Vec<Request>,
    /// Whether it took as long as the case asks about.
    pub was_slow: Option<bool>,
}

/// A request as an upstream got it.
#[derive(Debug, Clone)]
pub struct Request {
    pub upstream: String,
    pub version: http::Version,
    pub method: String,
    pub path: String,
    pub authority: String,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

/// Headers by name; several lines of one name are joined in order.
pub fn headers(map: &HeaderMap) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for name in map.keys().filter(|name| name.as_str() != CALL) {
        let lines: Vec<_> = map
            .get_all(name)
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            .collect();
        let value = match CHANGING.contains(&name.as_str()) {
            true => "(there)".to_owned(),
            false => lines.join(" | "),
        };
        all.insert(name.as_str().to_owned(), value);
    }
    all
}

impl Seen {
    /// Everything about it, by name; of requests the first `requests`, of the rest the number.
    pub fn lines(&self, requests: usize) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        all.insert("status".to_owned(), self.status.to_string());
        all.insert("body".to_owned(), self.body.clone());
        for (name, value) in &self.headers {
            all.insert(format!("response {name}"), value.clone());
        }
        for (name, value) in &self.trailers {
            all.insert(format!("trailer {name}"), value.clone());
        }
        if let Some(slow) = self.was_slow {
            all.insert("slow".to_owned(), slow.to_string());
        }
        all.insert("requests".to_owned(), self.requests.len().to_string());
        for (at, request) in self.requests.iter().take(requests).enumerate() {
            let at = at + 1;
            let mut put = |what: &str, value: &str| {
                all.insert(format!("request {at} {what}"), value.to_owned());
            };
            put("upstream", &request.upstream);
            put("version", &format!("{:?}", request.version));
            put("method", &request.method);
            put("path", &request.path);
            put("authority", &request.authority);
            put("body", &request.body);
            for (name, value) in &request.headers {
                put(name, value);
            }
        }
        all
    }
}

/// Envoy writes its host's own address instead of a loopback client's, whatever that is on this machine.
pub fn without_own_address(all: &mut [Vec<Seen>]) {
    let requests = all.iter_mut().flatten().flat_map(|seen| &mut seen.requests);
    for request in requests {
        if let Some(list) = request.headers.get_mut("x-forwarded-for") {
            let start = list.rfind(',').map_or(0, |comma| comma + 1);
            list.replace_range(start.., "127.0.0.1");
        }
    }
}

/// What an upstream does with the `nth` request of a call.
pub fn step(steps: &[Step], nth: usize) -> Step {
    steps.get(nth).or(steps.last()).cloned().unwrap_or_default()
}
