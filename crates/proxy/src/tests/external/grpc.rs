//! A gRPC provider whose answers a test chooses; what happens when there is none, and what its headers do.

use super::*;
use crate::tests::mesh::{origin, routes_at, rule, scope};
use lateen_model::gateway::{Gateway, Server, ServerHost, ServerProtocol};
use lateen_model::matching::StringMatch;
use lateen_model::mesh::Role;
use lateen_model::route::HttpMatch;
use lateen_proto::authorization::BoolValue;
use std::sync::atomic::{AtomicUsize, Ordering};

type Reply = Result<tonic::Response<CheckResponse>, tonic::Status>;

/// A provider that answers as `reply` does, and notes what it gets.
#[derive(Clone)]
pub(super) struct Teller {
    reply: Arc<dyn Fn(&CheckRequest) -> Reply + Send + Sync>,
    pub(super) seen: Arc<Mutex<Vec<CheckRequest>>>,
}

impl Teller {
    /// Starts it; its address comes too.
    pub(super) async fn start(
        reply: impl Fn(&CheckRequest) -> Reply + Send + Sync + 'static,
    ) -> (Self, SocketAddr) {
        let teller = Self {
            reply: Arc::new(reply),
            seen: Arc::default(),
        };
        let listener = TcpListener::bind(("127.1.0.2", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = AuthorizationServer::new(teller.clone());
        tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming(listener)),
        );
        (teller, address)
    }

    pub(super) fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

#[tonic::async_trait]
impl Authorization for Teller {
    async fn check(&self, request: tonic::Request<CheckRequest>) -> Reply {
        let request = request.into_inner();
        let reply = (self.reply)(&request);
        self.seen.lock().unwrap().push(request);
        reply
    }
}

/// A yes with these headers for the upstream.
pub(super) fn yes(headers: Vec<HeaderValueOption>) -> tonic::Response<CheckResponse> {
    tonic::Response::new(CheckResponse {
        status: Some(Status::default()),
        http_response: Some(HttpResponse::OkResponse(OkHttpResponse {
            headers,
            ..OkHttpResponse::default()
        })),
    })
}

/// A bare no.
pub(super) fn no() -> tonic::Response<CheckResponse> {
    tonic::Response::new(CheckResponse {
        status: Some(Status {
            code: 7,
            ..Status::default()
        }),
        http_response: None,
    })
}

const ASK: &str = "GET /ask HTTP/1.1\r\nhost: a\r\nx-there: 1\r\n\r\n";

#[test]
fn without_an_answer_the_settings_decide() {
    run(async {
        let silent = server("127.1.0.2", |stream, _| async move {
            let _open = stream;
            std::future::pending().await
        })
        .await;
        let (_, broken) = Teller::start(|_| Err(tonic::Status::internal("broken"))).await;
        for judge in [nobody("127.1.0.2").await, silent, broken] {
            for (open, want) in [(false, "503"), (true, "200")] {
                let mut provider = provider(AuthzProtocol::Grpc);
                provider.timeout = Duration::from_millis(100);
                provider.fail_open = open;
                provider.status_on_error = 503;
                let bench = asking(provider, judge).await;
                let answer = call(&bench, ASK).await;
                assert_eq!(outcome(&answer).0, want, "{judge} {answer}");
            }
        }
    });
}

#[test]
fn headers_join_as_the_provider_says() {
    run(async {
        let option = |key: &str, append: Option<bool>, action: i32| HeaderValueOption {
            append: append.map(|value| BoolValue { value }),
            append_action: action,
            ..header(key, "2")
        };
        let (_, address) = Teller::start(move |_| {
            Ok(yes(vec![
                option("x-there", Some(true), 2),
                option("x-absent", None, 1),
                option("x-host", None, 3),
                option("x-plain", None, 0),
            ]))
        })
        .await;
        let bench = asking(provider(AuthzProtocol::Grpc), address).await;
        let request = "GET /ask HTTP/1.1\r\nhost: a\r\nx-there: 1\r\nx-plain: 1\r\n\r\n";
        let answer = call(&bench, request).await;
        let (status, seen) = outcome(&answer);
        assert_eq!(status, "200", "{answer}");
        for line in ["x-there: 1\r\nx-there: 2", "x-absent: 2", "x-plain: 2"] {
            assert!(seen.contains(&format!("{line}\r\n")), "{line}: {seen}");
        }
        assert!(
            !seen.contains("x-host") && !seen.contains("x-plain: 1"),
            "{seen}"
        );
    });
}

/// A gateway that sends requests with `x-side: b` to `b`, others to `a`, and asks `provider` about all.
async fn forked(provider: AuthzProvider, judge: SocketAddr) -> (Bench, SocketAddr) {
    let port = nobody("127.0.0.1").await.port();
    let gateway = Gateway {
        origin: origin("Gateway", "front"),
        selector: [("istio".into(), "ingressgateway".into())].into(),
        servers: vec![Server {
            tls: None,
            name: "".into(),
            port,
            port_name: "http".into(),
            protocol: ServerProtocol::Http,
            hosts: vec![ServerHost {
                namespace: None,
                host: "*".into(),
            }],
            https_redirect: false,
            bind: None,
        }],
    };
    let mut to_b = rule(&[("b", 1)]);
    to_b.matches = vec![HttpMatch {
        headers: [("x-side".into(), StringMatch::Exact("b".into()))].into(),
        ..HttpMatch::default()
    }];
    let action = Action::Custom {
        provider: provider.name.clone(),
    };
    let resources = vec![
        Resource::Gateway(gateway),
        service("a", "10.96.0.1", 80, Protocol::Http),
        pod("a", "v1", 80, web("127.1.0.1", "a").await),
        service("b", "10.96.0.2", 80, Protocol::Http),
        pod("b", "v1", 80, web("127.1.0.3", "b").await),
        service("judge", "10.96.0.9", 90, Protocol::Grpc),
        pod("judge", "v1", 90, judge),
        routes_at("default/front", "*", vec![to_b, rule(&[("a", 1)])]),
        settings(|mesh| mesh.authz_providers = vec![provider]),
        Resource::AuthorizationPolicy(policy("asked", action, vec![Default::default()])),
    ];
    let bench = Bench::with(Config::new(scope(Role::Gateway)), resources).await;
    (bench, SocketAddr::from(([127, 0, 0, 1], port)))
}

#[test]
fn providers_choose_routes_only_where_they_may() {
    run(async {
        let (_, judge) = Teller::start(|_| Ok(yes(vec![header("x-side", "b")]))).await;
        for (clears, side) in [(false, "a"), (true, "b")] {
            let mut provider = provider(AuthzProtocol::Grpc);
            provider.clear_route_cache = clears;
            let (_bench, front) = forked(provider, judge).await;
            let mut stream = TcpStream::connect(front).await.unwrap();
            let answer = exchange(&mut stream, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
            assert_eq!(outcome(&answer), ("200", side), "{answer}");
        }
    });
}

#[test]
fn a_provider_that_moves_is_asked_anew() {
    run(async {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        let kept = |_: &CheckRequest| {
            ASKED.fetch_add(1, Ordering::Relaxed);
            let mut yes = yes(Vec::new());
            let control = "max-age=60".parse().unwrap();
            yes.metadata_mut().insert("cache-control", control);
            Ok(yes)
        };
        let (_, judge) = Teller::start(kept).await;
        let bench = asking(provider(AuthzProtocol::Grpc), judge).await;
        for _ in 0..2 {
            assert_eq!(outcome(&call(&bench, ASK).await).0, "200");
        }
        assert_eq!(ASKED.load(Ordering::Relaxed), 1);
        let (second, elsewhere) = Teller::start(|_| Ok(no())).await;
        let moved = AuthzProvider {
            port: 91,
            ..provider(AuthzProtocol::Grpc)
        };
        let changed = vec![
            service("judge", "10.96.0.9", 91, Protocol::Grpc),
            pod("judge", "v1", 91, elsewhere),
            settings(|mesh| mesh.authz_providers = vec![moved]),
        ];
        let removed = Vec::new();
        let update = lateen_xds::client::Update::Changed { changed, removed };
        bench.proxy.feed.send(update).await.unwrap();
        while outcome(&call(&bench, ASK).await).0 != "403" || second.count() == 0 {}
    });
}
