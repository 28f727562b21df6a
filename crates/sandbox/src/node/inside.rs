//! The node's own life, as pid 1 of its namespaces: mounts, network, API server, pod runner, controllers,
//! service proxy, DNS, published ports; and the orderly end when the host lets go.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::Endpoints;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};
use lateen_apiserver::{Options, Server};
use nix::sys::signal::Signal;
use tokio::io::AsyncReadExt;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::home::{Home, write_private};
use super::mounts::RunDirectory;
use super::spawn::{NODE_ARGUMENT, NodeConfig, Report};
use super::{control, publish};
use crate::cluster_network::{BRIDGE, ClusterNetwork, DNS_ADDRESS, NODE_ADDRESS};
use crate::controllers::{self, Cluster};
use crate::pod::access::{Access, Registry};
use crate::pod::process::Reaper;
use crate::pod::{Runner, RunnerOptions};
use crate::{dns, services};

/// The API server's port inside the node.
const API_PORT: u16 = 6443;

/// The network of service addresses.
const SERVICES: Ipv4Net = match Ipv4Net::new(Ipv4Addr::new(10, 96, 0, 0), 16) {
    Ok(network) => network,
    Err(_) => panic!("16 is a prefix length"),
};

/// How long pods may take to end when the whole sandbox ends.
const LAST_GRACE: Duration = Duration::from_secs(2);

/// Runs the node when the executable was started as one, and then does not return.
pub(crate) fn run_if_asked(argument: Option<&str>) {
    if argument != Some(NODE_ARGUMENT) {
        return;
    }
    let code = match node() {
        Ok(()) => 0,
        Err(message) => {
            eprintln!("{message}");
            1
        }
    };
    std::process::exit(code);
}

fn node() -> Result<(), String> {
    let config = read_config()?;
    // Again after exec: the holder's death must be the node's.
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(|e| e.to_string())?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    let mut reports = File::from(inherited(config.reports));
    let outcome = prepare(config, &reports);
    if let Err(message) = &outcome {
        report(&mut reports, &Report::Failed(message.clone()));
    }
    outcome
}

fn prepare(config: NodeConfig, reports: &File) -> Result<(), String> {
    start_log(&config.log);
    let home = Home::new(config.home.clone());
    let run = RunDirectory::mount(&home.run(), &config.executable)?;
    nix::unistd::sethostname(crate::pod::fields::NODE_NAME)
        .map_err(|e| format!("cannot set the host name: {e}"))?;
    raise_file_limit();
    let reports = reports
        .try_clone()
        .map_err(|e| format!("cannot keep a pipe: {e}"))?;
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| format!("cannot start a runtime: {e}"))?
        .block_on(live(config, home, run, reports))
}

async fn live(
    config: NodeConfig,
    home: Home,
    run: RunDirectory,
    mut reports: File,
) -> Result<(), String> {
    let lifeline = inherited(config.lifeline);
    let mut listeners = config
        .listeners
        .iter()
        .map(|fd| TcpListener::from(inherited(*fd)));
    let network = ClusterNetwork::start().await.map_err(|e| e.to_string())?;
    let reaper = Reaper::start(&run.executable()).map_err(|e| format!("cannot reap: {e}"))?;
    let registry = Registry::default();
    let access = Access::new(registry.clone(), reaper.clone());
    let inner = TcpListener::bind((Ipv4Addr::UNSPECIFIED, API_PORT))
        .map_err(|e| format!("cannot listen in the node: {e}"))?;
    let server = Server::start(Options {
        listeners: listeners.next().into_iter().chain([inner]).collect(),
        dir: config.state.clone(),
        names: vec![config.api.ip().to_string()],
        pods: Arc::new(access),
        service_cidr: SERVICES.to_string(),
    })
    .await
    .map_err(|e| e.to_string())?;
    let client = connect(&server).await?;
    write_kubeconfig(&server, &home, &config)?;
    announce(&client)
        .await
        .map_err(|e| format!("cannot announce the API server: {e}"))?;
    report(&mut reports, &Report::Step("API server".into()));
    let runner = Runner::start(RunnerOptions {
        client: client.clone(),
        network,
        reaper,
        registry,
        executable: run.executable(),
        directory: run.pods(),
        images_file: config.images.clone(),
    })
    .await?;
    report(&mut reports, &Report::Step("pod runner".into()));
    let shutdown = CancellationToken::new();
    start_services(&client, server.certificate(), &shutdown).await?;
    report(
        &mut reports,
        &Report::Step("controllers, services, names".into()),
    );
    for (publish, listener) in config.published.iter().zip(listeners) {
        let cache = runner.cache().clone();
        tokio::spawn(publish::serve(listener, publish.clone(), cache));
    }
    tokio::spawn(control::serve(home, runner.clone()));
    report(&mut reports, &Report::Step("published ports".into()));
    report(&mut reports, &Report::Ready);
    drop(reports);
    until_told(lifeline).await;
    tracing::info!("stopping");
    runner.stop_all(LAST_GRACE).await;
    shutdown.cancel();
    server.stop().await;
    Ok(())
}

/// Controllers, service proxy and DNS. Returns when they know the cluster.
async fn start_services(
    client: &Client,
    certificate: &str,
    shutdown: &CancellationToken,
) -> Result<(), String> {
    let cluster = Cluster::watch(client.clone(), shutdown);
    let certificate = certificate.to_owned();
    tokio::spawn(controllers::run(
        cluster.clone(),
        certificate,
        shutdown.clone(),
    ));
    let proxy = services::Options {
        network: SERVICES,
        bridge: BRIDGE.to_owned(),
        node: NODE_ADDRESS,
    };
    let proxy = services::run(cluster.clone(), proxy, shutdown.clone());
    let names = dns::Options {
        address: DNS_ADDRESS,
        domain: "cluster.local".to_owned(),
        // The node has no way out to the host's resolvers: other names fail at once.
        resolvers: std::path::PathBuf::new(),
    };
    let names = dns::run(cluster.clone(), names, shutdown.clone());
    let (failed, mut failure) = tokio::sync::mpsc::channel(2);
    let told = failed.clone();
    tokio::spawn(async move {
        if let Err(error) = proxy.await {
            let _ = told.send(error.to_string()).await;
        }
    });
    tokio::spawn(async move {
        if let Err(error) = names.await {
            let _ = failed.send(error.to_string()).await;
        }
    });
    tokio::select! {
        Some(message) = failure.recv() => Err(message),
        () = cluster.ready() => Ok(()),
    }
}

/// A client of the node's own API server.
async fn connect(server: &Server) -> Result<Client, String> {
    let text = server
        .kubeconfig(&format!("https://127.0.0.1:{API_PORT}"))
        .map_err(|e| e.to_string())?;
    let fail = |e: &dyn std::fmt::Display| format!("cannot connect to the API server: {e}");
    let kubeconfig = Kubeconfig::from_yaml(&text).map_err(|e| fail(&e))?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .map_err(|e| fail(&e))?;
    Client::try_from(config).map_err(|e| fail(&e))
}

/// Tells the cluster where the API server is: the endpoints behind the service `kubernetes`.
async fn announce(client: &Client) -> Result<(), kube::Error> {
    let patch = PatchParams::apply("lateen-node").force();
    let slice = serde_json::json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": "kubernetes",
            "labels": {"kubernetes.io/service-name": "kubernetes"},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": [NODE_ADDRESS.to_string()], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "port": API_PORT, "protocol": "TCP"}],
    });
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), "default");
    slices
        .patch("kubernetes", &patch, &Patch::Apply(slice))
        .await?;
    let endpoints = serde_json::json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": {"name": "kubernetes"},
        "subsets": [{
            "addresses": [{"ip": NODE_ADDRESS.to_string()}],
            "ports": [{"name": "https", "port": API_PORT, "protocol": "TCP"}],
        }],
    });
    let all: Api<Endpoints> = Api::namespaced(client.clone(), "default");
    all.patch("kubernetes", &patch, &Patch::Apply(endpoints))
        .await
        .map(drop)
}

fn write_kubeconfig(server: &Server, home: &Home, config: &NodeConfig) -> Result<(), String> {
    let text = server
        .kubeconfig(&format!("https://{}", config.api))
        .map_err(|e| e.to_string())?;
    let path = home.kubeconfig();
    write_private(&path, text.as_bytes())
        .map_err(|e| super::file_error("write", &path, e).to_string())
}

/// Resolves when the holder lets go of the node, or someone asks it to end.
async fn until_told(lifeline: OwnedFd) {
    let ended = async {
        let Ok(mut pipe) = tokio::net::unix::pipe::Receiver::from_owned_fd(lifeline) else {
            return;
        };
        let mut byte = [0u8; 1];
        let _ = pipe.read(&mut byte).await;
    };
    let asked = async {
        match signal(SignalKind::terminate()) {
            Ok(mut asked) => {
                asked.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = ended => {}
        () = asked => {}
    }
}

fn report(reports: &mut File, report: &Report) {
    if let Ok(mut line) = serde_json::to_vec(report) {
        line.push(b'\n');
        let _ = reports.write_all(&line);
    }
}

fn read_config() -> Result<NodeConfig, String> {
    let fail = |e: &dyn std::fmt::Display| {
        format!("a node is started by `lateen sandbox up`, not by hand ({e})")
    };
    let number = std::env::args().nth(2).unwrap_or_default();
    let number: i32 = number.parse().map_err(|e| fail(&e))?;
    let mut file = File::from(inherited(number));
    file.seek(SeekFrom::Start(0)).map_err(|e| fail(&e))?;
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(|e| fail(&e))?;
    serde_json::from_str(&text).map_err(|e| fail(&e))
}

/// Takes an inherited descriptor over; containers must not inherit it in turn.
#[expect(unsafe_code, reason = "descriptors are inherited by number")]
fn inherited(fd: i32) -> OwnedFd {
    // SAFETY: the holder passes each number once, and each is taken over once, here.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let close = nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC);
    let _ = nix::fcntl::fcntl(&fd, close);
    fd
}

/// A cluster in one process needs many descriptors; the hard limit is what the user may have.
fn raise_file_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

fn start_log(filter: &str) {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .try_init();
}
