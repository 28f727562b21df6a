//! Plays a case to one proxy: each call on a connection of its own, one after the other.

use crate::case::{Call, Case};
use crate::seen::{CALL, Seen, headers};
use crate::upstream::Upstreams;
use anyhow::{Context as _, Result};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// How long a proxy may take for one call.
const PATIENCE: Duration = Duration::from_secs(20);

/// What each call of the case came to, repeated ones each time.
pub async fn play(case: &Case, port: u16, upstreams: &Upstreams) -> Result<Vec<Vec<Seen>>> {
    let mut all = Vec::new();
    for (at, call) in case.calls.iter().enumerate() {
        let mut same = Vec::new();
        for _ in 0..call.repeat {
            let seen = one(case, call, port, upstreams)
                .await
                .with_context(|| format!("call {}", at + 1))?;
            same.push(seen);
        }
        all.push(same);
    }
    Ok(all)
}

async fn one(case: &Case, call: &Call, port: u16, upstreams: &Upstreams) -> Result<Seen> {
    let expected = upstreams.expect(&call.upstream);
    let request = request(case, call, &expected.id)?;
    let began = Instant::now();
    let response = tokio::time::timeout(PATIENCE, send(request, call.http2, port))
        .await
        .context("no answer")??;
    let (head, body) = response.into_parts();
    let body = body
        .collect()
        .await
        .context("the answer's body ended early")?;
    let took = began.elapsed();
    let trailers = body.trailers().map(headers).unwrap_or_default();
    let mut requests = expected.requests(call.requests.unwrap_or(0)).await;
    if call.requests.is_some() {
        requests.sort_by(|a, b| a.upstream.cmp(&b.upstream));
    }
    Ok(Seen {
        status: head.status.as_u16(),
        headers: headers(&head.headers),
        body: String::from_utf8_lossy(&body.to_bytes()).into_owned(),
        trailers,
        requests,
        was_slow: call
            .at_least
            .map(|least| took >= Duration::from_millis(least)),
    })
}

fn request(case: &Case, call: &Call, id: &str) -> Result<http::Request<Full<Bytes>>> {
    let authority = case.authority(call);
    let mut request = http::Request::builder().method(call.method.as_str());
    request = match call.http2 {
        true => request.uri(format!("http://{authority}{}", call.path)),
        false => request.uri(&call.path).header("host", authority),
    };
    for (name, lines) in &call.headers {
        for line in lines.all() {
            request = request.header(name, line);
        }
    }
    request = request.header(CALL, id);
    Ok(request.body(Full::new(call.body.clone().into()))?)
}

async fn send(
    request: http::Request<Full<Bytes>>,
    http2: bool,
    port: u16,
) -> Result<http::Response<Incoming>> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.set_nodelay(true)?;
    let stream = TokioIo::new(stream);
    if http2 {
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await?;
        tokio::spawn(connection);
        return Ok(sender.send_request(request).await?);
    }
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
    tokio::spawn(connection);
    Ok(sender.send_request(request).await?)
}
