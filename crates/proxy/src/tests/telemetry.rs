//! What is written and counted, to the letter.

use super::mesh::{pod, service};
use super::*;
use lateen_model::service::Protocol;

/// The line with what changes from run to run replaced.
fn settled(line: &str, known: &[(&str, String)]) -> String {
    let mut line = line.to_owned();
    for (name, value) in known {
        line = line.replace(value, name);
    }
    let time = line.split_once(']').unwrap();
    assert!(time.0.len() == 25 && time.0.ends_with('Z'), "{line}");
    line = format!("[T]{}", time.1);
    // Duration and upstream time, then the upstream's local port.
    let words: Vec<&str> = line.split(' ').collect();
    words
        .iter()
        .enumerate()
        .map(|(i, word)| {
            if i == 11 || i == 12 {
                word.parse::<u32>().map_or(*word, |_| "N")
            } else {
                word
            }
        })
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn the_access_log_line_is_istios() {
    run(async {
        let address = web("127.1.0.1", "hello").await;
        let bench = Bench::sidecar(
            "10.96.0.1:80",
            vec![
                service("a", "10.96.0.1", 80, Protocol::Http),
                pod("a", "v1", 80, address),
            ],
        )
        .await;
        let mut stream = bench.outbound().await;
        let client = stream.local_addr().unwrap().to_string();
        let request = "POST /x?y HTTP/1.1\r\nhost: a\r\nuser-agent: curl/8\r\nx-request-id: ID\r\ncontent-length: 0\r\n\r\n";
        exchange(&mut stream, request).await;
        let line = bench.log.lines(1).await.remove(0);
        let line = settled(
            &line,
            &[("SERVER", address.to_string()), ("CLIENT", client)],
        );
        let local = line
            .split(' ')
            .skip_while(|w| !w.starts_with("outbound|"))
            .nth(1)
            .unwrap()
            .to_owned();
        assert!(
            local.starts_with("127.0.0.1:") || local.starts_with("127.1."),
            "{line}"
        );
        assert_eq!(
            line.replace(&local, "LOCAL"),
            "[T] \"POST /x?y HTTP/1.1\" 200 - via_upstream - \"-\" 0 5 N N \"-\" \"curl/8\" \"ID\" \"a\" \"SERVER\" \
             outbound|80||a.default.svc.cluster.local LOCAL 10.96.0.1:80 CLIENT - default"
        );
    });
}

#[test]
fn outbound_metrics_have_every_label() {
    run(async {
        let address = web("127.1.0.1", "hello").await;
        let bench = Bench::sidecar(
            "10.96.0.1:80",
            vec![
                service("a", "10.96.0.1", 80, Protocol::Http),
                pod("a", "v2", 80, address),
            ],
        )
        .await;
        bench.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        let line = bench.metrics("istio_requests_total").await.remove(0);
        assert_eq!(
            line,
            "istio_requests_total{reporter=\"source\",source_workload=\"sleep\",source_workload_namespace=\"default\",\
             source_principal=\"unknown\",source_app=\"sleep\",source_version=\"v1\",source_canonical_service=\"sleep\",\
             source_canonical_revision=\"v1\",source_cluster=\"Kubernetes\",destination_workload=\"a-v2\",\
             destination_workload_namespace=\"default\",destination_principal=\"unknown\",destination_app=\"a\",\
             destination_version=\"v2\",destination_canonical_service=\"a\",destination_canonical_revision=\"v2\",\
             destination_cluster=\"Kubernetes\",destination_service=\"a.default.svc.cluster.local\",\
             destination_service_name=\"a\",destination_service_namespace=\"default\",request_protocol=\"http\",\
             response_code=\"200\",grpc_response_status=\"\",response_flags=\"-\",connection_security_policy=\"unknown\"} 1"
        );
        let sum = bench.metrics("istio_response_bytes_sum").await.remove(0);
        assert!(sum.ends_with("} 5"), "{sum}");
    });
}

#[test]
fn inbound_metrics_know_the_client_by_its_address() {
    run(async {
        let address = web("127.1.0.100", "hello").await;
        let client: SocketAddr = "127.1.0.7:1".parse().unwrap();
        let bench = Bench::sidecar(
            &address.to_string(),
            vec![
                service("sleep", "10.96.0.9", 80, Protocol::Http),
                pod("sleep", "v1", 80, address),
                service("web", "10.96.0.8", 80, Protocol::Http),
                pod("web", "v3", 80, client),
            ],
        )
        .await;
        let mut stream = bench.inbound("127.1.0.7").await;
        exchange(&mut stream, "GET / HTTP/1.1\r\nhost: sleep\r\n\r\n").await;
        let line = bench.metrics("istio_requests_total").await.remove(0);
        for label in [
            "reporter=\"destination\"",
            "source_workload=\"web-v3\"",
            "source_version=\"v3\"",
            "destination_workload=\"sleep\"",
            "destination_service=\"sleep.default.svc.cluster.local\"",
            "destination_service_name=\"sleep\"",
            "connection_security_policy=\"none\"",
        ] {
            assert!(line.contains(label), "{label} in {line}");
        }
    });
}

#[test]
fn tcp_and_unknown_destinations_are_counted() {
    run(async {
        let address = server("127.1.0.1", |mut stream, _| async move {
            stream.write_all(b"hi!").await.unwrap();
        })
        .await;
        let bench = Bench::sidecar(&address.to_string(), Vec::new()).await;
        let mut got = String::new();
        bench
            .outbound()
            .await
            .read_to_string(&mut got)
            .await
            .unwrap();
        assert_eq!(got, "hi!");
        let line = loop {
            let line = bench
                .metrics("istio_tcp_connections_closed_total")
                .await
                .remove(0);
            if line.ends_with("} 1") {
                break line;
            }
        };
        for label in [
            "destination_service_name=\"PassthroughCluster\"",
            "request_protocol=\"tcp\"",
        ] {
            assert!(line.contains(label), "{label} in {line}");
        }
        let line = bench.metrics("istio_tcp_sent_bytes_total").await.remove(0);
        assert!(line.ends_with("} 3"), "{line}");
        let line = bench
            .metrics("istio_tcp_connections_opened_total")
            .await
            .remove(0);
        assert!(line.ends_with("} 1"), "{line}");
    });
}
