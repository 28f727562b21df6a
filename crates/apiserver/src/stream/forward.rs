//! `portforward`: connections to ports on a pod's loopback, many over one upgraded connection.

use super::CHUNK;
use super::spdy::session::{self, Opened, Session};
use super::spdy::{data, reset};
use super::upgrade::{Message, Offer, Sink, Stream, negotiate, switch, websocket};
use crate::error::ApiError;
use crate::pods::{PodAccess, Reader, Target, Writer};
use crate::target::Query;
use crate::wire::Body;
use bytes::{BufMut, Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use http::{Request, Response};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

/// kubectl's tunnel, and the older channels that kube-rs uses.
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
const CHANNELS: &str = "v4.channel.k8s.io";
const SPDY: &str = "portforward.k8s.io";
/// Ports of one request by channels: their numbers must fit a byte, two for each port.
const MOST_PORTS: usize = 100;
/// Stream pairs of which one half has come.
const MOST_HALVES: usize = 64;

/// Forwards connections into a pod. The error is answered as `Status`.
pub async fn port_forward<B>(
    request: Request<B>,
    pods: Arc<dyn PodAccess>,
    pod: &Value,
) -> Result<Response<Body>, ApiError> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (name, phase) = (
        text(&pod["metadata"]["name"]),
        text(&pod["status"]["phase"]),
    );
    if phase != "Running" {
        return Err(ApiError::bad_request(format!(
            "unable to forward port because pod {name} is not running. Current status={phase}"
        )));
    }
    let target = Target {
        namespace: text(&pod["metadata"]["namespace"]),
        pod: name,
        container: None,
    };
    let offer = negotiate(&request, &[TUNNEL, CHANNELS], &[SPDY])?;
    let ports = if offer == Offer::WebSocket(CHANNELS) {
        ports(&request)?
    } else {
        Vec::new()
    };
    switch(request, offer, move |io| async move {
        match offer {
            Offer::WebSocket(CHANNELS) => {
                let (sink, stream) = websocket(io).await;
                channels(pods, target, ports, sink, stream).await;
            }
            Offer::WebSocket(_) => {
                let (sink, stream) = websocket(io).await;
                streams(session::start_tunnel(sink, stream), pods, target).await;
            }
            Offer::Spdy(_) => streams(session::start_raw(io), pods, target).await,
        }
    })
}

fn ports<B>(request: &Request<B>) -> Result<Vec<u16>, ApiError> {
    let query = Query::parse(request.uri().query());
    let mut ports = Vec::new();
    for text in query.all("ports").flat_map(|all| all.split(',')) {
        let port = text.parse::<u16>().ok().filter(|port| *port > 0);
        ports.push(port.ok_or_else(|| {
            ApiError::bad_request(format!("unable to parse \"{text}\" as a port"))
        })?);
    }
    match ports.len() {
        0 => Err(ApiError::bad_request(
            "query parameter \"ports\" is required",
        )),
        count if count > MOST_PORTS => Err(ApiError::bad_request(format!(
            "at most {MOST_PORTS} ports at a time"
        ))),
        _ => Ok(ports),
    }
}

// === SPDY: a pair of streams, error and data, for each connection ===

async fn streams(mut session: Session, pods: Arc<dyn PodAccess>, target: Target) {
    let mut halves: HashMap<String, Opened> = HashMap::new();
    while let Some(opened) = session.accept().await {
        let id = opened.header("requestid").unwrap_or_default().to_owned();
        let other = halves.remove(&id);
        let is_data = |opened: &Opened| opened.header("streamtype") == Some("data");
        let (data, error) = match other {
            Some(other) if is_data(&other) && !is_data(&opened) => (other, opened),
            Some(other) if !is_data(&other) && is_data(&opened) => (opened, other),
            Some(_) => {
                // The same half twice: neither can be told apart from the other.
                session.sender().send(reset(opened.id, 1)).await.ok();
                continue;
            }
            None if halves.len() >= MOST_HALVES => {
                session.sender().send(reset(opened.id, 3)).await.ok();
                continue;
            }
            None => {
                halves.insert(id, opened);
                continue;
            }
        };
        tokio::spawn(pair(
            pods.clone(),
            target.clone(),
            data,
            error.id,
            session.sender(),
        ));
    }
}

/// One connection: bytes both ways, then the end of both streams; a failure is told on the error stream.
async fn pair(
    pods: Arc<dyn PodAccess>,
    target: Target,
    mut opened: Opened,
    error: u32,
    out: mpsc::Sender<Bytes>,
) {
    let (id, reset) = (opened.id, opened.reset.clone());
    let port = opened
        .header("port")
        .and_then(|port| port.parse::<u16>().ok())
        .unwrap_or_default();
    let work = async {
        match dial(&pods, target, port).await {
            Ok(connection) => {
                carry(connection, &mut opened.data, &out, |bytes| {
                    data(id, bytes, false)
                })
                .await
            }
            Err(why) => {
                out.send(data(error, why.as_bytes(), false)).await.ok();
            }
        }
    };
    tokio::select! {
        () = work => {}
        // The client wants no more of this connection; it still waits for the end of the error stream.
        () = reset.cancelled() => {}
    }
    out.send(data(id, &[], true)).await.ok();
    out.send(data(error, &[], true)).await.ok();
}

/// Copies both ways until the pod has sent all it wants. The client's end of sending is passed on to the pod.
async fn carry(
    (mut reader, mut writer): (Reader, Writer),
    incoming: &mut mpsc::Receiver<Bytes>,
    out: &mpsc::Sender<Bytes>,
    frame: impl Fn(&[u8]) -> Bytes,
) {
    let upload = async {
        while let Some(bytes) = incoming.recv().await {
            if writer.write_all(&bytes).await.is_err() || writer.flush().await.is_err() {
                return;
            }
        }
        let _ = writer.shutdown().await;
    };
    let download = async {
        let mut buffer = vec![0; CHUNK];
        while let Ok(count @ 1..) = reader.read(&mut buffer).await {
            if out.send(frame(&buffer[..count])).await.is_err() {
                return;
            }
        }
    };
    let mut download = std::pin::pin!(download);
    tokio::select! {
        () = &mut download => {}
        () = upload => download.await,
    }
}

/// A connection into the pod, or the sentence for the client.
async fn dial(
    pods: &Arc<dyn PodAccess>,
    target: Target,
    port: u16,
) -> Result<(Reader, Writer), String> {
    let failed = format!("error forwarding port {port} to pod {}", target.pod);
    pods.connect(target, port)
        .await
        .map_err(|error| format!("{failed}: {error}"))
}

// === channels: data and error of port n are channels 2n and 2n+1 ===

async fn channels(
    pods: Arc<dyn PodAccess>,
    target: Target,
    ports: Vec<u16>,
    sink: Sink,
    stream: Stream,
) {
    let (out, frames) = mpsc::channel::<Bytes>(32);
    let mut inlets = Vec::new();
    let mut work = tokio::task::JoinSet::new();
    for (index, port) in ports.into_iter().enumerate() {
        let (inlet, data) = mpsc::channel(32);
        inlets.push(inlet);
        // Fits: there are at most 100 ports.
        let channel = (index * 2) as u8;
        work.spawn(channel_pair(
            pods.clone(),
            target.clone(),
            port,
            channel,
            (data, out.clone()),
        ));
    }
    drop(out);
    let writer = tokio::spawn(write_frames(sink, frames));
    tokio::select! {
        () = read_frames(stream, inlets) => work.abort_all(),
        () = async { while work.join_next().await.is_some() {} } => {}
    }
    drop(work);
    let _ = writer.await;
}

async fn channel_pair(
    pods: Arc<dyn PodAccess>,
    target: Target,
    port: u16,
    channel: u8,
    (mut incoming, out): (mpsc::Receiver<Bytes>, mpsc::Sender<Bytes>),
) {
    // Each channel begins with its port, little-endian (Kubernetes: port-forward over WebSocket).
    for channel in [channel, channel + 1] {
        out.send(frame(channel, &port.to_le_bytes())).await.ok();
    }
    match dial(&pods, target, port).await {
        Ok(connection) => {
            carry(connection, &mut incoming, &out, |bytes| {
                frame(channel, bytes)
            })
            .await
        }
        Err(why) => {
            out.send(frame(channel + 1, why.as_bytes())).await.ok();
        }
    }
}

async fn read_frames(mut stream: Stream, inlets: Vec<mpsc::Sender<Bytes>>) {
    while let Some(Ok(message)) = stream.next().await {
        match message {
            Message::Binary(bytes) => {
                let channel = bytes.first().copied().unwrap_or(255) as usize;
                if let Some(inlet) = inlets
                    .get(channel / 2)
                    .filter(|_| channel.is_multiple_of(2) && bytes.len() > 1)
                {
                    let _ = inlet.send(bytes.slice(1..)).await;
                }
            }
            Message::Close(_) => return,
            _ => {}
        }
    }
}

async fn write_frames(mut sink: Sink, mut frames: mpsc::Receiver<Bytes>) {
    while let Some(bytes) = frames.recv().await {
        if sink.send(Message::Binary(bytes)).await.is_err() {
            return;
        }
    }
    let _ = sink.close().await;
}

fn frame(channel: u8, bytes: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(bytes.len() + 1);
    frame.put_u8(channel);
    frame.extend_from_slice(bytes);
    frame.freeze()
}
