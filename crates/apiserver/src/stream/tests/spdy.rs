//! SPDY, and forwarding of ports over it and over channels.

use super::super::spdy::{Decoder, Encoder, Frame, data, ping, reset};
use super::*;

/// A SPDY client inside a WebSocket or on a raw connection.
struct Spdy {
    tunnel: Option<Client>,
    raw: Option<TokioIo<hyper::upgrade::Upgraded>>,
    decoder: Decoder,
    encoder: Encoder,
}

impl Spdy {
    async fn tunnel(port: u16) -> Self {
        let client = websocket(port, "/portforward", "SPDY/3.1+portforward.k8s.io").await;
        Self {
            tunnel: Some(client),
            raw: None,
            decoder: Decoder::default(),
            encoder: Encoder::new(),
        }
    }

    async fn raw(port: u16, uri: &str, protocol: &str) -> Self {
        let mut response = send(port, uri, &format!("spdy:{protocol}")).await;
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        let raw = TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap());
        Self {
            tunnel: None,
            raw: Some(raw),
            decoder: Decoder::default(),
            encoder: Encoder::new(),
        }
    }

    async fn send(&mut self, frame: Bytes) {
        match (&mut self.tunnel, &mut self.raw) {
            (Some(tunnel), _) => tunnel.send(Message::Binary(frame)).await.unwrap(),
            (_, Some(raw)) => raw.write_all(&frame).await.unwrap(),
            _ => unreachable!(),
        }
    }

    async fn open(&mut self, stream: u32, headers: &[(&str, &str)]) {
        let frame = self.encoder.open(stream, headers, false);
        self.send(frame).await;
    }

    /// Opens error and data streams of a connection as kubectl does: the error stream is closed at once.
    async fn connect(&mut self, error: u32, port: &str) {
        let id = error.to_string();
        self.open(
            error,
            &[("streamtype", "error"), ("port", port), ("requestid", &id)],
        )
        .await;
        self.send(data(error, &[], true)).await;
        self.open(
            error + 2,
            &[("streamtype", "data"), ("port", port), ("requestid", &id)],
        )
        .await;
    }

    /// What comes on streams until all of `until` are finished.
    async fn finish(&mut self, until: &[u32]) -> std::collections::BTreeMap<u32, String> {
        let mut open = until.to_vec();
        let mut texts = std::collections::BTreeMap::new();
        while !open.is_empty() {
            while let Some(frame) = self.decoder.next().unwrap() {
                if let Frame::Data {
                    stream,
                    bytes,
                    finished,
                } = frame
                {
                    let text: &mut String = texts.entry(stream).or_default();
                    text.push_str(std::str::from_utf8(&bytes).unwrap());
                    open.retain(|one| !(finished && *one == stream));
                }
            }
            if !open.is_empty() {
                let bytes = self.read().await;
                self.decoder.feed(&bytes);
            }
        }
        texts
    }

    async fn read(&mut self) -> Bytes {
        match (&mut self.tunnel, &mut self.raw) {
            (Some(tunnel), _) => match tunnel.next().await.unwrap().unwrap() {
                Message::Binary(bytes) => bytes,
                other => panic!("{other:?}"),
            },
            (_, Some(raw)) => {
                let mut buffer = vec![0; 4096];
                let count = raw.read(&mut buffer).await.unwrap();
                assert!(count > 0, "the server closed");
                Bytes::copy_from_slice(&buffer[..count])
            }
            _ => unreachable!(),
        }
    }
}

/// The conversation that kubectl has, whatever carries it.
async fn forward(mut client: Spdy) {
    client.connect(1, "80").await;
    client.connect(5, "81").await;
    client.connect(9, "82").await;
    let long = "y".repeat(50_000);
    client.send(data(3, long.as_bytes(), false)).await;
    client.send(data(3, b" end", true)).await;
    let texts = client.finish(&[1, 3, 5, 7, 9, 11]).await;
    assert_eq!(
        texts[&3],
        format!("{long} end"),
        "echoed after the client's half close"
    );
    assert_eq!(
        (texts[&1].as_str(), texts[&7].as_str()),
        ("", "hello from 81")
    );
    assert_eq!(
        texts[&9],
        "error forwarding port 82 to pod p: connection refused"
    );

    // A reset ends the connection, and the error stream with it; the others go on.
    client.connect(13, "80").await;
    client.send(reset(15, 5)).await;
    client.connect(17, "80").await;
    client.send(data(19, b"still here", true)).await;
    let texts = client.finish(&[13, 17, 19]).await;
    assert_eq!(texts[&19], "still here");

    client.send(ping(21)).await;
    loop {
        match client.decoder.next().unwrap() {
            Some(Frame::Ping { id }) => break assert_eq!(id, 21),
            Some(_) => {}
            None => {
                let bytes = client.read().await;
                client.decoder.feed(&bytes);
            }
        }
    }
}

#[tokio::test]
async fn port_forward_through_the_tunnel() {
    let (port, _deaths) = server().await;
    forward(Spdy::tunnel(port).await).await;
}

#[tokio::test]
async fn port_forward_over_raw_spdy() {
    let (port, _deaths) = server().await;
    forward(Spdy::raw(port, "/portforward", "portforward.k8s.io").await).await;
}

#[tokio::test]
async fn exec_over_spdy() {
    let (port, mut deaths) = server().await;
    let mut client = Spdy::raw(
        port,
        "/exec?stdin=true&stdout=true&command=cat",
        "v4.channel.k8s.io",
    )
    .await;
    for (stream, kind) in [(1, "error"), (3, "stdin"), (5, "stdout")] {
        client.open(stream, &[("streamtype", kind)]).await;
    }
    client.send(data(3, b"through spdy", true)).await;
    let texts = client.finish(&[1, 5]).await;
    assert_eq!(texts[&5], "through spdy");
    assert!(texts[&1].contains("Success"), "{}", texts[&1]);

    let mut client = Spdy::raw(
        port,
        "/exec?stdout=true&command=forever",
        "v4.channel.k8s.io",
    )
    .await;
    for (stream, kind) in [(1, "error"), (3, "stdout")] {
        client.open(stream, &[("streamtype", kind)]).await;
    }
    drop(client);
    deaths.recv().await.unwrap();
}

#[tokio::test]
async fn port_forward_over_channels() {
    let (port, _deaths) = server().await;
    let mut client = websocket(port, "/portforward?ports=81,82", "v4.channel.k8s.io").await;
    let [greeting, none, empty, error] = drain_pairs(&mut client).await;
    let with_port = |port: u16, text: &str| [&port.to_le_bytes(), text.as_bytes()].concat();
    assert_eq!(greeting, with_port(81, "hello from 81"));
    assert_eq!((none, empty), (with_port(81, ""), with_port(82, "")));
    assert_eq!(
        error,
        with_port(82, "error forwarding port 82 to pod p: connection refused")
    );

    let mut client = websocket(port, "/portforward?ports=80", "v4.channel.k8s.io").await;
    client
        .send(Message::Binary(b"\0echo".to_vec().into()))
        .await
        .unwrap();
    let mut got = Vec::new();
    while !got.ends_with(b"echo") {
        if let Message::Binary(bytes) = client.next().await.unwrap().unwrap()
            && bytes[0] == 0
        {
            got.extend_from_slice(&bytes[1..]);
        }
    }
}

async fn drain_pairs(client: &mut Client) -> [Vec<u8>; 4] {
    let mut channels: [Vec<u8>; 4] = Default::default();
    while let Some(Ok(message)) = client.next().await {
        if let Message::Binary(bytes) = message {
            channels[bytes[0] as usize].extend_from_slice(&bytes[1..]);
        }
    }
    channels
}
