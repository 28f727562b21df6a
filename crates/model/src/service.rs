//! A service: a host name with ports and, if it has them, virtual addresses.

use crate::name::{Origin, ServiceKey, Visibility};
use lateen_base::Str;
use serde::Serialize;
use std::net::IpAddr;

/// One Kubernetes Service or one host of a ServiceEntry.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Service {
    /// Unique key.
    pub key: ServiceKey,
    /// Short name: the Service's `metadata.name`, or the ServiceEntry's host. Metric label `destination_service_name`.
    pub name: Str,
    /// The object that declares it.
    pub origin: Origin,
    /// Virtual addresses (ClusterIPs, ServiceEntry addresses). Empty for headless services and
    /// ServiceEntries without addresses: those are matched by endpoint address or by host.
    pub addresses: Vec<Address>,
    /// Addresses that the control plane chose for a ServiceEntry without its own (Istio: `status.addresses`). Clients
    /// learn them from the proxy's DNS; those that resolve the host elsewhere are matched as if there were none.
    pub allocated: Vec<IpAddr>,
    /// Declared ports, in declaration order.
    pub ports: Vec<Port>,
    /// How endpoints are found.
    pub resolution: Resolution,
    /// Whether the service belongs to the mesh.
    pub location: Location,
    /// Who may see it.
    pub visibility: Visibility,
    /// Short DNS forms that clients in the same cluster use beside the FQDN, such as `reviews.default`,
    /// `reviews.default.svc`. The bare name (`reviews`) counts only for clients of the same namespace and is
    /// derived from `name`, not listed here. Empty for ServiceEntries.
    pub aliases: Vec<Str>,
    /// Names that the servers' certificates may carry, where a DestinationRule asks for TLS and names none (Istio:
    /// ServiceEntry `subjectAltNames`). Empty: nothing is said.
    pub sans: Vec<Str>,
    /// Preference for near endpoints; absent: as DestinationRules and the mesh say.
    pub traffic_distribution: Option<TrafficDistribution>,
}

impl Service {
    /// Single addresses under which clients may call the service: its own, else the allocated ones. Ranges are no
    /// addresses to call.
    pub fn callable(&self) -> impl Iterator<Item = IpAddr> {
        let full = |a: &&Address| a.prefix >= if a.ip.is_ipv4() { 32 } else { 128 };
        let own = self.addresses.iter().filter(full).map(|a| a.ip);
        own.chain(self.allocated.iter().copied())
    }
}

/// Preference of a Service for near endpoints (Kubernetes: `trafficDistribution`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum TrafficDistribution {
    /// Endpoints of the client's zone first.
    SameZone,
    /// Endpoints of the client's node first, then of its zone.
    SameNode,
}

/// A single virtual address or a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct Address {
    /// The address, or the range's network address.
    pub ip: IpAddr,
    /// Prefix length in bits; 32 (IPv4) or 128 (IPv6) for a single address.
    pub prefix: u8,
}

/// A port of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Port {
    /// Port that clients use, 1..=65535.
    pub number: u16,
    /// Declared name; empty when unnamed.
    pub name: Str,
    /// Protocol by `appProtocol`, else by name prefix.
    pub protocol: Protocol,
    /// Port on endpoints when it is a number; absent for named target ports (each endpoint says its own).
    pub target: Option<u16>,
}

/// Protocol of a port after selection (Istio: "Protocol Selection").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub enum Protocol {
    /// HTTP/1.1 declared; HTTP/2 prior knowledge is served too.
    Http,
    /// HTTP/2 declared (`http2`, `kubernetes.io/h2c`).
    Http2,
    /// gRPC over HTTP/2.
    Grpc,
    /// gRPC-Web over HTTP/1.1.
    GrpcWeb,
    /// TLS that the application speaks itself (`https`, `tls`): routed by SNI.
    Tls,
    /// Opaque bytes (`tcp`, `mongo`, `redis`, `mysql` and the well-known server-first ports).
    Tcp,
    /// Datagrams: never captured.
    Udp,
    /// Not declared: the first side to speak decides.
    Detect,
}

impl Protocol {
    /// Whether the port is always HTTP.
    pub fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Http2 | Self::Grpc | Self::GrpcWeb)
    }

    /// Whether the upstream connection uses HTTP/2 whatever the client spoke.
    pub fn is_http2(self) -> bool {
        matches!(self, Self::Http2 | Self::Grpc)
    }
}

/// How a service's endpoints are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Resolution {
    /// From workloads that name the service.
    Static,
    /// The connection goes to its original destination.
    None,
    /// By resolving the host name (of the endpoints, else of the service); every address is used.
    Dns,
    /// As `Dns`, but new connections go to the first address of the current answer (Istio: `DNS_ROUND_ROBIN`; Envoy:
    /// `LOGICAL_DNS`).
    DnsFirst,
    /// By resolving the name that each request or connection asks for: its Host, or the server name of TLS (Istio:
    /// `DYNAMIC_DNS`).
    DynamicDns,
}

/// Whether a service belongs to the mesh (Istio: ServiceEntry `location`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Location {
    /// Kubernetes services and `MESH_INTERNAL`.
    Internal,
    /// `MESH_EXTERNAL`.
    External,
}
