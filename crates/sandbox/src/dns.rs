//! The cluster's name server: `*.svc.cluster.local` from what the cluster has, everything else
//! from the resolvers of the machine.
//!
//! ```text
//! UDP, TCP ─▶ server (limits) ─▶ zone (pure) ─▶ answer
//!                              └▶ forward ─▶ resolvers of /etc/resolv.conf
//! ```
//! It listens on the address of the cluster's DNS service itself, which [`run`] puts on the node's
//! loopback interface: no translation is involved, and names resolve before any service does. A
//! service `kube-dns` in `kube-system` shows the address to whoever looks for it.
//!
//! Names follow Kubernetes' DNS specification 1.1.0. It keeps no cache: the cluster is in memory
//! anyway, and what is forwarded is cached by those resolvers.

mod forward;
mod limit;
mod server;
#[cfg(test)]
mod tests;
mod zone;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use lateen_base::backoff::Backoff;
use tokio::net::{TcpListener, UdpSocket};
use tokio_util::sync::CancellationToken;

use crate::controllers::Cluster;
use forward::Forwarder;
use server::Server;

/// The port of DNS.
const PORT: u16 = 53;

/// How the name server is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// The address of the DNS service, which becomes an address of the node's loopback interface.
    pub address: Ipv4Addr,
    /// The domain of the cluster, such as `cluster.local`.
    pub domain: String,
    /// The file that names the resolvers for all other names. Missing or empty: there are none,
    /// and such names get SERVFAIL.
    pub resolvers: PathBuf,
}

/// Why the name server could not start.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// The address could not be given to the loopback interface.
    #[error("names cannot be served: cannot give {address} to the loopback interface: {reason}")]
    Address {
        /// The address.
        address: Ipv4Addr,
        /// What the kernel said.
        reason: String,
    },
    /// The port could not be opened.
    #[error("names cannot be served: cannot listen on {address}: {source}")]
    Listen {
        /// Address and port.
        address: SocketAddr,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The domain is not a domain name.
    #[error("names cannot be served: {0:?} is no domain name")]
    Domain(String),
}

/// Runs until `shutdown`. It fails only at the start. It must run in the node's network namespace.
pub async fn run(
    cluster: Arc<Cluster>,
    options: Options,
    shutdown: CancellationToken,
) -> Result<(), DnsError> {
    take_address(options.address).await?;
    let address = SocketAddr::new(options.address.into(), PORT);
    let listen = |source| DnsError::Listen { address, source };
    let udp = UdpSocket::bind(address).await.map_err(listen)?;
    let tcp = TcpListener::bind(address).await.map_err(listen)?;
    let zone = zone::Zone::new(&options.domain).ok_or(DnsError::Domain(options.domain))?;
    let resolvers = forward::resolvers(&options.resolvers, IpAddr::V4(options.address));
    let forwarder = Forwarder::new(resolvers);
    let announced = tokio::spawn(announce(cluster.clone(), options.address, shutdown.clone()));
    let server = Arc::new(Server::new(zone, cluster, forwarder));
    server.serve(udp, tcp, shutdown).await;
    announced.abort();
    Ok(())
}

async fn take_address(address: Ipv4Addr) -> Result<(), DnsError> {
    let fail = |reason: String| DnsError::Address { address, reason };
    let (connection, handle, _) =
        rtnetlink::new_connection().map_err(|error| fail(error.to_string()))?;
    let connection = tokio::spawn(connection);
    let index = nix::net::if_::if_nametoindex("lo").map_err(|error| fail(error.to_string()))?;
    let request = handle.address().add(index, IpAddr::V4(address), 32);
    let done = request.replace().execute().await;
    connection.abort();
    done.map_err(|error| fail(error.to_string()))
}

/// Shows the name server as a service, until it is there.
async fn announce(cluster: Arc<Cluster>, address: Ipv4Addr, shutdown: CancellationToken) {
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
    let (service, slice) = objects(address);
    while !shutdown.is_cancelled() {
        let done = async {
            taken_is_fine(cluster.services.create("kube-system", &service).await)?;
            taken_is_fine(cluster.slices.create("kube-system", &slice).await)
        };
        match done.await {
            Ok(()) => return,
            Err(error) => tracing::debug!(%error, "kube-dns is not shown yet"),
        }
        tokio::time::sleep(backoff.next_delay()).await;
    }
}

fn taken_is_fine<T>(result: kube::Result<T>) -> kube::Result<()> {
    match result {
        Err(error) if !crate::controllers::store::is(&error, 409) => Err(error),
        _ => Ok(()),
    }
}

fn objects(address: Ipv4Addr) -> (Service, EndpointSlice) {
    let named = |name: &str, labels: &[(&str, &str)]| ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some("kube-system".to_owned()),
        labels: Some(
            labels
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
        ),
        ..ObjectMeta::default()
    };
    let ports = [("dns", "UDP"), ("dns-tcp", "TCP")];
    let text = |text: &str| Some(text.to_owned());
    let service = Service {
        metadata: named("kube-dns", &[("k8s-app", "kube-dns")]),
        spec: Some(ServiceSpec {
            cluster_ip: Some(address.to_string()),
            cluster_ips: Some(vec![address.to_string()]),
            ports: Some(
                ports
                    .map(|(name, protocol)| ServicePort {
                        name: text(name),
                        protocol: text(protocol),
                        port: i32::from(PORT),
                        ..ServicePort::default()
                    })
                    .to_vec(),
            ),
            ..ServiceSpec::default()
        }),
        status: None,
    };
    let slice = EndpointSlice {
        metadata: named(
            "kube-dns",
            &[
                ("kubernetes.io/service-name", "kube-dns"),
                ("endpointslice.kubernetes.io/managed-by", "lateen"),
            ],
        ),
        address_type: "IPv4".to_owned(),
        endpoints: vec![Endpoint {
            addresses: vec![address.to_string()],
            conditions: Some(EndpointConditions {
                ready: Some(true),
                serving: Some(true),
                terminating: Some(false),
            }),
            ..Endpoint::default()
        }],
        ports: Some(
            ports
                .map(|(name, protocol)| EndpointPort {
                    name: text(name),
                    protocol: text(protocol),
                    port: Some(i32::from(PORT)),
                    app_protocol: None,
                })
                .to_vec(),
        ),
    };
    (service, slice)
}
