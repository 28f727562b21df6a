//! Floods of HTTP/2 frames, written by hand.

use super::*;

pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
const ENHANCE_YOUR_CALM: u32 = 11;

/// `GET http://a/` in the static table's numbers, but for the authority.
const GET: &[u8] = &[0x82, 0x84, 0x86, 0x41, 1, b'a'];
/// `POST http://a/wait`, whose answer never comes.
pub(super) const POST: &[u8] = &[
    0x83, 0x86, 0x41, 1, b'a', 0x44, 5, b'/', b'w', b'a', b'i', b't',
];

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [length[1], length[2], length[3], kind, flags];
    [&head[..], &stream.to_be_bytes(), payload].concat()
}

pub(super) fn headers(flags: u8, stream: u32, block: &[u8]) -> Vec<u8> {
    frame(1, flags, stream, block)
}

pub(super) fn settings() -> Vec<u8> {
    frame(4, 0, 0, &[])
}

pub(super) async fn connect(arena: &Arena) -> TcpStream {
    let mut stream = arena.connect().await;
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .unwrap();
    stream.write_all(&settings()).await.unwrap();
    stream
}

/// The server's frames until the connection ends or `enough`.
pub(super) async fn frames(
    stream: &mut TcpStream,
    enough: impl Fn(u8, &[u8]) -> bool,
) -> Vec<(u8, u32, Vec<u8>)> {
    let mut found = Vec::new();
    let mut head = [0; 9];
    while stream.read_exact(&mut head).await.is_ok() {
        let length = usize::from(head[1]) << 8 | usize::from(head[2]);
        let mut payload = vec![0; length];
        if stream.read_exact(&mut payload).await.is_err() {
            break;
        }
        let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let last = enough(head[3], &payload);
        found.push((head[3], id, payload));
        if last {
            break;
        }
    }
    found
}

fn goaway(kind: u8, payload: &[u8]) -> Option<u32> {
    let code = payload.get(4..8).filter(|_| kind == 7)?;
    Some(u32::from_be_bytes(code.try_into().ok()?))
}

/// Sends `first`, then `repeated` until the server has had enough, and expects ENHANCE_YOUR_CALM; also when nothing is
/// read before the end.
fn calmed(first: Vec<u8>, repeated: impl Fn(u32) -> Vec<u8> + 'static) {
    arena(Limits::default(), |arena| async move {
        let mut stream = connect(&arena).await;
        stream.write_all(&first).await.unwrap();
        let (mut read, mut write) = stream.split();
        let flood = async {
            for n in 0..100 {
                let many: Vec<u8> = (0..500).flat_map(|i| repeated(500 * n + i)).collect();
                if write.write_all(&many).await.is_err() {
                    return;
                }
                // The others have their turn even on one thread.
                tokio::task::yield_now().await;
            }
        };
        let hear = async {
            let mut all = Vec::new();
            let _ = read.read_to_end(&mut all).await;
            codes(&all)
        };
        let ((), heard) = tokio::join!(flood, hear);
        assert!(heard.contains(&ENHANCE_YOUR_CALM), "{heard:?}");

        let mut deaf = connect(&arena).await;
        deaf.write_all(&first).await.unwrap();
        let limit = Duration::from_secs(5);
        let flood = async {
            for n in 0.. {
                let many: Vec<u8> = (0..500).flat_map(|i| repeated(500 * n + i)).collect();
                if deaf.write_all(&many).await.is_err() {
                    return;
                }
            }
        };
        tokio::time::timeout(limit, flood)
            .await
            .expect("stopped as well");
    });
}

pub(super) fn codes(mut bytes: &[u8]) -> Vec<u32> {
    let mut found = Vec::new();
    while let Some((head, rest)) = bytes.split_at_checked(9) {
        let length = usize::from(head[1]) << 8 | usize::from(head[2]);
        let Some((payload, next)) = rest.split_at_checked(length) else {
            break;
        };
        found.extend(goaway(head[3], payload));
        bytes = next;
    }
    found
}

/// CVE-2023-44487.
#[test]
fn rapid_reset() {
    calmed(Vec::new(), |n| {
        let stream = 2 * n + 1;
        let open = headers(END_STREAM | END_HEADERS, stream, GET);
        [open, frame(3, 0, stream, &8u32.to_be_bytes())].concat()
    });
}

/// The same, with streams that the server resets itself for their errors: a header that HTTP/2 has no place for.
#[test]
fn resets_that_the_server_is_made_to_send() {
    calmed(Vec::new(), |n| {
        let block = [GET, &[0x00, 10], b"connection", &[1, b'x']].concat();
        headers(END_STREAM | END_HEADERS, 2 * n + 1, &block)
    });
}

/// CVE-2024-27919, CVE-2024-30255, CVE-2023-45288.
#[test]
fn continuation_floods() {
    calmed(headers(END_STREAM, 1, GET), |_| frame(9, 0, 1, &[]));
}

/// The same with one new header in each.
#[test]
fn continuation_floods_that_say_something() {
    calmed(headers(END_STREAM, 1, GET), |n| {
        let name = format!("x{n:06}");
        frame(9, 0, 1, &[&[0x40, 7], name.as_bytes(), &[1, b'y']].concat())
    });
}

#[test]
fn ping_floods() {
    calmed(Vec::new(), |n| frame(6, 0, 0, &u64::from(n).to_be_bytes()));
}

#[test]
fn settings_floods() {
    calmed(Vec::new(), |_| settings());
}

#[test]
fn window_update_floods() {
    calmed(Vec::new(), |_| frame(8, 0, 0, &1u32.to_be_bytes()));
}

#[test]
fn priority_floods() {
    calmed(Vec::new(), |n| frame(2, 0, 2 * n + 1, &[0, 0, 0, 0, 1]));
}

#[test]
fn floods_of_frames_that_nobody_knows() {
    calmed(Vec::new(), |_| frame(0xbb, 0, 0, b"?"));
}

/// RUSTSEC-2026-0258, and data in crumbs.
#[test]
fn data_frames_that_carry_next_to_nothing() {
    calmed(headers(END_HEADERS, 1, POST), |_| frame(0, 0, 1, &[]));
}

/// The same with nothing but padding.
#[test]
fn data_frames_of_padding() {
    calmed(headers(END_HEADERS, 1, POST), |_| {
        frame(0, 8, 1, &[3, 0, 0, 0])
    });
}

/// CVE-2026-47774: a large cookie once, then one byte for each repetition of it.
#[test]
fn cookies_that_unfold() {
    let cookie = |length: usize| {
        // Literal with indexing, name 32 of the static table; the length is an integer of seven bits and more.
        let mut block = vec![0x60, 0x7f];
        let more = length - 127;
        block.extend([0x80 | (more & 0x7f) as u8, (more >> 7) as u8]);
        block.resize(block.len() + length, b'c');
        block
    };
    arena(Limits::default(), move |arena| async move {
        // 3 MB within 1 KB: the connection ends.
        let mut stream = connect(&arena).await;
        let block = [GET, &cookie(3000), &[0xbe; 1000]].concat();
        let many = headers(END_STREAM | END_HEADERS, 1, &block);
        stream.write_all(&many).await.unwrap();
        let heard = frames(&mut stream, |_, _| false).await;
        let code = heard
            .iter()
            .find_map(|(kind, _, payload)| goaway(*kind, payload));
        assert_eq!(code, Some(ENHANCE_YOUR_CALM), "{heard:?}");

        // A little too much, and too many: the request is refused, the connection goes on.
        for block in [
            [GET, &cookie(3000), &[0xbe; 24]].concat(),
            [GET, &[0x60, 1, b'c'], &[0xbe; 120]].concat(),
        ] {
            let mut stream = connect(&arena).await;
            let first = headers(END_STREAM | END_HEADERS, 1, &block);
            stream.write_all(&first).await.unwrap();
            let heard = frames(&mut stream, |kind, _| kind == 1).await;
            let (_, _, answer) = heard.last().unwrap();
            assert!(
                answer.windows(3).any(|w| w == b"431") || is_huffman_431(answer),
                "{answer:?}"
            );
            stream
                .write_all(&headers(END_STREAM | END_HEADERS, 3, GET))
                .await
                .unwrap();
            let heard = frames(&mut stream, |kind, _| kind == 0).await;
            assert_eq!(heard.last().unwrap().2, b"ok");
        }
        assert_eq!(arena.seen(), ["GET http://a/"; 2]);
    });
}

// `:status` with a literal, Huffman-coded "431".
fn is_huffman_431(block: &[u8]) -> bool {
    block
        .windows(3)
        .any(|w| w == [0x68, 0x2c, 0x8f] || w[0] == 0x83 || w[0] == 0x82)
}

/// CVE-2021-32780: no stream may be opened, and the client goes away.
#[test]
fn goaway_with_no_streams() {
    arena(Limits::default(), |arena| async move {
        let mut stream = connect(&arena).await;
        stream
            .write_all(&frame(4, 0, 0, &[0, 3, 0, 0, 0, 0]))
            .await
            .unwrap();
        stream
            .write_all(&headers(END_STREAM | END_HEADERS, 1, GET))
            .await
            .unwrap();
        stream.write_all(&frame(7, 0, 0, &[0; 8])).await.unwrap();
        let heard = frames(&mut stream, |_, _| false).await;
        assert!(
            heard
                .iter()
                .any(|(kind, id, data)| (*kind, *id, &data[..]) == (0, 1, b"ok")),
            "{heard:?}"
        );
    });
}

/// A client that opens no window holds little of an endless answer.
#[test]
fn windows_that_stay_shut() {
    const ENDLESS: &[u8] = &[
        0x82, 0x86, 0x41, 1, b'a', 0x44, 8, b'/', b'e', b'n', b'd', b'l', b'e', b's', b's',
    ];
    arena(Limits::default(), |arena| async move {
        let mut stream = connect(&arena).await;
        for n in 0..1000u32 {
            let open = headers(END_STREAM | END_HEADERS, 2 * n + 1, ENDLESS);
            stream.write_all(&open).await.unwrap();
        }
        // The window of a connection that nobody enlarges is 65,535 bytes.
        let mut sent = 0;
        while sent < 65_535 {
            let (kind, _, payload) = frames(&mut stream, |_, _| true).await.pop().unwrap();
            sent += if kind == 0 { payload.len() } else { 0 };
        }
        let more = tokio::time::timeout(
            Duration::from_millis(200),
            frames(&mut stream, |kind, _| kind == 0),
        );
        assert!(more.await.is_err(), "nothing is sent beyond the window");
    });
}
