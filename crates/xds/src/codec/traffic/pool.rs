//! Limits on connections and requests, and outlier detection.

use crate::codec::parts::{Read, Within, bad, duration, narrow, read_duration, required};
use lateen_model::traffic::{ConnectionPool, Http2Keepalive, OutlierDetection, TcpKeepalive};
use lateen_proto::mesh as proto;

pub(in crate::codec) fn encode(from: &ConnectionPool) -> proto::ConnectionPool {
    proto::ConnectionPool {
        connect_timeout: duration(from.connect_timeout),
        max_connections: from.max_connections,
        keepalive: from.keepalive.map(encode_keepalive),
        max_connection_duration: duration(from.max_connection_duration),
        tcp_idle_timeout: duration(from.tcp_idle_timeout),
        max_pending: from.max_pending,
        max_requests: from.max_requests,
        max_requests_per_connection: from.max_requests_per_connection,
        max_retries: from.max_retries,
        http_idle_timeout: duration(from.http_idle_timeout),
        h2_upgrade: from.h2_upgrade,
        use_client_protocol: from.use_client_protocol,
        max_concurrent_streams: from.max_concurrent_streams,
        http2_keepalive: from.http2_keepalive.map(|ping| proto::Http2Keepalive {
            interval: duration(Some(ping.interval)),
            timeout: duration(Some(ping.timeout)),
        }),
    }
}

pub(in crate::codec) fn decode(from: proto::ConnectionPool) -> ConnectionPool {
    ConnectionPool {
        connect_timeout: read_duration(from.connect_timeout),
        max_connections: from.max_connections,
        keepalive: from.keepalive.map(decode_keepalive),
        max_connection_duration: read_duration(from.max_connection_duration),
        tcp_idle_timeout: read_duration(from.tcp_idle_timeout),
        max_pending: from.max_pending,
        max_requests: from.max_requests,
        max_requests_per_connection: from.max_requests_per_connection,
        max_retries: from.max_retries,
        http_idle_timeout: read_duration(from.http_idle_timeout),
        h2_upgrade: from.h2_upgrade,
        use_client_protocol: from.use_client_protocol,
        max_concurrent_streams: from.max_concurrent_streams,
        http2_keepalive: from.http2_keepalive.map(|ping| Http2Keepalive {
            interval: read_duration(ping.interval).unwrap_or_default(),
            timeout: read_duration(ping.timeout).unwrap_or_default(),
        }),
    }
}

pub(in crate::codec) fn encode_keepalive(from: TcpKeepalive) -> proto::TcpKeepalive {
    proto::TcpKeepalive {
        probes: from.probes,
        time: duration(from.time),
        interval: duration(from.interval),
    }
}

pub(in crate::codec) fn decode_keepalive(from: proto::TcpKeepalive) -> TcpKeepalive {
    TcpKeepalive {
        probes: from.probes,
        time: read_duration(from.time),
        interval: read_duration(from.interval),
    }
}

pub(in crate::codec) fn encode_outlier(from: &OutlierDetection) -> proto::OutlierDetection {
    proto::OutlierDetection {
        consecutive_5xx: from.consecutive_5xx,
        consecutive_gateway: from.consecutive_gateway,
        consecutive_local: from.consecutive_local,
        interval: duration(Some(from.interval)),
        base_ejection_time: duration(Some(from.base_ejection_time)),
        max_ejection_percent: from.max_ejection_percent,
        min_health_percent: from.min_health_percent,
        error_codes: from.error_codes.iter().map(|c| (*c).into()).collect(),
    }
}

pub(in crate::codec) fn decode_outlier(from: proto::OutlierDetection) -> Read<OutlierDetection> {
    let percent = |number: u32, field: &str| match number {
        0..=100 => Ok(number),
        more => Err(bad(field, format!("{more} is over 100"))),
    };
    let codes = from.error_codes.into_iter().map(|code| narrow(code, ""));
    Ok(OutlierDetection {
        consecutive_5xx: from.consecutive_5xx,
        consecutive_gateway: from.consecutive_gateway,
        consecutive_local: from.consecutive_local,
        interval: required(read_duration(from.interval), "interval")?,
        base_ejection_time: required(read_duration(from.base_ejection_time), "base_ejection_time")?,
        max_ejection_percent: percent(from.max_ejection_percent, "max_ejection_percent")?,
        min_health_percent: percent(from.min_health_percent, "min_health_percent")?,
        error_codes: codes.collect::<Read<_>>().within("error_codes")?,
    })
}
