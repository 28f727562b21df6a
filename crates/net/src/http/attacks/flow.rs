//! Clients that take nothing of what they asked for, or send in crumbs what nobody asked for.

use super::http2::{END_HEADERS, END_STREAM, codes, connect, frame, frames, headers};
use super::*;

const HEAP: &[u8] = &[
    0x82, 0x86, 0x41, 1, b'a', 0x44, 5, b'/', b'h', b'e', b'a', b'p',
];
const HOLD: &[u8] = &[
    0x83, 0x86, 0x41, 1, b'a', 0x44, 5, b'/', b'h', b'o', b'l', b'd',
];
const CANCEL: [u8; 4] = 8u32.to_be_bytes();

fn window(size: u32) -> Vec<u8> {
    frame(4, 0, 0, &[&[0, 4][..], &size.to_be_bytes()].concat())
}

/// Streams whose windows stay shut are given up after a while; the connection and other streams go on.
#[test]
fn windows_that_stay_shut_are_ended() {
    const STREAMS: usize = 500;
    let limits = Limits {
        stall_time: Duration::from_millis(200),
        ..Limits::default()
    };
    for size in [0, 1, 70_000] {
        arena(limits, move |arena| async move {
            let mut stream = connect(&arena).await;
            stream.write_all(&window(size)).await.unwrap();
            for n in 0..STREAMS as u32 {
                let open = headers(END_STREAM | END_HEADERS, 2 * n + 1, HEAP);
                stream.write_all(&open).await.unwrap();
            }
            let ended = Cell::new(0);
            let heard = frames(&mut stream, |kind, _| {
                ended.set(ended.get() + usize::from(kind == 3));
                ended.get() == STREAMS
            });
            for (kind, _, payload) in heard.await {
                assert!(kind != 3 || payload == CANCEL, "{payload:?}");
            }
            assert_eq!(ended.get(), STREAMS);
            stream.write_all(&frame(6, 0, 0, &[0; 8])).await.unwrap();
            let heard = frames(&mut stream, |kind, _| kind == 6).await;
            assert_eq!(heard.last().unwrap().0, 6, "the connection goes on");
        });
    }
}

/// One stream is shut, the other takes a little at a time and gets everything.
#[test]
fn a_slow_reader_is_not_a_shut_window() {
    const WHOLE: usize = 16 * 65_536;
    let limits = Limits {
        stall_time: Duration::from_millis(500),
        ..Limits::default()
    };
    arena(limits, |arena| async move {
        let mut stream = connect(&arena).await;
        stream.write_all(&window(0)).await.unwrap();
        for n in [1, 3] {
            let open = headers(END_STREAM | END_HEADERS, n, HEAP);
            stream.write_all(&open).await.unwrap();
        }
        let open = 65_535u32.to_be_bytes();
        let grant = [frame(8, 0, 0, &open), frame(8, 0, 3, &open)].concat();
        let (mut got, mut given) = (0, 0);
        while got < WHOLE {
            stream.write_all(&grant).await.unwrap();
            given += 65_535;
            while got < given.min(WHOLE) {
                let heard = frames(&mut stream, |_, _| true).await;
                let (kind, id, payload) = heard.last().expect("it goes on");
                assert!(*kind != 3 || *id == 1, "the slow reader is left alone");
                got += if *kind == 0 { payload.len() } else { 0 };
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
}

/// One byte a frame, to somebody who does not read: it costs no more memory than the windows have.
#[test]
fn data_in_crumbs() {
    arena(Limits::default(), |arena| async move {
        let mut stream = connect(&arena).await;
        for n in [1, 3, 5, 7] {
            let open = headers(END_HEADERS, n, HOLD);
            stream.write_all(&open).await.unwrap();
        }
        let (mut read, mut write) = stream.split();
        let many: Vec<u8> = [1, 3, 5, 7]
            .into_iter()
            .cycle()
            .take(2000)
            .flat_map(|n| frame(0, 0, n, b"x"))
            .collect();
        let flood = async {
            for _ in 0..300 {
                if write.write_all(&many).await.is_err() {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        let hear = async {
            let mut all = Vec::new();
            let _ = read.read_to_end(&mut all).await;
            codes(&all)
        };
        let ((), heard) = tokio::join!(flood, hear);
        assert!(!heard.is_empty(), "it was told to go away");
    });
}

/// The same over HTTP/1, in chunks of one byte.
#[test]
fn chunks_in_crumbs() {
    arena(Limits::default(), |arena| async move {
        let mut stream = arena.connect().await;
        let head = b"POST /read HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
        stream.write_all(head).await.unwrap();
        let many = b"1\r\nx\r\n".repeat(5000);
        for _ in 0..4 {
            stream.write_all(&many).await.unwrap();
        }
        stream.write_all(b"0\r\n\r\n").await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
    });
}
