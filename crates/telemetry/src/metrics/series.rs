//! Labels, in groups that are shared by reference: who sends, who serves, which service was meant.

use lateen_base::Str;
use std::borrow::Cow;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// Which end of the exchange counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reporter {
    /// The client's proxy, and gateways.
    Source,
    /// The server's proxy.
    Destination,
}

/// Labels of one side, already with Istio's fallbacks (`unknown`, `latest`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// `*_workload`.
    pub workload: Str,
    /// `*_workload_namespace`.
    pub namespace: Str,
    /// `*_principal`.
    pub principal: Str,
    /// `*_app`.
    pub app: Str,
    /// `*_version`.
    pub version: Str,
    /// `*_canonical_service`.
    pub canonical_service: Str,
    /// `*_canonical_revision`.
    pub canonical_revision: Str,
    /// `*_cluster`.
    pub cluster: Str,
}

impl Peer {
    /// Nothing known.
    pub fn unknown() -> Self {
        let unknown: Str = "unknown".into();
        Self {
            workload: unknown.clone(),
            namespace: unknown.clone(),
            principal: unknown.clone(),
            app: unknown.clone(),
            version: unknown.clone(),
            canonical_service: unknown.clone(),
            canonical_revision: "latest".into(),
            cluster: unknown,
        }
    }
}

/// Labels of the service that was meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// `destination_service`: its host name.
    pub service: Str,
    /// `destination_service_name`.
    pub name: Str,
    /// `destination_service_namespace`.
    pub namespace: Str,
}

impl Target {
    /// Nothing known.
    pub fn unknown() -> Self {
        let unknown: Str = "unknown".into();
        Self {
            service: unknown.clone(),
            name: unknown.clone(),
            namespace: unknown,
        }
    }
}

/// A series of the request metrics. Two are one when their groups are the same by address.
#[derive(Debug, Clone)]
pub struct RequestSeries {
    /// Who counts.
    pub reporter: Reporter,
    /// Who sends.
    pub source: Arc<Peer>,
    /// Who serves.
    pub destination: Arc<Peer>,
    /// What was meant.
    pub target: Arc<Target>,
    /// Whether it is gRPC; else plain HTTP.
    pub grpc: bool,
    /// Status; 0 when the client got none.
    pub code: u16,
    /// gRPC status of the response.
    pub grpc_status: Option<u16>,
    /// Envoy's response flags; `-` when there is none.
    pub flags: Cow<'static, str>,
}

/// A series of the TCP metrics.
#[derive(Debug, Clone)]
pub struct TcpSeries {
    /// Who counts.
    pub reporter: Reporter,
    /// Who sends.
    pub source: Arc<Peer>,
    /// Who serves.
    pub destination: Arc<Peer>,
    /// What was meant.
    pub target: Arc<Target>,
    /// Envoy's response flags; `-` when there is none.
    pub flags: Cow<'static, str>,
}

type Identity<'a> = (Reporter, usize, usize, usize, &'a str);

fn address<T>(shared: &Arc<T>) -> usize {
    Arc::as_ptr(shared) as usize
}

impl RequestSeries {
    fn identity(&self) -> (Identity<'_>, bool, u16, Option<u16>) {
        let groups = (
            self.reporter,
            address(&self.source),
            address(&self.destination),
            address(&self.target),
            &*self.flags,
        );
        (groups, self.grpc, self.code, self.grpc_status)
    }
}

impl TcpSeries {
    fn identity(&self) -> Identity<'_> {
        (
            self.reporter,
            address(&self.source),
            address(&self.destination),
            address(&self.target),
            &*self.flags,
        )
    }
}

impl PartialEq for RequestSeries {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for RequestSeries {}

impl Hash for RequestSeries {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}

impl PartialEq for TcpSeries {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for TcpSeries {}

impl Hash for TcpSeries {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}
