//! Request smuggling in its kinds, and clients that are slow on purpose.

use super::*;

/// Sends `text` in pieces of `size`, and says what came back until the connection ended or fell silent.
async fn say(arena: &Arena, text: &str, size: usize) -> String {
    let mut stream = arena.connect().await;
    for piece in text.as_bytes().chunks(size) {
        if stream.write_all(piece).await.is_err() {
            break;
        }
        tokio::task::yield_now().await;
    }
    let heard = tokio::time::timeout(Duration::from_secs(10), rest(&mut stream));
    String::from_utf8_lossy(&heard.await.expect("the connection ends")).into_owned()
}

/// The request, with another smuggled behind it, is answered 400 and nothing of it or behind it reaches anybody.
fn refused(heads: &'static [&'static str]) {
    arena(Limits::default(), |arena| async move {
        for head in heads {
            for size in [10_000, 1, 11] {
                let text = format!("{head}GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n");
                let answer = say(&arena, &text, size).await;
                assert!(answer.starts_with("HTTP/1.1 400"), "{head:?}: {answer:?}");
                assert!(
                    answer.to_lowercase().contains("connection: close"),
                    "{answer:?}"
                );
                assert_eq!(
                    answer.matches("HTTP/1.1").count(),
                    1,
                    "{head:?}: {answer:?}"
                );
            }
        }
        assert_eq!(arena.seen(), [""; 0]);
        assert!(arena.ends().contains("HTTP/1 framing"), "{}", arena.ends());
    });
}

#[test]
fn content_length_and_transfer_encoding() {
    refused(&[
        "POST / HTTP/1.1\r\nhost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\nTRANSFER-ENCODING: CHUNKED\r\ncontent-length: 4\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\nhost: a\r\nCoNtEnT-LeNgTh:0\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +3\r\n\r\nabc",
    ]);
}

/// TE.TE: a coding that one reader knows and the other does not (CVE-2026-2835 and its kin).
#[test]
fn transfer_encodings_in_disguise() {
    refused(&[
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding : chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\nx: y\r\n transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding:\u{b}chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: identity, chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.0\r\nhost: a\r\nconnection: keep-alive\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: identity\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ]);
}

#[test]
fn lines_that_end_where_they_please() {
    refused(&[
        "GET / HTTP/1.1\nhost: a\n\n",
        "GET / HTTP/1.1\r\nhost: a\nx: y\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\rx: y\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx: y\0z\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx: y\r\n z\r\n\r\n",
        "GET /\0 HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET /a#b HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\n\n",
        "GET / HTTP/3.7\r\nhost: a\r\n\r\n",
    ]);
}

#[test]
fn the_requests_before_a_bad_one_are_answered_first() {
    arena(Limits::default(), |arena| async move {
        let good = "GET /one HTTP/1.1\r\nhost: a\r\n\r\n";
        let bad = "GET /two HTTP/1.1\r\nhost: a\nx: y\r\n\r\n";
        let answer = say(&arena, &format!("{good}{bad}{good}"), 10_000).await;
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.contains("HTTP/1.1 400"),
            "{answer}"
        );
        assert_eq!(arena.seen(), ["GET /one"]);
    });
}

#[test]
fn chunks_that_lie() {
    arena(Limits::default(), |arena| async move {
        for chunks in [
            "0x5\r\nhello\r\n0\r\n\r\n",
            "5\r\nhello!\r\n0\r\n\r\n",
            "5\nhello\r\n0\r\n\r\n",
            "5;a\nb\r\nhello\r\n0\r\n\r\n",
            "-5\r\nhello\r\n0\r\n\r\n",
            "5\r\nhello\r\n0\r\ncontent-length: 7\r\n\r\n",
        ] {
            for size in [10_000, 1] {
                let text = format!(
                    "POST /read HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{chunks}GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n"
                );
                let answer = say(&arena, &text, size).await;
                assert!(answer.starts_with("HTTP/1.1 400"), "{chunks:?}: {answer:?}");
                // In pieces, the engine may have seen enough by itself.
                let named = answer.contains("HTTP/1 framing");
                assert!(named || size == 1, "{chunks:?}: {answer:?}");
                assert_eq!(
                    answer.matches("HTTP/1.1").count(),
                    1,
                    "{chunks:?}: {answer:?}"
                );
            }
        }
        assert!(!arena.seen().iter().any(|t| t.contains("smuggled")));
    });
}

/// CVE-2026-2833, CVE-2025-64763: bytes behind a request that changes the protocol, before the answer is known.
#[test]
fn early_bytes_after_connect_and_upgrade_wait_for_the_answer() {
    let upgrade = |path: &str| {
        format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n")
    };
    let next = "GET /next HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    arena(Limits::default(), |arena| async move {
        for size in [10_000, 1] {
            // Refused: they are the next request, or nothing at all.
            let answer = say(&arena, &format!("{}{next}", upgrade("/stay")), size).await;
            assert_eq!(answer.matches("HTTP/1.1 200").count(), 2, "{answer:?}");
            let answer = say(
                &arena,
                &format!("CONNECT b:1 HTTP/1.1\r\nhost: b:1\r\n\r\n{next}"),
                size,
            )
            .await;
            assert!(answer.starts_with("HTTP/1.1 403"), "{answer:?}");
            assert!(answer.contains("connection: close"), "{answer:?}");
            assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer:?}");
            let seen = std::mem::take(&mut *arena.seen.borrow_mut());
            let next = seen.iter().filter(|t| t.contains("/next")).count();
            assert_eq!(next, 1, "{seen:?}");
            // Granted: they are the other protocol's, whatever they look like.
            for head in [
                upgrade("/switch"),
                "CONNECT allowed:1 HTTP/1.1\r\nhost: allowed:1\r\n\r\n".to_owned(),
            ] {
                let mut stream = arena.connect().await;
                for piece in format!("{head}GET /early\n\n").as_bytes().chunks(size) {
                    stream.write_all(piece).await.unwrap();
                }
                let mut heard = String::new();
                while !heard.ends_with("GET /early\n\n") {
                    let mut bytes = [0; 1000];
                    let n = stream.read(&mut bytes).await.unwrap();
                    assert!(n > 0, "{heard:?}");
                    heard.push_str(std::str::from_utf8(&bytes[..n]).unwrap());
                }
                assert!(
                    heard.starts_with("HTTP/1.1 101") || heard.starts_with("HTTP/1.1 200"),
                    "{heard:?}"
                );
            }
            assert!(!arena.seen().iter().any(|t| t.contains("/early")));
        }
    });
}

#[test]
fn a_request_with_every_option_is_answered_once() {
    arena(Limits::default(), |arena| async move {
        let head = "POST /read HTTP/1.1\r\nhost: a\r\nconnection: keep-alive, x-y\r\nkeep-alive: 1\r\n\
            proxy-connection: close\r\nte: gzip\r\nexpect: 100-continue\r\nupgrade: h2c\r\n\
            http2-settings: AA\r\nx-y: 1\r\ncontent-length: 2\r\n\r\nhi";
        let last = "GET /last HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        for size in [10_000, 1] {
            let answer = say(&arena, &format!("{head}{last}"), size).await;
            assert!(
                answer.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200"),
                "{answer:?}"
            );
            assert!(
                answer.contains("2 bytes") && answer.ends_with("ok"),
                "{answer:?}"
            );
        }
    });
}

#[test]
fn what_is_held_for_an_answer_is_bounded() {
    arena(Limits::default(), |arena| async move {
        let mut stream = arena.connect().await;
        stream
            .write_all(b"GET /wait HTTP/1.1\r\nhost: a\r\nupgrade: x\r\n\r\n")
            .await
            .unwrap();
        let mut sent = 0;
        let block = vec![b'x'; 1 << 20];
        let patience = Duration::from_millis(200);
        while let Ok(Ok(n)) = tokio::time::timeout(patience, stream.write(&block)).await {
            sent += n;
        }
        // Kernels buffer some megabytes; we hold 64 KiB.
        assert!(sent < 32 << 20, "{sent}");
    });
}

#[test]
fn heads_that_drip_and_readers_that_stop_are_ended() {
    let limits = Limits {
        head_time: Duration::from_millis(100),
        stall_time: Duration::from_millis(200),
        ..Limits::default()
    };
    arena(limits, |arena| async move {
        let mut slow = arena.connect().await;
        // Begun, and not ended.
        slow.write_all(b"GET / HTTP/1.1\r\nx: ").await.unwrap();
        rest(&mut slow).await;
        assert!(
            arena.ends().contains("head that did not come to its end"),
            "{}",
            arena.ends()
        );

        let mut deaf = arena.connect().await;
        deaf.write_all(b"GET /endless HTTP/1.1\r\nhost: a\r\n\r\n")
            .await
            .unwrap();
        while !arena.ends().contains("took no byte") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let heard = rest(&mut deaf).await;
        assert!(heard.len() < 64 << 20);
    });
}

/// CVE-2020-8659: chunks of one byte. CVE-2020-8661: pipelined bad requests by a client that does not read.
#[test]
fn tiny_chunks_and_pipelined_errors_cost_little() {
    arena(Limits::default(), |arena| async move {
        let mut stream = arena.connect().await;
        stream
            .write_all(b"POST /read HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n")
            .await
            .unwrap();
        let chunks = b"1\r\nx\r\n".repeat(1000);
        for _ in 0..200 {
            stream.write_all(&chunks).await.unwrap();
        }
        stream.write_all(b"0\r\n\r\n").await.unwrap();
        let answer = rest(&mut stream).await;
        assert!(
            answer.ends_with(b"200000 bytes"),
            "{}",
            String::from_utf8_lossy(&answer)
        );

        let mut deaf = arena.connect().await;
        let bad = b"BAD\r\n\r\n".repeat(10_000);
        while deaf.write_all(&bad).await.is_ok() {}
        assert!(arena.ends().contains("HTTP/1 framing"));
    });
}

#[test]
fn responses_that_two_readers_frame_differently_are_nobodys() {
    arena(Limits::default(), |_| async {
        for (answer, at_head) in [
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 5\r\n\r\nabcde",
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabcde\r\n0\r\n\r\n",
                false,
            ),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n",
                false,
            ),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut client = honest(listener.local_addr().unwrap()).await;
            let (mut server, _) = listener.accept().await.unwrap();
            server.write_all(answer.as_bytes()).await.unwrap();
            let request = Request::get("/")
                .header("host", "a")
                .body(Body::Empty)
                .unwrap();
            let found = match client.request(request).await {
                Err(failure) => (true, failure.violation()),
                Ok(response) => {
                    let error = response.into_body().collect().await.unwrap_err();
                    (false, violation(&error))
                }
            };
            assert!(
                matches!(found, (h, Some(Violation::Framing(_))) if h == at_head),
                "{answer:?}: {found:?}"
            );
            assert!(!client.ready().await);
        }
    });
}
