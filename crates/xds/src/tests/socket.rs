//! Server and client over a real socket.

use super::{key, scope, settings, table};
use crate::client::{Options, Update, node_id, plain, run};
use crate::server::{Gate, Identity, Store, Unguarded, service};
use lateen_model::mesh::OutboundMode;
use lateen_model::resource::{Kind, Resource};
use lateen_proto::discovery::DeltaDiscoveryRequest;
use lateen_proto::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::Code;
use tonic::transport::Endpoint;

/// A served store on a runtime of its own.
struct Served {
    address: SocketAddr,
    runtime: Option<Runtime>,
}

impl Served {
    /// Closes the listener and every connection, as the death of the process would, and waits for it.
    async fn die(mut self) {
        let runtime = self.runtime.take();
        let dropped = tokio::task::spawn_blocking(move || drop(runtime));
        dropped.await.expect("the runtime ends");
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn serve(store: &Store, address: &str) -> Served {
    serve_guarded(store, address, Arc::new(Unguarded)).await
}

async fn serve_guarded(store: &Store, address: &str, gate: Arc<dyn Gate>) -> Served {
    let listener = TcpListener::bind(address).await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let listener = listener.into_std().expect("a listener");
    let runtime = Runtime::new().expect("a runtime");
    let service = service(store.clone(), gate);
    runtime.spawn(async move {
        let listener = TcpListener::from_std(listener).expect("a listener");
        tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(TcpListenerStream::new(listener))
            .await
    });
    Served {
        address,
        runtime: Some(runtime),
    }
}

fn client(address: SocketAddr, cache: Option<PathBuf>) -> mpsc::Receiver<Update> {
    start(address, cache, None)
}

fn start(
    address: SocketAddr,
    cache: Option<PathBuf>,
    token: Option<PathBuf>,
) -> mpsc::Receiver<Update> {
    let scope = scope("sleep", "default");
    let options = Options {
        address: address.to_string(),
        connect: plain(&address.to_string(), |_| Ok(())),
        token,
        node_id: node_id(&scope),
        scope,
        version: "test".to_owned(),
        cache,
    };
    let (sender, receiver) = mpsc::channel(64);
    tokio::spawn(run(options, mpsc::channel(1).1, sender));
    receiver
}

/// Everything up to and including the next `Synced`: what changed and how much was removed.
async fn until_synced(updates: &mut mpsc::Receiver<Update>) -> (Vec<Resource>, usize) {
    let (mut all, mut gone) = (Vec::new(), 0);
    loop {
        match updates.recv().await.expect("the client runs") {
            Update::Synced => return (all, gone),
            Update::Changed { changed, removed } => {
                all.extend(changed);
                gone += removed.len();
            }
            Update::Found(_) | Update::Forgotten(_) => {}
        }
    }
}

/// Admits `account` of namespace `default` for each token that is its name; tells what tokens it saw.
struct ByToken(mpsc::UnboundedSender<String>);

#[tonic::async_trait]
impl Gate for ByToken {
    async fn admit(
        &self,
        metadata: &tonic::metadata::MetadataMap,
        _: &tonic::Extensions,
    ) -> Result<Option<Identity>, tonic::Status> {
        let shown = metadata.get("authorization").map(|value| value.to_str());
        let shown = shown.and_then(Result::ok).unwrap_or_default().to_owned();
        let _ = self.0.send(shown.clone());
        match shown.strip_prefix("Bearer ") {
            Some(account) => Ok(Some(Identity {
                namespace: "default".into(),
                service_account: account.into(),
            })),
            None => Err(tonic::Status::unauthenticated("show a token")),
        }
    }
}

#[tokio::test]
async fn the_token_is_read_anew_for_each_stream() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("token");
    let store = Store::new();
    store.apply(vec![table("a/x", "h", None)], vec![]);
    store.mark_ready();
    let (saw, mut seen) = mpsc::unbounded_channel();
    let served = serve_guarded(&store, "127.0.0.1:0", Arc::new(ByToken(saw))).await;
    let mut updates = start(served.address, None, Some(path.clone()));
    assert_eq!(seen.recv().await.expect("a stream"), "", "no such file yet");
    std::fs::write(&path, "somebody\n").expect("written");
    // Attempts that were under way may still come without it.
    while seen.recv().await.expect("a stream") != "Bearer somebody" {}
    std::fs::write(&path, "default\n").expect("written");
    assert_eq!(until_synced(&mut updates).await.0.len(), 1);
    let proxies = store.proxies();
    assert!(
        proxies.iter().all(|proxy| proxy.authenticated),
        "{proxies:?}"
    );
}

#[tokio::test]
async fn follow_lose_resume() {
    let store = Store::new();
    let many = (0..50)
        .map(|n| table(&format!("a/{n}"), "h", None))
        .collect();
    store.apply(many, vec![]);
    store.apply(vec![settings(OutboundMode::AllowAny)], vec![]);
    store.mark_ready();
    let served = serve(&store, "127.0.0.1:0").await;
    let mut updates = client(served.address, None);
    assert_eq!(until_synced(&mut updates).await.0.len(), 51);

    let applied = store.apply(vec![table("a/7", "new", None)], vec![key("a/8")]);
    assert_eq!((applied.changed, applied.removed), (1, 1));
    let update = updates.recv().await.expect("an update");
    let want = Update::Changed {
        changed: vec![table("a/7", "new", None)],
        removed: vec![key("a/8")],
    };
    assert_eq!(update, want);
    let mut converged = store.converged();
    let all_have = |g: &u64| *g >= applied.generation;
    converged.wait_for(all_have).await.expect("the store lives");
    let proxies = store.proxies();
    let [proxy] = &proxies[..] else {
        panic!("one proxy, not {}", proxies.len());
    };
    assert_eq!(
        proxy.node_id,
        "sidecar~10.244.0.9~sleep.default~default.svc.cluster.local"
    );
    assert_eq!(proxy.kinds[&Kind::RouteTable].resources, 49);
    assert_eq!(proxy.kinds[&Kind::RouteTable].nack, None);

    // The control plane dies; another comes up at the same address with nearly the same content.
    let address = served.address;
    served.die().await;
    let second = Store::new();
    let again = (0..50)
        .filter(|n| *n != 8)
        .map(|n| table(&format!("a/{n}"), if n == 7 { "new" } else { "h" }, None));
    second.apply(again.collect(), vec![]);
    second.apply(
        vec![
            settings(OutboundMode::RegistryOnly),
            table("a/50", "h", None),
        ],
        vec![key("a/49")],
    );
    second.mark_ready();
    let _served = serve(&second, &address.to_string()).await;
    let (changed, gone) = until_synced(&mut updates).await;
    let names: Vec<_> = changed.iter().map(|r| r.key().name.to_string()).collect();
    assert_eq!(
        (names, gone),
        (vec!["default".to_owned(), "a/50".to_owned()], 1)
    );
}

#[tokio::test]
async fn a_change_that_is_for_others_counts_as_seen_without_a_word() {
    let store = Store::new();
    store.apply(vec![table("a/x", "h", None)], vec![]);
    store.mark_ready();
    let served = serve(&store, "127.0.0.1:0").await;
    let mut updates = client(served.address, None);
    until_synced(&mut updates).await;
    let mut converged = store.converged();
    let pushes = || store.proxies()[0].kinds[&Kind::RouteTable].pushes;
    let before = pushes();
    let for_others = |host: &str| vec![table("b/x", host, Some("others"))];
    for host in ["1", "2", "3"] {
        let applied = store.apply(for_others(host), vec![]);
        let all_have = |g: &u64| *g >= applied.generation;
        converged.wait_for(all_have).await.expect("the store lives");
    }
    assert_eq!(pushes(), before);
    store.apply(vec![table("a/x", "new", None)], vec![key("b/x")]);
    let Some(Update::Changed { changed, .. }) = updates.recv().await else {
        panic!("an update");
    };
    assert_eq!(changed, [table("a/x", "new", None)]);
}

#[tokio::test]
async fn the_cache_serves_before_and_without_the_control_plane() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("cache");
    let store = Store::new();
    let resources = vec![
        settings(OutboundMode::RegistryOnly),
        table("a/x", "h", None),
    ];
    store.apply(resources.clone(), vec![]);
    store.mark_ready();
    let served = serve(&store, "127.0.0.1:0").await;
    let mut updates = client(served.address, Some(path.clone()));
    assert_eq!(until_synced(&mut updates).await.0, resources);
    // The client has no other sign of having written the file than the file.
    while !path.exists() {
        tokio::task::yield_now().await;
    }
    drop(updates);
    let address = served.address;
    served.die().await;

    let mut updates = client(address, Some(path));
    let (mut cached, _) = until_synced(&mut updates).await;
    cached.sort_by_key(Resource::key);
    assert_eq!(cached, resources, "nobody serves");

    let store = Store::new();
    store.apply(
        vec![resources[0].clone(), table("a/x", "new", None)],
        vec![],
    );
    store.mark_ready();
    let _served = serve(&store, &address.to_string()).await;
    let (changed, _) = until_synced(&mut updates).await;
    assert_eq!(changed, [table("a/x", "new", None)], "only the difference");
}

#[tokio::test]
async fn streams_wait_for_the_first_sync_and_leave_the_list() {
    let store = Store::new();
    let served = serve(&store, "127.0.0.1:0").await;
    let mut updates = client(served.address, None);
    let mut shown = store.converged();
    store.apply(vec![table("a/x", "h", None)], vec![]);
    store.mark_ready();
    let (changed, _) = until_synced(&mut updates).await;
    assert_eq!(changed.len(), 1);
    let generation = store.generation();
    shown
        .wait_for(|g| *g >= generation)
        .await
        .expect("the store lives");
    let dump = store.debug_dump(Kind::RouteTable);
    assert_eq!((dump.len(), &dump[0].resource), (1, &changed[0]));
    drop(updates);
    while !store.proxies().is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn one_proxy_has_a_bounded_number_of_streams() {
    let store = Store::new();
    store.mark_ready();
    let served = serve(&store, "127.0.0.1:0").await;
    let uri = format!("http://{}", served.address);
    let endpoint = Endpoint::from_shared(uri).expect("a URI");
    let channel = endpoint.connect().await.expect("it connects");
    let mut open = Vec::new();
    for (pod, streams) in [("sleep", 16), ("other", 1), ("sleep", 0)] {
        let scope = scope(pod, "default");
        for number in 0..=streams {
            let request = DeltaDiscoveryRequest {
                node: Some(crate::node::encode(&scope, &node_id(&scope), "test")),
                type_url: crate::codec::type_url(Kind::Service).to_owned(),
                ..DeltaDiscoveryRequest::default()
            };
            let (sender, receiver) = mpsc::channel(1);
            sender.send(request).await.expect("there is room");
            let mut client = AggregatedDiscoveryServiceClient::new(channel.clone());
            let asked = client.delta_aggregated_resources(ReceiverStream::new(receiver));
            let mut answers = asked.await.expect("a stream").into_inner();
            let first = answers.message().await;
            let refused = pod == "sleep" && number == streams;
            match first {
                Ok(_) => assert!(!refused, "{pod} {number}"),
                Err(status) => {
                    assert!(refused, "{pod} {number}: {status}");
                    assert_eq!(status.code(), Code::ResourceExhausted);
                }
            }
            open.push((sender, answers));
        }
    }
}
