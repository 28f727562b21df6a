//! The service over real sockets, with limits in real files, and with a real Redis where there is one.

mod redis;

use super::*;
use lateen_proto::ratelimit::RateLimitDescriptor;
use lateen_proto::ratelimit::rate_limit_descriptor::Entry;
use lateen_proto::ratelimit::rate_limit_response::Code;
use lateen_proto::ratelimit::rate_limit_service_client::RateLimitServiceClient;
use tonic::transport::Channel;

/// Requests of ten a year: no window ends while a test runs.
const LIMITS: &str =
    "domain: edge\ndescriptors:\n- key: user\n  rate_limit: {unit: year, requests_per_unit: 10}\n";

fn engine(store: Store, fail_open: bool) -> Arc<Engine> {
    let stats = Arc::new(Stats::default());
    let limits = limits::read_file("limits.yaml", LIMITS, &stats).expect("valid");
    let engine = Engine::new(store, fail_open, stats);
    engine.set(limits);
    Arc::new(engine)
}

/// A server of its own, and a client of it.
async fn client(engine: Arc<Engine>) -> RateLimitServiceClient<Channel> {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(serve(listener, engine, CancellationToken::new()));
    let client = RateLimitServiceClient::connect(format!("http://{address}")).await;
    client.expect("connected")
}

fn request(hits: u32, user: &str) -> RateLimitRequest {
    RateLimitRequest {
        domain: "edge".to_owned(),
        descriptors: vec![RateLimitDescriptor {
            entries: vec![Entry {
                key: "user".to_owned(),
                value: user.to_owned(),
            }],
            ..RateLimitDescriptor::default()
        }],
        hits_addend: hits,
    }
}

async fn code(client: &mut RateLimitServiceClient<Channel>, request: RateLimitRequest) -> Code {
    let answer = client.should_rate_limit(request).await.expect("an answer");
    answer.into_inner().overall_code()
}

#[tokio::test]
async fn clients_are_answered_over_grpc() {
    let mut client = client(engine(Store::Memory(Memory::new(100)), true)).await;
    assert_eq!(code(&mut client, request(9, "ann")).await, Code::Ok);
    assert_eq!(code(&mut client, request(0, "ann")).await, Code::Ok);
    assert_eq!(code(&mut client, request(0, "ann")).await, Code::OverLimit);
    let invalid = client.should_rate_limit(RateLimitRequest::default()).await;
    let invalid = invalid.expect_err("invalid");
    assert_eq!(invalid.code(), tonic::Code::InvalidArgument);
}

#[tokio::test]
async fn clients_at_once_get_no_more_than_the_limit() {
    let client = client(engine(Store::Memory(Memory::new(100)), true)).await;
    let asking: Vec<_> = (0..40)
        .map(|i| {
            let mut client = client.clone();
            tokio::spawn(async move {
                let hits = 1 + i % 3;
                match code(&mut client, request(hits, "ann")).await {
                    Code::Ok => hits,
                    _ => 0,
                }
            })
        })
        .collect();
    let mut granted = 0;
    for one in asking {
        granted += one.await.expect("done");
    }
    // Single hits fill what leases left.
    assert_eq!(granted, 10);
}

#[tokio::test]
async fn a_changed_file_is_taken_and_a_broken_one_leaves_the_last() {
    let home = tempfile::tempdir().expect("a folder");
    let file = home.path().join("edge.yaml");
    std::fs::write(&file, LIMITS).expect("written");
    std::fs::write(home.path().join("notes.txt"), "not for us").expect("written");
    let stats = Arc::new(Stats::default());
    let engine = Engine::new(Store::Memory(Memory::new(100)), true, stats);
    let mut folder = Folder::new(home.path().to_owned());
    assert!(folder.refresh(&engine).expect("read"));
    assert!(!folder.refresh(&engine).expect("read"), "nothing changed");
    assert!(engine.limits().has("edge"));

    std::fs::write(&file, "domain: other\ndescriptors: 5\n").expect("written");
    let unread = folder.refresh(&engine).expect_err("broken").to_string();
    assert!(unread.contains("edge.yaml:2: descriptors"), "{unread}");
    assert!(engine.limits().has("edge") && !engine.limits().has("other"));
    assert!(!folder.refresh(&engine).expect("said once"));

    std::fs::write(&file, "domain: other\n").expect("written");
    assert!(folder.refresh(&engine).expect("read"));
    assert!(engine.limits().has("other") && !engine.limits().has("edge"));
    let metrics = engine.metrics();
    assert!(
        metrics.contains("ratelimit_service_config_load_error 1"),
        "{metrics}"
    );
}

#[tokio::test]
async fn the_admin_port_says_how_it_goes() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("an address");
    let engine = engine(Store::Memory(Memory::new(100)), true);
    tokio::spawn(admin::serve(listener, engine));
    for (path, words) in [
        ("/healthz", "200 OK"),
        ("/metrics", "ratelimit_service_requests 0"),
        ("/domains", "edge"),
        ("/", "404"),
    ] {
        let mut stream = tokio::net::TcpStream::connect(address)
            .await
            .expect("connected");
        let head = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        assert!(answer.contains(words), "{path}: {answer}");
    }
}
