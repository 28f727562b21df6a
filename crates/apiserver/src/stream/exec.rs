//! `exec` and `attach`: one command's standard streams over numbered channels.
//!
//! Channels 0–4 are stdin, stdout, stderr, error (a `Status`) and resize (Kubernetes: `remotecommand` protocols).
//! Version 5 adds message 255, by which the client closes a channel.

mod channels;

use super::spdy::session::{self, Opened};
use super::target;
use super::upgrade::{Message, Offer, Sink, Stream, negotiate, switch, websocket};
use crate::error::ApiError;
use crate::pods::{AttachOptions, ExecOptions, Execution, PodAccess};
use crate::target::Query;
use crate::wire::Body;
use bytes::{BufMut, Bytes, BytesMut};
use channels::{ERROR, Input, STDERR, STDIN, STDOUT, input};
use futures::{SinkExt, StreamExt};
use http::{Request, Response};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

const WEBSOCKET: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];
const SPDY: [&str; 1] = ["v4.channel.k8s.io"];
/// Messages in flight each way. 256 of 32 KiB let a client fill a slow command's stdin without losing its pings.
const INWARD: usize = 256;
const OUTWARD: usize = 16;
/// How long a SPDY client may take to open its streams (Kubernetes: 30 s).
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs a command in a container and connects its streams to the client. The error is answered as `Status`.
pub async fn exec<B>(
    request: Request<B>,
    pods: Arc<dyn PodAccess>,
    pod: &Value,
) -> Result<Response<Body>, ApiError> {
    let query = Query::parse(request.uri().query());
    let target = target(pod, query.text("container"))?;
    let wanted = Wanted::read(&query)?;
    let command: Vec<String> = query.all("command").map(str::to_owned).collect();
    if command.is_empty() {
        return Err(ApiError::bad_request(
            "you must specify at least 1 command for the container",
        ));
    }
    let offer = negotiate(&request, &WEBSOCKET, &SPDY)?;
    let options = ExecOptions {
        command,
        stdin: wanted.stdin,
        tty: wanted.tty,
    };
    let execution = pods.exec(target, options).await?;
    connect(request, offer, wanted, execution)
}

/// Connects the client to the standard streams of a container's own program.
pub async fn attach<B>(
    request: Request<B>,
    pods: Arc<dyn PodAccess>,
    pod: &Value,
) -> Result<Response<Body>, ApiError> {
    let query = Query::parse(request.uri().query());
    let target = target(pod, query.text("container"))?;
    let wanted = Wanted::read(&query)?;
    let offer = negotiate(&request, &WEBSOCKET, &SPDY)?;
    let options = AttachOptions {
        stdin: wanted.stdin,
        tty: wanted.tty,
    };
    let execution = pods.attach(target, options).await?;
    connect(request, offer, wanted, execution)
}

/// Which streams the client asked for.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
}

impl Wanted {
    fn read(query: &Query) -> Result<Self, ApiError> {
        let (stdin, stdout) = (query.flag("stdin"), query.flag("stdout"));
        let (stderr, tty) = (query.flag("stderr"), query.flag("tty"));
        if !(stdin || stdout || stderr) {
            return Err(ApiError::bad_request(
                "you must specify at least 1 of stdin, stdout, stderr",
            ));
        }
        Ok(Self {
            stdin,
            stdout,
            stderr: stderr && !tty,
            tty,
        })
    }

    fn takes(self, channel: u8) -> bool {
        match channel {
            STDOUT => self.stdout,
            STDERR => self.stderr,
            _ => true,
        }
    }
}

fn connect<B>(
    request: Request<B>,
    offer: Offer,
    wanted: Wanted,
    execution: Execution,
) -> Result<Response<Body>, ApiError> {
    switch(request, offer, move |io| async move {
        let (inward, inlet) = mpsc::channel(INWARD);
        let (outlet, outward) = mpsc::channel(OUTWARD);
        let run = channels::run(execution, inlet, outlet);
        match offer {
            Offer::WebSocket(protocol) => {
                let (sink, stream) = websocket(io).await;
                let reader = tokio::spawn(read_messages(stream, protocol == WEBSOCKET[0], inward));
                tokio::join!(run, write_messages(sink, outward, wanted));
                reader.abort();
            }
            Offer::Spdy(_) => {
                let mut session = session::start_raw(io);
                let Some(streams) = collect(&mut session, wanted).await else {
                    return;
                };
                let ids = streams
                    .iter()
                    .map(|(kind, opened)| (kind.clone(), opened.id))
                    .collect();
                let reader = tokio::spawn(read_streams(streams, inward));
                tokio::join!(run, write_streams(&session, ids, outward, wanted));
                session.close().await;
                reader.abort();
            }
        }
    })
}

// === over WebSocket ===

async fn read_messages(mut stream: Stream, closes: bool, inward: mpsc::Sender<Input>) {
    while let Some(Ok(message)) = stream.next().await {
        let bytes: Bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Close(_) => return,
            _ => continue,
        };
        let next = match bytes.split_first() {
            Some((255, [STDIN])) if closes => Some(Input::StdinClosed),
            Some((channel, _)) => input(*channel, bytes.slice(1..)),
            None => None,
        };
        if let Some(next) = next
            && inward.send(next).await.is_err()
        {
            return;
        }
    }
}

async fn write_messages(mut sink: Sink, mut outward: mpsc::Receiver<(u8, Bytes)>, wanted: Wanted) {
    while let Some((channel, bytes)) = outward.recv().await {
        if !wanted.takes(channel) {
            continue;
        }
        let mut message = BytesMut::with_capacity(bytes.len() + 1);
        message.put_u8(channel);
        message.extend_from_slice(&bytes);
        if sink.send(Message::Binary(message.freeze())).await.is_err() {
            return;
        }
    }
    // Readers of both clients end at a normal close and take anything else for a failure.
    let close = CloseFrame {
        code: CloseCode::Normal,
        reason: "".into(),
    };
    let _ = sink.send(Message::Close(Some(close))).await;
    let _ = sink.close().await;
}

// === over SPDY ===

/// The streams by type, once the client has opened all that its query promised.
async fn collect(
    session: &mut session::Session,
    wanted: Wanted,
) -> Option<HashMap<String, Opened>> {
    let mut missing = vec!["error"];
    for (asked, kind) in [
        (wanted.stdin, "stdin"),
        (wanted.stdout, "stdout"),
        (wanted.stderr, "stderr"),
        (wanted.tty, "resize"),
    ] {
        missing.extend(asked.then_some(kind));
    }
    let all = async {
        let mut streams = HashMap::new();
        while !missing.is_empty() {
            let opened = session.accept().await?;
            let kind = opened.header("streamtype")?.to_owned();
            missing.retain(|one| *one != kind);
            streams.insert(kind, opened);
        }
        Some(streams)
    };
    tokio::time::timeout(PATIENCE, all).await.ok().flatten()
}

async fn read_streams(mut streams: HashMap<String, Opened>, inward: mpsc::Sender<Input>) {
    let closed = streams.get("error").map(|opened| opened.reset.clone());
    let stdin = streams.remove("stdin");
    let resize = streams.remove("resize");
    let feed = async |opened: Option<Opened>, channel: u8| {
        let Some(mut opened) = opened else { return };
        while let Some(bytes) = opened.data.recv().await {
            if let Some(next) = input(channel, bytes)
                && inward.send(next).await.is_err()
            {
                return;
            }
        }
        if channel == STDIN {
            let _ = inward.send(Input::StdinClosed).await;
        }
    };
    tokio::join!(feed(stdin, STDIN), feed(resize, channels::RESIZE));
    // The sender must live as long as the connection: its end means that the client is gone.
    if let Some(closed) = closed {
        closed.cancelled().await;
    }
}

async fn write_streams(
    session: &session::Session,
    ids: HashMap<String, u32>,
    mut outward: mpsc::Receiver<(u8, Bytes)>,
    wanted: Wanted,
) {
    let names = [(STDOUT, "stdout"), (STDERR, "stderr"), (ERROR, "error")];
    while let Some((channel, bytes)) = outward.recv().await {
        let name = names
            .iter()
            .find(|(one, _)| *one == channel)
            .map(|(_, name)| *name)
            .unwrap_or_default();
        if let Some(id) = ids.get(name).filter(|_| wanted.takes(channel))
            && !session.data(*id, &bytes, false).await
        {
            return;
        }
    }
    for id in ids.values() {
        session.data(*id, &[], true).await;
    }
}
