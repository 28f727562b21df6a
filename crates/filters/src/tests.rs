//! Heads in, heads out.

use super::*;
use http::{HeaderMap, Method, Request, Response};
use lateen_model::decide::plan::RequestHead;
use lateen_model::route::{HeaderEdit, Redirect, RedirectPort};
use lateen_telemetry::record::Record;

fn lines(headers: &HeaderMap) -> Vec<String> {
    let mut lines: Vec<_> = headers
        .iter()
        .map(|(n, v)| format!("{n}: {}", String::from_utf8_lossy(v.as_bytes())))
        .collect();
    lines.sort();
    lines
}

fn context(direction: Direction, source: &str, client: Client) -> Context {
    let edge = Edge::of(&MeshSettings::default());
    Context::new(direction, source.parse().unwrap(), Rc::new(client), edge)
}

/// Sends a stranger's request with `headers` through the chain of `direction`; ids become `ID`.
fn check(direction: Direction, source: &str, headers: &[(&str, &str)], want: &[&str]) {
    let cx = context(direction, source, Client::default());
    check_in(cx, headers, want);
}

fn check_in(mut cx: Context, headers: &[(&str, &str)], want: &[&str]) {
    let mut request = Request::get("/").body(()).unwrap();
    for (name, value) in headers {
        request.headers_mut().append(
            http::HeaderName::try_from(*name).unwrap(),
            value.parse().unwrap(),
        );
    }
    let (mut head, ()) = request.into_parts();
    for filter in chain(cx.direction) {
        filter.on_request(&mut cx, &mut head);
    }
    if head.headers["x-request-id"].len() == 36 {
        head.headers.insert("x-request-id", "ID".parse().unwrap());
    }
    assert_eq!(lines(&head.headers), want);
}

#[test]
fn sidecars_add_what_is_missing_and_drop_connection_headers() {
    check(
        Direction::Outbound,
        "10.0.0.1:1",
        &[
            ("connection", "keep-alive, te"),
            ("keep-alive", "5"),
            ("te", "gzip, trailers"),
            ("x", "y"),
        ],
        &[
            "te: trailers",
            "x-forwarded-proto: http",
            "x-request-id: ID",
            "x: y",
        ],
    );
    check(
        Direction::Outbound,
        "10.0.0.1:1",
        &[
            ("connection", "X-Hop, x-forwarded-for"),
            ("connection", "x-end"),
            ("x-hop", "1"),
            ("x-end", "1"),
            ("x-forwarded-for", "1.2.3.4"),
        ],
        &[
            "x-forwarded-for: 1.2.3.4",
            "x-forwarded-proto: http",
            "x-request-id: ID",
        ],
    );
    check(
        Direction::Inbound,
        "10.0.0.1:1",
        &[("x-request-id", "mine"), ("x-forwarded-proto", "https")],
        &["x-forwarded-proto: https", "x-request-id: mine"],
    );
}

#[test]
fn websockets_pass_and_no_other_upgrade() {
    check(
        Direction::Outbound,
        "10.0.0.1:1",
        &[("connection", "upgrade"), ("upgrade", "websocket")],
        &[
            "connection: Upgrade",
            "upgrade: websocket",
            "x-forwarded-proto: http",
            "x-request-id: ID",
        ],
    );
    check(
        Direction::Outbound,
        "10.0.0.1:1",
        &[
            ("connection", "upgrade, http2-settings"),
            ("upgrade", "h2c"),
            ("http2-settings", "AA"),
        ],
        &["x-forwarded-proto: http", "x-request-id: ID"],
    );
    for others in [
        "SPDY/3.1",
        "tcp",
        "h2c, websocket",
        "websocket, h2c",
        "TLS/1.2",
    ] {
        check(
            Direction::Outbound,
            "10.0.0.1:1",
            &[("connection", "upgrade"), ("upgrade", others)],
            &["x-forwarded-proto: http", "x-request-id: ID"],
        );
    }
}

#[test]
fn the_edge_trusts_nobody_outside() {
    check(
        Direction::Gateway,
        "203.0.113.9:1",
        &[
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-proto", "https"),
            ("x-request-id", "theirs"),
            ("x-envoy-retry-on", "5xx"),
            ("x-envoy-internal", "true"),
        ],
        &[
            "x-envoy-external-address: 203.0.113.9",
            "x-forwarded-for: 1.2.3.4,203.0.113.9",
            "x-forwarded-proto: http",
            "x-request-id: ID",
        ],
    );
    check(
        Direction::Gateway,
        "10.1.1.1:1",
        &[("x-request-id", "theirs"), ("x-forwarded-for", "10.1.1.2")],
        &[
            "x-envoy-external-address: 10.1.1.1",
            "x-forwarded-for: 10.1.1.2,10.1.1.1",
            "x-forwarded-proto: http",
            "x-request-id: theirs",
        ],
    );
    check(
        Direction::Gateway,
        "10.1.1.1:1",
        &[("x-request-id", "theirs")],
        &[
            "x-envoy-internal: true",
            "x-forwarded-for: 10.1.1.1",
            "x-forwarded-proto: http",
            "x-request-id: theirs",
        ],
    );
}

const SPOOFED: [(&str, &str); 7] = [
    ("x-envoy-internal", "true"),
    ("x-envoy-original-path", "/public"),
    ("x-envoy-peer-metadata", "QQ=="),
    ("x-envoy-attempt-count", "1"),
    (
        "x-forwarded-client-cert",
        "URI=spiffe://cluster.local/ns/a/sa/admin",
    ),
    ("x-lateen-unreached", "1"),
    ("x-envoyer", "kept"),
];

#[test]
fn nobody_but_members_may_say_what_proxies_say() {
    let want = [
        "x-envoyer: kept",
        "x-forwarded-proto: http",
        "x-request-id: ID",
    ];
    for direction in [Direction::Inbound, Direction::Outbound] {
        // A private address makes nobody a member.
        check(direction, "10.0.0.1:1", &SPOOFED, &want);
    }
    let member = Client {
        is_member: true,
        is_encrypted: true,
        certificate: Some("By=a;Hash=1".parse().unwrap()),
    };
    let cx = context(Direction::Inbound, "10.0.0.1:1", member);
    let want = [
        "x-envoy-attempt-count: 1",
        "x-envoy-internal: true",
        "x-envoy-original-path: /public",
        "x-envoy-peer-metadata: QQ==",
        "x-envoyer: kept",
        "x-forwarded-client-cert: URI=spiffe://cluster.local/ns/a/sa/admin,By=a;Hash=1",
        "x-forwarded-proto: http",
        "x-lateen-unreached: 1",
        "x-request-id: ID",
    ];
    check_in(cx, &SPOOFED, &want);
}

#[test]
fn gateways_tell_of_certificates_as_the_mesh_says() {
    use ForwardClientCert as Mode;
    let told = ("x-forwarded-client-cert", "theirs");
    for (mode, shown, want) in [
        (Mode::Sanitize, true, None),
        (Mode::Sanitize, false, None),
        (Mode::SanitizeSet, true, Some("ours")),
        (Mode::SanitizeSet, false, None),
        (Mode::AppendForward, true, Some("theirs,ours")),
        (Mode::AppendForward, false, None),
        (Mode::ForwardOnly, true, Some("theirs")),
        (Mode::ForwardOnly, false, None),
        (Mode::AlwaysForwardOnly, false, Some("theirs")),
    ] {
        let client = Client {
            is_encrypted: true,
            certificate: shown.then(|| "ours".parse().unwrap()),
            ..Client::default()
        };
        let mut cx = context(Direction::Gateway, "203.0.113.9:1", client);
        cx.edge.client_cert = mode;
        let mut want: Vec<String> = want
            .map(|v| format!("x-forwarded-client-cert: {v}"))
            .into_iter()
            .collect();
        want.insert(0, "x-envoy-external-address: 203.0.113.9".to_owned());
        for rest in [
            "x-forwarded-for: 203.0.113.9",
            "x-forwarded-proto: https",
            "x-request-id: ID",
        ] {
            want.push(rest.to_owned());
        }
        let want: Vec<&str> = want.iter().map(String::as_str).collect();
        check_in(cx, &[told], &want);
    }
}

#[test]
fn certificates_are_told_with_their_names_and_no_more_than_those() {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};
    let told = |name: Option<&str>, sans: Vec<SanType>, with_pem| {
        let mut params = CertificateParams::default();
        params.distinguished_name = Default::default();
        if let Some(name) = name {
            params
                .distinguished_name
                .push(DnType::OrganizationName, "Shop");
            params.distinguished_name.push(DnType::CommonName, name);
        }
        params.subject_alt_names = sans;
        let cert = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let element = client_cert::element(Some("spiffe://own"), cert.der(), with_pem);
        element.map(|e| e.to_str().unwrap().to_owned())
    };
    let uri = |text: &str| SanType::URI(text.try_into().unwrap());
    let dns = |text: &str| SanType::DnsName(text.try_into().unwrap());
    let member = told(None, vec![uri("spiffe://d/ns/a/sa/b")], false).unwrap();
    assert!(member.starts_with("By=spiffe://own;Hash="), "{member}");
    assert!(
        member.ends_with(";Subject=\"\";URI=spiffe://d/ns/a/sa/b"),
        "{member}"
    );
    let outside = told(Some("a \"b\", c"), vec![dns("x.com"), dns("y.com")], true).unwrap();
    assert!(
        outside.ends_with(r#";Subject="CN=a \"b\"\, c,O=Shop";DNS=x.com;DNS=y.com"#)
            && outside.contains(";Cert=\"-----BEGIN%20CERTIFICATE-----%0A"),
        "{outside}"
    );
    for (name, want) in [
        ("Müller", "M\\C3\\BCller"),
        (" #x ", "\\ #x\\ "),
        ("#x", "\\#x"),
        ("a+b<c>;d\\", "a\\+b\\<c\\>\\;d\\\\"),
        ("a\nb", "a\\0Ab"),
    ] {
        let told = told(Some(name), vec![dns("x")], false).unwrap();
        let subject = format!("Subject=\"CN={want},O=Shop\";DNS=x");
        assert!(told.ends_with(&subject), "{told}");
    }
    // A name that would read as another element is told of in no way at all.
    for name in ["spiffe://d/a;URI=spiffe://d/b", "spiffe://d/a,By=x", "x\"y"] {
        assert_eq!(told(None, vec![uri(name)], false), None, "{name}");
    }
    assert_eq!(client_cert::element(None, b"no certificate", false), None);
}

#[test]
fn the_client_is_whom_trusted_proxies_name() {
    let told: &[&str] = &["1.1.1.1, 2.2.2.2", "3.3.3.3"];
    for (direction, member, trusted, told, want) in [
        (Direction::Gateway, false, 0, told, "9.9.9.9"),
        (Direction::Gateway, false, 1, told, "3.3.3.3"),
        (Direction::Gateway, false, 3, told, "1.1.1.1"),
        (Direction::Gateway, false, 4, told, "9.9.9.9"),
        (Direction::Gateway, false, 1, &["junk"], "9.9.9.9"),
        (Direction::Gateway, false, 1, &[], "9.9.9.9"),
        (Direction::Gateway, false, 1, &["::ffff:4.4.4.4"], "4.4.4.4"),
        (Direction::Inbound, true, 5, told, "3.3.3.3"),
        (Direction::Inbound, true, 0, &[], "9.9.9.9"),
        // Whoever is no member tells nothing.
        (Direction::Inbound, false, 0, told, "9.9.9.9"),
    ] {
        let client = Client {
            is_member: member,
            ..Client::default()
        };
        let mut cx = context(direction, "9.9.9.9:1", client);
        cx.edge.trusted_proxies = trusted;
        let mut headers = HeaderMap::new();
        for value in told {
            headers.append("x-forwarded-for", value.parse().unwrap());
        }
        let got = cx.client_address(&headers);
        assert_eq!(got.to_string(), want, "{direction:?} {trusted} {told:?}");
    }
}

#[test]
fn responses_are_signed_and_timed() {
    for (direction, server) in [
        (Direction::Outbound, "envoy"),
        (Direction::Gateway, "istio-envoy"),
    ] {
        let response = Response::builder()
            .header("server", "app")
            .header("connection", "close");
        let (mut head, ()) = response.body(()).unwrap().into_parts();
        let mut cx = context(direction, "10.0.0.1:1", Client::default());
        cx.upstream_time = Some(Duration::from_micros(12_900));
        for filter in chain(direction) {
            filter.on_response(&mut cx, &mut head);
        }
        assert_eq!(head.headers["server"], server);
        assert_eq!(head.headers["x-envoy-upstream-service-time"], "12");
        assert!(head.headers.contains_key("date") && !head.headers.contains_key("connection"));
    }
}

#[test]
fn edits_apply_in_order_and_fill_operators() {
    let edit = HeaderEdit {
        set: vec![
            ("X-A".into(), "1".into()),
            ("x-peer".into(), "%DOWNSTREAM_REMOTE_ADDRESS%".into()),
            ("x-empty".into(), "".into()),
            ("x-absent".into(), "%REQ(X-NOBODY)%".into()),
            ("x-part".into(), "is:%REQ(X-NOBODY)%".into()),
            ("x-flags".into(), "%RESPONSE_FLAGS%".into()),
        ],
        add: vec![("x-a".into(), "2".into()), ("x-pct".into(), "50%".into())],
        remove: vec!["x-gone".into(), "content-length".into()],
    };
    let mut headers = HeaderMap::new();
    headers.insert("x-gone", "1".parse().unwrap());
    headers.insert("content-length", "3".parse().unwrap());
    edits::apply(&[edit], &mut headers, |_| {
        let mut record = Record::begin();
        record.remote = "10.0.0.7:99".parse().ok();
        record
    });
    assert_eq!(
        lines(&headers),
        [
            "content-length: 3",
            "x-a: 1",
            "x-a: 2",
            "x-flags: -",
            "x-part: is:",
            "x-pct: 50%",
            "x-peer: 10.0.0.7:99"
        ]
    );
}

#[test]
fn rewrites_change_path_and_host() {
    let (mut head, ()) = Request::get("http://a/old?q")
        .header("host", "a")
        .body(())
        .unwrap()
        .into_parts();
    assert!(edits::rewrite(&mut head, Some("/new?q"), Some("b:80")));
    assert_eq!(
        (head.uri.to_string().as_str(), &head.headers["host"]),
        ("http://b:80/new?q", &"b:80".parse().unwrap())
    );
    assert!(!edits::rewrite(&mut head, Some("/a b"), None));
}

#[test]
fn redirects_keep_what_they_do_not_name() {
    let headers = HeaderMap::new();
    for (authority, redirect, want) in [
        (
            "a.com",
            Redirect {
                uri: Some("/x".into()),
                ..none()
            },
            "http://a.com/x?q=1",
        ),
        (
            "a.com:80",
            Redirect {
                scheme: Some("https".into()),
                ..none()
            },
            "https://a.com/p?q=1",
        ),
        (
            "a.com:8080",
            Redirect {
                authority: Some("b.com".into()),
                ..none()
            },
            "http://b.com/p?q=1",
        ),
        (
            "a.com",
            Redirect {
                port: RedirectPort::Number(8443),
                scheme: Some("https".into()),
                ..none()
            },
            "https://a.com:8443/p?q=1",
        ),
        (
            "a.com",
            Redirect {
                port: RedirectPort::Number(443),
                scheme: Some("https".into()),
                ..none()
            },
            "https://a.com:443/p?q=1",
        ),
        (
            "[::1]:8080",
            Redirect {
                uri: Some("/x?y".into()),
                ..none()
            },
            "http://[::1]:8080/x?y",
        ),
    ] {
        let head = RequestHead {
            method: &Method::GET,
            authority,
            path: "/p?q=1",
            scheme: "http",
            headers: &headers,
            token: None,
        };
        let response = reply::redirect(&head, &redirect);
        assert_eq!(response.headers()["location"], want);
        assert_eq!(response.status(), 301);
    }
}

fn none() -> Redirect {
    Redirect {
        uri: None,
        authority: None,
        scheme: None,
        prefix: None,
        port: RedirectPort::Kept,
        status: 301,
    }
}
