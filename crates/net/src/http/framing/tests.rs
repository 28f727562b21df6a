//! Bytes in, and where the first bad line begins out; the same however the bytes are cut.

use super::*;

/// Feeds `bytes` in pieces of `size`; says how many were good and why the rest is not.
fn feed(mut framing: Framing, bytes: &[u8], size: usize) -> (usize, Option<Stop>) {
    let mut good = 0;
    for piece in bytes.chunks(size) {
        let look = framing.look(piece);
        good += look.good;
        if look.stop.is_some() {
            return (good, look.stop);
        }
    }
    (good, None)
}

fn verdict(framing: impl Fn() -> Framing, bytes: &[u8]) -> &'static str {
    let verdicts: Vec<_> = [bytes.len(), 1, 7]
        .into_iter()
        .map(|size| match feed(framing(), bytes, size.max(1)).1 {
            None => "good",
            Some(Stop::Hold) => "hold",
            Some(Stop::Bad {
                why: Violation::Framing(why),
                ..
            }) => why,
            Some(other) => panic!("{other:?}"),
        })
        .collect();
    assert!(
        verdicts.windows(2).all(|two| two[0] == two[1]),
        "{:?}: {verdicts:?}",
        String::from_utf8_lossy(bytes)
    );
    verdicts[0]
}

fn check_request(text: &str, want: &str) {
    let found = verdict(|| Framing::new(Side::Requests), text.as_bytes());
    assert!(found.contains(want), "{text:?}: {found}, not {want}");
}

fn check_response(asked: Asked, text: &str, want: &str) {
    let framing = || Framing {
        asked,
        ..Framing::new(Side::Responses)
    };
    let found = verdict(framing, text.as_bytes());
    assert!(found.contains(want), "{text:?}: {found}, not {want}");
}

#[test]
fn honest_requests_follow_each_other() {
    for text in [
        "GET / HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET /a?b=c%20d HTTP/1.0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        "\r\nPOST / HTTP/1.1\r\ncontent-length: 5\r\n\r\nab\r\ncGET / HTTP/1.1\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length:\t0 \r\n\r\nM-SEARCH * HTTP/1.1\r\n\r\n",
        "PUT / HTTP/1.1\r\ntransfer-encoding: Chunked\r\n\r\n3\r\nabc\r\n0A;x=\"y\"\r\n0123456789\r\n0\r\nx-sum: 1\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        "GET http://a:8080/x HTTP/1.1\r\nX-Empty:\r\nx-utf: \u{fc}\u{4e2d}\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nx: tab\there\r\n\r\n",
    ] {
        check_request(text, "good");
    }
}

#[test]
fn what_two_readers_could_frame_differently_is_refused() {
    let body = "\r\n\r\n0\r\n\r\n";
    for cl in ["Content-Length: 6", "content-length: 0", "CONTENT-LENGTH:4"] {
        for te in ["Transfer-Encoding: chunked", "TRANSFER-ENCODING:CHUNKED"] {
            check_request(
                &format!("POST / HTTP/1.1\r\n{cl}\r\nx: y\r\n{te}{body}"),
                "Transfer-Encoding with",
            );
            check_request(
                &format!("POST / HTTP/1.1\r\n{te}\r\n{cl}{body}"),
                "Transfer-Encoding with",
            );
        }
    }
    for te in [
        "xchunked",
        "chunked, identity",
        "identity",
        "gzip, chunked",
        "chunked;q=1",
        "\"chunked\"",
        "chunke d",
        "",
        "chunked,",
        ",chunked",
        "chunked chunked",
        "\u{b}chunked",
        "chunked\u{0}",
    ] {
        let head = format!("POST / HTTP/1.1\r\nTransfer-Encoding: {te}{body}");
        let found = verdict(|| Framing::new(Side::Requests), head.as_bytes());
        assert!(found != "good", "{te:?}");
    }
    let twice = "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\nTransfer-Encoding: chunked";
    check_request(&format!("{twice}{body}"), "another Transfer-Encoding");
    check_request(
        "POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.0",
    );
}

#[test]
fn lengths_are_one_number() {
    for length in [
        "",
        " ",
        "-1",
        "+1",
        "0x10",
        "1 2",
        "5, 5",
        "5,5",
        "1e3",
        "1_0",
        "99999999999999999999",
        "\u{661}",
        "5;",
    ] {
        check_request(
            &format!("POST / HTTP/1.1\r\ncontent-length: {length}\r\n\r\n"),
            "not one number",
        );
    }
    for (a, b) in [("5", "6"), ("5", "5"), ("0", "0")] {
        check_request(
            &format!("POST / HTTP/1.1\r\ncontent-length: {a}\r\nContent-Length: {b}\r\n\r\n"),
            "more than one Content-Length",
        );
    }
}

#[test]
fn lines_are_written_as_the_standard_says() {
    for (text, want) in [
        ("GET / HTTP/1.1\nhost: a\r\n\r\n", "CR LF"),
        ("GET / HTTP/1.1\r\nhost: a\n\r\n", "CR LF"),
        ("GET / HTTP/1.1\r\nhost: a\r\n\n", "CR LF"),
        (
            "GET / HTTP/1.1\r\nhost: a\rb: c\r\n\r\n",
            "control character",
        ),
        ("GET / HTTP/1.1\r\nhost: a\r\r\n\r\n", "control character"),
        ("GET / HTTP/1.1\r\nhost: a\r\n b\r\n\r\n", "folded"),
        ("GET / HTTP/1.1\r\n\thost: a\r\n\r\n", "folded"),
        ("GET / HTTP/1.1\r\nhost : a\r\n\r\n", "space between"),
        ("GET / HTTP/1.1\r\nho st: a\r\n\r\n", "space between"),
        (
            "GET / HTTP/1.1\r\nho\u{0}st: a\r\n\r\n",
            "control character",
        ),
        ("GET / HTTP/1.1\r\n: a\r\n\r\n", "no token"),
        ("GET / HTTP/1.1\r\nhost\r\n\r\n", "no token"),
        ("GET / HTTP/1.1\r\nhöst: a\r\n\r\n", "no token"),
        (
            "GET / HTTP/1.1\r\nhost: a\u{0}\r\n\r\n",
            "control character",
        ),
        (
            "GET / HTTP/1.1\r\nhost: long enough for a word \u{7f}\r\n\r\n",
            "control character",
        ),
        ("GET /a b HTTP/1.1\r\n\r\n", "request target"),
        ("GET /a#b HTTP/1.1\r\n\r\n", "request target"),
        ("GET /a\u{0}b HTTP/1.1\r\n\r\n", "control character"),
        ("GET  / HTTP/1.1\r\n\r\n", "request target"),
        ("GET  HTTP/1.1\r\n\r\n", "request target"),
        ("GET\t/ HTTP/1.1\r\n\r\n", "method"),
        ("G(T / HTTP/1.1\r\n\r\n", "method"),
        ("GET / HTTP/1.2\r\n\r\n", "HTTP/1.1 or HTTP/1.0"),
        ("GET / HTTP/2.0\r\n\r\n", "HTTP/1.1 or HTTP/1.0"),
        ("GET / http/1.1\r\n\r\n", "HTTP/1.1 or HTTP/1.0"),
        ("GET / HTTP/1.1 \r\n\r\n", "HTTP/1.1 or HTTP/1.0"),
        ("GET /\r\n\r\n", "HTTP/1.1 or HTTP/1.0"),
        ("\r\n\r\n\r\nGET / HTTP/1.1\r\n\r\n", "empty lines"),
    ] {
        check_request(text, want);
    }
}

#[test]
fn chunks_are_what_they_say() {
    for (chunks, want) in [
        ("-1\r\n", "hexadecimal"),
        ("+1\r\n", "hexadecimal"),
        ("0x1\r\n", "something else"),
        (" 1\r\n", "hexadecimal"),
        ("1 \r\na\r\n", "something else"),
        ("1 ;x\r\na\r\n", "something else"),
        ("\r\n", "hexadecimal"),
        ("11111111111111111\r\n", "hexadecimal"),
        ("ffffffffffffffff\r\n", "impossible"),
        ("1\na\r\n", "CR LF"),
        ("1;a\nb\r\na\r\n", "CR LF"),
        ("1;a\rb\r\na\r\n", "control character"),
        ("1\r\nab\r\n", "longer"),
        ("1\r\na\n", "CR LF"),
        ("0\r\nContent-Length: 5\r\n\r\n", "trailer"),
        ("0\r\ntransfer-encoding: chunked\r\n\r\n", "trailer"),
        ("0\r\nHOST: b\r\n\r\n", "trailer"),
        ("0\r\nauthorization: me\r\n\r\n", "trailer"),
        ("0\r\n x: y\r\n\r\n", "folded"),
        ("0\r\nx: y\n\r\n", "CR LF"),
    ] {
        let text = format!("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n{chunks}");
        check_request(&text, want);
    }
    // The longest line is as long whether it comes whole or not.
    for length in SIZE_LINE - 5..SIZE_LINE + 5 {
        let size = format!("1;{}", "x".repeat(length - 2));
        let text = format!("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n{size}\r\na\r\n");
        for cut in [text.len(), 1, 7] {
            let (_, stop) = feed(Framing::new(Side::Requests), text.as_bytes(), cut);
            assert_eq!(stop.is_none(), length < SIZE_LINE, "{length} in {cut}");
        }
    }
    let long = format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(2000));
    let text = format!("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n{long}");
    for size in [text.len(), 1, 7] {
        let (good, stop) = feed(Framing::new(Side::Requests), text.as_bytes(), size);
        assert!(stop.is_some() && good < text.len() - 20, "{good}");
    }
}

#[test]
fn nothing_is_read_behind_a_request_that_changes_the_protocol() {
    let upgrade = "GET / HTTP/1.1\r\nconnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    let posted = "POST / HTTP/1.1\r\nupgrade: h2c\r\ncontent-length: 3\r\n\r\nabc";
    for head in ["CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\n\r\n", upgrade, posted] {
        let text = format!("{head}GET /next HTTP/1.1\r\n\r\n");
        let found = feed(Framing::new(Side::Requests), text.as_bytes(), text.len());
        assert_eq!(found, (head.len(), Some(Stop::Hold)));
        for switched in [false, true] {
            let mut framing = Framing::new(Side::Requests);
            framing.look(head.as_bytes());
            assert_eq!(framing.held_by(), Some(1));
            framing.release(switched);
            let rest = framing.look(b"GET /next HTTP/1.1\r\n\r\n\0\r\n");
            // Nothing may follow a CONNECT that was refused.
            let good = match (switched, head.starts_with("CONNECT")) {
                (true, _) => 25,
                (false, true) => 0,
                (false, false) => 22,
            };
            assert_eq!(rest.good, good, "{head:?} {switched}");
        }
    }
    check_request(
        "CONNECT a:1 HTTP/1.1\r\ncontent-length: 3\r\n\r\n",
        "CONNECT with",
    );
    check_request(
        "CONNECT a:1 HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n",
        "CONNECT with",
    );
}

#[test]
fn responses_have_the_body_that_their_request_gives_them() {
    let next = "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nxHTTP/1.1 bad";
    for (asked, first, want) in [
        (
            Asked::Other,
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nab",
            "three digits",
        ),
        (
            Asked::Head,
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n",
            "three digits",
        ),
        (
            Asked::Other,
            "HTTP/1.1 304 \r\ncontent-length: 2\r\n\r\n",
            "three digits",
        ),
        (Asked::Other, "HTTP/1.1 204\r\n\r\n", "three digits"),
        (
            Asked::Other,
            "HTTP/1.1 100 Continue\r\n\r\n",
            "three digits",
        ),
        (
            Asked::Other,
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
            "three digits",
        ),
        (Asked::Other, "HTTP/1.1 200 OK\nserver: sloppy\n\n", "good"),
        (Asked::Other, "HTTP/1.0 200 OK\r\n\r\n", "good"),
        (Asked::Other, "HTTP/1.1 101 X\r\nupgrade: x\r\n\r\n", "good"),
        (
            Asked::Connect,
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n",
            "good",
        ),
    ] {
        // A HEAD's answer is followed by one that has no body either.
        let next = if asked == Asked::Head {
            "HTTP/1.1 bad"
        } else {
            next
        };
        check_response(asked, &format!("{first}{next}\r\n"), want);
    }
    for (text, want) in [
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
            "with",
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
            "more than one",
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n",
            "other than chunked",
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nxx",
            "longer",
        ),
        ("ICY 200 OK\r\n\r\n", "does not begin"),
        ("HTTP/1.1 20 OK\r\n\r\n", "three digits"),
    ] {
        check_response(Asked::Other, &format!("{text}\r\n"), want);
    }
}

/// Run by hand: `cargo test --release -p lateen-net cost_of -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn cost_of_looking_at_a_head() {
    let head = "GET /api/v1/products/1234/reviews?sort=desc&page=2 HTTP/1.1\r\n\
        host: productpage.default.svc.cluster.local:9080\r\n\
        user-agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)\r\n\
        accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
        accept-encoding: gzip, deflate, br\r\n\
        cookie: session=eyJ1c2VyIjoiamFzb24ifQ.ZxY1Og.0pFn7Qb; theme=dark\r\n\
        x-forwarded-proto: http\r\n\
        x-request-id: 7d4c1f3e-9a5b-4f0e-8c1d-2b3a4c5d6e7f\r\n\
        x-b3-traceid: 80f198ee56343ba864fe8b2a57d3eff7\r\n\r\n";
    let mut framing = Framing::new(Side::Requests);
    let rounds = 1_000_000u32;
    let began = std::time::Instant::now();
    for _ in 0..rounds {
        assert_eq!(
            framing.look(std::hint::black_box(head.as_bytes())).stop,
            None
        );
    }
    let each = began.elapsed().as_nanos() / u128::from(rounds);
    println!("{each} ns for a head of {} bytes", head.len());
}
