//! Any first bytes of a connection: more bytes never change a guess once it is made, and where a TLS stack (rustls) reads
//! a ClientHello, the peek sees the same server name and protocols.
#![no_main]

use lateen_net::detect::{Guess, guess};
use libfuzzer_sys::fuzz_target;
use rustls::server::Acceptor;

fuzz_target!(|data: &[u8]| {
    let whole = guess(data);
    let eighths = (0..8).map(|eighth| data.len() * eighth / 8);
    for end in eighths.chain(data.len().checked_sub(1)) {
        let part = guess(&data[..end]);
        let same = part == Guess::Unsure || part == whole;
        assert!(same, "{part:?} after {end} bytes, {whole:?} in the end");
    }
    let mut acceptor = Acceptor::default();
    let mut rest = data;
    while !rest.is_empty() {
        if acceptor.read_tls(&mut rest).is_err() {
            return;
        }
        match acceptor.accept() {
            Ok(None) => {}
            Ok(Some(accepted)) => return compare(&whole, &accepted.client_hello()),
            Err(_) => return,
        }
    }
});

fn compare(guess: &Guess, hello: &rustls::server::ClientHello<'_>) {
    let Guess::Tls(peeked) = guess else {
        panic!("{guess:?} is a ClientHello");
    };
    if let Some(name) = hello.server_name() {
        let peeked = peeked.server_name.as_deref().unwrap_or_default();
        assert!(peeked.eq_ignore_ascii_case(name), "{peeked:?}, {name:?}");
    }
    if let Some(protocols) = hello.alpn() {
        let protocols = protocols.map(|p| String::from_utf8_lossy(p).into_owned());
        assert!(protocols.eq(peeked.alpn.iter().cloned()), "{peeked:?}");
    }
}
