//! A connection's first words: who speaks first, and what it is. Bytes that were read are put back.

use super::Conn;
use crate::upstream::Dialed;
use bytes::BytesMut;
use lateen_model::decide::cluster::ClusterTls;
use lateen_model::decide::plan::{Direction, TcpPlan};
use lateen_net::detect::{self, ClientHello, Guess};
use lateen_net::http::Violation;
use lateen_net::memory::pressure;
use lateen_net::stream::Stream;
use std::io;
use std::pin::pin;
use std::time::Duration;
use tokio::time::Instant;

/// How long a connection waits for its client when the endpoint that would speak first cannot be reached:
/// an HTTP client still deserves an answer that says so.
const UNREACHABLE: Duration = Duration::from_secs(1);

/// How long a client may take to speak before TLS is begun with an endpoint that might speak first: a handshake in vain
/// costs both ends more than this.
const GRACE: Duration = Duration::from_millis(5);

/// How long a client from a workload that takes mutual TLS may take to begin it where plain text is taken too, before an
/// application that greets decides that it is plain.
const HELLO: Duration = Duration::from_secs(1);

/// Which wait of a silent connection is over.
enum Over {
    /// The endpoint that would have spoken first cannot be reached.
    Unreachable,
    /// The client has had its time.
    Late,
}

/// What the first bytes of a connection turned out to be.
pub(super) enum Found {
    Client(Guess),
    /// The server spoke first, or the client ended before it could be told what it speaks.
    Bytes,
    /// Nobody is there to speak to.
    Gone,
    /// The client left without a word.
    Left,
}

/// Waits for the first side to speak. With `ahead` the upstream side is called meanwhile, if policies let the client in
/// as it is; that call ends in `dialed`.
pub(super) async fn first_words(
    conn: &Conn,
    stream: &mut Stream,
    ahead: Option<&TcpPlan>,
    dialed: &mut Option<Dialed>,
) -> io::Result<Found> {
    let mut first = BytesMut::new();
    let found = listen(conn, stream, &mut first, ahead, dialed).await;
    stream.unread(first.freeze());
    found
}

async fn listen(
    conn: &Conn,
    stream: &mut Stream,
    first: &mut BytesMut,
    ahead: Option<&TcpPlan>,
    dialed: &mut Option<Dialed>,
) -> io::Result<Found> {
    if ahead.is_some() {
        // Most clients have spoken already: then nobody is called in vain.
        tokio::task::yield_now().await;
    }
    if stream.read_now(first)? == Some(0) {
        return Ok(if ahead.is_some() {
            Found::Bytes
        } else {
            Found::Left
        });
    }
    let mut calling = ahead.is_some() && dialed.is_none();
    let call = async {
        match ahead {
            Some(TcpPlan::Forward { cluster, .. }) if conn.is_admitted() => {
                if cluster.tls != ClusterTls::Plain {
                    tokio::time::sleep(GRACE).await;
                }
                let upstream = &conn.worker.upstream;
                upstream.dial(cluster, &conn.facts, "").await.ok()
            }
            // Nothing to call: HTTP clients are told why, others are reset once they have spoken.
            _ => std::future::pending().await,
        }
    };
    let mut call = pin!(call);
    let mut polite = conn.may_begin_tls();
    let mut hello = pin!(tokio::time::sleep(HELLO));
    let limits = conn.worker.shared.limits;
    let came = Instant::now();
    let mut spoke = None;
    let mut patience = Over::Late;
    let mut until = pin!(tokio::time::sleep(Duration::MAX));
    // Our own application may take its time.
    let is_stranger = conn.facts.direction != Direction::Outbound;
    loop {
        if is_stranger && matches!(patience, Over::Late) {
            let limits = limits.hurried();
            let limit = if first.is_empty() {
                came + limits.idle_time
            } else {
                *spoke.get_or_insert_with(Instant::now) + limits.head_time
            };
            until.as_mut().reset(limit);
        }
        match detect::guess(first) {
            Guess::Unsure => {}
            guess => return Ok(Found::Client(guess)),
        }
        let server_speaks = async {
            match dialed.as_ref() {
                Some(dialed) => dialed.stream.readable().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            got = stream.read_more(first) => {
                if got? == 0 {
                    let silent = first.is_empty() && ahead.is_none();
                    return Ok(if silent { Found::Left } else { Found::Bytes });
                }
            }
            () = hello.as_mut(), if polite => polite = false,
            // An error shows again when the connection is used.
            () = server_speaks, if !polite => return Ok(Found::Bytes),
            answer = call.as_mut(), if calling => {
                calling = false;
                if answer.is_none() {
                    until.as_mut().reset(Instant::now() + UNREACHABLE);
                    patience = Over::Unreachable;
                }
                *dialed = answer;
            }
            () = pressure::changed(), if is_stranger => {}
            () = until.as_mut() => match patience {
                Over::Unreachable => return Ok(Found::Gone),
                // Not HTTP after all, as far as anybody can tell: bytes have bounds of their own.
                Over::Late if !first.is_empty() && ahead.is_some() => return Ok(Found::Bytes),
                Over::Late => return Err(late(first)),
            },
        }
    }
}

fn late(first: &BytesMut) -> io::Error {
    if !first.is_empty() {
        Violation::SlowHead.count();
    }
    io::Error::new(io::ErrorKind::TimedOut, "it said too little for too long")
}

/// Waits for a ClientHello; none when the client speaks anything else.
///
/// # Errors
/// The connection broke, or nothing came within `limit`.
pub(super) async fn hello(stream: &mut Stream, limit: Duration) -> io::Result<Option<ClientHello>> {
    let mut first = BytesMut::new();
    let read = async {
        loop {
            match detect::guess(&first) {
                Guess::Tls(hello) => return Ok(Some(hello)),
                Guess::Http1 | Guess::Http2 | Guess::Other => return Ok(None),
                Guess::Unsure => {}
            }
            if stream.read_more(&mut first).await? == 0 {
                return if first.is_empty() {
                    Err(io::Error::from(io::ErrorKind::UnexpectedEof))
                } else {
                    Ok(None)
                };
            }
        }
    };
    let found = tokio::time::timeout(limit, read)
        .await
        .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut)));
    stream.unread(first.freeze());
    found
}
