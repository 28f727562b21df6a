//! Decisions at a gateway: which ports it opens, and which server and route take what comes in.

use crate::gateway::ServerProtocol;
use crate::name::Origin;

/// A port that a gateway pod opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayListener {
    /// Port to bind in the pod: the target of `port` in the Service that selects the pod, else `port` itself.
    pub bind_port: u16,
    /// Port number in the Gateway object: what the facts' `destination` carries.
    pub port: u16,
    /// What it speaks.
    pub protocol: ServerProtocol,
    /// Whether binding needs a privilege (below 1024): a pod without it skips the listener and says so.
    pub privileged: bool,
    /// Gateways that open it, oldest first.
    pub origins: Vec<Origin>,
}
