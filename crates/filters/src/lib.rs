//! What happens to a message's head on its way through: one enum, run in order, each variant in one file; and the
//! pure parts of authentication by tokens and of external authorization.
//!
//! ```text
//! request:  Filter::on_request in chain order -> tokens, policies -> route edits -> upstream
//! response: upstream -> Filter::on_response in chain order -> route edits -> client
//! ```
//! Filters see heads only and never wait. They run before anything is decided, so that policies and routes see a
//! request without what its client may not say.

pub mod client_cert;
pub mod cors;
pub mod edits;
pub mod external;
mod forwarded;
mod hop;
pub mod jwt;
pub mod reply;
mod respond;
pub mod trailers;

pub use respond::number;

use http::{HeaderMap, HeaderValue, request, response};
use lateen_model::decide::plan::Direction;
use lateen_model::mesh::{ForwardClientCert, MeshSettings};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

/// What TLS tells of a connection's client, as far as headers depend on it. Made once per connection.
#[derive(Debug, Clone, Default)]
pub struct Client {
    /// It proved to be a member of the mesh: what proxies tell each other is taken from it.
    pub is_member: bool,
    /// TLS ended here.
    pub is_encrypted: bool,
    /// What is told of the certificate that it showed ([`client_cert::element`]); absent: it showed none.
    pub certificate: Option<HeaderValue>,
}

/// Settings of the mesh for its edge.
#[derive(Debug, Clone, Copy)]
pub struct Edge {
    /// Proxies in front of gateways whose `x-forwarded-for` is believed.
    pub trusted_proxies: u32,
    /// What gateways do with `x-forwarded-client-cert`.
    pub client_cert: ForwardClientCert,
}

impl Edge {
    /// Those of a mesh.
    pub fn of(mesh: &MeshSettings) -> Self {
        Self {
            trusted_proxies: mesh.trusted_proxies,
            client_cert: mesh.forward_client_cert,
        }
    }
}

/// What filters know of the exchange beside the message.
#[derive(Debug, Clone)]
pub struct Context {
    /// Which way the connection goes.
    pub direction: Direction,
    /// The peer's address.
    pub source: SocketAddr,
    /// What TLS tells of the peer.
    pub client: Rc<Client>,
    /// The mesh's settings.
    pub edge: Edge,
    /// For whose pages the answer is marked; absent: nobody's.
    pub cors: Option<cors::Marked>,
    /// Whether the client asks to change the protocol (WebSocket); set by [`Filter::HopByHop`].
    pub upgrade: bool,
    /// Time from sending the request to the response's head; absent when we answer ourselves.
    pub upstream_time: Option<Duration>,
}

impl Context {
    /// A context at the start of a request.
    pub fn new(direction: Direction, source: SocketAddr, client: Rc<Client>, edge: Edge) -> Self {
        Self {
            direction,
            source,
            client,
            edge,
            cors: None,
            upgrade: false,
            upstream_time: None,
        }
    }

    /// The client's address as trusted proxies tell it; the peer's own without such. Ask before filters run.
    pub fn client_address(&self, headers: &HeaderMap) -> IpAddr {
        forwarded::client_address(self, headers)
    }
}

/// One step of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// Headers that concern one connection only do not travel on (RFC 9110 §7.6.1).
    HopByHop,
    /// What only members of the mesh may tell us is removed when others say it.
    Strangers,
    /// The client's address and scheme are noted (Envoy: `use_remote_address`).
    Edge,
    /// `x-forwarded-client-cert`.
    ClientCert,
    /// `x-forwarded-proto` where none is.
    Scheme,
    /// `x-request-id` where none is; at the edge, outside clients' own are replaced.
    RequestId,
    /// `server`, `date` and `x-envoy-upstream-service-time`.
    Respond,
}

/// The chain of every connection of a direction, in order.
pub fn chain(direction: Direction) -> &'static [Filter] {
    match direction {
        Direction::Gateway => &[
            Filter::HopByHop,
            Filter::Strangers,
            Filter::Edge,
            Filter::ClientCert,
            Filter::RequestId,
            Filter::Respond,
        ],
        Direction::Inbound | Direction::Outbound => &[
            Filter::HopByHop,
            Filter::Strangers,
            Filter::ClientCert,
            Filter::Scheme,
            Filter::RequestId,
            Filter::Respond,
        ],
    }
}

impl Filter {
    /// Changes a request's head before anything is decided on it.
    pub fn on_request(self, cx: &mut Context, head: &mut request::Parts) {
        match self {
            Self::HopByHop => hop::on_request(cx, head),
            Self::Strangers => forwarded::strangers(cx, &mut head.headers),
            Self::Edge => forwarded::edge(cx, &mut head.headers),
            Self::ClientCert => client_cert::on_request(cx, &mut head.headers),
            Self::Scheme => forwarded::scheme(&mut head.headers),
            Self::RequestId => forwarded::request_id(cx, &mut head.headers),
            Self::Respond => {}
        }
    }

    /// Changes a response's head before the client gets it.
    pub fn on_response(self, cx: &mut Context, head: &mut response::Parts) {
        match self {
            Self::HopByHop => hop::on_response(head),
            Self::Respond => respond::on_response(cx, &mut head.headers),
            Self::Strangers | Self::Edge | Self::ClientCert | Self::Scheme | Self::RequestId => {}
        }
    }
}

#[cfg(test)]
mod tests;
