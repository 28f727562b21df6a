//! Counters in Redis, which several servers share: one connection, commands in a pipeline, connected again with backoff.
//!
//! `INCRBY` decides: hits are granted when the counter is within the limit after them. Several hits that are not are
//! taken back, so that smaller requests get what is left; what was granted never passes the limit.

use super::resp::{self, Reply};
use super::{Counted, Hit, Unavailable};
use bytes::BytesMut;
use lateen_base::backoff::Backoff;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};

/// Requests that wait for the connection; further ones are not counted.
const WAITING: usize = 4096;
/// Requests that are written at once.
const BATCH: usize = 256;
/// Time to connect.
const CONNECT: Duration = Duration::from_secs(2);
/// Longest time between two attempts to connect.
const LONGEST_DELAY: Duration = Duration::from_secs(5);
/// Seconds that counters are kept beyond their window: servers' clocks differ.
const KEPT: u64 = 2;

/// How Redis is reached.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `host:port`.
    pub address: String,
    /// Sent with AUTH; absent: none is needed.
    pub password: Option<String>,
    /// Time for an answer.
    pub timeout: Duration,
}

/// A connection to Redis that is kept up by a task of its own until this is dropped.
#[derive(Debug)]
pub struct Redis {
    queue: mpsc::Sender<Ask>,
    timeout: Duration,
}

#[derive(Debug)]
struct Ask {
    bytes: Vec<u8>,
    replies: usize,
    answer: oneshot::Sender<Result<Vec<Reply>, Unavailable>>,
}

impl Redis {
    /// Starts to connect.
    pub fn start(settings: Settings) -> Self {
        let (queue, asked) = mpsc::channel(WAITING);
        let timeout = settings.timeout;
        tokio::spawn(keep(settings, asked));
        Self { queue, timeout }
    }

    /// Counts hits, each by itself.
    ///
    /// # Errors
    /// Redis cannot be reached, or does not answer in time.
    pub async fn count(&self, hits: &[Hit], now: Duration) -> Result<Vec<Counted>, Unavailable> {
        let mut bytes = Vec::new();
        for hit in hits {
            let ttl = hit.end.saturating_sub(now.as_secs()) + KEPT;
            resp::command(&mut bytes, &["INCRBY", &hit.key, &hit.hits.to_string()]);
            resp::command(&mut bytes, &["EXPIRE", &hit.key, &ttl.to_string()]);
        }
        let replies = self.ask(bytes, hits.len() * 2).await?;
        let mut counted = Vec::new();
        let mut back = Vec::new();
        for (hit, pair) in hits.iter().zip(replies.chunks(2)) {
            let after = match &pair[0] {
                Reply::Integer(after) => u64::try_from(*after).unwrap_or(0),
                Reply::Error(words) | Reply::Text(words) => {
                    return Err(Unavailable(format!("Redis says {words:?}")));
                }
            };
            let before = after.saturating_sub(hit.hits);
            let granted = after <= hit.limit;
            if !granted && hit.hits > 1 && before < hit.limit {
                back.push(hit);
            }
            counted.push(Counted {
                granted,
                before,
                left: hit
                    .limit
                    .saturating_sub(if granted { after } else { before }),
            });
        }
        if !back.is_empty() {
            let mut bytes = Vec::new();
            for hit in &back {
                let ttl = hit.end.saturating_sub(now.as_secs()) + KEPT;
                resp::command(&mut bytes, &["DECRBY", &hit.key, &hit.hits.to_string()]);
                resp::command(&mut bytes, &["EXPIRE", &hit.key, &ttl.to_string()]);
            }
            // When it fails, less is left than could be: the limit holds all the same.
            let _ = self.ask(bytes, back.len() * 2).await;
        }
        Ok(counted)
    }

    async fn ask(&self, bytes: Vec<u8>, replies: usize) -> Result<Vec<Reply>, Unavailable> {
        let (answer, answered) = oneshot::channel();
        let ask = Ask {
            bytes,
            replies,
            answer,
        };
        self.queue
            .try_send(ask)
            .map_err(|_| Unavailable("too many requests wait for Redis".to_owned()))?;
        match tokio::time::timeout(self.timeout, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(Unavailable("the connection to Redis ended".to_owned())),
            Err(_) => Err(Unavailable("Redis did not answer in time".to_owned())),
        }
    }
}

/// Connects, again and again, until nobody asks any more. Who asks while there is no connection gets to know at once.
async fn keep(settings: Settings, mut asked: mpsc::Receiver<Ask>) {
    let mut backoff = Backoff::new(Duration::from_millis(50), LONGEST_DELAY);
    let mut known = false;
    loop {
        let connecting = connect(&settings);
        let why = match refusing(&mut asked, "is being connected", connecting).await {
            None => return,
            Some(Ok(stream)) => {
                tracing::info!("connected to Redis at {}", settings.address);
                backoff.reset();
                known = false;
                match run(stream, &mut asked).await {
                    None => return,
                    Some(why) => why,
                }
            }
            Some(Err(why)) => why,
        };
        if !known {
            tracing::warn!("Redis at {}: {why}; it is tried again", settings.address);
            known = true;
        }
        let pause = tokio::time::sleep(backoff.next_delay());
        if refusing(&mut asked, &why, pause).await.is_none() {
            return;
        }
    }
}

/// Waits for `work`, while those who ask are told why they get nothing. Absent: nobody can ask any more.
async fn refusing<T>(
    asked: &mut mpsc::Receiver<Ask>,
    why: &str,
    work: impl Future<Output = T>,
) -> Option<T> {
    tokio::pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return Some(done),
            ask = asked.recv() => {
                let words = format!("Redis cannot be reached: {why}");
                let _ = ask?.answer.send(Err(Unavailable(words)));
            }
        }
    }
}

async fn connect(settings: &Settings) -> Result<TcpStream, String> {
    let connecting = async {
        let mut stream = TcpStream::connect(&settings.address).await?;
        stream.set_nodelay(true)?;
        let mut hello = Vec::new();
        if let Some(password) = &settings.password {
            resp::command(&mut hello, &["AUTH", password]);
        }
        resp::command(&mut hello, &["PING"]);
        stream.write_all(&hello).await?;
        let mut buffer = BytesMut::new();
        for _ in 0..1 + usize::from(settings.password.is_some()) {
            loop {
                match resp::reply(&mut buffer).map_err(std::io::Error::other)? {
                    Some(Reply::Error(words)) => return Err(std::io::Error::other(words)),
                    Some(_) => break,
                    None if stream.read_buf(&mut buffer).await? == 0 => {
                        return Err(std::io::ErrorKind::UnexpectedEof.into());
                    }
                    None => {}
                }
            }
        }
        Ok(stream)
    };
    match tokio::time::timeout(CONNECT, connecting).await {
        Ok(connected) => connected.map_err(|error| error.to_string()),
        Err(_) => Err("it does not answer".to_owned()),
    }
}

/// Uses a connection until it ends, and says why it did. Absent: nobody can ask any more.
async fn run(stream: TcpStream, asked: &mut mpsc::Receiver<Ask>) -> Option<String> {
    let (mut reader, mut writer) = stream.into_split();
    let mut waiting = VecDeque::new();
    let mut buffer = BytesMut::new();
    let mut batch = Vec::new();
    loop {
        tokio::select! {
            taken = asked.recv_many(&mut batch, BATCH) => {
                if taken == 0 {
                    return None;
                }
                if waiting.len() > WAITING {
                    return Some("it does not answer any more".to_owned());
                }
                let mut bytes = Vec::new();
                for ask in batch.drain(..) {
                    bytes.extend_from_slice(&ask.bytes);
                    waiting.push_back((Vec::with_capacity(ask.replies), ask));
                }
                if let Err(error) = writer.write_all(&bytes).await {
                    return Some(error.to_string());
                }
            }
            read = reader.read_buf(&mut buffer) => match read {
                Ok(0) => return Some("it ended the connection".to_owned()),
                Ok(_) => {
                    if let Err(malformed) = deliver(&mut buffer, &mut waiting) {
                        return Some(malformed.to_string());
                    }
                }
                Err(error) => return Some(error.to_string()),
            },
        }
    }
}

fn deliver(
    buffer: &mut BytesMut,
    waiting: &mut VecDeque<(Vec<Reply>, Ask)>,
) -> Result<(), resp::Malformed> {
    while let Some(reply) = resp::reply(buffer)? {
        let Some((replies, ask)) = waiting.front_mut() else {
            return Err(resp::Malformed(
                "an answer that nobody asked for".to_owned(),
            ));
        };
        replies.push(reply);
        if replies.len() == ask.replies
            && let Some((replies, ask)) = waiting.pop_front()
        {
            let _ = ask.answer.send(Ok(replies));
        }
    }
    Ok(())
}
