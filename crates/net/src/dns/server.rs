//! A DNS server that answers what its owner knows and passes everything else on to the resolvers, within limits.
//!
//! ```text
//! UDP, TCP -> one question? -> owner knows the name -> answer
//!                           \-> Forwarder, as it came  -> answer, as it came
//! ```
//! What is no question is dropped without an answer.

use super::{Forwarder, LONGEST_DATAGRAM, Settings};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use std::cell::Cell;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// The longest answer by UDP, whatever the client offers, so that it fits any link.
const LONGEST_ANSWER: u16 = 1232;
/// Questions by UDP under way at a time; more are dropped, and asked again by the clients.
const AT_A_TIME: usize = 1024;
/// TCP connections at a time; more are closed.
const CONNECTIONS: usize = 64;
/// How long a TCP connection may be silent.
const IDLE: Duration = Duration::from_secs(10);

/// What an owner knows of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The name that the addresses belong to, when it is another than the asked one.
    pub alias: Option<String>,
    /// Addresses of both IP versions.
    pub addresses: Vec<IpAddr>,
    /// How long the answer may be kept, in seconds.
    pub ttl: u32,
}

/// What a server has done since it started; shared with whoever shows it.
#[derive(Debug, Default)]
pub struct Counts {
    requests: AtomicU64,
    forwarded: AtomicU64,
    failures: AtomicU64,
}

impl Counts {
    /// Questions.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Questions that were passed on.
    pub fn forwarded(&self) -> u64 {
        self.forwarded.load(Ordering::Relaxed)
    }

    /// Questions that were passed on and not answered.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }
}

/// A server; `K` tells what is known of a name (in lower case, without dot at the end). It lives on one thread.
pub struct Server<K> {
    know: K,
    forwarder: Forwarder,
    counts: Arc<Counts>,
}

impl<K: AsyncFn(&str) -> Option<Told> + 'static> Server<K> {
    /// One that asks as `settings` say what `know` does not know.
    pub fn new(settings: &Settings, counts: Arc<Counts>, know: K) -> Rc<Self> {
        Rc::new(Self {
            know,
            forwarder: Forwarder::new(settings, AT_A_TIME),
            counts,
        })
    }

    /// Answers datagrams; ends only when the socket cannot be used.
    ///
    /// # Errors
    /// The socket belongs to no runtime.
    pub async fn serve_udp(self: Rc<Self>, socket: std::net::UdpSocket) -> io::Result<()> {
        socket.set_nonblocking(true)?;
        let socket = Rc::new(UdpSocket::from_std(socket)?);
        let room = Arc::new(Semaphore::new(AT_A_TIME));
        let mut buffer = vec![0; LONGEST_DATAGRAM];
        loop {
            let Ok((length, client)) = socket.recv_from(&mut buffer).await else {
                // An answer of ours bounced; that says nothing about the socket.
                tokio::task::yield_now().await;
                continue;
            };
            let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
                continue;
            };
            let question = buffer[..length].to_vec();
            let (server, socket) = (Rc::clone(&self), Rc::clone(&socket));
            tokio::task::spawn_local(async move {
                if let Some(answer) = server.respond(&question, false).await {
                    let _ = socket.send_to(&answer, client).await;
                }
                drop(permit);
            });
        }
    }

    /// Answers connections; ends only when the listener cannot be used.
    ///
    /// # Errors
    /// The listener belongs to no runtime.
    pub async fn serve_tcp(self: Rc<Self>, listener: std::net::TcpListener) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let open = Rc::new(Cell::new(0usize));
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            if open.get() >= CONNECTIONS {
                continue;
            }
            open.set(open.get() + 1);
            let (server, open) = (Rc::clone(&self), Rc::clone(&open));
            tokio::task::spawn_local(async move {
                let _ = server.connection(stream).await;
                open.set(open.get() - 1);
            });
        }
    }

    async fn connection(&self, mut stream: TcpStream) -> io::Result<()> {
        loop {
            let length = usize::from(timeout(IDLE, stream.read_u16()).await??);
            if length > LONGEST_DATAGRAM {
                return Ok(());
            }
            let mut question = vec![0; length];
            timeout(IDLE, stream.read_exact(&mut question)).await??;
            let Some(answer) = self.respond(&question, true).await else {
                return Ok(());
            };
            let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
            let framed = [&length.to_be_bytes(), answer.as_slice()].concat();
            timeout(IDLE, stream.write_all(&framed)).await??;
        }
    }

    /// The bytes of the answer; absent for what is no question.
    async fn respond(&self, question: &[u8], over_tcp: bool) -> Option<Vec<u8>> {
        let request = Message::from_vec(question).ok()?;
        let header = &request.metadata;
        if header.message_type != MessageType::Query {
            return None;
        }
        add(&self.counts.requests);
        let known = match request.queries.as_slice() {
            [query] if header.op_code == OpCode::Query => self.known(query).await,
            _ => None,
        };
        if let Some((query, told)) = known {
            return written(&request, answer(&request, query, told), over_tcp);
        }
        add(&self.counts.forwarded);
        match self.forwarder.ask(question, over_tcp).await {
            Ok(answer) => Some(answer),
            Err(_) => {
                add(&self.counts.failures);
                let mut failed = Message::response(header.id, header.op_code);
                failed.metadata.recursion_desired = header.recursion_desired;
                failed.metadata.recursion_available = true;
                failed.metadata.response_code = ResponseCode::ServFail;
                failed.add_queries(request.queries.iter().cloned());
                failed.to_vec().ok()
            }
        }
    }

    async fn known<'q>(&self, query: &'q Query) -> Option<(&'q Query, Told)> {
        let is_address = matches!(query.query_type(), RecordType::A | RecordType::AAAA);
        if !is_address || query.query_class() != DNSClass::IN {
            return None;
        }
        let name = query.name().to_ascii().to_ascii_lowercase();
        let told = (self.know)(name.trim_end_matches('.')).await?;
        Some((query, told))
    }
}

/// An answer with the addresses of the asked version; without any it says that the name has none of them.
fn answer(request: &Message, query: &Query, told: Told) -> Message {
    let header = &request.metadata;
    let mut answer = Message::response(header.id, header.op_code);
    answer.metadata.recursion_desired = header.recursion_desired;
    answer.metadata.recursion_available = true;
    answer.metadata.authoritative = true;
    answer.add_query(query.clone());
    if request.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(LONGEST_ANSWER);
        answer.set_edns(edns);
    }
    let mut owner = query.name().clone();
    if let Some(alias) = told
        .alias
        .and_then(|alias| Name::from_ascii(format!("{alias}.")).ok())
    {
        let data = RData::CNAME(CNAME(alias.clone()));
        answer.add_answer(Record::from_rdata(owner, told.ttl, data));
        owner = alias;
    }
    let mut records: Vec<RData> = told
        .addresses
        .into_iter()
        .map(|ip| match ip {
            IpAddr::V4(ip) => RData::A(A(ip)),
            IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
        })
        .filter(|data| data.record_type() == query.query_type())
        .collect();
    // Clients that take the first address are spread by the order.
    fastrand::shuffle(&mut records);
    for data in records {
        answer.add_answer(Record::from_rdata(owner.clone(), told.ttl, data));
    }
    answer
}

/// The bytes of an answer, cut to what the client takes.
fn written(request: &Message, answer: Message, over_tcp: bool) -> Option<Vec<u8>> {
    let bytes = answer.to_vec().ok()?;
    let offered = request.edns.as_ref().map_or(512, Edns::max_payload);
    let most = match over_tcp {
        true => u16::MAX,
        false => offered.clamp(512, LONGEST_ANSWER),
    };
    match bytes.len() > usize::from(most) {
        true => answer.truncate().to_vec().ok(),
        false => Some(bytes),
    }
}

fn add(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}
