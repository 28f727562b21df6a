//! Requests counted on several workers, exposition text out.

use super::*;

fn series(metrics_target: &Arc<Target>, code: u16) -> RequestSeries {
    let peer = Arc::new(Peer::unknown());
    RequestSeries {
        reporter: Reporter::Source,
        source: Arc::clone(&peer),
        destination: peer,
        target: Arc::clone(metrics_target),
        grpc: false,
        code,
        grpc_status: None,
        flags: "-".into(),
    }
}

fn target() -> Arc<Target> {
    Arc::new(Target {
        service: "a.\"b".into(),
        name: "a".into(),
        namespace: "ns".into(),
    })
}

const SEEN: RequestSeen = RequestSeen {
    duration: Duration::from_millis(7),
    request_bytes: 0,
    response_bytes: 300,
};

#[test]
fn workers_are_merged_and_labels_escaped() {
    let metrics = Metrics::new("1.0", Duration::from_secs(60));
    for _ in 0..2 {
        metrics.shard().request(series(&target(), 200), SEEN);
    }
    let text = metrics.render();
    let line = text
        .lines()
        .find(|l| l.starts_with("istio_requests_total"))
        .unwrap();
    assert_eq!(
        line,
        "istio_requests_total{reporter=\"source\",source_workload=\"unknown\",source_workload_namespace=\"unknown\",\
         source_principal=\"unknown\",source_app=\"unknown\",source_version=\"unknown\",\
         source_canonical_service=\"unknown\",source_canonical_revision=\"latest\",source_cluster=\"unknown\",\
         destination_workload=\"unknown\",destination_workload_namespace=\"unknown\",destination_principal=\"unknown\",\
         destination_app=\"unknown\",destination_version=\"unknown\",destination_canonical_service=\"unknown\",\
         destination_canonical_revision=\"latest\",destination_cluster=\"unknown\",destination_service=\"a.\\\"b\",\
         destination_service_name=\"a\",destination_service_namespace=\"ns\",request_protocol=\"http\",\
         response_code=\"200\",grpc_response_status=\"\",response_flags=\"-\",connection_security_policy=\"unknown\"} 2"
    );
    for want in [
        "istio_build{component=\"proxy\",tag=\"1.0\"} 1",
        "le=\"5\"} 0",
        "le=\"10\"} 2",
        "le=\"+Inf\"} 2",
        "# TYPE istio_response_bytes histogram",
    ] {
        assert!(text.contains(want), "{want} in {text}");
    }
    assert!(
        text.lines().any(
            |l| l.starts_with("istio_request_duration_milliseconds_sum") && l.ends_with("} 14")
        )
    );
}

#[test]
fn tcp_counts_add_up() {
    let metrics = Metrics::new("1.0", Duration::from_secs(60));
    let shard = metrics.shard();
    let request = series(&target(), 0);
    let tcp = TcpSeries {
        reporter: Reporter::Destination,
        source: request.source,
        destination: request.destination,
        target: request.target,
        flags: "-".into(),
    };
    shard.tcp(
        tcp.clone(),
        TcpSeen {
            opened: 1,
            ..TcpSeen::default()
        },
    );
    shard.tcp(
        tcp,
        TcpSeen {
            closed: 1,
            sent: 10,
            received: 3,
            opened: 0,
        },
    );
    let text = metrics.render();
    for (name, value) in [("opened", 1), ("closed", 1)] {
        let name = format!("istio_tcp_connections_{name}_total{{");
        let line = text.lines().find(|l| l.starts_with(&name)).unwrap();
        assert!(
            line.ends_with(&format!("connection_security_policy=\"none\"}} {value}")),
            "{line}"
        );
    }
    assert!(
        text.lines()
            .any(|l| l.starts_with("istio_tcp_sent_bytes_total") && l.ends_with(" 10"))
    );
}

#[test]
fn unused_series_expire() {
    let metrics = Metrics::new("1.0", Duration::ZERO);
    metrics.shard().request(series(&target(), 200), SEEN);
    assert!(!metrics.render().contains("istio_requests_total"));
}

#[test]
fn series_beyond_the_bound_are_counted_as_unknown() {
    let metrics = Metrics::new("1.0", Duration::from_secs(60));
    let shard = metrics.shard();
    let first = series(&target(), 200);
    shard.request(first.clone(), SEEN);
    for n in 0..3 * MOST_SERIES {
        let target = Arc::new(Target {
            service: format!("{n}.example.com").into(),
            ..Target::unknown()
        });
        shard.request(series(&target, 200 + (n % 50) as u16), SEEN);
    }
    shard.request(first, SEEN);
    let text = metrics.render();
    let lines: Vec<_> = text
        .lines()
        .filter(|l| l.starts_with("istio_requests_total"))
        .collect();
    assert_eq!(lines.len(), MOST_SERIES + 1);
    let folded = 2 * MOST_SERIES + 1;
    assert!(lines.iter().any(
        |l| l.contains("destination_service=\"unknown\"") && l.ends_with(&format!(" {folded}"))
    ),);
    assert_eq!(metrics.folded(), folded as u64);
    let known = lines.iter().find(|l| l.contains("a.\\\"b")).unwrap();
    assert!(known.ends_with(" 2"), "known series go on: {known}");
}
