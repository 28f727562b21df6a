//! Merging the workers' counters and writing them in Prometheus' text format.

use super::{BUCKETS, Histogram, Peer, Reporter, RequestSeries, Shard, Target, TcpSeen, TcpSeries};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

#[derive(Default)]
struct Merged {
    duration: Histogram,
    request_bytes: Histogram,
    response_bytes: Histogram,
}

pub(super) fn text(shards: &[Arc<Shard>], version: &str) -> String {
    let mut requests: BTreeMap<String, Merged> = BTreeMap::new();
    let mut tcp: BTreeMap<String, TcpSeen> = BTreeMap::new();
    for shard in shards {
        for (series, cells) in shard.requests.lock().iter() {
            let merged = requests.entry(request_labels(series)).or_default();
            merged.duration.merge(&cells.duration);
            merged.request_bytes.merge(&cells.request_bytes);
            merged.response_bytes.merge(&cells.response_bytes);
        }
        for (series, cells) in shard.tcp.lock().iter() {
            let merged = tcp.entry(tcp_labels(series)).or_default();
            merged.opened += cells.seen.opened;
            merged.closed += cells.seen.closed;
            merged.sent += cells.seen.sent;
            merged.received += cells.seen.received;
        }
    }
    let mut out = String::new();
    let mut version_label = String::new();
    label(&mut version_label, "tag", version);
    let _ = writeln!(
        out,
        "# TYPE istio_build gauge\nistio_build{{component=\"proxy\",{version_label}}} 1"
    );
    write_requests(&mut out, &requests);
    write_tcp(&mut out, &tcp);
    out
}

fn write_requests(out: &mut String, requests: &BTreeMap<String, Merged>) {
    if requests.is_empty() {
        return;
    }
    let _ = writeln!(out, "# TYPE istio_requests_total counter");
    for (labels, merged) in requests {
        let _ = writeln!(
            out,
            "istio_requests_total{{{labels}}} {}",
            merged.duration.count()
        );
    }
    for (name, pick) in [
        (
            "istio_request_duration_milliseconds",
            (|m| &m.duration) as fn(&Merged) -> &Histogram,
        ),
        ("istio_request_bytes", |m| &m.request_bytes),
        ("istio_response_bytes", |m| &m.response_bytes),
    ] {
        let _ = writeln!(out, "# TYPE {name} histogram");
        for (labels, merged) in requests {
            write_histogram(out, name, labels, pick(merged));
        }
    }
}

fn write_histogram(out: &mut String, name: &str, labels: &str, histogram: &Histogram) {
    let mut total = 0;
    for (bound, count) in BUCKETS.iter().zip(histogram.counts) {
        total += count;
        let _ = writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {total}");
    }
    let count = histogram.count();
    let _ = writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {count}");
    let _ = writeln!(out, "{name}_sum{{{labels}}} {}", histogram.sum);
    let _ = writeln!(out, "{name}_count{{{labels}}} {count}");
}

fn write_tcp(out: &mut String, tcp: &BTreeMap<String, TcpSeen>) {
    if tcp.is_empty() {
        return;
    }
    for (name, pick) in [
        (
            "istio_tcp_connections_opened_total",
            (|s| s.opened) as fn(&TcpSeen) -> u64,
        ),
        ("istio_tcp_connections_closed_total", |s| s.closed),
        ("istio_tcp_sent_bytes_total", |s| s.sent),
        ("istio_tcp_received_bytes_total", |s| s.received),
    ] {
        let _ = writeln!(out, "# TYPE {name} counter");
        for (labels, seen) in tcp {
            let _ = writeln!(out, "{name}{{{labels}}} {}", pick(seen));
        }
    }
}

fn request_labels(series: &RequestSeries) -> String {
    let mut out = String::with_capacity(1024);
    peers(
        &mut out,
        series.reporter,
        &series.source,
        &series.destination,
        &series.target,
    );
    label(
        &mut out,
        "request_protocol",
        if series.grpc { "grpc" } else { "http" },
    );
    label(&mut out, "response_code", &series.code.to_string());
    let status = series
        .grpc_status
        .map(|s| s.to_string())
        .unwrap_or_default();
    label(&mut out, "grpc_response_status", &status);
    label(&mut out, "response_flags", &series.flags);
    label(
        &mut out,
        "connection_security_policy",
        security(series.reporter, &series.source),
    );
    out
}

fn tcp_labels(series: &TcpSeries) -> String {
    let mut out = String::with_capacity(1024);
    peers(
        &mut out,
        series.reporter,
        &series.source,
        &series.destination,
        &series.target,
    );
    label(&mut out, "request_protocol", "tcp");
    label(&mut out, "response_flags", &series.flags);
    label(
        &mut out,
        "connection_security_policy",
        security(series.reporter, &series.source),
    );
    out
}

// Istio: only the server's side knows. A principal is known by mutual TLS only.
fn security(reporter: Reporter, source: &Peer) -> &'static str {
    match reporter {
        Reporter::Source => "unknown",
        Reporter::Destination if &*source.principal == "unknown" => "none",
        Reporter::Destination => "mutual_tls",
    }
}

fn peers(out: &mut String, reporter: Reporter, source: &Peer, destination: &Peer, target: &Target) {
    let reporter = match reporter {
        Reporter::Source => "source",
        Reporter::Destination => "destination",
    };
    label(out, "reporter", reporter);
    peer(out, "source", source);
    peer(out, "destination", destination);
    label(out, "destination_service", &target.service);
    label(out, "destination_service_name", &target.name);
    label(out, "destination_service_namespace", &target.namespace);
}

fn peer(out: &mut String, side: &str, peer: &Peer) {
    for (name, value) in [
        ("workload", &peer.workload),
        ("workload_namespace", &peer.namespace),
        ("principal", &peer.principal),
        ("app", &peer.app),
        ("version", &peer.version),
        ("canonical_service", &peer.canonical_service),
        ("canonical_revision", &peer.canonical_revision),
        ("cluster", &peer.cluster),
    ] {
        label(out, &format!("{side}_{name}"), value);
    }
}

fn label(out: &mut String, name: &str, value: &str) {
    if !out.is_empty() {
        out.push(',');
    }
    let _ = write!(out, "{name}=\"");
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
    out.push('"');
}
