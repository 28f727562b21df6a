//! Starting and ending a proxy: sockets first, then threads, and an error that says what is missing.

use crate::admin::Admin;
use crate::config::{Config, Ports};
use crate::control::{self, Control};
use crate::demand::Demand;
use crate::dns::Sockets;
use crate::drain::{Drain, Stage};
use crate::limits::{Buckets, Tally};
use crate::overload::Overload;
use crate::shared::{Live, Shared};
use crate::tls::{Origins, Servers};
use crate::upstream::{Own, States};
use crate::worker::{self, Command, Entry};
use arc_swap::{ArcSwap, ArcSwapOption};
use lateen_model::decide::resources::ResourceSet;
use lateen_model::mesh::Role;
use lateen_net::dns::Resolver;
use lateen_net::listen::{ListenError, listen, listen_everywhere};
use lateen_telemetry::metrics::Metrics;
use lateen_telemetry::writer::LogWriter;
use std::collections::BTreeMap;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedSender, channel, unbounded_channel};

/// Metric series without traffic are forgotten after this time.
const EXPIRE: Duration = Duration::from_secs(3600);

/// A proxy cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// A port cannot be opened.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A thread or its runtime cannot be made.
    #[error(
        "the proxy cannot start a thread: {0} (the limit on processes or memory may be too low)"
    )]
    Thread(#[from] std::io::Error),
}

/// Where a started proxy listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// Captured outbound connections; absent at a gateway.
    pub outbound: Option<SocketAddr>,
    /// Captured inbound connections; absent at a gateway.
    pub inbound: Option<SocketAddr>,
    /// The application's DNS questions; absent: they are not answered.
    pub dns: Option<SocketAddr>,
    /// Administration.
    pub admin: SocketAddr,
    /// Readiness, merged metrics, `/quitquitquit`.
    pub merged: SocketAddr,
    /// Readiness.
    pub ready: SocketAddr,
    /// Own metrics.
    pub metrics: SocketAddr,
}

/// A running proxy. Dropping it stops it at once.
#[derive(Debug)]
pub struct Proxy {
    addresses: Addresses,
    drain: Drain,
    threads: Vec<JoinHandle<()>>,
    /// Resources as a control plane would send them.
    #[cfg(test)]
    pub(crate) feed: tokio::sync::mpsc::Sender<lateen_xds::client::Update>,
}

impl Proxy {
    /// Starts a proxy that writes its access log to `log`. It returns once its ports are open; it is ready when its
    /// first configuration has come. Captured connections that come earlier wait for that: until then nobody has said
    /// who may come in, and what must be encrypted.
    ///
    /// # Errors
    /// A port is taken or not permitted, or a thread cannot be started.
    pub fn start(config: Config, log: impl Write + Send + 'static) -> Result<Self, ProxyError> {
        let plan = Plan::open(&config)?;
        let shared = Arc::new(Shared {
            limits: config.limits,
            tls_sessions: config.tls_sessions,
            overload: Overload::new(&config),
            ports: config.ports,
            own: Own::new(&plan.addresses, &config.scope.addresses),
            destinations: config.destinations,
            live: ArcSwap::from_pointee(Live::compile(ResourceSet::default(), &config.scope, None)),
            member: ArcSwapOption::empty(),
            no_member: ArcSwap::from_pointee(String::from(match config.identity {
                Some(_) => "the first answer of the CA has not come yet",
                None => "it was started without an identity",
            })),
            servers: Servers::default(),
            origins: Origins::default(),
            states: States::default(),
            drain: Drain::new(),
            demand: Demand::default(),
            dns: Arc::default(),
            resolver: Arc::new(Resolver::new(config.names.clone())),
            metrics: Metrics::new(&config.version, EXPIRE),
            buckets: Buckets::default(),
            tally: Tally::default(),
            log: LogWriter::start(log)?,
            scope: config.scope.clone(),
        });
        let mut threads = Vec::new();
        let mut workers = Vec::new();
        for number in 0..config.workers() {
            let (commands, orders) = unbounded_channel();
            let shared = Arc::clone(&shared);
            let name = format!("worker-{number}");
            let thread = std::thread::Builder::new().name(name);
            threads.push(thread.spawn(move || worker::run(shared, orders))?);
            workers.push(commands);
        }
        let Plan {
            addresses,
            captured,
            servers,
            dns,
        } = plan;
        if let Some(sockets) = dns {
            let (shared, settings) = (Arc::clone(&shared), config.names.clone());
            let thread = std::thread::Builder::new().name("dns".to_owned());
            threads.push(thread.spawn(move || crate::dns::run(&shared, sockets, &settings))?);
        }
        let drain = shared.drain.clone();
        let admin = Admin::new(&shared, &config, addresses);
        let updates = channel(control::QUEUE);
        #[cfg(test)]
        let feed = updates.0.clone();
        let control = Control {
            shared,
            workers,
            admin,
            config,
            servers,
            captured,
            updates: Some(updates),
        };
        let thread = std::thread::Builder::new().name("control".to_owned());
        threads.push(thread.spawn(move || control::run(control))?);
        Ok(Self {
            addresses,
            drain,
            threads,
            #[cfg(test)]
            feed,
        })
    }

    /// Where it listens.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Begins an orderly end; [`Self::wait`] returns when it is done.
    pub fn drain(&self) {
        self.drain.advance(Stage::Ending);
    }

    /// Waits until the proxy has ended.
    pub fn wait(mut self) {
        self.join();
    }

    fn join(&mut self) {
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so already.
            let _ = thread.join();
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.drain.advance(Stage::Ended);
        self.join();
    }
}

/// Runs a proxy until it is told to end: SIGTERM and SIGINT drain it. The access log goes to standard output.
///
/// # Errors
/// As [`Proxy::start`].
pub fn run(config: Config) -> Result<(), ProxyError> {
    // Huge pages would round each thread's small heap up to megabytes. A kernel without the switch has no such pages.
    let _ = nix::sys::prctl::set_thp_disable(true);
    let proxy = Proxy::start(config, std::io::stdout())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let drain = proxy.drain.clone();
    runtime.block_on(async {
        tokio::select! {
            () = signalled() => {
                tracing::info!("draining: told to end");
                drain.advance(Stage::Ending);
            }
            () = drain.reached(Stage::Ending) => {}
            () = slim() => {}
        }
    });
    drop(runtime);
    proxy.wait();
    Ok(())
}

/// Gives start-up's pages back now and then; never returns. First when a proxy has settled in.
async fn slim() {
    let mut pause = Duration::from_secs(5);
    loop {
        tokio::time::sleep(pause).await;
        lateen_net::memory::release_program_pages();
        lateen_net::memory::release_free_heap();
        pause = Duration::from_secs(20);
    }
}

async fn signalled() {
    use tokio::signal::unix::{SignalKind, signal};
    match (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) {
        (Ok(mut terminate), Ok(mut interrupt)) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        }
        // Without handlers the kernel's default ends the process, which is what a signal asks for.
        _ => std::future::pending().await,
    }
}

/// Sockets that are open before any thread runs, so that a taken port is an error at the start.
struct Plan {
    addresses: Addresses,
    captured: control::Captured,
    servers: control::Servers,
    dns: Option<Sockets>,
}

impl Plan {
    fn open(config: &Config) -> Result<Self, ProxyError> {
        let ports = &config.ports;
        let mut captured = Vec::new();
        let mut places = BTreeMap::new();
        if config.scope.role == Role::Sidecar {
            for (entry, port) in [
                (Entry::Outbound, ports.outbound),
                (Entry::Inbound, ports.inbound),
            ] {
                let (address, sets) = per_worker(ports, port, config.workers())?;
                places.insert(entry, address);
                captured.push((entry, sets));
            }
        }
        let admin = listen(SocketAddr::new(
            IpAddr::V4(Ipv4Addr::LOCALHOST),
            ports.admin,
        ))?;
        let servers = control::Servers {
            admin: vec![admin],
            merged: open_all(ports, ports.merged)?,
            ready: open_all(ports, ports.ready)?,
            metrics: open_all(ports, ports.metrics)?,
        };
        let dns = config.dns.map(Sockets::open).transpose()?;
        let addresses = Addresses {
            dns: dns.as_ref().map(|sockets| sockets.address),
            outbound: places.get(&Entry::Outbound).copied(),
            inbound: places.get(&Entry::Inbound).copied(),
            admin: first(&servers.admin)?,
            merged: first(&servers.merged)?,
            ready: first(&servers.ready)?,
            metrics: first(&servers.metrics)?,
        };
        Ok(Self {
            addresses,
            captured,
            servers,
            dns,
        })
    }
}

fn first(listeners: &[TcpListener]) -> Result<SocketAddr, ProxyError> {
    let listener = listeners
        .first()
        .ok_or_else(|| std::io::Error::other("no listener"))?;
    Ok(listener.local_addr()?)
}

/// Gives each worker its listeners.
pub(crate) fn hand_out(
    workers: &[UnboundedSender<Command>],
    entry: Entry,
    sets: Vec<Vec<TcpListener>>,
) {
    for (worker, set) in workers.iter().zip(sets) {
        for listener in set {
            // A worker that is gone has said why.
            let _ = worker.send(Command::Open(entry, listener));
        }
    }
}

/// Listeners on one port: one of each address family, or one of the configured address.
pub(crate) fn open_all(ports: &Ports, port: u16) -> Result<Vec<TcpListener>, ListenError> {
    if ports.bind.is_unspecified() {
        listen_everywhere(port)
    } else {
        Ok(vec![listen(SocketAddr::new(ports.bind, port))?])
    }
}

/// The same for each worker.
pub(crate) fn per_worker(
    ports: &Ports,
    port: u16,
    workers: usize,
) -> Result<(SocketAddr, Vec<Vec<TcpListener>>), ProxyError> {
    let mut sets = vec![open_all(ports, port)?];
    let address = first(&sets[0])?;
    for _ in 1..workers {
        sets.push(open_all(ports, address.port())?);
    }
    Ok((address, sets))
}
