//! The application's DNS questions: names of the mesh are answered from the snapshot in force, all others by the machine's
//! resolvers. One thread of its own, so that neither waits for the other.
//!
//! What a name means is decided in `model`; the protocol is `net`'s.

use crate::drain::Stage;
use crate::shared::Shared;
use lateen_model::decide::{self, demand};
use lateen_net::dns::{Counts, Server, Settings, Told};
use lateen_net::listen::{ListenError, listen};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;

/// How long answers may be kept (Istio: 30 s).
const TTL: u32 = 30;

/// Where questions come in.
#[derive(Debug)]
pub(crate) struct Sockets {
    udp: Vec<UdpSocket>,
    tcp: Vec<TcpListener>,
    /// The IPv4 address.
    pub(crate) address: SocketAddr,
}

impl Sockets {
    /// Opens the port on loopback, of IPv6 where the machine has it. Port 0 lets the kernel choose.
    pub(crate) fn open(port: u16) -> Result<Self, ListenError> {
        let v4 = listen(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port))?;
        let failed = |address, source| ListenError { address, source };
        let wanted = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        let address = v4.local_addr().map_err(|e| failed(wanted, e))?;
        let datagrams = UdpSocket::bind(address).map_err(|e| failed(address, e))?;
        let mut sockets = Self {
            udp: vec![datagrams],
            tcp: vec![v4],
            address,
        };
        let v6 = SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), address.port());
        if let (Ok(tcp), Ok(udp)) = (listen(v6), UdpSocket::bind(v6)) {
            sockets.tcp.push(tcp);
            sockets.udp.push(udp);
        }
        Ok(sockets)
    }
}

/// Answers until the proxy has ended.
pub(crate) fn run(shared: &Arc<Shared>, sockets: Sockets, settings: &Settings) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_stack_size(256 * 1024)
        .build_local(Default::default());
    match runtime {
        Ok(runtime) => runtime.block_on(serve(shared, sockets, settings)),
        Err(error) => tracing::error!("names cannot be served: {error}"),
    }
}

async fn serve(shared: &Arc<Shared>, sockets: Sockets, settings: &Settings) {
    let search = settings.search.clone();
    let known = Arc::clone(shared);
    let know = async move |name: &str| {
        let wanted = {
            let live = known.live.load();
            demand::of_name(&live.snapshot, name, &search)
        };
        for lookup in wanted {
            // Others may know the name where the control plane does not answer.
            if known.demand.learn(lookup).await.is_err() {
                break;
            }
        }
        let live = known.live.load();
        let told = decide::known(&live.snapshot, name, &search)?;
        Some(Told {
            alias: told.alias,
            addresses: told.addresses,
            ttl: TTL,
        })
    };
    let server = Server::new(settings, Arc::clone(&shared.dns), know);
    for socket in sockets.udp {
        let server = Rc::clone(&server);
        tokio::task::spawn_local(async move { ended("UDP", server.serve_udp(socket).await) });
    }
    for listener in sockets.tcp {
        let server = Rc::clone(&server);
        tokio::task::spawn_local(async move { ended("TCP", server.serve_tcp(listener).await) });
    }
    shared.drain.reached(Stage::Ended).await;
}

fn ended(what: &str, result: std::io::Result<()>) {
    if let Err(error) = result {
        tracing::error!("names cannot be served by {what}: {error}");
    }
}

/// The counters as metrics (Istio: the agent's `dns_…`).
pub(crate) fn figures(counts: &Counts) -> [(&'static str, u64); 3] {
    [
        ("istio_agent_dns_requests_total", counts.requests()),
        (
            "istio_agent_dns_upstream_requests_total",
            counts.forwarded(),
        ),
        ("istio_agent_dns_upstream_failures_total", counts.failures()),
    ]
}
