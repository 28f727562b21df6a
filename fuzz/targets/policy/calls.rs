//! Calls that policies of the fuzz target are asked about, and the mesh that they happen in.

use http::{HeaderMap, HeaderValue, Method};
use lateen_model::decide::authz::{RequestFacts, Ruling, Token, admit, authorize};
use lateen_model::decide::plan::{ConnectionFacts, Direction, Peer, RequestHead};
use lateen_model::decide::snapshot::Snapshot;
use lateen_model::identity::SpiffeId;
use lateen_model::mesh::{AuthzProtocol, AuthzProvider, MeshSettings};
use serde_json::json;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::LazyLock;
use std::time::Duration;

/// The workload's address.
pub const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 244, 0, 5));

/// A call of a workload.
pub struct Call {
    facts: ConnectionFacts,
    remote: IpAddr,
    peer: Peer,
    /// Absent: bytes.
    request: Option<Asked>,
}

struct Asked {
    method: Method,
    authority: &'static str,
    path: &'static str,
    headers: HeaderMap,
    token: Option<Token>,
}

/// Calls with different callers, ports, hosts, paths and tokens.
pub static CALLS: LazyLock<Vec<Call>> = LazyLock::new(|| {
    let sleep = "cluster.local/ns/default/sa/sleep";
    let web = "old.example/ns/web/sa/front";
    vec![
        call("10.1.2.3", 8080, sleep, None),
        call("192.0.2.7", 3306, "", None),
        call("10.1.2.3", 8080, sleep, ask("GET", "a.example", "/")),
        call(
            "10.1.2.3",
            8080,
            web,
            ask("POST", "A.example.:8080", "/a/b?c=d"),
        ),
        call(
            "192.0.2.7",
            8080,
            web,
            ask("GET", "b.example:80", "/a/../admin"),
        ),
        call(
            "192.0.2.7",
            80,
            "",
            ask("DELETE", "[2001:db8::1]:80", "/x/%2f/y"),
        ),
        call("2001:db8::7", 8080, "", ask("GET", "web", "/data/1.txt")),
        call(
            "10.9.9.9",
            8080,
            sleep,
            with_token(ask("GET", "a.example", "/a")),
        ),
        call("10.9.9.9", 8080, "", with_token(ask("PUT", "x.org", "*"))),
        call("10.9.9.9", 8080, sleep, ask("GET", "a.example", "/%zz")),
    ]
});

fn call(source: &str, port: u16, peer: &str, request: Option<Asked>) -> Call {
    let source: IpAddr = source.parse().expect("an address");
    let identity = match peer {
        "" => None,
        id => Some(SpiffeId::parse(&format!("spiffe://{id}")).expect("an identity")),
    };
    Call {
        facts: ConnectionFacts {
            direction: Direction::Inbound,
            source: (source, 40000).into(),
            destination: (ADDRESS, port).into(),
        },
        remote: match request {
            Some(_) => IpAddr::from([203, 0, 113, 9]),
            None => source,
        },
        peer: Peer {
            tls: identity.is_some(),
            server_name: if port == 8080 { "a.example" } else { "" }.into(),
            identity,
            ..Peer::default()
        },
        request,
    }
}

fn ask(method: &str, authority: &'static str, path: &'static str) -> Option<Asked> {
    let mut headers = HeaderMap::new();
    headers.append("x-a", HeaderValue::from_static("1"));
    headers.append("x-a", HeaderValue::from_static("two"));
    headers.append("user-agent", HeaderValue::from_static("curl/8"));
    Some(Asked {
        method: method.parse().expect("a method"),
        authority,
        path,
        headers,
        token: None,
    })
}

fn with_token(asked: Option<Asked>) -> Option<Asked> {
    let claims = json!({"iss": "iss", "sub": "me", "g": ["user", "admin"], "r": {"s": "deep"}});
    let token = Token {
        issuer: Some("iss".into()),
        subject: Some("me".into()),
        audiences: vec!["one".into(), "two".into()],
        presenter: Some("app".into()),
        claims: claims.as_object().cloned().unwrap_or_default(),
    };
    asked.map(|asked| Asked {
        token: Some(token),
        ..asked
    })
}

/// What a proxy says of a call.
pub fn ruling(snapshot: &Snapshot, call: &Call) -> Ruling {
    let Some(asked) = &call.request else {
        return admit(snapshot, &call.facts, &call.peer);
    };
    let request = RequestFacts {
        head: RequestHead {
            method: &asked.method,
            authority: asked.authority,
            path: asked.path,
            scheme: "http",
            headers: &asked.headers,
            token: asked.token.as_ref(),
        },
        remote: call.remote,
        token: asked.token.as_ref(),
    };
    authorize(snapshot, &call.facts, &call.peer, &request)
}

/// A mesh with an alias of its trust domain and a provider.
pub static SETTINGS: LazyLock<MeshSettings> = LazyLock::new(|| {
    let provider = |name: &str, protocol| AuthzProvider {
        name: name.into(),
        host: "authz.default.svc.cluster.local".into(),
        port: 9000,
        timeout: Duration::from_secs(1),
        fail_open: false,
        status_on_error: 403,
        body: None,
        clear_route_cache: false,
        protocol,
    };
    MeshSettings {
        trust_domain_aliases: vec!["old.example".into()],
        authz_providers: vec![provider("opa", AuthzProtocol::Grpc)],
        ..MeshSettings::default()
    }
});
