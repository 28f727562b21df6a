//! The sending end of a connection.

use super::guard::Guarded;
pub use super::h1::client::One;
use super::{Body, EngineError, Incoming, Limits, Local, Version, Violation, violation};
use crate::stream::Stream;
use http::header::HOST;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderName, HeaderValue, Method, Request, Response, Uri, request};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::any::Any;
use std::time::Duration;

/// Sends requests on one connection. HTTP/2 senders are cheap to clone and may be used at once.
#[derive(Debug)]
pub enum Sender {
    /// One request at a time.
    Http1(One),
    /// Many at once.
    Http2(http2::SendRequest<Body>),
}

/// A request on its way out. Its head is only borrowed: another try may need it.
#[derive(Debug)]
pub struct Outgoing<'a> {
    /// Its head, with `Host`. HTTP/1 gets the path as its target, a length or chunks as the body has it, and cookies in one
    /// header; HTTP/2 gets the host as its authority. Hop-by-hop headers are the caller's.
    pub head: &'a request::Parts,
    /// Headers of this try alone, instead of any of the same name.
    pub set: &'a [(HeaderName, HeaderValue)],
    /// What HTTP/2 says of the connection.
    pub scheme: Scheme,
    /// The body.
    pub body: Body,
}

impl Outgoing<'_> {
    fn into_http2(self) -> Request<Body> {
        let mut head = self.head.clone();
        for (name, value) in self.set {
            head.headers.insert(name, value.clone());
        }
        head.version = http::Version::HTTP_2;
        let mut parts = std::mem::take(&mut head.uri).into_parts();
        let host = head.headers.remove(HOST);
        if parts.authority.is_none() {
            parts.authority = host.and_then(|host| Authority::from_maybe_shared(host).ok());
        }
        if head.method != Method::CONNECT {
            parts.scheme = Some(self.scheme);
            parts
                .path_and_query
                .get_or_insert(PathAndQuery::from_static("/"));
        }
        // The parts come from a valid URI; should the rest not fit together, the path alone always does.
        let path = parts.path_and_query.clone();
        head.uri =
            Uri::from_parts(parts).unwrap_or_else(|_| path.map(Uri::from).unwrap_or_default());
        Request::from_parts(head, self.body)
    }
}

/// A request got no response.
#[derive(Debug)]
pub struct SendFailure {
    /// No byte of the request has left: it may be sent again whatever it is.
    pub unsent: bool,
    /// The peer said that it has not looked at the request (HTTP/2: REFUSED_STREAM, or GOAWAY with a smaller stream id).
    pub refused: bool,
    /// What happened.
    pub error: EngineError,
}

impl SendFailure {
    /// Nothing of the request has left.
    pub(super) fn unsent(error: EngineError) -> Self {
        Self {
            unsent: true,
            refused: false,
            error,
        }
    }

    /// What the peer did against HTTP, when that is why there is no response: it is the peer's fault, nothing of its
    /// answer is used, and the connection is gone.
    pub fn violation(&self) -> Option<Violation> {
        violation(&self.error)
    }
}

/// What may be asked of a connection beside its limits.
#[derive(Default)]
pub struct Terms {
    /// Time between pings of HTTP/2, and how long an answer may take; also while no request is under way. Absent: a ping
    /// a minute while there are requests.
    pub ping: Option<(Duration, Duration)>,
    /// Dropped when the connection has ended.
    pub kept: Option<Box<dyn Any>>,
}

/// Starts an HTTP connection on `stream`; it lasts until the sender is dropped. HTTP/2's engine runs as a local task.
///
/// # Errors
/// The HTTP/2 preface could not be sent.
pub async fn open(
    stream: Stream,
    version: Version,
    limits: &Limits,
) -> Result<Sender, EngineError> {
    open_on(stream, version, limits, Terms::default()).await
}

/// As [`open`], on these terms.
///
/// # Errors
/// The HTTP/2 preface could not be sent.
pub async fn open_on(
    stream: Stream,
    version: Version,
    limits: &Limits,
    terms: Terms,
) -> Result<Sender, EngineError> {
    let Terms { ping, kept } = terms;
    match version {
        Version::Http1 => {
            let io = Guarded::client(stream.hearing_out(), version, limits);
            Ok(Sender::Http1(One::new(io, limits, kept)))
        }
        Version::Http2 => {
            let io = TokioIo::new(Guarded::client(stream, version, limits));
            let (sender, connection) = http2::Builder::new(Local)
                .timer(TokioTimer::new())
                .initial_stream_window_size(limits.stream_window)
                .initial_connection_window_size(limits.connection_window)
                .max_frame_size(limits.frame)
                .max_header_list_size(limits.head_bytes)
                .max_send_buf_size(limits.send_buffer)
                .keep_alive_interval(ping.map_or(Duration::from_secs(60), |(every, _)| every))
                .keep_alive_timeout(ping.map_or(Duration::from_secs(20), |(_, bound)| bound))
                .keep_alive_while_idle(ping.is_some())
                .handshake(io)
                .await?;
            tokio::task::spawn_local(async move {
                drop(connection.await);
                drop(kept);
            });
            Ok(Sender::Http2(sender))
        }
    }
}

impl Sender {
    /// Sends one request and waits for the response's head. Its head gets the form that this connection's version wants
    /// (see [`Outgoing`]). Dropping the future gives the request up; on HTTP/1 that ends the connection.
    ///
    /// # Errors
    /// The connection ended before a response came.
    pub async fn send(&mut self, request: Outgoing<'_>) -> Result<Response<Incoming>, SendFailure> {
        match self {
            Self::Http1(one) => one.send(request).await,
            Self::Http2(sender) => shared(sender, request.into_http2()).await,
        }
    }

    /// Sends a request that is not needed again. On HTTP/2 its head must have that form already, and is sent as it is.
    ///
    /// # Errors
    /// As [`Sender::send`].
    pub async fn request(
        &mut self,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, SendFailure> {
        let one = match self {
            Self::Http1(one) => one,
            Self::Http2(sender) => return shared(sender, request).await,
        };
        let (head, body) = request.into_parts();
        let request = Outgoing {
            head: &head,
            set: &[],
            scheme: Scheme::HTTP,
            body,
        };
        one.send(request).await
    }

    /// Whether a request can be sent at once.
    pub fn is_ready(&self) -> bool {
        match self {
            Self::Http1(one) => one.is_ready(),
            Self::Http2(sender) => sender.is_ready(),
        }
    }

    /// Waits until the connection can take another request, or has ended (`false`).
    pub async fn ready(&mut self) -> bool {
        match self {
            Self::Http1(one) => one.ready().await,
            Self::Http2(sender) => sender.ready().await.is_ok(),
        }
    }

    /// Another handle to the same connection, where the version can share it.
    pub fn share(&self) -> Option<Self> {
        match self {
            Self::Http1(_) => None,
            Self::Http2(sender) => Some(Self::Http2(sender.clone())),
        }
    }
}

async fn shared(
    sender: &mut http2::SendRequest<Body>,
    request: Request<Body>,
) -> Result<Response<Incoming>, SendFailure> {
    let sent = sender.try_send_request(request).await;
    let response = sent.map_err(|mut failure| {
        let unsent = failure.take_message().is_some();
        let error = failure.into_error();
        SendFailure {
            unsent,
            refused: is_refused(&error),
            error: error.into(),
        }
    })?;
    Ok(response.map(Incoming::two))
}

// RFC 9113 §8.7: such a request was not processed and is safe to send again.
fn is_refused(error: &hyper::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        if let Some(h2) = inner.downcast_ref::<h2::Error>() {
            return h2.reason() == Some(h2::Reason::REFUSED_STREAM)
                || (h2.is_go_away()
                    && h2.is_remote()
                    && h2.reason() == Some(h2::Reason::NO_ERROR));
        }
        cause = inner.source();
    }
    false
}
