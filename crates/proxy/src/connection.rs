//! One accepted connection: where it was going, whether it is the mesh's TLS, what it speaks, and who serves it.
//!
//! ```text
//! inbound:  PeerAuthentication -> peek -> end mutual TLS, or plain -> decide -> HTTP | bytes
//! gateway:  peek the server name -> end TLS, pass it through, or plain -> decide -> HTTP | bytes
//! outbound: decide -> HTTP | bytes
//! ```

mod first;
mod label;
mod proxied;
mod review;

use crate::config::Destinations;
use crate::drain::Stage;
use crate::live::{Chain, Proof, Review};
use crate::serve;
use crate::tcp;
use crate::tls::{self, Ended};
use crate::upstream::Dialed;
use crate::worker::{Entry, Worker};
use bytes::Bytes;
use first::{Found, first_words, hello};
use lateen_base::Str;
use lateen_filters::Client;
use lateen_model::decide::plan::{
    ConnectionFacts, ConnectionPlan, Direction, Fault, FaultReason, GatewayTls, Peer, TcpPlan,
};
use lateen_model::decide::snapshot::Snapshot;
use lateen_model::decide::{self, demand};
use lateen_model::lookup::Lookup;
use lateen_model::security::MtlsMode;
use lateen_net::detect::{ClientHello, Guess};
use lateen_net::http::Version;
use lateen_net::listen::reset_on_close;
use lateen_net::original::{canonical, original_destination};
use lateen_net::seldom::Seldom;
use lateen_net::stream::{Stream, Watch};
use std::cell::OnceCell;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;

/// What every part of the serving of a connection knows.
pub(crate) struct Conn {
    pub(crate) worker: Rc<Worker>,
    pub(crate) facts: ConnectionFacts,
    /// Address that the client connected to, as it sees it.
    pub(crate) local: SocketAddr,
    /// Server name of the client's hello; empty when it sent none.
    pub(crate) server_name: Str,
    /// What TLS says about the client.
    pub(crate) peer: Peer,
    /// The client's certificates, leaf first; empty: it showed none.
    pub(crate) certificates: Chain,
    /// How the client proved who it is, for looking at it again.
    proof: Proof,
    /// The socket, for whoever has to end it.
    pub(crate) watch: Watch,
    /// What headers are told of the client; made when first needed.
    pub(crate) client: OnceCell<Rc<Client>>,
}

/// What is left to do with a connection once it is known what it is: what it does for long. Absent: nothing.
pub(crate) type Rest = Option<Pin<Box<dyn Future<Output = ()>>>>;

/// Serves one connection to its end.
pub(crate) async fn run(worker: Rc<Worker>, entry: Entry, stream: TcpStream, remote: SocketAddr) {
    // Finding out is large and soon over: an idle connection holds no memory for it.
    let rest = Box::pin(begin(worker, entry, stream, remote)).await;
    if let Some(rest) = rest {
        rest.await;
    }
}

/// Finds out what a connection is.
async fn begin(worker: Rc<Worker>, entry: Entry, stream: TcpStream, remote: SocketAddr) -> Rest {
    let Some(facts) = facts(&worker, entry, &stream, canonical(remote)) else {
        reset_on_close(&stream);
        return None;
    };
    let local = facts_local(&facts, &stream);
    let mut facts = facts;
    let mut stream = Stream::new(stream, Bytes::new());
    if facts.direction == Direction::Gateway && expects_proxy_header(&worker) {
        match proxied::read(&mut stream).await {
            Ok(source) => facts.source = source.map_or(facts.source, canonical),
            Err(reason) => {
                worker.warn(&format!("{}: {reason}: closed", facts.source.ip()));
                return None;
            }
        }
    }
    let conn = Conn {
        worker,
        facts,
        local,
        server_name: Str::default(),
        peer: Peer::default(),
        certificates: Chain::from([]),
        proof: Proof::none(),
        watch: stream.watch(),
        client: OnceCell::new(),
    };
    match conn.facts.direction {
        Direction::Inbound => inbound(conn, stream).await,
        Direction::Outbound | Direction::Gateway => {
            let plan = match conn.learn_address().await {
                Ok(()) => conn.plan(),
                // Whoever speaks HTTP is told why.
                Err(fault) => ConnectionPlan::Detect(TcpPlan::Refuse(fault)),
            };
            follow(conn, stream, plan, None, None).await
        }
    }
}

fn expects_proxy_header(worker: &Worker) -> bool {
    worker.shared.live.load().snapshot.mesh().proxy_protocol
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

impl Conn {
    fn plan(&self) -> ConnectionPlan {
        let live = self.worker.shared.live.load();
        decide::connection(&live.snapshot, &self.facts, fastrand::u64(..))
    }

    /// Waits for what has to be known before the connection is decided on.
    async fn learn_address(&self) -> Result<(), Fault> {
        self.learn(|snapshot| demand::of_address(snapshot, self.facts.destination.ip()))
            .await
    }

    /// Waits until the control plane has told what `wanted` says is missing. What comes in is decided on without it.
    pub(crate) async fn learn(
        &self,
        wanted: impl FnOnce(&Snapshot) -> Option<Lookup>,
    ) -> Result<(), Fault> {
        if self.facts.direction != Direction::Outbound {
            return Ok(());
        }
        let shared = &self.worker.shared;
        let missing = wanted(&shared.live.load().snapshot);
        match missing {
            // Rare, and large: other connections are not to carry it.
            Some(lookup) => Box::pin(shared.demand.learn(lookup)).await,
            None => Ok(()),
        }
    }

    /// Finds out who calls, where that is not known.
    async fn meet(&self) {
        let shared = &self.worker.shared;
        let missing = demand::of_peer(&shared.live.load().snapshot, self.facts.source.ip());
        if let Some(peer) = missing {
            Box::pin(shared.demand.meet(peer)).await;
        }
    }

    /// The plan for TLS that is not ended here.
    async fn passed(&mut self, hello: ClientHello) -> TcpPlan {
        self.server_name = hello.server_name.unwrap_or_default().into();
        // Policies may ask for it.
        self.peer.server_name = decide::host::canonical(&self.server_name).as_ref().into();
        let named = |snapshot: &Snapshot| demand::of_server_name(snapshot, &self.server_name);
        if let Err(fault) = self.learn(named).await {
            return TcpPlan::Refuse(fault);
        }
        let live = self.worker.shared.live.load();
        decide::server_name(
            &live.snapshot,
            &self.facts,
            &self.server_name,
            fastrand::u64(..),
        )
    }

    /// Takes over what a handshake told.
    fn ended(&mut self, ended: Ended) -> Stream {
        self.server_name = ended.peer.server_name.clone();
        self.peer = ended.peer;
        self.certificates = Rc::clone(&ended.proof.chain);
        self.proof = ended.proof;
        self.watch = ended.stream.watch();
        ended.stream
    }
}

/// What was found out before a plan could be made.
type Early = Option<Found>;

/// From the mesh to the application: PeerAuthentication says whether mutual TLS must, may or cannot be.
async fn inbound(mut conn: Conn, mut stream: Stream) -> Rest {
    conn.meet().await;
    let wanted = {
        let live = conn.worker.shared.live.load();
        decide::peer_mode(&live.snapshot, &conn.facts)
    };
    match wanted.mode {
        MtlsMode::Disable => {
            let plan = conn.plan();
            follow(conn, stream, plan, None, None).await
        }
        MtlsMode::Strict => match hello(&mut stream, tls::PATIENCE).await {
            Ok(Some(_)) => end_mesh(conn, stream, None).await,
            Ok(None) => {
                let fault = Fault {
                    reason: FaultReason::NotMutualTls,
                    origin: wanted.origin,
                    subject: format!(
                        "{} on port {}",
                        conn.facts.source.ip(),
                        conn.facts.destination.port()
                    ),
                };
                tcp::refuse(&conn, &stream, &fault);
                None
            }
            Err(error) => left(&conn, &error),
        },
        MtlsMode::Permissive => {
            let plan = conn.plan();
            let mut dialed = None;
            let ahead = match &plan {
                ConnectionPlan::Tcp(plan) | ConnectionPlan::Detect(plan) => Some(plan),
                ConnectionPlan::Http | ConnectionPlan::Sni(_) | ConnectionPlan::Tls(_) => None,
            };
            let found = match Box::pin(first_words(&conn, &mut stream, ahead, &mut dialed)).await {
                Ok(found) => found,
                Err(error) => return left(&conn, &error),
            };
            match found {
                Found::Client(Guess::Tls(hello)) if tls::is_mesh(&hello) => {
                    end_mesh(conn, stream, dialed).await
                }
                // TLS of the application's own is none of ours, also where the port is declared HTTP.
                Found::Client(Guess::Tls(hello)) => {
                    let plan = conn.passed(hello).await;
                    Box::pin(tcp::serve(conn, stream, plan, dialed)).await
                }
                found => follow(conn, stream, plan, Some(found), dialed).await,
            }
        }
    }
}

fn left(conn: &Conn, error: &std::io::Error) -> Rest {
    tracing::debug!("{} left: {error}", conn.facts.source);
    None
}

/// Ends the mesh's TLS; what is inside is decided then.
async fn end_mesh(mut conn: Conn, stream: Stream, dialed: Option<Dialed>) -> Rest {
    let watch = stream.watch();
    match Box::pin(tls::end_mesh(&conn.worker.shared, stream)).await {
        Err(refusal) => {
            tcp::refuse_politely(&conn, &watch, &refusal).await;
            None
        }
        Ok(ended) => {
            let stream = conn.ended(ended);
            let plan = {
                let live = conn.worker.shared.live.load();
                let snapshot = &live.snapshot;
                decide::secured(snapshot, &conn.facts, &conn.peer.alpn, fastrand::u64(..))
            };
            follow(conn, stream, plan, None, dialed).await
        }
    }
}

/// A gateway's TLS: the server name decides who ends it.
async fn end_gateway(mut conn: Conn, stream: Stream, hello: ClientHello) -> Rest {
    let sni = hello.server_name;
    let shared = Arc::clone(&conn.worker.shared);
    let decided = {
        let live = shared.live.load();
        decide::gateway_tls(
            &live.snapshot,
            &conn.facts,
            sni.as_deref(),
            fastrand::u64(..),
        )
    };
    conn.server_name = sni.as_deref().unwrap_or_default().into();
    conn.peer.server_name = decide::host::canonical(&conn.server_name).as_ref().into();
    let watch = stream.watch();
    match decided {
        GatewayTls::Passthrough(plan) => Box::pin(tcp::serve(conn, stream, plan, None)).await,
        GatewayTls::Refuse(fault) => {
            tcp::refuse(&conn, &stream, &fault);
            None
        }
        GatewayTls::Terminate { key, server, then } => {
            let edge = (&key, &server, then);
            let ended = tls::end_gateway(&shared, stream, edge, &conn.facts, sni.as_deref());
            match Box::pin(ended).await {
                Err(refusal) => {
                    tcp::refuse_politely(&conn, &watch, &refusal).await;
                    None
                }
                Ok(ended) => {
                    let stream = conn.ended(ended);
                    let plan = {
                        let live = shared.live.load();
                        let snapshot = &live.snapshot;
                        let dice = fastrand::u64(..);
                        decide::gateway_decrypted(snapshot, &conn.facts, sni.as_deref(), dice)
                    };
                    Box::pin(follow(conn, stream, plan, None, None)).await
                }
            }
        }
    }
}

/// Follows a connection's plan. `found` is what its first bytes were, where somebody has looked already.
async fn follow(
    conn: Conn,
    stream: Stream,
    plan: ConnectionPlan,
    found: Early,
    dialed: Option<Dialed>,
) -> Rest {
    match plan {
        ConnectionPlan::Http => serve_http(conn, stream, found).await,
        ConnectionPlan::Tcp(plan) => Box::pin(tcp::serve(conn, stream, plan, dialed)).await,
        ConnectionPlan::Detect(plan) => detect(conn, stream, plan, found, dialed).await,
        ConnectionPlan::Sni(plan) => Box::pin(serve_tls(conn, stream, plan, false)).await,
        ConnectionPlan::Tls(plan) => Box::pin(serve_tls(conn, stream, plan, true)).await,
    }
}

/// Serves requests. Small, as idle connections wait in it: what is large is behind pointers.
async fn http(conn: Rc<Conn>, stream: Stream, version: Version) {
    let held = conn.hold(Review::Http(conn.facts, conn.peer.clone()));
    let answering = Rc::clone(&conn);
    let respond = move |request, busy| serve::answer(Rc::clone(&answering), version, request, busy);
    let limits = &conn.worker.shared.limits;
    let mut served = pin!(lateen_net::http::serve(
        stream,
        version,
        limits,
        drain(&conn),
        respond
    ));
    tokio::select! {
        // Who may not come in any more is not served first.
        biased;
        fault = Seldom::new(async { match &held {
            Some(held) => held.cut().await,
            None => std::future::pending().await,
        } }) => {
            conn.worker.say(&fault, || crate::fault::sentence(&fault, None));
            reset_on_close(conn.watch.tcp());
        }
        done = served.as_mut() => {
            if let Err(error) = done {
                conn.worker.note_end(&error, conn.facts.source.ip());
            }
        }
    }
}

/// Waits until the connection is to end with what is under way.
fn drain(conn: &Conn) -> Pin<Box<dyn Future<Output = ()>>> {
    match conn.facts.direction {
        // Applications may need their way out until their very end.
        Direction::Outbound => Box::pin(std::future::pending()),
        Direction::Inbound | Direction::Gateway => {
            let shared = Arc::clone(&conn.worker.shared);
            Box::pin(async move { shared.drain.reached(Stage::Draining).await })
        }
    }
}

/// The port is declared HTTP: only the version is open.
async fn serve_http(conn: Conn, mut stream: Stream, found: Early) -> Rest {
    let found = match found {
        Some(found) => Ok(found),
        None => Box::pin(first_words(&conn, &mut stream, None, &mut None)).await,
    };
    let version = match found {
        Ok(Found::Client(Guess::Http2)) => Version::Http2,
        Ok(Found::Left) => return None,
        // What is not HTTP is refused by the HTTP engine, in HTTP's words.
        _ => Version::Http1,
    };
    Some(Box::pin(http(Rc::new(conn), stream, version)))
}

/// The port is declared TLS: the server name decides; at some gateways TLS may end here.
async fn serve_tls(mut conn: Conn, mut stream: Stream, plan: TcpPlan, ends: bool) -> Rest {
    // Our own application may take its time.
    let limit = match conn.facts.direction {
        Direction::Outbound => Duration::MAX,
        Direction::Inbound | Direction::Gateway => tls::PATIENCE,
    };
    match hello(&mut stream, limit).await {
        Ok(Some(hello)) if ends => end_gateway(conn, stream, hello).await,
        Ok(Some(hello)) => {
            let plan = conn.passed(hello).await;
            Box::pin(tcp::serve(conn, stream, plan, None)).await
        }
        Ok(None) => Box::pin(tcp::serve(conn, stream, plan, None)).await,
        Err(error) => left(&conn, &error),
    }
}

/// The port is not declared: the first side to speak decides, so the upstream side is called while we wait.
async fn detect(
    mut conn: Conn,
    mut stream: Stream,
    plan: TcpPlan,
    found: Early,
    mut dialed: Option<Dialed>,
) -> Rest {
    let found = match found {
        Some(found) => Ok(found),
        None => Box::pin(first_words(&conn, &mut stream, Some(&plan), &mut dialed)).await,
    };
    match found {
        Ok(Found::Client(guess @ (Guess::Http1 | Guess::Http2))) => {
            let version = if guess == Guess::Http2 {
                Version::Http2
            } else {
                Version::Http1
            };
            if let Some(spare) = dialed.filter(|_| version == Version::Http1) {
                Box::pin(conn.worker.upstream.offer(spare)).await;
            }
            Some(Box::pin(http(Rc::new(conn), stream, version)))
        }
        Ok(Found::Client(Guess::Tls(hello))) => {
            let plan = conn.passed(hello).await;
            Box::pin(tcp::serve(conn, stream, plan, dialed)).await
        }
        Ok(Found::Client(_) | Found::Bytes | Found::Left) => {
            Box::pin(tcp::serve(conn, stream, plan, dialed)).await
        }
        Ok(Found::Gone) => Box::pin(tcp::serve(conn, stream, plan, None)).await,
        Err(error) => left(&conn, &error),
    }
}
