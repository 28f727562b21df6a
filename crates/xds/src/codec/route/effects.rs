//! What an HTTP rule does beside choosing a destination: faults, mirrors, retries, rewrites, CORS.

use super::{decode_destination, encode_destination};
use crate::codec::parts::{
    Read, Within, bad, duration, each, narrow, read_duration, read_origin, read_string_match,
    required, string_match, strs, texts,
};
use lateen_model::matching::Replacement;
use lateen_model::route::{
    AbortStatus, ClaimMatch, CorsPolicy, Delegated, FaultAbort, FaultDelay, FaultInjection, Mirror,
    RetryPolicy, Rewrite, Share,
};
use lateen_proto::mesh as proto;

/// A position in a list; no object has 2^32 rules.
pub(super) fn position(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

pub(super) fn encode_retries(from: &RetryPolicy) -> proto::RetryPolicy {
    proto::RetryPolicy {
        attempts: from.attempts,
        per_try_timeout: duration(from.per_try_timeout),
        retry_on: texts(&from.retry_on),
        backoff: duration(from.backoff),
        ignore_previous_hosts: from.ignore_previous_hosts,
        remote_localities: from.remote_localities,
        careful: from.careful,
    }
}

pub(super) fn decode_retries(from: proto::RetryPolicy) -> RetryPolicy {
    RetryPolicy {
        attempts: from.attempts,
        per_try_timeout: read_duration(from.per_try_timeout),
        retry_on: strs(from.retry_on),
        backoff: read_duration(from.backoff),
        ignore_previous_hosts: from.ignore_previous_hosts,
        remote_localities: from.remote_localities,
        careful: from.careful,
    }
}

pub(super) fn encode_fault(from: &FaultInjection) -> proto::Fault {
    use proto::fault_abort::Status;
    proto::Fault {
        delay: from.delay.map(|d| proto::FaultDelay {
            share: d.share.parts(),
            delay: duration(Some(d.delay)),
        }),
        abort: from.abort.map(|a| proto::FaultAbort {
            share: a.share.parts(),
            status: Some(match a.status {
                AbortStatus::Http(code) => Status::Http(code.into()),
                AbortStatus::Grpc(code) => Status::Grpc(code.into()),
            }),
        }),
    }
}

pub(super) fn decode_fault(from: proto::Fault) -> Read<FaultInjection> {
    use proto::fault_abort::Status;
    let delay = from.delay.map(|d| FaultDelay {
        share: Share::millionths(d.share),
        delay: read_duration(d.delay).unwrap_or_default(),
    });
    let abort = from.abort.map(|a| {
        let status = match required(a.status, "abort.status")? {
            Status::Http(code) => AbortStatus::Http(http_status(code)?),
            Status::Grpc(code) => AbortStatus::Grpc(narrow(code, "abort.grpc")?),
        };
        Ok(FaultAbort {
            share: Share::millionths(a.share),
            status,
        })
    });
    Ok(FaultInjection {
        delay,
        abort: abort.transpose()?,
    })
}

fn http_status(code: u32) -> Read<u16> {
    let status = narrow(code, "abort.http")?;
    match (200..=599).contains(&status) {
        true => Ok(status),
        false => Err(bad("abort.http", format!("{status} is not in 200..=599"))),
    }
}

pub(super) fn encode_mirror(from: &Mirror) -> proto::Mirror {
    proto::Mirror {
        destination: Some(encode_destination(&from.destination)),
        share: from.share.parts(),
    }
}

pub(super) fn decode_mirror(from: proto::Mirror) -> Read<Mirror> {
    Ok(Mirror {
        destination: decode_destination(from.destination)?,
        share: Share::millionths(from.share),
    })
}

pub(super) fn encode_cors(from: &CorsPolicy) -> proto::Cors {
    proto::Cors {
        allow_origins: from.allow_origins.iter().map(string_match).collect(),
        allow_methods: texts(&from.allow_methods),
        allow_headers: texts(&from.allow_headers),
        expose_headers: texts(&from.expose_headers),
        max_age: duration(from.max_age),
        allow_credentials: from.allow_credentials,
        forward_unmatched: from.forward_unmatched,
    }
}

pub(super) fn decode_cors(from: proto::Cors) -> Read<CorsPolicy> {
    Ok(CorsPolicy {
        allow_origins: each(from.allow_origins, "allow_origins", read_string_match)?,
        allow_methods: strs(from.allow_methods),
        allow_headers: strs(from.allow_headers),
        expose_headers: strs(from.expose_headers),
        max_age: read_duration(from.max_age),
        allow_credentials: from.allow_credentials,
        forward_unmatched: from.forward_unmatched,
    })
}

pub(super) fn encode_claim(from: &ClaimMatch) -> proto::ClaimMatch {
    proto::ClaimMatch {
        path: texts(&from.path),
        wanted: Some(string_match(&from.wanted)),
        not: from.not,
    }
}

pub(super) fn decode_claim(from: proto::ClaimMatch) -> Read<ClaimMatch> {
    if from.path.is_empty() {
        return Err(bad("path", "it is empty"));
    }
    let wanted = required(from.wanted, "wanted")?;
    Ok(ClaimMatch {
        path: strs(from.path),
        wanted: read_string_match(wanted).within("wanted")?,
        not: from.not,
    })
}

pub(super) fn decode_rewrite(from: proto::Rewrite) -> Read<Rewrite> {
    let regex = from.regex.map(|regex| {
        Replacement::new(&regex.pattern, &regex.substitution)
            .map_err(|e| bad("regex", e.to_string()))
    });
    Ok(Rewrite {
        uri: from.uri.map(Into::into),
        authority: from.authority.map(Into::into),
        regex: regex.transpose()?,
    })
}

pub(super) fn decode_delegated(from: proto::Delegated) -> Read<Delegated> {
    Ok(Delegated {
        origin: read_origin(from.origin)?,
        index: narrow(from.index, "index")?,
        root: narrow(from.root, "root")?,
    })
}
