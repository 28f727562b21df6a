//! Clusters as text: name, endpoints, and what a DestinationRule says about them.

use lateen_model::decide::cluster::{Cluster, ClusterTls, Discovery, Endpoint};
use lateen_model::tls::{CertificateFiles, ClientTls};
use lateen_model::traffic::{
    Balancer, ConnectionPool, ConsistentHash, HashCookie, HashKey, HashTable, OutlierDetection,
    ProxyProtocol,
};
use std::time::Duration;

/// `outbound|9080|v1|reviews.default -> reviews-v1:9080`.
pub fn target(cluster: &Cluster) -> String {
    let secured = matches!(
        cluster.tls,
        ClusterTls::Mesh {
            required: false,
            ..
        }
    );
    let endpoints = match &cluster.discovery {
        Discovery::Endpoints(list) => {
            let list: Vec<_> = list.iter().map(|e| endpoint(e, secured)).collect();
            list.join(", ")
        }
        Discovery::OriginalDestination => "the address that was called".to_owned(),
        Discovery::Dns(names) => {
            let names: Vec<_> = names
                .iter()
                .map(|n| format!("{}:{}", n.host, n.port))
                .collect();
            format!("{} by DNS", names.join(", "))
        }
        Discovery::DnsFirst(n) => format!("{}:{} by DNS, first address", n.host, n.port),
        Discovery::DynamicDns(Some(port)) => {
            format!("the name that was called, by DNS, port {port}")
        }
        Discovery::DynamicDns(None) => "the name that was called, by DNS".to_owned(),
        Discovery::Fixed(address) => address.to_string(),
    };
    format!("{} -> {endpoints}", cluster.name)
}

/// A pod by its name, anything else by its address; what differs from an ordinary endpoint in brackets.
fn endpoint(endpoint: &Endpoint, secured: bool) -> String {
    let workload = &endpoint.workload;
    let mut text = match workload.uid.starts_with("Pod/") {
        true => format!("{}:{}", workload.name, endpoint.address.port()),
        false => endpoint.address.to_string(),
    };
    let mut notes = Vec::new();
    if endpoint.priority > 0 {
        notes.push(format!("rank {}", endpoint.priority));
    }
    if endpoint.locality_weight > 0 {
        notes.push(format!("share {}", endpoint.locality_weight));
    }
    if endpoint.weight != 1 {
        notes.push(format!("weight {}", endpoint.weight));
    }
    if secured && !endpoint.mutual {
        notes.push("plain text".to_owned());
    }
    if !notes.is_empty() {
        text += &format!(" [{}]", notes.join(", "));
    }
    text
}

/// What differs from the default, one line each.
pub fn details(cluster: &Cluster) -> Vec<String> {
    let mut lines = Vec::new();
    if cluster.service.is_none() {
        return lines;
    }
    let policy = cluster.service.as_ref().and_then(|s| s.policy.as_ref());
    lines.extend(balancer(&cluster.balancer).map(|text| format!("balancer {text}")));
    lines.extend(tls(&cluster.tls).filter(|_| policy.is_some()));
    if cluster.connect_timeout != Duration::from_secs(10) {
        lines.push(format!("connect timeout {:?}", cluster.connect_timeout));
    }
    lines.extend(pool(&cluster.settings.pool));
    lines.extend(cluster.settings.outlier.as_ref().map(outlier));
    lines.extend(rest(cluster));
    lines
}

/// Settings that are neither balancing, TLS nor limits.
fn rest(cluster: &Cluster) -> Vec<String> {
    let settings = &cluster.settings;
    let mut lines = Vec::new();
    if let Some(warmup) = settings.warmup {
        let (least, growth) = (warmup.minimum_percent, warmup.aggression);
        lines.push(format!(
            "warm-up {:?} from {least}%, growth {growth}",
            warmup.duration
        ));
    }
    if let Some(tunnel) = &settings.tunnel {
        let method = if tunnel.post { "POST" } else { "CONNECT" };
        lines.push(format!("tunnel {method} {}:{}", tunnel.host, tunnel.port));
    }
    lines.extend(settings.proxy_protocol.map(|version| match version {
        ProxyProtocol::V1 => "PROXY header version 1".to_owned(),
        ProxyProtocol::V2 => "PROXY header version 2".to_owned(),
    }));
    if let Some(budget) = settings.retry_budget {
        lines.push(format!(
            "retry budget {}%, at least {}",
            budget.percent, budget.least
        ));
    }
    if settings.h2_upgrade {
        lines.push("HTTP/1.1 becomes HTTP/2".to_owned());
    }
    lines
}

fn balancer(balancer: &Balancer) -> Option<String> {
    Some(match balancer {
        Balancer::LeastRequest | Balancer::Passthrough => return None,
        Balancer::RoundRobin => "round robin".to_owned(),
        Balancer::Random => "random".to_owned(),
        Balancer::ConsistentHash(hash) => consistent(hash),
    })
}

fn consistent(hash: &ConsistentHash) -> String {
    let key = match &hash.key {
        HashKey::Header(name) => format!("header {name}"),
        HashKey::Cookie(cookie) => format!("cookie {}", self::cookie(cookie)),
        HashKey::SourceIp => "the client's address".to_owned(),
        HashKey::QueryParameter(name) => format!("query parameter {name}"),
    };
    match hash.table {
        HashTable::Ring {
            minimum: HashTable::RING,
        } => format!("by {key}"),
        HashTable::Ring { minimum } => format!("by {key}, ring of {minimum}"),
        HashTable::Maglev { size } => format!("by {key}, maglev of {size}"),
    }
}

fn cookie(cookie: &HashCookie) -> String {
    let mut text = cookie.name.to_string();
    if !cookie.path.is_empty() {
        text += &format!(" path {}", cookie.path);
    }
    if let Some(ttl) = cookie.ttl {
        text += &format!(" for {ttl:?}");
    }
    for (name, value) in &cookie.attributes {
        text += &format!(" {name}={value}");
    }
    text
}

/// Limits that are given.
fn pool(pool: &ConnectionPool) -> Option<String> {
    let mut parts = Vec::new();
    let numbers = [
        ("connections", pool.max_connections),
        ("waiting", pool.max_pending),
        ("requests", pool.max_requests),
        ("requests per connection", pool.max_requests_per_connection),
        ("retries", pool.max_retries),
        ("streams", pool.max_concurrent_streams),
    ];
    parts.extend(
        numbers
            .iter()
            .filter_map(|(name, n)| Some(format!("{name} {}", (*n)?))),
    );
    let times = [
        ("life", pool.max_connection_duration),
        ("idle", pool.tcp_idle_timeout),
        ("idle HTTP", pool.http_idle_timeout),
    ];
    parts.extend(
        times
            .iter()
            .filter_map(|(name, t)| Some(format!("{name} {:?}", (*t)?))),
    );
    if let Some(probe) = pool.keepalive {
        let mut text = "keep-alive".to_owned();
        text += &probe
            .probes
            .map_or(String::new(), |n| format!(" {n} probes"));
        text += &probe
            .time
            .map_or(String::new(), |t| format!(" after {t:?}"));
        text += &probe
            .interval
            .map_or(String::new(), |t| format!(" every {t:?}"));
        parts.push(text);
    }
    if let Some(ping) = pool.http2_keepalive {
        parts.push(format!(
            "pings every {:?} within {:?}",
            ping.interval, ping.timeout
        ));
    }
    if pool.use_client_protocol {
        parts.push("the client's protocol".to_owned());
    }
    (!parts.is_empty()).then(|| format!("limits: {}", parts.join(", ")))
}

/// What differs from Istio's own settings.
fn outlier(outlier: &OutlierDetection) -> String {
    let usual = OutlierDetection::default();
    let mut parts = Vec::new();
    if outlier.consecutive_5xx != usual.consecutive_5xx {
        parts.push(format!("5xx {}", outlier.consecutive_5xx));
    }
    if outlier.consecutive_gateway != usual.consecutive_gateway {
        parts.push(format!("gateway errors {}", outlier.consecutive_gateway));
    }
    if let Some(local) = outlier.consecutive_local {
        parts.push(format!("local errors {local}"));
    }
    if outlier.interval != usual.interval {
        parts.push(format!("every {:?}", outlier.interval));
    }
    if outlier.base_ejection_time != usual.base_ejection_time {
        parts.push(format!("for {:?}", outlier.base_ejection_time));
    }
    if outlier.max_ejection_percent != usual.max_ejection_percent {
        parts.push(format!("at most {}%", outlier.max_ejection_percent));
    }
    if outlier.min_health_percent != usual.min_health_percent {
        parts.push(format!("while {}% are healthy", outlier.min_health_percent));
    }
    if !outlier.error_codes.is_empty() {
        parts.push(format!("codes {:?}", outlier.error_codes));
    }
    format!(
        "outliers: {}",
        if parts.is_empty() {
            "as usual".to_owned()
        } else {
            parts.join(", ")
        }
    )
}

fn tls(tls: &ClusterTls) -> Option<String> {
    match tls {
        ClusterTls::Plain => Some("tls off".to_owned()),
        ClusterTls::Origin(tls) => Some(client_tls(tls)),
        ClusterTls::Mesh {
            required: false, ..
        } => None,
        ClusterTls::Mesh {
            server_name, sans, ..
        } => {
            let sans = if sans.is_empty() {
                String::new()
            } else {
                format!("; names {}", sans.join(","))
            };
            let sni = if server_name.starts_with("outbound_.") {
                String::new()
            } else {
                format!("; sni {server_name}")
            };
            Some(format!("tls IstioMutual{sni}{sans}"))
        }
    }
}

fn client_tls(tls: &ClientTls) -> String {
    let mut text = format!("tls {:?}", tls.mode);
    let one = |name: &str, value: Option<&lateen_base::Str>| {
        value.map_or(String::new(), |v| format!("; {name} {v}"))
    };
    text += &one("sni", tls.sni.as_ref());
    text += &one("secret", tls.credential.as_ref());
    if !tls.sans.is_empty() {
        text += &format!("; names {}", tls.sans.join(","));
    }
    let files = files(&tls.files);
    if !files.is_empty() {
        text += &format!("; files {}", files.join(","));
    }
    if tls.skip_verify {
        text += "; not verified";
    }
    text
}

/// Files that are given, as `name=path`.
pub fn files(files: &CertificateFiles) -> Vec<String> {
    let all = [
        ("chain", &files.chain),
        ("key", &files.key),
        ("ca", &files.ca),
        ("crl", &files.crl),
    ];
    let given = all
        .into_iter()
        .filter_map(|(name, path)| Some((name, path.as_ref()?)));
    given.map(|(name, path)| format!("{name}={path}")).collect()
}
