//! One question to the resolvers, as bytes: unchanged but for its number, which is drawn anew so that nobody can guess it.

use super::{LONGEST_DATAGRAM, Settings};
use crate::dial::{Dial, exempt};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};

/// Length of the part of a message before its questions (RFC 1035 §4.1.1).
const HEADER: usize = 12;
/// Server failed, and server will not: others may know better (RFC 1035 §4.1.1).
const FAILURES: [u8; 2] = [2, 5];

/// Asks resolvers. One may serve many askers at once.
#[derive(Debug)]
pub struct Forwarder {
    servers: Vec<SocketAddr>,
    timeout: Duration,
    attempts: usize,
    room: Semaphore,
}

/// A question has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// What was to be asked is no question.
    #[error("this is no DNS question")]
    NoQuestion,
    /// Too many others are being asked.
    #[error("too many DNS questions are under way: ask again in a moment")]
    Busy,
    /// No server answered in time.
    #[error("no DNS server answered ({servers})")]
    NoAnswer {
        /// Who was asked.
        servers: String,
    },
}

impl Forwarder {
    /// One that asks the servers of `settings`, at most `room` questions at a time.
    pub fn new(settings: &Settings, room: usize) -> Self {
        Self {
            servers: settings.servers.clone(),
            timeout: settings.timeout,
            attempts: settings.attempts,
            room: Semaphore::new(room),
        }
    }

    /// The bytes of the answer to a question's bytes, by TCP or UDP, with the question's own number. An answer that says
    /// that the server failed counts only when no other server has a better one.
    ///
    /// # Errors
    /// It is no question, too many are under way, or nobody answers.
    pub async fn ask(&self, question: &[u8], over_tcp: bool) -> Result<Vec<u8>, AskError> {
        let asked = questions(question).ok_or(AskError::NoQuestion)?;
        let _room = self.room.try_acquire().map_err(|_| AskError::Busy)?;
        let mut last = None;
        for server in std::iter::repeat_n(&self.servers, self.attempts).flatten() {
            let mut bytes = question.to_vec();
            bytes[..2].copy_from_slice(&fastrand::u16(..).to_be_bytes());
            let asking = Asking {
                server: *server,
                bytes: &bytes,
                asked,
                until: Instant::now() + self.timeout,
            };
            let answer = match over_tcp {
                true => asking.by_tcp(self.timeout).await,
                false => asking.by_udp().await,
            };
            let Ok(mut answer) = answer else {
                continue;
            };
            answer[..2].copy_from_slice(&question[..2]);
            if !FAILURES.contains(&(answer[3] & 0x0f)) {
                return Ok(answer);
            }
            last = Some(answer);
        }
        last.ok_or_else(|| AskError::NoAnswer {
            servers: self
                .servers
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(", "),
        })
    }
}

/// One question to one server.
struct Asking<'a> {
    server: SocketAddr,
    /// With its own number.
    bytes: &'a [u8],
    /// The part that an answer must repeat.
    asked: &'a [u8],
    until: Instant,
}

impl Asking<'_> {
    async fn by_udp(&self) -> io::Result<Vec<u8>> {
        let any = match self.server {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        // A fresh socket has a random port, and being connected it takes what comes from this server only.
        let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
        exempt(&socket);
        socket.connect(self.server).await?;
        socket.send(self.bytes).await?;
        let mut buffer = vec![0; LONGEST_DATAGRAM];
        loop {
            let length = timeout_at(self.until, socket.recv(&mut buffer)).await??;
            // What does not fit may be somebody's guess: the real answer can still come.
            if self.fits(&buffer[..length]) {
                buffer.truncate(length);
                return Ok(buffer);
            }
        }
    }

    async fn by_tcp(&self, patience: Duration) -> io::Result<Vec<u8>> {
        let how = Dial {
            keepalive: None,
            timeout: patience,
            source: None,
        };
        let work = async {
            let dialed = crate::dial::dial(self.server, &how).await;
            let mut stream = dialed.map_err(io::Error::other)?;
            let length = u16::try_from(self.bytes.len()).map_err(io::Error::other)?;
            let framed = [&length.to_be_bytes(), self.bytes].concat();
            stream.write_all(&framed).await?;
            let mut answer = vec![0; usize::from(stream.read_u16().await?)];
            stream.read_exact(&mut answer).await?;
            Ok::<_, io::Error>(answer)
        };
        let answer = timeout(patience, work).await??;
        match self.fits(&answer) {
            true => Ok(answer),
            false => Err(io::Error::other("the answer is to another question")),
        }
    }

    /// Whether these bytes are the answer: its number and question are ours, whatever the case of its letters.
    fn fits(&self, answer: &[u8]) -> bool {
        let is_answer = |header: &[u8]| header[2] & 0x80 != 0;
        answer.len() >= HEADER
            && answer[..2] == self.bytes[..2]
            && is_answer(answer)
            && questions(answer).is_some_and(|theirs| theirs.eq_ignore_ascii_case(self.asked))
    }
}

/// The bytes of a message's only question; absent where there are more or none, or it does not end.
fn questions(message: &[u8]) -> Option<&[u8]> {
    let header = message.get(..HEADER)?;
    if header[4..6] != [0, 1] {
        return None;
    }
    let mut at = HEADER;
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        match length {
            0 => break,
            // Names of questions are not abbreviated: there is nothing before them to point to.
            1..=63 => at += length,
            _ => return None,
        }
    }
    // Type and class follow.
    message.get(HEADER..at + 4)
}
