//! One connection to a cluster, for bytes that are not HTTP.

use super::{Failed, Load, Upstream};
use lateen_model::decide::cluster::Cluster;
use lateen_model::decide::plan::FaultReason;
use lateen_model::workload::Workload;
use lateen_net::dial::{Dial, dial};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;

/// Endpoints tried before giving up.
pub(super) const MOST_ENDPOINTS: usize = 8;

/// How long one endpoint may hold up a connection while there are others.
pub(super) const IMPATIENCE: Duration = Duration::from_secs(1);

/// A connection to an endpoint of a cluster.
pub(crate) struct Dialed {
    pub(crate) stream: TcpStream,
    pub(crate) address: SocketAddr,
    pub(crate) workload: Option<Arc<Workload>>,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) _load: Load,
}

impl Upstream {
    /// Connects to an endpoint of `cluster`; as long as connecting fails, to the next.
    pub(crate) async fn dial(
        &self,
        cluster: &Arc<Cluster>,
        original: SocketAddr,
    ) -> Result<Dialed, Failed> {
        let mut tried = Vec::new();
        let mut failed = Failed::new(FaultReason::NoEndpoint);
        while tried.len() < MOST_ENDPOINTS {
            let Some(picked) = self.pick(cluster, original, &tried).await else {
                break;
            };
            let load = self.loads.begin(picked.address);
            match dial(picked.address, &patience(cluster, picked.more)).await {
                Ok(stream) => {
                    return Ok(Dialed {
                        stream,
                        address: picked.address,
                        workload: picked.workload,
                        cluster: Arc::clone(cluster),
                        _load: load,
                    });
                }
                Err(error) => {
                    tried.push(picked.address);
                    failed.reason = FaultReason::ConnectFailed;
                    failed.transport = error.transport_reason();
                    failed.address = Some(picked.address);
                    failed.workload = picked.workload;
                    failed.attempts += 1;
                }
            }
        }
        Err(failed)
    }

    /// Keeps a connection that turned out not to be needed, for an HTTP/1 request to the same endpoint.
    pub(crate) async fn offer(&self, dialed: Dialed) {
        self.pool.offer(dialed.address, dialed.stream).await;
    }
}

/// The bound on connecting to one endpoint; short while there are others.
pub(super) fn patience(cluster: &Cluster, more: bool) -> Dial {
    let timeout = cluster.connect_timeout;
    Dial {
        timeout: if more {
            timeout.min(IMPATIENCE)
        } else {
            timeout
        },
        source: None,
    }
}
