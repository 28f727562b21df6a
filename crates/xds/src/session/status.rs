//! What people are told of a stream.

use lateen_model::decide::reach::Reach;
use lateen_model::mesh::Scope;
use lateen_model::resource::Kind;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

/// One connected proxy.
#[derive(Debug, Clone)]
pub struct ProxyStatus {
    /// Node id.
    pub node_id: String,
    /// The proxy's version.
    pub version: String,
    /// What it says it is: pod, namespace, labels. Namespace and service account are proved when it is
    /// [`authenticated`](Self::authenticated).
    pub scope: Scope,
    /// Whether it proved who it is; it did not on a plaintext connection.
    pub authenticated: bool,
    /// When its stream was opened.
    pub connected_at: SystemTime,
    /// State of each kind that it subscribed to.
    pub kinds: BTreeMap<Kind, KindStatus>,
    /// Names and addresses that it has asked for.
    pub lookups: usize,
    /// What it is sent of services and their rules; absent: all that it may have.
    pub reach: Option<Arc<Reach>>,
}

/// One kind on one stream.
#[derive(Debug, Clone, Default)]
pub struct KindStatus {
    /// Resources that the proxy has been told of and not told to remove.
    pub resources: usize,
    /// Nonce of the last answer.
    pub sent: Option<String>,
    /// Nonce of the last answer that it accepted or refused.
    pub acked: Option<String>,
    /// The refusal, when the last answer was refused.
    pub nack: Option<String>,
    /// When the last answer was sent.
    pub sent_at: Option<SystemTime>,
    /// When it was acknowledged.
    pub acked_at: Option<SystemTime>,
    /// Answers sent on this stream.
    pub pushes: u64,
    /// Resources and removals that those answers carried.
    pub carried: u64,
    /// Answers refused on this stream.
    pub rejects: u64,
}
