//! Everything that an access-log line can say about one request or one connection.

use http::{HeaderName, HeaderValue, Method};
use lateen_base::Str;
use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

/// One finished request, or one finished TCP connection (then `method` and `protocol` are absent).
#[derive(Debug, Clone)]
pub struct Record {
    /// When it began.
    pub started: SystemTime,
    /// From its beginning to its last byte.
    pub duration: Duration,
    /// `HTTP/1.1`, `HTTP/2`, …; absent for TCP.
    pub protocol: Option<&'static str>,
    /// Request method.
    pub method: Option<Method>,
    /// Path with query, as the client sent it.
    pub path: Option<String>,
    /// Path as sent upstream, when it was rewritten.
    pub rewritten_path: Option<String>,
    /// Authority as the client sent it.
    pub authority: Option<Str>,
    /// Request headers that the log's format asks for.
    pub request_headers: Vec<(HeaderName, HeaderValue)>,
    /// Response headers that the log's format asks for.
    pub response_headers: Vec<(HeaderName, HeaderValue)>,
    /// Status; 0 when the client got none.
    pub code: u16,
    /// gRPC status, when the response carries one.
    pub grpc_status: Option<u16>,
    /// Envoy's response flags, joined by commas; empty when there is none.
    pub flags: Cow<'static, str>,
    /// What made the response (`via_upstream`, `route_not_found`, …); empty when unknown.
    pub details: Cow<'static, str>,
    /// Why a connection was ended by us; empty when it was not.
    pub termination: Cow<'static, str>,
    /// Why no upstream connection came about; empty when one did.
    pub transport_failure: Cow<'static, str>,
    /// Body bytes from the client; for TCP all bytes.
    pub received: u64,
    /// Body bytes to the client; for TCP all bytes.
    pub sent: u64,
    /// Endpoint that served it.
    pub upstream_host: Option<SocketAddr>,
    /// Cluster it was sent to; empty when none.
    pub cluster: Str,
    /// Our address towards the endpoint.
    pub upstream_local: Option<SocketAddr>,
    /// Address that the client connected to.
    pub local: Option<SocketAddr>,
    /// The client's address.
    pub remote: Option<SocketAddr>,
    /// Server name in the client's TLS hello; empty when none.
    pub server_name: Str,
    /// Name of the route; empty when none.
    pub route: Str,
    /// Tries made upstream.
    pub attempts: u32,
}

thread_local! {
    static EMPTY: Str = Str::from("");
}

impl Record {
    /// A record of something that begins now, with nothing known yet.
    pub fn begin() -> Self {
        let none = EMPTY.with(Str::clone);
        Self {
            started: SystemTime::now(),
            duration: Duration::ZERO,
            protocol: None,
            method: None,
            path: None,
            rewritten_path: None,
            authority: None,
            request_headers: Vec::new(),
            response_headers: Vec::new(),
            code: 0,
            grpc_status: None,
            flags: Cow::Borrowed(""),
            details: Cow::Borrowed(""),
            termination: Cow::Borrowed(""),
            transport_failure: Cow::Borrowed(""),
            received: 0,
            sent: 0,
            upstream_host: None,
            cluster: none.clone(),
            upstream_local: None,
            local: None,
            remote: None,
            server_name: none.clone(),
            route: none,
            attempts: 0,
        }
    }
}
