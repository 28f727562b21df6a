//! Faults, mirrors and CORS of HTTP rules in the language of [`super::super`]:
//! `delay=2s:50` and `abort=503:10` or `abort=grpc14:10` (percent), `mirror=HOST[:port][/subset][=percent]`,
//! `cors=ORIGIN,…` with `!` at its end to answer other origins' preflights.

use super::super::option;
use super::{string_match, weighted};
use crate::matching::StringMatch;
use crate::route::{
    AbortStatus, CorsPolicy, FaultAbort, FaultDelay, FaultInjection, Mirror, Share,
};
use std::time::Duration;

fn share(percent: &str) -> Share {
    Share::millionths(percent.parse::<u32>().expect("percent") * 10_000)
}

pub(super) fn fault(action: &[&str]) -> Option<FaultInjection> {
    let delay = option(action, "delay").map(|text| {
        let (time, percent) = text.split_once("s:").expect("seconds and percent");
        FaultDelay {
            share: share(percent),
            delay: Duration::from_secs(time.parse().expect("seconds")),
        }
    });
    let abort = option(action, "abort").map(|text| {
        let (status, percent) = text.split_once(':').expect("status and percent");
        FaultAbort {
            share: share(percent),
            status: match status.strip_prefix("grpc") {
                Some(code) => AbortStatus::Grpc(code.parse().expect("code")),
                None => AbortStatus::Http(status.parse().expect("status")),
            },
        }
    });
    (delay.is_some() || abort.is_some()).then_some(FaultInjection { delay, abort })
}

pub(super) fn mirrors(action: &[&str]) -> Vec<Mirror> {
    let all = action.iter().filter_map(|w| w.strip_prefix("mirror="));
    all.map(|text| {
        let to = weighted(text).expect("a destination");
        Mirror {
            destination: to.destination,
            share: match to.weight {
                0 => Share::ALL,
                percent => Share::millionths(percent * 10_000),
            },
        }
    })
    .collect()
}

pub(super) fn cors(action: &[&str]) -> Option<CorsPolicy> {
    let text = option(action, "cors")?;
    let (origins, answered) = match text.strip_suffix('!') {
        Some(origins) => (origins, true),
        None => (text, false),
    };
    let origin = |text: &str| match text.split_at(1).0 {
        "=" | "^" | "~" => string_match(text),
        _ => StringMatch::Exact(text.into()),
    };
    Some(CorsPolicy {
        allow_origins: origins.split(',').map(origin).collect(),
        allow_methods: Vec::new(),
        allow_headers: Vec::new(),
        expose_headers: Vec::new(),
        max_age: None,
        allow_credentials: None,
        forward_unmatched: !answered,
    })
}
