//! The server's side of one SPDY connection, over a raw upgraded connection or inside WebSocket messages.
//!
//! A reader task takes frames apart and hands out the peer's streams; a writer task sends frames in order. A stream
//! that nobody reads holds up the others, as it does in Kubernetes: these peers have no flow control.

use super::super::CHUNK;
use super::super::upgrade::{Io, Message, Sink, Stream};
use super::{Decoder, Encoder, Frame, data, ping, reset};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Streams open at once; kubectl opens two for each forwarded connection.
const MOST_STREAMS: usize = 1024;
/// Frames waiting to be sent, and chunks waiting to be read on one stream.
const QUEUE: usize = 32;

/// A running session. Dropping it ends everything.
pub(in super::super) struct Session {
    opened: mpsc::Receiver<Opened>,
    out: mpsc::Sender<Bytes>,
    writer: JoinHandle<()>,
    _ends: DropGuard,
}

/// A stream that the peer opened and that was accepted.
pub(in super::super) struct Opened {
    /// Its number.
    pub(in super::super) id: u32,
    headers: Vec<(String, String)>,
    /// The peer's bytes; ends when the peer finishes its direction.
    pub(in super::super) data: mpsc::Receiver<Bytes>,
    /// Cancelled when the peer resets the stream or the connection ends.
    pub(in super::super) reset: CancellationToken,
    /// Tells the session that somebody still cares for this stream.
    _alive: Arc<()>,
}

/// A session on a raw connection.
pub(in super::super) fn start_raw(io: Io) -> Session {
    let (reader, writer) = tokio::io::split(io);
    start(Incoming::Raw(reader, vec![0; CHUNK]), Outgoing::Raw(writer))
}

/// A session inside the binary messages of a WebSocket.
pub(in super::super) fn start_tunnel(sink: Sink, stream: Stream) -> Session {
    start(Incoming::WebSocket(stream), Outgoing::WebSocket(sink))
}

impl Session {
    /// The next stream that the peer opens; absent when the connection has ended.
    pub(in super::super) async fn accept(&mut self) -> Option<Opened> {
        self.opened.recv().await
    }

    /// Sends bytes on a stream; false when the connection has ended.
    pub(in super::super) async fn data(&self, stream: u32, bytes: &[u8], finished: bool) -> bool {
        self.out.send(data(stream, bytes, finished)).await.is_ok()
    }

    /// A handle by which other tasks send frames.
    pub(in super::super) fn sender(&self) -> mpsc::Sender<Bytes> {
        self.out.clone()
    }

    /// Sends what is waiting and closes the connection. Other senders must be gone.
    pub(in super::super) async fn close(self) {
        let Self {
            out, writer, _ends, ..
        } = self;
        drop(out);
        drop(_ends);
        let _ = writer.await;
    }
}

impl Opened {
    /// A header by its lower-case name.
    pub(in super::super) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(own, _)| own == name)
            .map(|(_, value)| value.as_str())
    }
}

enum Incoming {
    Raw(ReadHalf<Io>, Vec<u8>),
    WebSocket(Stream),
}

enum Outgoing {
    Raw(WriteHalf<Io>),
    WebSocket(Sink),
}

impl Incoming {
    async fn next(&mut self) -> Option<Bytes> {
        match self {
            Self::Raw(reader, buffer) => match reader.read(buffer).await {
                Ok(count) if count > 0 => Some(Bytes::copy_from_slice(&buffer[..count])),
                _ => None,
            },
            Self::WebSocket(stream) => loop {
                match stream.next().await? {
                    Ok(Message::Binary(bytes)) => return Some(bytes),
                    Ok(Message::Ping(_) | Message::Pong(_)) => {}
                    Ok(_) | Err(_) => return None,
                }
            },
        }
    }
}

impl Outgoing {
    async fn send(&mut self, frame: Bytes) -> bool {
        match self {
            Self::Raw(writer) => {
                writer.write_all(&frame).await.is_ok() && writer.flush().await.is_ok()
            }
            Self::WebSocket(sink) => sink.send(Message::Binary(frame)).await.is_ok(),
        }
    }

    async fn close(mut self) {
        match &mut self {
            Self::Raw(writer) => {
                let _ = writer.shutdown().await;
            }
            Self::WebSocket(sink) => {
                let close = CloseFrame {
                    code: CloseCode::Normal,
                    reason: "".into(),
                };
                let _ = sink.send(Message::Close(Some(close))).await;
                let _ = sink.close().await;
            }
        }
    }
}

fn start(incoming: Incoming, mut outgoing: Outgoing) -> Session {
    let ends = CancellationToken::new();
    let (out, mut frames) = mpsc::channel::<Bytes>(QUEUE);
    let (open, opened) = mpsc::channel(QUEUE);
    let reader = Reader {
        open,
        out: out.downgrade(),
        encoder: Encoder::new(),
        streams: HashMap::new(),
        ends: ends.clone(),
    };
    let stop = ends.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = reader.run(incoming) => {}
            () = stop.cancelled() => {}
        }
        stop.cancel();
    });
    let writer = tokio::spawn(async move {
        while let Some(frame) = frames.recv().await {
            if !outgoing.send(frame).await {
                return;
            }
        }
        outgoing.close().await;
    });
    Session {
        opened,
        out,
        writer,
        _ends: ends.drop_guard(),
    }
}

/// The reading task's state.
struct Reader {
    open: mpsc::Sender<Opened>,
    /// Weak, so that the writer ends with the session and its streams.
    out: mpsc::WeakSender<Bytes>,
    encoder: Encoder,
    streams: HashMap<u32, Entry>,
    ends: CancellationToken,
}

struct Entry {
    /// Absent once the peer has finished its direction.
    data: Option<mpsc::Sender<Bytes>>,
    reset: CancellationToken,
    alive: Weak<()>,
}

impl Reader {
    async fn run(mut self, mut incoming: Incoming) {
        let mut decoder = Decoder::default();
        while let Some(bytes) = incoming.next().await {
            decoder.feed(&bytes);
            loop {
                match decoder.next() {
                    Ok(None) => break,
                    Ok(Some(frame)) => {
                        if !self.take(frame).await {
                            return;
                        }
                    }
                    Err(error) => {
                        tracing::info!(%error, "closing a SPDY connection");
                        return;
                    }
                }
            }
        }
    }

    /// Handles a frame; false when the session is over.
    async fn take(&mut self, frame: Frame) -> bool {
        match frame {
            Frame::Open {
                stream,
                headers,
                finished,
            } => return self.accept(stream, headers, finished).await,
            Frame::Data {
                stream,
                bytes,
                finished,
            } => {
                if let Some(entry) = self.streams.get_mut(&stream) {
                    if let Some(sender) = entry.data.as_ref().filter(|_| !bytes.is_empty()) {
                        // Fails when the reader of the stream is done with it; then nobody wants the bytes.
                        let _ = sender.send(bytes).await;
                    }
                    if finished {
                        entry.data = None;
                    }
                }
            }
            Frame::Reset { stream } => {
                if let Some(entry) = self.streams.remove(&stream) {
                    entry.reset.cancel();
                }
            }
            // Even numbers answer pings of ours, of which there are none.
            Frame::Ping { id } if id % 2 == 1 => return self.send(ping(id)).await,
            Frame::Ping { .. } | Frame::Reply { .. } | Frame::GoAway | Frame::Other => {}
        }
        true
    }

    async fn accept(
        &mut self,
        stream: u32,
        headers: Vec<(String, String)>,
        finished: bool,
    ) -> bool {
        self.streams
            .retain(|_, entry| entry.alive.strong_count() > 0);
        if self.streams.len() >= MOST_STREAMS || self.streams.contains_key(&stream) {
            return self.send(reset(stream, 3)).await;
        }
        let (sender, data) = mpsc::channel(QUEUE);
        let reset = self.ends.child_token();
        let alive = Arc::new(());
        let entry = Entry {
            data: (!finished).then_some(sender),
            reset: reset.clone(),
            alive: Arc::downgrade(&alive),
        };
        self.streams.insert(stream, entry);
        let reply = self.encoder.reply(stream);
        let opened = Opened {
            id: stream,
            headers,
            data,
            reset,
            _alive: alive,
        };
        self.send(reply).await && self.open.send(opened).await.is_ok()
    }

    async fn send(&self, frame: Bytes) -> bool {
        match self.out.upgrade() {
            Some(out) => out.send(frame).await.is_ok(),
            None => false,
        }
    }
}
