//! The service proxy: service addresses lead to endpoints, by packet-filter rules in the node's
//! network namespace. What kube-proxy does on a node, for one node.
//!
//! ```text
//! services + endpoint slices ─ plan::entries ─▶ entries ─ program::batch ─▶ one nftables transaction
//! ```
//! Connections from pods and from the node itself are translated when they begin; each then stays
//! with its endpoint, whatever changes later. A destination is drawn at random from the ready
//! endpoints; if there is none, from those that terminate but still serve; if there is none of
//! those either, the caller is refused at once. Changes are gathered for a moment and written as
//! one transaction, so that no packet ever meets half a change.
//!
//! Also: services of type LoadBalancer get the address 127.0.0.1, where the sandbox publishes
//! ports. Session affinity goes by a hash of the client's address over the present endpoints, and
//! so does not survive a change of these. Not here: external traffic policies, SCTP, and the
//! forgetting of UDP flows to endpoints that are gone.

mod plan;
mod program;
#[cfg(test)]
mod tests;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::{LoadBalancerIngress, LoadBalancerStatus, Service, ServiceStatus};
use kube::ResourceExt;
use lateen_base::backoff::Backoff;
use lateen_net::nft::NftError;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::controllers::{Cluster, Key};

/// How long changes are gathered before they are written.
const GATHER: Duration = Duration::from_millis(2);

/// Where the node is.
#[derive(Debug, Clone)]
pub struct Options {
    /// The network of service addresses. Addresses without a service are refused.
    pub network: Ipv4Net,
    /// The interface that pods are reached by.
    pub bridge: String,
    /// The node's own address on it.
    pub node: Ipv4Addr,
}

/// Why the service proxy could not start.
#[derive(Debug, thiserror::Error)]
pub enum ServicesError {
    /// The packet filter refused.
    #[error("services cannot be reached: {0}")]
    Filter(#[from] NftError),
    /// The route to the service network could not be set.
    #[error("services cannot be reached: cannot route {network} to {bridge}: {reason}")]
    Route {
        /// The service network.
        network: Ipv4Net,
        /// The interface.
        bridge: String,
        /// What the kernel said.
        reason: String,
    },
}

/// Runs until `shutdown`. It fails only at the start, when the namespace cannot be programmed at
/// all; later failures are logged and tried again. It must run in the node's network namespace.
pub async fn run(
    cluster: Arc<Cluster>,
    options: Options,
    shutdown: CancellationToken,
) -> Result<(), ServicesError> {
    route(&options).await?;
    program::batch(&[], &options).commit()?;
    let changed = Arc::new(Notify::new());
    let wake = changed.clone();
    cluster.services.on_change(move |_, _| wake.notify_one());
    let wake = changed.clone();
    cluster.slices.on_change(move |_, _| wake.notify_one());
    tokio::select! {
        () = shutdown.cancelled() => return Ok(()),
        () = async {
            cluster.services.ready().await;
            cluster.slices.ready().await;
        } => {}
    }
    let mut applied = Vec::new();
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = changed.notified() => {}
        }
        tokio::time::sleep(GATHER).await;
        let services = cluster.services.all();
        publish(&cluster, &services).await;
        let wanted = plan::entries(&services, &cluster.slices.all());
        if wanted == applied {
            continue;
        }
        match program::batch(&wanted, &options).commit() {
            Ok(()) => {
                applied = wanted;
                backoff.reset();
            }
            Err(error) => {
                tracing::error!(%error, "service rules not written; the old ones stay");
                tokio::time::sleep(backoff.next_delay()).await;
                changed.notify_one();
            }
        }
    }
}

/// Gives load balancers their address.
async fn publish(cluster: &Cluster, services: &[Arc<Service>]) {
    for service in services {
        let spec = service.spec.as_ref();
        let balances = spec.and_then(|spec| spec.type_.as_deref()) == Some("LoadBalancer");
        let before = service.status.clone().unwrap_or_default();
        let has = before
            .load_balancer
            .as_ref()
            .is_some_and(|status| status.ingress.is_some());
        if balances == has {
            continue;
        }
        let ingress = LoadBalancerIngress {
            ip: Some(Ipv4Addr::LOCALHOST.to_string()),
            ip_mode: Some("Proxy".to_owned()),
            ..LoadBalancerIngress::default()
        };
        let balancer = LoadBalancerStatus {
            ingress: balances.then(|| vec![ingress]),
        };
        let status = ServiceStatus {
            load_balancer: Some(balancer),
            ..before.clone()
        };
        let key = Key::of(&**service);
        if let Err(error) = cluster.services.set_status(&key, &before, &status).await {
            tracing::debug!(service = %service.name_any(), %error, "load balancer not shown");
        }
    }
}

/// Lets the node itself start connections to service addresses: without a route the kernel would
/// refuse before any rule is asked.
async fn route(options: &Options) -> Result<(), ServicesError> {
    let fail = |reason: String| ServicesError::Route {
        network: options.network,
        bridge: options.bridge.clone(),
        reason,
    };
    let (connection, handle, _) =
        rtnetlink::new_connection().map_err(|error| fail(error.to_string()))?;
    let connection = tokio::spawn(connection);
    let index = nix::net::if_::if_nametoindex(options.bridge.as_str())
        .map_err(|error| fail(error.to_string()))?;
    let message = rtnetlink::RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(options.network.network(), options.network.prefix_len())
        .output_interface(index)
        .pref_source(options.node)
        .scope(rtnetlink::packet_route::route::RouteScope::Link)
        .build();
    let done = handle.route().add(message).replace().execute().await;
    connection.abort();
    done.map_err(|error| fail(error.to_string()))?;
    // Node ports answer on 127.0.0.1 too, which the kernel else never lets out of the loopback.
    set(&format!("ipv4/conf/{}/route_localnet", options.bridge), "1");
    // Pods are reached by routes, not by the bridge. Where the kernel filters bridged packets as
    // well, it would translate there and then drop what goes back to the port it came from.
    set("bridge/bridge-nf-call-iptables", "0");
    set("bridge/bridge-nf-call-ip6tables", "0");
    Ok(())
}

/// Sets a network setting of the kernel; one that the kernel does not have needs no setting.
fn set(name: &str, value: &str) {
    let path = format!("/proc/sys/net/{name}");
    match std::fs::write(&path, value) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(%error, path, "some calls of services may not get through");
        }
        _ => {}
    }
}
