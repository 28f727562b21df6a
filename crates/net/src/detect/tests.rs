//! First bytes in, guess out; and no input, however cut, makes the parser panic.

use super::*;

/// A ClientHello with these names, as one or more records of at most `record` bytes.
pub(crate) fn hello_bytes(server_name: Option<&str>, alpn: &[&str], record: usize) -> Vec<u8> {
    let mut extensions = Vec::new();
    let mut push = |kind: u16, body: Vec<u8>| {
        extensions.extend(kind.to_be_bytes());
        extensions.extend((body.len() as u16).to_be_bytes());
        extensions.extend(body);
    };
    push(43, vec![2, 3, 4]);
    if let Some(name) = server_name {
        let mut body = ((name.len() + 3) as u16).to_be_bytes().to_vec();
        body.push(0);
        body.extend((name.len() as u16).to_be_bytes());
        body.extend(name.as_bytes());
        push(0, body);
    }
    let list: Vec<u8> = alpn
        .iter()
        .flat_map(|p| std::iter::once(p.len() as u8).chain(p.bytes()))
        .collect();
    if !list.is_empty() {
        push(16, [&(list.len() as u16).to_be_bytes()[..], &list].concat());
    }
    let mut message = vec![3, 3];
    message.extend([7; 32]);
    message.extend([0, 0, 2, 0x13, 1, 1, 0]);
    message.extend((extensions.len() as u16).to_be_bytes());
    message.extend(extensions);
    let mut whole = vec![1, 0];
    whole.extend((message.len() as u16).to_be_bytes());
    whole.extend(message);
    whole
        .chunks(record)
        .flat_map(|part| [&[22, 3, 1][..], &(part.len() as u16).to_be_bytes(), part].concat())
        .collect()
}

fn tls(name: Option<&str>, alpn: &[&str]) -> Guess {
    Guess::Tls(ClientHello {
        server_name: name.map(str::to_owned),
        alpn: alpn.iter().map(|p| (*p).to_owned()).collect(),
    })
}

#[test]
fn first_bytes() {
    for (bytes, want) in [
        (&b""[..], Guess::Unsure),
        (b"G", Guess::Unsure),
        (b"GET ", Guess::Http1),
        (b"GET /x HTTP/1.1\r\n", Guess::Http1),
        (b"GETX / HTTP/9\r\n", Guess::Other),
        (b"P", Guess::Unsure),
        (b"PRI * HTTP/2.0\r\n\r\nSM", Guess::Unsure),
        (PREFACE, Guess::Http2),
        (b"PRI * HTTP/1.1\r\n", Guess::Http1),
        (b"POST /", Guess::Http1),
        (b"PROPFIND /a", Guess::Unsure),
        (b"PROPFIND /a HTTP/1.1\r\n", Guess::Http1),
        (b"EHLO me\r\n", Guess::Other),
        (b"PING\r\n", Guess::Other),
        (b"*1\r\n$4\r\nPING\r\n", Guess::Other),
        (b"\x16", Guess::Unsure),
        (b"\x16\x05\x00", Guess::Other),
        (b"\x16\x03\x01\x00\x05\x02", Guess::Other),
        (b"\x00\x01", Guess::Other),
    ] {
        assert_eq!(guess(bytes), want, "{:?}", String::from_utf8_lossy(bytes));
    }
}

#[test]
fn more_bytes_change_no_guess() {
    for length in [3, LONGEST_METHOD - 1, LONGEST_METHOD, 60] {
        let line = format!("{} / HTTP/1.1\r\n", "M".repeat(length));
        let whole = guess(line.as_bytes());
        assert_eq!(whole == Guess::Http1, length < LONGEST_METHOD, "{length}");
        for end in 1..line.len() {
            let part = guess(&line.as_bytes()[..end]);
            assert!(part == Guess::Unsure || part == whole, "{line:?} {end}");
        }
    }
}

#[test]
fn client_hellos() {
    for record in [16 * 1024, 40, 1] {
        let bytes = hello_bytes(Some("Api.Example.com"), &["h2", "http/1.1"], record);
        assert_eq!(
            guess(&bytes),
            tls(Some("api.example.com"), &["h2", "http/1.1"])
        );
        for cut in 1..bytes.len() {
            assert_eq!(guess(&bytes[..cut]), Guess::Unsure, "cut at {cut}");
        }
    }
    assert_eq!(guess(&hello_bytes(None, &[], 100)), tls(None, &[]));
}

#[test]
fn broken_hellos_are_still_tls_and_never_panic() {
    let bytes = hello_bytes(Some("a.b"), &["h2"], 16 * 1024);
    for at in 9..bytes.len() {
        for value in [0, 1, 0x7f, 0xff] {
            let mut broken = bytes.clone();
            broken[at] = value;
            assert!(
                !matches!(guess(&broken), Guess::Http1 | Guess::Http2 | Guess::Other),
                "byte {at}"
            );
        }
    }
    let endless = [22u8, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff]
        .into_iter()
        .chain(std::iter::repeat_n(0, MOST))
        .collect::<Vec<_>>();
    assert!(
        !matches!(guess(&endless), Guess::Unsure),
        "a hello without end is decided"
    );
}
