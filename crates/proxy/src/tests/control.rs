//! A proxy and a control plane in one process: configuration comes, changes, and outlives both.

use super::mesh::{pod, routes, rule, service};
use super::*;
use lateen_model::mesh::{MeshSettings, Role};
use lateen_model::service::Protocol;
use lateen_xds::server::{Store, Unguarded, service as xds};
use tokio_util::sync::CancellationToken;

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

/// Serves `store` until the token is cancelled; returns its address and that token.
async fn control_plane(store: &Store) -> (SocketAddr, CancellationToken) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let end = CancellationToken::new();
    let incoming = futures::stream::unfold(listener, |listener| async move {
        Some((listener.accept().await.map(|(stream, _)| stream), listener))
    });
    let server = tonic::transport::Server::builder()
        .add_service(xds(store.clone(), Arc::new(Unguarded)))
        .serve_with_incoming(incoming);
    let ended = end.clone();
    tokio::task::spawn_local(async move {
        tokio::select! {
            done = server => done.unwrap(),
            () = ended.cancelled() => {}
        }
    });
    (address, end)
}

#[test]
fn configuration_comes_changes_and_outlives_the_control_plane_and_the_proxy() {
    run(async {
        let (a, b) = (
            web("127.1.0.1", "from a").await,
            web("127.1.0.2", "from b").await,
        );
        let store = Store::new();
        store.apply(
            vec![
                Resource::MeshSettings(MeshSettings::default()),
                service("a", "10.96.0.1", 80, Protocol::Http),
                service("b", "10.96.0.2", 80, Protocol::Http),
                pod("a", "v1", 80, a),
                pod("b", "v1", 80, b),
            ],
            Vec::new(),
        );
        store.mark_ready();
        let (address, end) = control_plane(&store).await;
        let cache = std::env::temp_dir().join(format!("lateen-proxy-{}", std::process::id()));
        let config = || {
            let mut config = Config::new(mesh::scope(Role::Sidecar));
            config.destinations = Destinations::Fixed("10.96.0.1:80".parse().unwrap());
            config.discovery = Some(address.to_string());
            config.cache = Some(cache.clone());
            config
        };
        let bench = Bench::start(config()).await;
        let mut stream = bench.outbound().await;
        assert!(exchange(&mut stream, GET).await.ends_with("from a"));
        store.apply(vec![routes("a", vec![rule(&[("b", 1)])])], Vec::new());
        // The connection stays; its next request follows the new routes.
        while !exchange(&mut stream, GET).await.ends_with("from b") {
            tokio::task::yield_now().await;
        }
        while !cache.exists() || !holds(&cache, b"VirtualService") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        end.cancel();
        assert!(
            exchange(&mut stream, GET).await.ends_with("from b"),
            "without a control plane"
        );
        drop(bench);
        let bench = Bench::start(config()).await;
        assert!(
            bench.ask(GET).await.ends_with("from b"),
            "from the cache alone"
        );
        std::fs::remove_file(&cache).unwrap();
    });
}

#[test]
fn services_are_told_when_they_are_first_used() {
    run(async {
        let webs = [
            ("a", web("127.1.0.1", "from a").await),
            ("b", web("127.1.0.2", "from b").await),
            ("c", web("127.1.0.3", "from c").await),
        ];
        let store = Store::new();
        let mut resources = vec![mesh::registry_only()];
        for (last, (name, at)) in (1..).zip(webs) {
            resources.push(service(
                name,
                &format!("10.96.0.{last}"),
                80,
                Protocol::Http,
            ));
            resources.push(pod(name, "v1", 80, at));
        }
        resources.push(routes("b", vec![rule(&[("c", 1)])]));
        store.apply(resources, Vec::new());
        store.mark_ready();
        let (address, end) = control_plane(&store).await;
        let cache = std::env::temp_dir().join(format!("lateen-demand-{}", std::process::id()));
        let config = || {
            let mut scope = mesh::scope(Role::Sidecar);
            scope.on_demand = true;
            let mut config = Config::new(scope);
            config.destinations = Destinations::Fixed("10.96.0.1:80".parse().unwrap());
            config.discovery = Some(address.to_string());
            config.cache = Some(cache.clone());
            config
        };
        let bench = Bench::start(config()).await;
        let told = || store.proxies()[0].kinds[&lateen_model::resource::Kind::Service].resources;
        assert_eq!(told(), 0, "nothing was used");
        let mut stream = bench.outbound().await;
        assert!(exchange(&mut stream, GET).await.ends_with("from a"));
        assert_eq!(told(), 1);
        // By Host, on the same connection; the VirtualService comes with it, and what that sends to.
        let b = "GET / HTTP/1.1\r\nhost: b\r\n\r\n";
        assert!(exchange(&mut stream, b).await.ends_with("from c"));
        assert_eq!(told(), 3);
        let nobody = "GET / HTTP/1.1\r\nhost: nobody.example.com\r\n\r\n";
        let answer = exchange(&mut stream, nobody).await;
        assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
        let figures = bench.metrics("lateen_discovery_lookup").await;
        assert!(
            figures.contains(&"lateen_discovery_lookup_failures_total 0".to_owned()),
            "{figures:?}"
        );
        while !cache.exists() || !holds(&cache, b"nobody.example.com") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        end.cancel();
        drop(bench);
        let bench = Bench::start(config()).await;
        let mut stream = bench.outbound().await;
        for (request, want) in [(GET, "from a"), (b, "from c"), (nobody, "")] {
            let answer = exchange(&mut stream, request).await;
            assert!(answer.ends_with(want), "from the cache alone: {answer}");
        }
        std::fs::remove_file(&cache).unwrap();
    });
}

fn holds(path: &std::path::Path, bytes: &[u8]) -> bool {
    let text = std::fs::read(path).unwrap_or_default();
    text.windows(bytes.len()).any(|w| w == bytes)
}

/// An address where connecting neither succeeds nor fails: a listener whose queue is full.
async fn silent() -> (std::net::TcpListener, Vec<TcpStream>) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any: SocketAddr = "127.1.0.9:0".parse().unwrap();
    socket.bind(&any.into()).unwrap();
    socket.listen(0).unwrap();
    let listener = std::net::TcpListener::from(socket);
    let address = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    while let Ok(stream) =
        tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(address)).await
    {
        queued.push(stream.unwrap());
    }
    (listener, queued)
}

#[test]
fn a_call_to_an_endpoint_that_leaves_goes_to_another_at_once() {
    run(async {
        let (listener, _queued) = silent().await;
        let gone = listener.local_addr().unwrap();
        let store = Store::new();
        store.apply(
            vec![
                Resource::MeshSettings(MeshSettings::default()),
                service("a", "10.96.0.1", 80, Protocol::Http),
                pod("a", "v1", 80, gone),
            ],
            Vec::new(),
        );
        store.mark_ready();
        let (address, _end) = control_plane(&store).await;
        let mut config = Config::new(mesh::scope(Role::Sidecar));
        config.destinations = Destinations::Fixed("10.96.0.1:80".parse().unwrap());
        config.discovery = Some(address.to_string());
        let bench = Bench::start(config).await;
        let mut stream = bench.outbound().await;
        let called = exchange(&mut stream, GET);
        let moved = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let new = pod("a", "v1", 80, web("127.1.0.2", "moved").await);
            store.apply(vec![new], vec![pod("a", "v1", 80, gone).key()]);
        };
        // The connect timeout is ten seconds: far from what this may take.
        let both = futures::future::join(called, moved);
        let (answer, ()) = tokio::time::timeout(Duration::from_secs(5), both)
            .await
            .unwrap();
        assert!(answer.ends_with("moved"), "{answer}");
    });
}
