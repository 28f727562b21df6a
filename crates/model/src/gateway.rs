//! Gateways: what one Gateway object opens at the pods it selects.

use crate::name::Origin;
use crate::tls::ServerTls;
use lateen_base::Str;
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// One Gateway object.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Gateway {
    /// The Gateway; routes refer to it as `namespace/name`.
    pub origin: Origin,
    /// Pods that serve it, in any namespace. Never empty: an empty selector is refused in translation.
    pub selector: BTreeMap<Str, Str>,
    /// What it opens.
    pub servers: Vec<Server>,
}

/// One server of a gateway.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Server {
    /// Its name; empty when unnamed.
    pub name: Str,
    /// Port number, as clients see it on the gateway's Service.
    pub port: u16,
    /// Port's name.
    pub port_name: Str,
    /// What it speaks.
    pub protocol: ServerProtocol,
    /// Address of the pod to listen on; absent: every address.
    pub bind: Option<IpAddr>,
    /// Hosts it serves.
    pub hosts: Vec<ServerHost>,
    /// Answers every HTTP request with 301 to `https`.
    pub https_redirect: bool,
    /// How TLS is ended; present exactly when the protocol is `Https` or `TlsTerminate`.
    pub tls: Option<ServerTls>,
}

/// A host of a server, limited to VirtualServices of one namespace or open to all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServerHost {
    /// Namespace whose VirtualServices may bind (`.` is already replaced); absent: any (`*` or no prefix).
    pub namespace: Option<Str>,
    /// Exact host, `*.suffix` or `*`, lower case.
    pub host: Str,
}

/// What a gateway's server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum ServerProtocol {
    /// HTTP/1.1 and h2c.
    Http,
    /// Opaque TCP.
    Tcp,
    /// TLS passed through by SNI.
    TlsPassthrough,
    /// TLS ended here, opaque TCP inside.
    TlsTerminate,
    /// TLS ended here, HTTP/1.1 or HTTP/2 by ALPN inside.
    Https,
    /// TLS passed through to the service that Istio's form of server name says (`outbound_.80_.v1_.host`), without any
    /// route (Istio: `AUTO_PASSTHROUGH`).
    TlsAutoPassthrough,
}
