//! One accepted connection: where it was going, what it speaks, and who serves it.

use crate::config::Destinations;
use crate::drain::Stage;
use crate::serve;
use crate::tcp;
use crate::upstream::Dialed;
use crate::worker::{Entry, Worker};
use bytes::{Bytes, BytesMut};
use lateen_model::decide;
use lateen_model::decide::plan::{ConnectionFacts, ConnectionPlan, Direction, TcpPlan};
use lateen_net::detect::{self, ClientHello, Guess};
use lateen_net::http::Version;
use lateen_net::listen::reset_on_close;
use lateen_net::original::{canonical, original_destination};
use lateen_net::stream::Stream;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;
use tokio::net::TcpStream;

/// How long a connection waits for its client when the endpoint that would speak first cannot be reached:
/// an HTTP client still deserves an answer that says so.
const UNREACHABLE: Duration = Duration::from_secs(1);

/// What every part of the serving of a connection knows.
pub(crate) struct Conn {
    pub(crate) worker: Rc<Worker>,
    pub(crate) facts: ConnectionFacts,
    /// Address that the client connected to, as it sees it.
    pub(crate) local: SocketAddr,
    /// Server name of the client's hello; empty when it sent none.
    pub(crate) server_name: String,
}

/// Serves one connection to its end.
pub(crate) async fn run(worker: Rc<Worker>, entry: Entry, stream: TcpStream, remote: SocketAddr) {
    let Some(facts) = facts(&worker, entry, &stream, canonical(remote)) else {
        reset_on_close(&stream);
        return;
    };
    let local = facts_local(&facts, &stream);
    let plan = {
        let live = worker.shared.live.load();
        decide::connection(&live.snapshot, &facts, fastrand::u64(..))
    };
    let conn = Conn {
        worker,
        facts,
        local,
        server_name: String::new(),
    };
    match plan {
        ConnectionPlan::Http => serve_http(conn, stream).await,
        ConnectionPlan::Tcp(plan) => tcp::serve(conn, stream, Bytes::new(), plan, None).await,
        ConnectionPlan::Detect(plan) => detect(conn, stream, plan).await,
        ConnectionPlan::Sni(plan) => serve_tls(conn, stream, plan).await,
    }
}

// A gateway's clients connect to the gateway; the facts may carry the port that its Gateway object names.
fn facts_local(facts: &ConnectionFacts, stream: &TcpStream) -> SocketAddr {
    match facts.direction {
        Direction::Gateway => stream.local_addr().map_or(facts.destination, canonical),
        _ => facts.destination,
    }
}

fn facts(
    worker: &Worker,
    entry: Entry,
    stream: &TcpStream,
    source: SocketAddr,
) -> Option<ConnectionFacts> {
    let local = canonical(stream.local_addr().ok()?);
    let captured = || match worker.shared.destinations {
        Destinations::Fixed(address) => Some(address),
        Destinations::Kernel => {
            let destination = original_destination(stream).map_or(local, canonical);
            // A connection made to our own port was not captured; passing it on would call ourselves for ever.
            (destination != local).then_some(destination)
        }
    };
    let (direction, destination) = match entry {
        Entry::Outbound => (Direction::Outbound, captured()?),
        Entry::Inbound => (Direction::Inbound, captured()?),
        Entry::Gateway { .. } => (Direction::Gateway, local),
    };
    Some(ConnectionFacts {
        direction,
        source,
        destination,
    })
}

async fn http(conn: Conn, stream: Stream, version: Version) {
    let shared = conn.worker.shared.clone();
    let direction = conn.facts.direction;
    let drain = async move {
        match direction {
            // Applications may need their way out until their very end.
            Direction::Outbound => std::future::pending().await,
            Direction::Inbound | Direction::Gateway => shared.drain.reached(Stage::Draining).await,
        }
    };
    let limits = conn.worker.shared.limits;
    let conn = Rc::new(conn);
    let respond = move |request, busy| serve::answer(Rc::clone(&conn), version, request, busy);
    if let Err(error) = lateen_net::http::serve(stream, version, &limits, drain, respond).await {
        tracing::debug!("connection ended: {error}");
    }
}

/// The port is declared HTTP: only the version is open.
async fn serve_http(conn: Conn, stream: TcpStream) {
    let mut first = BytesMut::new();
    let version = loop {
        match detect::guess(&first) {
            Guess::Http2 => break Version::Http2,
            Guess::Unsure => match read_more(&stream, &mut first).await {
                Ok(0) if first.is_empty() => return,
                Ok(0) | Err(_) => break Version::Http1,
                Ok(_) => {}
            },
            // What is not HTTP is refused by the HTTP engine, in HTTP's words.
            Guess::Http1 | Guess::Tls(_) | Guess::Other => break Version::Http1,
        }
    };
    http(conn, Stream::new(stream, first.freeze()), version).await;
}

/// The port is declared TLS: the server name decides.
async fn serve_tls(mut conn: Conn, stream: TcpStream, plan: TcpPlan) {
    let mut first = BytesMut::new();
    loop {
        match detect::guess(&first) {
            Guess::Unsure => match read_more(&stream, &mut first).await {
                Ok(0) | Err(_) => {
                    return tcp::serve(conn, stream, first.freeze(), plan, None).await;
                }
                Ok(_) => {}
            },
            Guess::Tls(hello) => {
                let plan = named(&mut conn, hello);
                return tcp::serve(conn, stream, first.freeze(), plan, None).await;
            }
            Guess::Http1 | Guess::Http2 | Guess::Other => {
                return tcp::serve(conn, stream, first.freeze(), plan, None).await;
            }
        }
    }
}

fn named(conn: &mut Conn, hello: ClientHello) -> TcpPlan {
    conn.server_name = hello.server_name.unwrap_or_default();
    let live = conn.worker.shared.live.load();
    decide::server_name(
        &live.snapshot,
        &conn.facts,
        &conn.server_name,
        fastrand::u64(..),
    )
}

/// What the first bytes of an undeclared port turned out to be.
enum Found {
    Client(Guess),
    /// The server spoke first, or the client ended without a word.
    Bytes,
    /// Nobody is there to speak to.
    Gone,
}

/// The port is not declared: the first side to speak decides, so the upstream side is called while we wait.
async fn detect(mut conn: Conn, stream: TcpStream, plan: TcpPlan) {
    let mut first = BytesMut::new();
    let mut dialed = None;
    let found = match first_words(&conn, &stream, &plan, &mut first, &mut dialed).await {
        Ok(found) => found,
        Err(error) => return tracing::debug!("{} left: {error}", conn.facts.source),
    };
    let first = first.freeze();
    match found {
        Found::Client(guess @ (Guess::Http1 | Guess::Http2)) => {
            let version = if guess == Guess::Http2 {
                Version::Http2
            } else {
                Version::Http1
            };
            if let Some(spare) = dialed.filter(|_| version == Version::Http1) {
                conn.worker.upstream.offer(spare).await;
            }
            http(conn, Stream::new(stream, first), version).await;
        }
        Found::Client(Guess::Tls(hello)) => {
            let plan = named(&mut conn, hello);
            tcp::serve(conn, stream, first, plan, dialed).await;
        }
        Found::Client(_) | Found::Bytes => tcp::serve(conn, stream, first, plan, dialed).await,
        Found::Gone => tcp::serve(conn, stream, first, plan, None).await,
    }
}

async fn first_words(
    conn: &Conn,
    stream: &TcpStream,
    plan: &TcpPlan,
    first: &mut BytesMut,
    dialed: &mut Option<Dialed>,
) -> io::Result<Found> {
    // Most clients have spoken already: then nobody is called in vain.
    tokio::task::yield_now().await;
    if read_now(stream, first)? == Some(0) {
        return Ok(Found::Bytes);
    }
    let call = async {
        match plan {
            TcpPlan::Forward { cluster, .. } => {
                conn.worker.upstream.dial(cluster, &conn.facts).await.ok()
            }
            // Nothing to call: HTTP clients are told why, others are reset once they have spoken.
            TcpPlan::Refuse(_) => std::future::pending().await,
        }
    };
    let mut call = pin!(call);
    let mut calling = true;
    let mut patience = pin!(tokio::time::sleep(Duration::MAX));
    loop {
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
            got = read_more(stream, first) => {
                if got? == 0 {
                    return Ok(Found::Bytes);
                }
            }
            // An error shows again when the connection is used.
            _ = server_speaks => return Ok(Found::Bytes),
            answer = call.as_mut(), if calling => {
                calling = false;
                if answer.is_none() {
                    patience.as_mut().reset(tokio::time::Instant::now() + UNREACHABLE);
                }
                *dialed = answer;
            }
            () = patience.as_mut() => return Ok(Found::Gone),
        }
    }
}

/// Reads what is there; none when nothing is there yet.
fn read_now(stream: &TcpStream, into: &mut BytesMut) -> io::Result<Option<usize>> {
    into.reserve(2048);
    match stream.try_read_buf(into) {
        Ok(n) => Ok(Some(n)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

// Nothing is lost when this is dropped between its await and its return.
async fn read_more(stream: &TcpStream, into: &mut BytesMut) -> io::Result<usize> {
    loop {
        stream.readable().await?;
        if let Some(n) = read_now(stream, into)? {
            return Ok(n);
        }
    }
}
