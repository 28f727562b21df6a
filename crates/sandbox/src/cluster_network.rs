//! The cluster's network: one bridge in the node's network namespace, an address and a veth pair per pod.
//! Pods have a /32 address and reach everything through the node, so that service translation sees both
//! directions of every connection. It knows no Kubernetes object; services and DNS live elsewhere.

mod inside;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use futures::TryStreamExt;
use parking_lot::Mutex;
use rtnetlink::packet_route::link::{InfoData, InfoVeth};
use rtnetlink::packet_route::route::{RouteMessage, RouteType};
use rtnetlink::{
    Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
};

pub(crate) use inside::{connect_inside, loopback_up, setting};

/// The bridge's name in the node.
pub const BRIDGE: &str = "lateen0";
/// The node's address on the bridge: the pods' gateway.
pub const NODE_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 1);
/// Bits of the pods' network `10.244.0.0`.
pub const POD_PREFIX: u8 = 16;
/// The address of the cluster's DNS service.
pub const DNS_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);

/// Makes pod networks.
#[derive(Clone)]
pub(crate) struct ClusterNetwork {
    handle: Handle,
    bridge: u32,
    addresses: Arc<Mutex<Addresses>>,
}

/// A pod's namespaces and address. Dropping it gives the address back; the kernel removes the
/// namespaces and the link when the last process and the last of these files are gone.
#[derive(Debug)]
pub(crate) struct PodNetwork {
    /// Network namespace.
    pub net: OwnedFd,
    /// Host name namespace.
    pub uts: OwnedFd,
    /// System V and POSIX queue namespace.
    pub ipc: OwnedFd,
    /// The pod's address.
    pub address: Ipv4Addr,
    addresses: Arc<Mutex<Addresses>>,
}

/// Why a network could not be made.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// A kernel request failed.
    #[error("cannot {what}: {reason}")]
    Kernel {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        reason: String,
    },
    /// All addresses are taken.
    #[error("all pod addresses of 10.244.0.0/16 are taken: delete some pods")]
    Exhausted,
}

#[derive(Debug)]
struct Addresses {
    used: BTreeSet<u16>,
    next: u16,
}

impl ClusterNetwork {
    /// Makes the bridge in the current network namespace and lets it forward.
    ///
    /// # Errors
    /// The kernel refuses: no bridge support, or no right to configure this namespace.
    pub(crate) async fn start() -> Result<Self, NetworkError> {
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(|e| kernel("open a netlink socket", &e))?;
        tokio::spawn(connection);
        loopback_up().map_err(|e| kernel("bring the loopback up", &e))?;
        setting("net/ipv4/ip_forward", "1")?;
        // Pods answer through the node on purpose; redirects would tell them of shorter ways.
        for scope in ["all", "default"] {
            setting(&format!("net/ipv4/conf/{scope}/send_redirects"), "0")?;
            setting(&format!("net/ipv4/conf/{scope}/rp_filter"), "0")?;
        }
        handle
            .link()
            .add(LinkBridge::new(BRIDGE).up().build())
            .execute()
            .await
            .map_err(|e| kernel("make the bridge lateen0", &e))?;
        let bridge = index_of(&handle, BRIDGE).await?;
        handle
            .address()
            .add(bridge, NODE_ADDRESS.into(), POD_PREFIX)
            .execute()
            .await
            .map_err(|e| kernel("give the bridge its address", &e))?;
        Ok(Self {
            handle,
            bridge,
            addresses: Arc::new(Mutex::new(Addresses::new())),
        })
    }

    /// Makes a pod's namespaces with an address, a link to the bridge and a host name.
    ///
    /// # Errors
    /// The kernel refuses, or no address is left.
    pub(crate) async fn add_pod(&self, host_name: &str) -> Result<PodNetwork, NetworkError> {
        let number = self
            .addresses
            .lock()
            .take()
            .ok_or(NetworkError::Exhausted)?;
        let address = address_of(number);
        match self.make_pod(host_name, number).await {
            Ok((net, uts, ipc)) => Ok(PodNetwork {
                net,
                uts,
                ipc,
                address,
                addresses: self.addresses.clone(),
            }),
            Err(e) => {
                self.addresses.lock().used.remove(&number);
                Err(e)
            }
        }
    }

    async fn make_pod(
        &self,
        host_name: &str,
        number: u16,
    ) -> Result<(OwnedFd, OwnedFd, OwnedFd), NetworkError> {
        let host_name = host_name.to_owned();
        let namespaces = inside::in_thread(move || inside::make_namespaces(&host_name)).await?;
        let name = link_name(number);
        let peer = LinkMessageBuilder::<LinkUnspec>::new()
            .name("eth0")
            .setns_by_fd(namespaces.0.as_raw_fd())
            .build();
        // The address may have had an owner before, whose link may still be on its way out.
        let _ = self
            .handle
            .route()
            .del(nobody_at(address_of(number)))
            .execute()
            .await;
        if let Ok(old) = index_of(&self.handle, &name).await {
            let _ = self.handle.link().del(old).execute().await;
        }
        self.handle
            .link()
            .add(
                LinkVeth::new(&name, "eth0")
                    .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
                    .controller(self.bridge)
                    .up()
                    .build(),
            )
            .execute()
            .await
            .map_err(|e| kernel("make the pod's link", &e))?;
        let address = address_of(number);
        let net = namespaces
            .0
            .try_clone()
            .map_err(|e| kernel("keep the pod's network", &e))?;
        inside::in_thread(move || inside::configure(&net, address)).await?;
        Ok(namespaces)
    }

    /// Removes a pod's link at once, rather than when its last process has gone.
    pub(crate) async fn remove_pod(&self, pod: &PodNetwork) {
        let [_, _, high, low] = pod.address.octets();
        let name = link_name(u16::from_be_bytes([high, low]));
        if let Ok(index) = index_of(&self.handle, &name).await {
            let _ = self.handle.link().del(index).execute().await;
        }
        // Who still knows the address learns at once that nobody is there, rather than waiting for an answer.
        let _ = self
            .handle
            .route()
            .add(nobody_at(pod.address))
            .execute()
            .await;
    }
}

impl Drop for PodNetwork {
    fn drop(&mut self) {
        let [_, _, high, low] = self.address.octets();
        self.addresses
            .lock()
            .used
            .remove(&u16::from_be_bytes([high, low]));
    }
}

impl Addresses {
    /// Numbers below 2 are the network and the node; the last is the broadcast address.
    fn new() -> Self {
        Self {
            used: BTreeSet::new(),
            next: 2,
        }
    }

    /// A free number; recently freed ones come last, because peers may still know their old owner.
    fn take(&mut self) -> Option<u16> {
        for _ in 2..u16::MAX {
            let number = self.next;
            self.next = if number >= u16::MAX - 1 {
                2
            } else {
                number + 1
            };
            if self.used.insert(number) {
                return Some(number);
            }
        }
        None
    }
}

fn address_of(number: u16) -> Ipv4Addr {
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(10, 244, high, low)
}

/// A route that answers for an address without a pod: host unreachable.
fn nobody_at(address: Ipv4Addr) -> RouteMessage {
    RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(address, 32)
        .kind(RouteType::Unreachable)
        .build()
}

fn link_name(number: u16) -> String {
    format!("pod{number}")
}

async fn index_of(handle: &Handle, name: &str) -> Result<u32, NetworkError> {
    let found = handle
        .link()
        .get()
        .match_name(name.to_owned())
        .execute()
        .try_next()
        .await
        .map_err(|e| kernel("find a link", &e))?;
    found
        .map(|link| link.header.index)
        .ok_or_else(|| kernel("find a link", &"it is gone"))
}

fn kernel(what: &'static str, reason: &dyn std::fmt::Display) -> NetworkError {
    NetworkError::Kernel {
        what,
        reason: reason.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_not_reused_at_once() {
        let mut addresses = Addresses::new();
        assert_eq!(
            addresses.take().map(address_of),
            Some(Ipv4Addr::new(10, 244, 0, 2))
        );
        assert_eq!(addresses.take(), Some(3));
        addresses.used.remove(&2);
        assert_eq!(addresses.take(), Some(4));
        let mut all: Vec<u16> = std::iter::from_fn(|| addresses.take()).collect();
        all.sort_unstable();
        assert_eq!(all.first(), Some(&2));
        assert_eq!(all.last(), Some(&(u16::MAX - 1)));
        assert_eq!(addresses.take(), None);
    }
}
