//! Connection pool and outlier settings → the model's.

use lateen_api::destination_rule::pool::{
    ConnectionPoolSettings, H2UpgradePolicy, HttpSettings, OutlierDetection as WrittenOutlier,
    TcpKeepalive as WrittenKeepalive,
};
use lateen_api::fields::DurationText;
use lateen_model::traffic::{ConnectionPool, Http2Keepalive, OutlierDetection, TcpKeepalive};
use std::time::Duration;

/// Envoy's default of how long the answer to a ping may take.
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// Time between pings where only the bound on the answer is given.
const PING_INTERVAL: Duration = Duration::from_secs(60);

/// Limits on connections and requests; 0 stands for none, as absence does (Istio).
pub(crate) fn pool(written: &ConnectionPoolSettings) -> ConnectionPool {
    let tcp = written.tcp.clone().unwrap_or_default();
    let http = written.http.clone().unwrap_or_default();
    let policy = http.h2_upgrade_policy;
    ConnectionPool {
        connect_timeout: positive(tcp.connect_timeout.as_ref()),
        max_connections: limit(tcp.max_connections),
        keepalive: tcp.tcp_keepalive.as_ref().map(keepalive),
        max_connection_duration: positive(tcp.max_connection_duration.as_ref()),
        tcp_idle_timeout: duration(tcp.idle_timeout.as_ref()),
        max_pending: limit(http.http1_max_pending_requests),
        max_requests: limit(http.http2_max_requests),
        max_requests_per_connection: limit(http.max_requests_per_connection),
        max_retries: limit(http.max_retries),
        http_idle_timeout: duration(http.idle_timeout.as_ref()),
        h2_upgrade: match policy {
            None | Some(H2UpgradePolicy::Default) => None,
            Some(H2UpgradePolicy::DoNotUpgrade) => Some(false),
            Some(H2UpgradePolicy::Upgrade) => Some(true),
        },
        use_client_protocol: http.use_client_protocol == Some(true),
        max_concurrent_streams: limit(http.max_concurrent_streams),
        http2_keepalive: http2_keepalive(&http),
    }
}

fn http2_keepalive(http: &HttpSettings) -> Option<Http2Keepalive> {
    let written = http.http2_keep_alive.as_ref()?;
    Some(Http2Keepalive {
        interval: positive(written.interval.as_ref()).unwrap_or(PING_INTERVAL),
        timeout: positive(written.timeout.as_ref()).unwrap_or(PING_TIMEOUT),
    })
}

/// Keep-alive probes.
pub(crate) fn keepalive(written: &WrittenKeepalive) -> TcpKeepalive {
    TcpKeepalive {
        probes: written.probes.filter(|n| *n > 0),
        time: positive(written.time.as_ref()),
        interval: positive(written.interval.as_ref()),
    }
}

/// When failing endpoints are left out (Istio: `applyOutlierDetection`).
pub(crate) fn outlier(written: &WrittenOutlier) -> OutlierDetection {
    let usual = OutlierDetection::default();
    let percent = |number: Option<i32>| number.and_then(|n| u32::try_from(n).ok());
    let split = written.split_external_local_origin_errors == Some(true);
    let local = written.consecutive_local_origin_failures;
    let codes = &written.outlier_detection_http_error_codes;
    OutlierDetection {
        consecutive_5xx: written
            .consecutive_5xx_errors
            .unwrap_or(usual.consecutive_5xx),
        consecutive_gateway: written.consecutive_gateway_errors.unwrap_or(0),
        consecutive_local: split.then(|| local.filter(|n| *n > 0).unwrap_or(5)),
        interval: positive(written.interval.as_ref()).unwrap_or(usual.interval),
        base_ejection_time: positive(written.base_ejection_time.as_ref())
            .unwrap_or(usual.base_ejection_time),
        // Istio: 0 is as good as absent.
        max_ejection_percent: percent(written.max_ejection_percent)
            .filter(|n| *n > 0)
            .unwrap_or(usual.max_ejection_percent),
        min_health_percent: percent(written.min_health_percent).unwrap_or(0),
        error_codes: codes
            .iter()
            .filter_map(|c| u16::try_from(*c).ok())
            .collect(),
    }
}

fn limit(number: Option<i32>) -> Option<u32> {
    u32::try_from(number?).ok().filter(|n| *n > 0)
}

fn duration(text: Option<&DurationText>) -> Option<Duration> {
    text?.parse().ok()
}

fn positive(text: Option<&DurationText>) -> Option<Duration> {
    duration(text).filter(|time| !time.is_zero())
}
