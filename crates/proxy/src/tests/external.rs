//! External authorization over both protocols, with providers that live for one test.

mod bytes;
mod cached;
mod grpc;

use super::guarded::*;
use super::mesh::{host, pod, service};
use super::*;
use lateen_model::mesh::{AuthzBody, AuthzProtocol, AuthzProvider};
use lateen_model::security::Action;
use lateen_model::service::Protocol;
use lateen_proto::authorization::authorization_server::{Authorization, AuthorizationServer};
use lateen_proto::authorization::check_response::HttpResponse;
use lateen_proto::authorization::{
    CheckRequest, CheckResponse, DeniedHttpResponse, HeaderValue, HeaderValueOption, HttpStatus,
    OkHttpResponse, Status,
};
use std::cell::RefCell;
use std::rc::Rc;
use tokio_stream_of::incoming;

/// Listeners in the form that gRPC servers want.
mod tokio_stream_of {
    use futures::Stream;
    use tokio::net::{TcpListener, TcpStream};

    pub(super) fn incoming(
        listener: TcpListener,
    ) -> impl Stream<Item = std::io::Result<TcpStream>> {
        futures::stream::unfold(listener, |listener| async move {
            let accepted = listener.accept().await.map(|(stream, _)| stream);
            Some((accepted, listener))
        })
    }
}

fn http() -> AuthzProtocol {
    AuthzProtocol::Http {
        path_prefix: "/check".into(),
        request_headers: strs(&["x-ask"]),
        additional_headers: vec![("x-from".into(), "mesh".into())],
        upstream_on_allow: strs(&["x-user"]),
        downstream_on_deny: strs(&["x-why"]),
        downstream_on_allow: strs(&["x-seen"]),
    }
}

fn provider(protocol: AuthzProtocol) -> AuthzProvider {
    AuthzProvider {
        name: "judge".into(),
        host: host("judge"),
        port: 90,
        timeout: Duration::from_secs(5),
        fail_open: false,
        status_on_error: 403,
        body: None,
        clear_route_cache: false,
        protocol,
    }
}

/// The application's sidecar, which asks `provider` at `judge` about everything under `/ask`.
async fn asking(provider: AuthzProvider, judge: SocketAddr) -> Bench {
    let app = mirror("127.1.0.1").await;
    let protocol = match provider.protocol {
        AuthzProtocol::Grpc => Protocol::Grpc,
        AuthzProtocol::Http { .. } => Protocol::Http,
    };
    let action = Action::Custom {
        provider: provider.name.clone(),
    };
    let resources = vec![
        service("judge", "10.96.0.9", 90, protocol),
        pod("judge", "v1", 90, judge),
        settings(|mesh| mesh.authz_providers = vec![provider]),
        Resource::AuthorizationPolicy(policy("asked", action, vec![paths(&["/ask*"])])),
    ];
    sidecar(app, resources).await
}

type Seen = Rc<RefCell<Vec<String>>>;

/// An HTTP provider: refuses what asks for `no`, breaks on `broken`, and notes what it gets.
async fn judge(answer_headers: &'static str) -> (SocketAddr, Seen) {
    let seen = Seen::default();
    let notes = Rc::clone(&seen);
    let address = server("127.1.0.2", move |mut stream, _| {
        let notes = Rc::clone(&notes);
        async move {
            while let Some(head) = read_head(&mut stream).await {
                let length = head.lines().find_map(|l| l.strip_prefix("content-length: "));
                let mut body = vec![0; length.map_or(0, |l| l.parse().unwrap())];
                stream.read_exact(&mut body).await.unwrap();
                notes.borrow_mut().push(format!("{head}{}", String::from_utf8_lossy(&body)));
                let status = match head.lines().find_map(|l| l.strip_prefix("x-ask: ")) {
                    Some("no") => "401 Unauthorized",
                    Some("away") => "302 Found",
                    Some("broken") => "500 Internal Server Error",
                    _ => "200 OK",
                };
                let answer = format!(
                    "HTTP/1.1 {status}\r\nx-user: ann\r\nx-why: because\r\nx-seen: 1\r\nx-own: 1\r\n\
                     location: /login\r\n{answer_headers}content-length: 4\r\n\r\nwhy?"
                );
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    })
    .await;
    (address, seen)
}

fn ask(word: &str) -> String {
    format!(
        "GET /ask?q=1 HTTP/1.1\r\nhost: a\r\nx-ask: {word}\r\nx-user: root\r\nx-other: 1\r\n\
         authorization: Basic YTpi\r\n\r\n"
    )
}

#[test]
fn http_providers_decide() {
    run(async {
        let (address, seen) = judge("").await;
        let bench = asking(provider(http()), address).await;
        let answer = call(&bench, &ask("yes")).await;
        let (status, body) = outcome(&answer);
        assert!(
            status == "200" && answer.contains("x-seen: 1\r\n"),
            "{answer}"
        );
        assert!(
            body.contains("x-user: ann\r\n") && !body.contains("root") && !body.contains("x-own"),
            "{body}"
        );
        let check = seen.borrow()[0].clone();
        assert!(
            check.starts_with("GET /check/ask?q=1 HTTP/1.1\r\n"),
            "{check}"
        );
        for line in [
            "host: a",
            "x-ask: yes",
            "x-from: mesh",
            "authorization: Basic YTpi",
            "content-length: 0",
        ] {
            assert!(check.contains(&format!("{line}\r\n")), "{line}: {check}");
        }
        assert!(!check.contains("x-other"), "{check}");

        let answer = call(&bench, &ask("no")).await;
        assert_eq!(outcome(&answer), ("401", "why?"));
        assert!(
            answer.contains("x-why: because\r\n") && !answer.contains("x-own"),
            "{answer}"
        );
        let answer = call(&bench, &ask("away")).await;
        assert!(
            outcome(&answer).0 == "302" && answer.contains("location: /login\r\n"),
            "{answer}"
        );
        let answer = call(&bench, &ask("broken")).await;
        assert_eq!(outcome(&answer), ("403", ""));
        // Nobody is asked about other paths.
        let count = seen.borrow().len();
        let answer = call(&bench, "GET /free HTTP/1.1\r\nhost: a\r\nx-ask: no\r\n\r\n").await;
        assert_eq!(outcome(&answer).0, "200");
        assert_eq!(seen.borrow().len(), count);
        let lines = bench.log.lines(5).await;
        assert!(
            lines[1].contains(" 401 UAEX ext_authz_denied "),
            "{}",
            lines[1]
        );
        assert!(
            lines[3].contains(" 403 UAEX ext_authz_error "),
            "{}",
            lines[3]
        );
    });
}

#[test]
fn a_provider_that_is_not_there_is_a_no_unless_the_mesh_says_otherwise() {
    run(async {
        for (open, status, want) in [(false, 503, "503"), (true, 503, "200")] {
            let mut provider = provider(http());
            provider.fail_open = open;
            provider.status_on_error = status;
            let bench = asking(provider, nobody("127.1.0.2").await).await;
            let answer = call(&bench, &ask("yes")).await;
            assert_eq!(outcome(&answer).0, want, "{answer}");
        }
        // One that says nothing in time is not there either.
        let silent = server("127.1.0.2", |stream, _| async move {
            let _open = stream;
            std::future::pending().await
        })
        .await;
        let mut slow = provider(http());
        slow.timeout = Duration::from_millis(50);
        let bench = asking(slow, silent).await;
        assert_eq!(outcome(&call(&bench, &ask("yes")).await).0, "403");
    });
}

#[test]
fn bodies_are_shown_as_far_as_wanted_and_arrive_whole() {
    run(async {
        let (address, seen) = judge("").await;
        for (partial, length, want) in [
            (false, 10, "200"),
            (false, 11, "413"),
            (true, 300_000, "200"),
        ] {
            let mut provider = provider(http());
            provider.body = Some(AuthzBody {
                max_bytes: 10,
                allow_partial: partial,
                as_bytes: false,
            });
            let bench = asking(provider, address).await;
            let body = "b".repeat(length);
            let head = format!("POST /ask HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n");
            let answer = call(&bench, &format!("{head}{body}")).await;
            let (status, got) = outcome(&answer);
            assert_eq!(status, want, "{answer}");
            if want == "200" {
                assert!(got.ends_with(&format!("\r\n\r\n{body}")), "{length}");
                let check = seen.borrow().last().cloned().unwrap();
                assert!(check.ends_with("\r\n\r\nbbbbbbbbbb"), "{check}");
                let flag = format!("x-envoy-auth-partial-body: {}\r\n", length > 10);
                assert!(check.contains(&flag), "{check}");
            }
        }
    });
}

#[test]
fn answers_are_used_again_where_the_provider_says_so() {
    run(async {
        for (control, checks) in [("", 3), ("cache-control: max-age=30\r\n", 2)] {
            let (address, seen) = judge(control).await;
            let bench = asking(provider(http()), address).await;
            for word in ["yes", "yes", "no"] {
                let status = if word == "yes" { "200" } else { "401" };
                assert_eq!(outcome(&call(&bench, &ask(word)).await).0, status);
            }
            assert_eq!(seen.borrow().len(), checks, "{control}");
        }
    });
}

/// A gRPC provider: lets `GET` pass, and notes what it gets.
#[derive(Clone, Default)]
struct Judge(Arc<Mutex<Vec<CheckRequest>>>);

fn header(key: &str, value: &str) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue {
            key: key.to_owned(),
            value: value.to_owned(),
            ..HeaderValue::default()
        }),
        ..HeaderValueOption::default()
    }
}

#[tonic::async_trait]
impl Authorization for Judge {
    async fn check(
        &self,
        request: tonic::Request<CheckRequest>,
    ) -> Result<tonic::Response<CheckResponse>, tonic::Status> {
        let request = request.into_inner();
        let attributes = request.attributes.clone().unwrap();
        let http = attributes.request.unwrap().http.unwrap();
        self.0.lock().unwrap().push(request);
        let (code, answer) = match http.method.as_str() {
            "GET" => {
                let ok = OkHttpResponse {
                    headers: vec![header("x-user", "ann"), header("host", "evil")],
                    headers_to_remove: vec!["x-gone".to_owned()],
                    response_headers_to_add: vec![header("x-seen", "1")],
                    ..OkHttpResponse::default()
                };
                (0, HttpResponse::OkResponse(ok))
            }
            "DELETE" => return Err(tonic::Status::internal("broken")),
            _ => {
                let no = DeniedHttpResponse {
                    status: Some(HttpStatus { code: 418 }),
                    headers: vec![header("x-why", "because")],
                    body: "teapot".to_owned(),
                };
                (7, HttpResponse::DeniedResponse(no))
            }
        };
        Ok(tonic::Response::new(CheckResponse {
            status: Some(Status {
                code,
                ..Status::default()
            }),
            http_response: Some(answer),
        }))
    }
}

#[test]
fn grpc_providers_decide() {
    run(async {
        let judge = Judge::default();
        let listener = TcpListener::bind(("127.1.0.2", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = AuthorizationServer::new(judge.clone());
        tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming(listener)),
        );
        let bench = asking(provider(AuthzProtocol::Grpc), address).await;
        let get = "GET /ask?q=1 HTTP/1.1\r\nhost: a\r\nx-gone: 1\r\nx-two: a\r\nx-two: b\r\n\r\n";
        let answer = call(&bench, get).await;
        let (status, seen) = outcome(&answer);
        assert!(
            status == "200" && answer.contains("x-seen: 1\r\n"),
            "{answer}"
        );
        assert!(
            seen.contains("x-user: ann\r\n") && seen.contains("host: a\r\n"),
            "{seen}"
        );
        assert!(!seen.contains("x-gone") && !seen.contains("evil"), "{seen}");
        let check = judge.0.lock().unwrap()[0].clone().attributes.unwrap();
        let http = check.request.unwrap().http.unwrap();
        assert_eq!(
            (
                http.path.as_str(),
                http.host.as_str(),
                http.headers["x-two"].as_str()
            ),
            ("/ask?q=1", "a", "a,b")
        );
        assert_eq!(http.headers[":method"], "GET");
        let source = check
            .source
            .unwrap()
            .address
            .unwrap()
            .socket_address
            .unwrap();
        assert_eq!(source.address, "127.1.0.9");

        let answer = call(
            &bench,
            "PUT /ask HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n",
        )
        .await;
        assert_eq!(outcome(&answer), ("418", "teapot"));
        assert!(answer.contains("x-why: because\r\n"), "{answer}");
        let answer = call(&bench, "DELETE /ask HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert_eq!(outcome(&answer), ("403", ""));
    });
}
