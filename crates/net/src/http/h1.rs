//! HTTP/1's engine, both ends, behind the guard: it parses and writes heads, follows bodies, and drives one exchange in
//! the task that wants it. What a message may look like is the guard's to judge; what it means is the proxy's.
//!
//! ```text
//! guard -> wire (read, outbox) -> head -> decoder -> Inbound          server: head -> respond -> Outbound
//!                              <- head <- encoder <- Outbound         client: Outbound + head -> Inbound
//! ```

pub(super) mod body;
pub(super) mod client;
mod decoder;
mod encoder;
mod head;
pub(super) mod server;
mod spelling;
mod wire;
mod write;

use http::request;

/// Keeps the memory of a request's headers for the next message of this worker; the head has none left.
pub fn recycle(head: &mut request::Parts) {
    let headers = std::mem::take(&mut head.headers);
    head::recycle(headers, std::mem::take(&mut head.extensions));
}

/// How many requests are in `bytes` (see [`super::fuzz::requests`]).
#[cfg(fuzzing)]
pub(super) fn requests(bytes: &[u8]) -> Option<u64> {
    use decoder::Found;
    let limits = super::Limits::default();
    let mut read = bytes::BytesMut::from(bytes);
    let mut count = 0;
    loop {
        let asked = match head::request(&mut read, &limits) {
            Ok(Some(asked)) => asked,
            Ok(None) => return Some(count),
            Err(_) => return None,
        };
        count += 1;
        if asked.parts.method == http::Method::CONNECT {
            return Some(count);
        }
        let mut body = asked.body;
        loop {
            match body.next(&mut read) {
                Ok(Found::End) => break,
                Ok(Found::Nothing) => return Some(count),
                Ok(Found::Data(_) | Found::Trailers(_)) => {}
                // Trailers may be beyond a bound that the guard does not know.
                Err(_) => return None,
            }
        }
    }
}
