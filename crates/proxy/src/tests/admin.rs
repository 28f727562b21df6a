//! The proxy's own servers.

use super::mesh::{pod, service};
use super::*;
use crate::AppMetrics;
use lateen_model::mesh::Role;
use lateen_model::service::Protocol;

#[test]
fn pages() {
    run(async {
        let bench = Bench::sidecar(
            "10.96.0.1:80",
            vec![
                service("a", "10.96.0.1", 80, Protocol::Http),
                pod("a", "v1", 80, "127.1.0.1:8080".parse().unwrap()),
            ],
        )
        .await;
        let admin = bench.proxy.addresses().admin;
        for (path, want) in [
            ("/ready", "LIVE"),
            (
                "/clusters",
                "outbound|80||a.default.svc.cluster.local::127.1.0.1:8080::health_flags::healthy",
            ),
            (
                "/clusters?format=json",
                "\"eds_health_status\": \"HEALTHY\"",
            ),
            ("/listeners", "virtualOutbound::127.0.0.1:"),
            ("/server_info", "\"state\": \"LIVE\""),
            ("/memory", "\"allocated\""),
            ("/stats", "server.live: 1"),
            (
                "/stats/prometheus",
                "istio_build{component=\"proxy\",tag=\"test\"} 1",
            ),
            ("/", "/config_dump"),
        ] {
            let answer = bench.get(admin, path).await;
            assert!(
                answer.starts_with("HTTP/1.1 200") && answer.contains(want),
                "{path}: {answer}"
            );
        }
        for (method, path, want) in [
            ("GET", "/nope", "404"),
            ("GET", "/quitquitquit", "405"),
            ("POST", "/logging?level=debug", "501"),
        ] {
            let answer = bench.call(admin, method, path).await;
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {want}")),
                "{path}: {answer}"
            );
        }
        let answer = bench.get(admin, "/config_dump").await;
        let dump: serde_json::Value =
            serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
        let clusters = dump["clusters"].as_array().unwrap();
        let a = clusters
            .iter()
            .find(|c| c["host"] == "a.default.svc.cluster.local")
            .unwrap();
        assert_eq!(a["endpoints"][0]["address"], "127.1.0.1:8080");
        assert!(
            dump["resources"]["services"].is_object(),
            "{}",
            dump["resources"]
        );
        assert!(
            dump["routes"]
                .as_array()
                .unwrap()
                .iter()
                .any(|r| r["host"] == "a.default.svc.cluster.local")
        );
    });
}

#[test]
fn the_applications_metrics_come_along() {
    run(async {
        let app = web("127.0.0.1", "app_up 1\n# EOF\n").await;
        for (port, want) in [
            (app.port(), true),
            (nobody("127.0.0.1").await.port(), false),
        ] {
            let mut config = Config::new(mesh::scope(Role::Sidecar));
            config.app_metrics = Some(AppMetrics {
                port,
                path: "/metrics".to_owned(),
            });
            let bench = Bench::with(config, Vec::new()).await;
            let answer = bench
                .get(bench.proxy.addresses().merged, "/stats/prometheus")
                .await;
            assert!(
                answer.starts_with("HTTP/1.1 200") && answer.contains("istio_build"),
                "{answer}"
            );
            assert_eq!(answer.contains("app_up 1\n"), want);
            assert!(!answer.contains("# EOF"));
        }
    });
}

#[test]
fn quitting_ends_the_proxy() {
    run(async {
        let bench = Bench::sidecar("10.96.0.1:80", Vec::new()).await;
        let answer = bench
            .call(bench.proxy.addresses().merged, "POST", "/quitquitquit")
            .await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        tokio::task::spawn_blocking(move || bench.proxy.wait())
            .await
            .unwrap();
    });
}

#[test]
fn a_taken_port_is_an_error_that_names_it() {
    run(async {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut config = Config::new(mesh::scope(Role::Sidecar));
        let free = Ports {
            outbound: 0,
            inbound: 0,
            merged: 0,
            ready: 0,
            metrics: 0,
            ..Ports::default()
        };
        config.ports = Ports {
            admin: taken.local_addr().unwrap().port(),
            ..free
        };
        let error = Proxy::start(config, Log::default())
            .unwrap_err()
            .to_string();
        assert!(error.contains("another process holds the port"), "{error}");
    });
}
