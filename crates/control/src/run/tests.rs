//! The control plane's start and its servers, without an API server behind it.

use super::*;
use std::net::{IpAddr, Ipv4Addr};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn config() -> Config {
    Config {
        bind: IpAddr::V4(Ipv4Addr::LOCALHOST),
        ports: crate::config::Ports {
            http: 0,
            secured: 0,
            plaintext: None,
            monitoring: 0,
            webhooks: 0,
        },
        ..Config::default()
    }
}

async fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(address)
        .await
        .expect("it listens");
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream
        .write_all(request.as_bytes())
        .await
        .expect("it is sent");
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .await
        .expect("it is answered");
    answer
}

#[tokio::test]
async fn a_taken_port_is_named_with_the_cure() {
    let taken = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let mut config = config();
    config.ports.secured = taken.local_addr().expect("an address").port();
    let error = Listeners::open(&config).await.err().expect("it is taken");
    let text = error.to_string();
    let start = format!(
        "cannot listen on 127.0.0.1:{} (xDS and certificates): ",
        config.ports.secured
    );
    assert!(text.starts_with(&start), "{text}");
    assert!(text.contains("stop what uses the port"), "{text}");
}

#[tokio::test]
async fn without_an_api_server_it_serves_but_is_not_ready() {
    let config = config();
    let listeners = Listeners::open(&config).await.expect("free ports");
    let http = listeners.http.local_addr().expect("an address");
    let nowhere = kube::Config::new("http://127.0.0.1:1".parse().expect("a URL"));
    let client = Client::try_from(nowhere).expect("a client");
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(run_with(config, client, listeners, shutdown.clone()));
    let ready = get(http, "/ready").await;
    assert!(ready.starts_with("HTTP/1.1 503"), "{ready}");
    assert!(get(http, "/metrics").await.contains("pilot_services 0"));
    assert!(get(http, "/debug/syncz").await.ends_with("[]"));
    assert!(
        get(http, "/debug/push_status")
            .await
            .contains("\"synced\": false")
    );
    assert!(get(http, "/nowhere").await.starts_with("HTTP/1.1 404"));
    let dump = get(http, "/debug/config_dump?proxyID=x.y").await;
    assert!(
        dump.contains("no connected proxy is called \"x.y\""),
        "{dump}"
    );
    shutdown.cancel();
    running.await.expect("no panic").expect("a clean end");
}
