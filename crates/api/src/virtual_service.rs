//! VirtualService as users write it (Istio: networking.istio.io, `VirtualService`).

pub mod http;
pub mod l4;

use http::HttpRoute;
use l4::{TcpRoute, TlsRoute};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Rules that say where requests to some hosts go. The first rule that matches wins.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct VirtualService {
    /// Hosts that the rules are for: names, `*.suffix`, or short names, which are looked for in this object's
    /// namespace. Empty for rules that another VirtualService delegates to.
    pub hosts: Vec<String>,
    /// Gateways that the rules bind to, as `namespace/name` or `name`; `mesh` stands for every sidecar.
    /// `mesh` alone when absent.
    pub gateways: Vec<String>,
    /// Rules for HTTP, HTTP/2 and gRPC.
    pub http: Vec<HttpRoute>,
    /// Rules for TLS that is passed through, by server name.
    pub tls: Vec<TlsRoute>,
    /// Rules for opaque TCP.
    pub tcp: Vec<TcpRoute>,
    /// Namespaces that see the rules: names, `.` for this one, `*` for all (the default).
    pub export_to: Vec<String>,
}
