//! Requests and bytes through whole proxies in this process, over real sockets on loopback: two sidecars that meet by
//! mutual TLS, or one alone. The client and the application are threads that block and allocate nothing per request.

use crate::allocations;
use crate::mesh::{self, Ca};
use lateen_model::mesh::Role;
use lateen_model::service::Protocol;
use lateen_proxy::{Certificates, Config, Destinations, DrainTimes, Identity, Ports, Proxy};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;
use tokio::sync::watch;

const REQUEST: &[u8] =
    b"GET /api/v1/items/7/parts?page=3 HTTP/1.1\r\nHost: a.default.svc.cluster.local\r\n\
    User-Agent: bench/1\r\nAccept: */*\r\nX-Team: blue\r\n\r\n";
const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\nServer: app\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello";

/// Where the client's connections were going before they were captured.
pub(crate) const ADDRESS: [u8; 4] = [10, 96, 0, 1];

/// Two sidecars.
pub(crate) struct Pair {
    pub(crate) entry: SocketAddr,
    /// Dropping one ends it.
    _proxies: Vec<Running>,
}

/// A proxy of this process. Dropping it ends it.
pub(crate) struct Running {
    proxy: Proxy,
    _certificate: watch::Sender<lateen_identity::source::State>,
}

impl Running {
    pub(crate) fn inbound(&self) -> SocketAddr {
        self.proxy.addresses().inbound.expect("a sidecar's port")
    }

    pub(crate) fn outbound(&self) -> SocketAddr {
        self.proxy.addresses().outbound.expect("a sidecar's port")
    }
}

impl Pair {
    pub(crate) fn start(protocol: Protocol, app: SocketAddr) -> Self {
        let ca = Ca::new();
        let mut config = config(Role::Sidecar, "a", &app.ip().to_string(), app);
        let resources = vec![
            mesh::service("a", ADDRESS, protocol),
            mesh::pod("a", app, true),
            mesh::allow("sleep"),
            ca.trust(),
        ];
        config.resources = Some(resources);
        let server = run(config, &ca, "a");
        let config = config_of_client(&ca, protocol, server.inbound());
        let client = run(config, &ca, "sleep");
        Self {
            entry: client.outbound(),
            _proxies: vec![client, server],
        }
    }
}

fn config_of_client(ca: &Ca, protocol: Protocol, inbound: SocketAddr) -> Config {
    let was_going = SocketAddr::from((ADDRESS, 80));
    let mut config = config(Role::Sidecar, "sleep", "127.1.0.100", was_going);
    config.resources = Some(vec![
        mesh::service("a", ADDRESS, protocol),
        mesh::pod("a", inbound, true),
        mesh::routes("a", "mesh", 10),
        ca.trust(),
    ]);
    config
}

pub(crate) fn config(role: Role, account: &str, address: &str, was_going: SocketAddr) -> Config {
    let mut config = Config::new(mesh::scope(role, account, address));
    config.destinations = Destinations::Fixed(was_going);
    config.ports = Ports {
        bind: IpAddr::V4(Ipv4Addr::LOCALHOST),
        outbound: 0,
        inbound: 0,
        admin: 0,
        merged: 0,
        ready: 0,
        metrics: 0,
    };
    config.concurrency = 1;
    config.drain = DrainTimes {
        least: Duration::ZERO,
        ..config.drain
    };
    config
}

pub(crate) fn run(mut config: Config, ca: &Ca, account: &str) -> Running {
    let (_certificate, given) = watch::channel(ca.state(account));
    config.identity = Some(Identity {
        certificates: Certificates::Given(given),
        cache: None,
        control_plane: None,
    });
    let proxy = Proxy::start(config, std::io::sink()).expect("a proxy");
    let ready = proxy.addresses().ready;
    while !is_ready(ready) {
        std::thread::yield_now();
    }
    Running {
        proxy,
        _certificate,
    }
}

fn is_ready(address: SocketAddr) -> bool {
    let mut stream = TcpStream::connect(address).expect("the proxy listens");
    let ask = b"GET /healthz/ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(ask).expect("written");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer.starts_with(b"HTTP/1.1 200")
}

/// An application that answers every request with the same bytes.
fn app(ip: &str) -> SocketAddr {
    let listener = TcpListener::bind((ip, 0)).expect("a port");
    let address = listener.local_addr().expect("its address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            std::thread::spawn(move || answer(stream));
        }
    });
    address
}

fn answer(mut stream: TcpStream) {
    let mut buffer = [0; 4096];
    let mut held = 0;
    while let Ok(got) = stream.read(&mut buffer[held..]) {
        if got == 0 {
            return;
        }
        held += got;
        if buffer[..held].ends_with(b"\r\n\r\n") {
            held = 0;
            if stream.write_all(ANSWER).is_err() {
                return;
            }
        }
    }
}

/// One request, and its whole answer.
fn ask(stream: &mut TcpStream) {
    stream.write_all(REQUEST).expect("written");
    let mut buffer = [0; 4096];
    let mut held = 0;
    while !buffer[..held].ends_with(b"\r\n\r\nhello") {
        let got = stream.read(&mut buffer[held..]).expect("read");
        assert!(got > 0, "the proxy closed the connection");
        held += got;
    }
    assert!(
        buffer.starts_with(b"HTTP/1.1 200"),
        "the request was answered"
    );
}

/// Allocations of `work`, once everything is warm.
pub(crate) fn counted(times: u64, mut work: impl FnMut()) -> u64 {
    for _ in 0..50 {
        work();
    }
    let before = allocations::count();
    for _ in 0..times {
        work();
    }
    allocations::count() - before
}

/// Requests of HTTP/1.1 on one connection through two sidecars.
pub(crate) fn http1(times: u64) -> u64 {
    let pair = Pair::start(Protocol::Http, app("127.1.0.1"));
    let mut stream = TcpStream::connect(pair.entry).expect("connected");
    counted(times, || ask(&mut stream))
}

/// Requests of HTTP/1.1 through one sidecar in plain text, with eight endpoints to choose from.
pub(crate) fn balanced(times: u64) -> u64 {
    let ca = Ca::new();
    let was_going = SocketAddr::from((ADDRESS, 80));
    let mut config = config(Role::Sidecar, "sleep", "127.1.0.100", was_going);
    let mut resources = vec![
        mesh::service("a", ADDRESS, Protocol::Http),
        mesh::routes("a", "mesh", 10),
    ];
    for at in 1..=8 {
        resources.push(mesh::pod("a", app(&format!("127.1.0.{at}")), false));
    }
    config.resources = Some(resources);
    let proxy = run(config, &ca, "sleep");
    let mut stream = TcpStream::connect(proxy.outbound()).expect("connected");
    counted(times, || ask(&mut stream))
}

/// Bytes on one connection through two sidecars; one time is 64 KiB there and back.
pub(crate) fn copy(times: u64) -> u64 {
    const PIECE: usize = 64 * 1024;
    let listener = TcpListener::bind(("127.1.0.1", 0)).expect("a port");
    let address = listener.local_addr().expect("its address");
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("accepted");
        let mut buffer = vec![0; PIECE];
        while stream.read_exact(&mut buffer).is_ok() {
            if stream.write_all(&buffer).is_err() {
                return;
            }
        }
    });
    let pair = Pair::start(Protocol::Tcp, address);
    let mut stream = TcpStream::connect(pair.entry).expect("connected");
    let (sent, mut got) = (vec![1; PIECE], vec![0; PIECE]);
    counted(times, || {
        stream.write_all(&sent).expect("written");
        stream.read_exact(&mut got).expect("read");
    })
}
