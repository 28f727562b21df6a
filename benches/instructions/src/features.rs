//! Requests that use what meshes use beside plain routing, through two sidecars: matches of every kind, rewrites, edits,
//! retries, consistent hashing, new connections, policies with conditions, refusals, bodies. It has no bound: it is what
//! `cargo xtask dist` runs, so that the compiler knows more than the shortest path.

use crate::mesh::{self, Ca};
use crate::pair::{self, ADDRESS, Running, counted};
use lateen_api::yaml;
use lateen_model::mesh::Role;
use lateen_model::resource::Resource;
use lateen_model::service::Protocol;
use lateen_translate::mesh::Mesh;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

/// At the caller's side.
const ROUTES: &str = r#"
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a, namespace: default}
spec:
  hosts: [a.default.svc.cluster.local]
  http:
    - match:
        - uri: {regex: "/files/[a-z]+/[0-9]+"}
          headers: {x-kind: {exact: book}}
      rewrite: {uri: /archive}
      headers: {request: {set: {x-seen: "yes"}, remove: [x-kind]}, response: {add: {x-by: mesh}}}
      route: [{destination: {host: a.default.svc.cluster.local}}]
    - match: [{uri: {prefix: /cart}, queryParams: {user: {regex: "u[0-9]+"}}, method: {exact: POST}}]
      timeout: 5s
      retries: {attempts: 3, perTryTimeout: 2s, retryOn: "5xx,connect-failure,reset"}
      route: [{destination: {host: a.default.svc.cluster.local}}]
    - match: [{uri: {prefix: /old}}]
      redirect: {uri: /new, redirectCode: 301}
    - match: [{uri: {prefix: /pages}}]
      corsPolicy: {allowOrigins: [{exact: "https://shop.example"}], allowMethods: [GET]}
      fault: {abort: {percentage: {value: 10}, httpStatus: 503}}
      route: [{destination: {host: a.default.svc.cluster.local}}]
    - match: [{uri: {prefix: /gone}}]
      directResponse: {status: 410, body: {string: "no more"}}
    - route: [{destination: {host: a.default.svc.cluster.local}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: a, namespace: default}
spec:
  host: a.default.svc.cluster.local
  trafficPolicy:
    loadBalancer: {consistentHash: {httpHeaderName: x-user}}
    connectionPool: {tcp: {maxConnections: 100}, http: {maxRequestsPerConnection: 8, http1MaxPendingRequests: 100}}
    outlierDetection: {consecutive5xxErrors: 50, interval: 10s, baseEjectionTime: 10s}
"#;

/// At the application's side.
const POLICIES: &str = r#"
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: not-here, namespace: default}
spec:
  action: DENY
  rules:
    - to: [{operation: {paths: ["/admin*"], methods: [GET, POST]}}]
    - when: [{key: "request.headers[x-blocked]", values: ["1"]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: these, namespace: default}
spec:
  rules:
    - from: [{source: {principals: [cluster.local/ns/default/sa/nobody]}}]
    - from: [{source: {namespaces: [default], notPrincipals: ["*/sa/other"]}}]
      to: [{operation: {notPaths: ["/secret"]}}]
"#;

/// What is asked in turn, and what is answered.
const ASKED: [(&str, u16); 9] = [
    (
        "GET /files/abc/17 HTTP/1.1\r\nHost: a.default.svc.cluster.local\r\nX-Kind: book\r\nX-User: 1\r\n\r\n",
        200,
    ),
    (
        "POST /cart/add?user=u7 HTTP/1.1\r\nHost: a.default.svc.cluster.local\r\nX-User: 2\r\nContent-Length: 11\r\n\r\nhello world",
        200,
    ),
    (
        "POST /upload HTTP/1.1\r\nHost: a.default.svc.cluster.local\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        200,
    ),
    (
        "GET /old/1 HTTP/1.1\r\nHost: a.default.svc.cluster.local\r\n\r\n",
        301,
    ),
    (
        "GET /gone HTTP/1.1\r\nHost: a.default.svc.cluster.local\r\n\r\n",
        410,
    ),
    (
        "GET /pages/1 HTTP/1.1\r\nHost: a.default.svc.cluster.local\r\nOrigin: https://shop.example\r\nCookie: a=1; b=2\r\n\r\n",
        0,
    ),
    (
        "GET /admin/x HTTP/1.1\r\nHost: a.default.svc.cluster.local\r\n\r\n",
        403,
    ),
    (
        "GET /secret HTTP/1.1\r\nHost: a.default.svc.cluster.local\r\n\r\n",
        403,
    ),
    (
        "GET /x HTTP/1.1\r\nHost: a.default.svc.cluster.local\r\nUser-Agent: curl/8\r\nAccept: */*\r\nX-Forwarded-For: 10.1.1.1\r\n\r\n",
        200,
    ),
];

/// One time is one request of each kind.
pub(crate) fn features(times: u64) -> u64 {
    let ca = Ca::new();
    let app = app();
    let mut config = pair::config(Role::Sidecar, "a", &app.ip().to_string(), app);
    let mut resources = vec![
        mesh::service("a", ADDRESS, Protocol::Http),
        mesh::pod("a", app, true),
        ca.trust(),
    ];
    resources.extend(meant(POLICIES));
    config.resources = Some(resources);
    let server = pair::run(config, &ca, "a");
    let client = client(&ca, server.inbound());
    let mut stream = BufReader::new(TcpStream::connect(client.outbound()).expect("connected"));
    counted(times, || {
        for (request, status) in ASKED {
            stream
                .get_mut()
                .write_all(request.as_bytes())
                .expect("written");
            let got = answered(&mut stream);
            assert!(status == 0 || got == status, "{request}: {got}");
        }
    })
}

fn client(ca: &Ca, inbound: SocketAddr) -> Running {
    let was_going = SocketAddr::from((ADDRESS, 80));
    let mut config = pair::config(Role::Sidecar, "sleep", "127.1.0.100", was_going);
    let mut resources = vec![
        mesh::service("a", ADDRESS, Protocol::Http),
        mesh::pod("a", inbound, true),
        ca.trust(),
    ];
    resources.extend(meant(ROUTES));
    config.resources = Some(resources);
    pair::run(config, ca, "sleep")
}

/// What this YAML means.
fn meant(text: &str) -> Vec<Resource> {
    let documents = yaml::parse("features", text);
    let objects = documents.iter().map(|document| {
        let object = document.object.as_ref();
        object.unwrap_or_else(|| panic!("no object: {:?}", document.notices))
    });
    let mesh = Mesh::default();
    let all: Vec<_> = objects.collect();
    let translated = all.iter().flat_map(|object| {
        let (meant, notices) = lateen_translate::among(object, all.iter().copied(), &mesh);
        assert!(notices.iter().all(|n| !n.is_error()), "{notices:?}");
        meant
    });
    translated.collect()
}

/// Reads one answer; its status.
fn answered(stream: &mut BufReader<TcpStream>) -> u16 {
    let (first, length, _) = head(stream).expect("an answer");
    let mut body = vec![0; length];
    stream.read_exact(&mut body).expect("a whole answer");
    let status = first.split(' ').nth(1).and_then(|code| code.parse().ok());
    status.expect("a status")
}

/// The first line of a message, the length of its body, and whether that comes in chunks.
fn head(stream: &mut BufReader<TcpStream>) -> Option<(String, usize, bool)> {
    let (mut first, mut length, mut chunked) = (String::new(), 0, false);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            return Some((first, length, chunked));
        }
        if first.is_empty() {
            first = line;
        } else if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.parse().ok()?;
        } else if line.starts_with("transfer-encoding: chunked") {
            chunked = true;
        }
    }
}

/// An application that reads whole requests.
fn app() -> SocketAddr {
    let listener = TcpListener::bind("127.1.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            std::thread::spawn(move || answer(BufReader::new(stream)));
        }
    });
    address
}

fn answer(mut stream: BufReader<TcpStream>) -> Option<()> {
    loop {
        let (_, length, chunked) = head(&mut stream)?;
        let mut body = vec![0; length];
        stream.read_exact(&mut body).ok()?;
        let mut line = String::new();
        while chunked && line != "0\r\n" {
            line.clear();
            stream.read_line(&mut line).ok()?;
        }
        if chunked {
            stream.read_line(&mut line).ok()?;
        }
        let answer =
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello";
        stream.get_mut().write_all(answer.as_bytes()).ok()?;
    }
}
