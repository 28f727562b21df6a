//! The long-running roles: what they are told by the pod's environment, turned into their configurations.

use crate::args::{
    CaptureArgs, ControlArgs, Proxy, ProxyArgs, RateLimitArgs, Sample, WhenUncounted,
};
use crate::local;
use anyhow::{Context as _, Result};
use lateen_apps::{bookinfo, ext_authz, helloworld, http, httpbin, tcp_echo, websocket};
use lateen_identity::ca::KeyKind;
use lateen_identity::source::Files;
use lateen_model::mesh::{Role, Scope};
use lateen_net::capture::{self, CaptureRules, Dns, Networks, Ports};
use lateen_net::dns;
use lateen_telemetry::logging;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Runs one sample application.
///
/// # Errors
/// Its port is taken.
pub fn sample(sample: Sample) -> Result<()> {
    match sample {
        Sample::Productpage { port } => http::run(bookinfo::productpage::run(port)),
        Sample::Details { port } => http::run(bookinfo::details::run(port)),
        Sample::Ratings { port } => http::run(bookinfo::ratings::run(port)),
        Sample::Reviews { port, version } => http::run(bookinfo::reviews::run(port, &version)),
        Sample::Httpbin { port } => http::run(httpbin::run(port)),
        Sample::Helloworld { port, version } => http::run(helloworld::run(port, &version)),
        Sample::TcpEcho {
            ports,
            prefix,
            listed_ports,
            listed_prefix,
            greeting,
        } => {
            let ports = listed_ports.unwrap_or(ports).0;
            let prefix = listed_prefix.unwrap_or(prefix);
            http::run(tcp_echo::run(&ports, &prefix, greeting))
        }
        Sample::Websocket { port } => http::run(websocket::run(port)),
        Sample::ExtAuthz { http: plain, grpc } => http::run(ext_authz::run(plain, grpc)),
    }
}

/// Runs the control plane until it is told to stop.
///
/// # Errors
/// A port is taken, or there is no cluster to watch.
pub fn control(args: &ControlArgs) -> Result<()> {
    let _level = logging::start(&log_level())?;
    let mut config = lateen_control::Config {
        root_namespace: args.root_namespace.clone(),
        kubeconfig: args.kubeconfig.clone(),
        ..lateen_control::Config::default()
    };
    config.jwks.extra_roots.clone_from(&args.jwks_extra_root_ca);
    config
        .jwks
        .blocked
        .clone_from(&args.blocked_cidrs_in_jwks_uris);
    config.jwks.allow_loopback = args.allow_loopback_in_jwks_uris;
    config.injection.root_namespace = args.root_namespace.clone();
    config.injection.revision = args.revision.clone();
    config.ca.validity = lateen_control::ca::Validity {
        default: args.workload_cert_ttl.min(args.max_workload_cert_ttl),
        most: args.max_workload_cert_ttl,
    };
    config.ca.root_validity = args.self_signed_ca_cert_ttl;
    config.ca.timing.most = args.ca_takeover_time;
    config.ca.timing.least = config.ca.timing.least.min(args.ca_takeover_time);
    config.ports.plaintext = args.plaintext_xds.then_some(15010);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        lateen_control::run(config, until_stopped()?)
            .await
            .map_err(Into::into)
    })
}

/// Cancelled when the process is asked to stop.
fn until_stopped() -> Result<CancellationToken> {
    let shutdown = CancellationToken::new();
    let stop = lateen_apps::stop_signal()?;
    let asked = shutdown.clone();
    tokio::spawn(async move {
        stop.await;
        asked.cancel();
    });
    Ok(shutdown)
}

/// Runs the rate-limit service until it is told to stop.
///
/// # Errors
/// A port is taken, or the limits make no sense.
pub fn ratelimit(args: RateLimitArgs) -> Result<()> {
    let _level = logging::start(&log_level())?;
    let at = |port| std::net::SocketAddr::new(args.bind, port);
    let config = lateen_ratelimit::Config {
        listen: at(args.port),
        admin: at(args.admin_port),
        limits: args.config,
        redis: args
            .redis
            .filter(|address| !address.is_empty())
            .map(|address| lateen_ratelimit::store::redis::Settings {
                address,
                password: args.redis_password.filter(|word| !word.is_empty()),
                timeout: Duration::from_millis(args.redis_timeout),
            }),
        fail_open: args.when_uncounted == WhenUncounted::Pass,
        counters: args.max_counters,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        lateen_ratelimit::run(config, until_stopped()?)
            .await
            .map_err(Into::into)
    })
}

/// Runs a proxy until it is told to stop.
///
/// # Errors
/// A port is taken, or the configuration makes no sense.
pub fn proxy(proxy: Proxy) -> Result<()> {
    let (role, args) = match proxy {
        Proxy::Sidecar(args) => (Role::Sidecar, args),
        Proxy::Router(args) => (Role::Gateway, args),
    };
    let level = logging::start(&log_level())?;
    let injected = args
        .proxy_config
        .as_deref()
        .map(proxy_config)
        .transpose()?
        .unwrap_or_default();
    let mut config = lateen_proxy::Config::new(scope(role, &args));
    let discovery = injected["discoveryAddress"]
        .as_str()
        .unwrap_or(&args.discovery);
    match &args.config {
        Some(path) => {
            config.resources = Some(local::resources(path)?);
            config.identity = files(&args).map(alone);
        }
        None => {
            config.discovery = Some(discovery.to_owned());
            config.identity = Some(identity(&args, discovery)?);
        }
    }
    config.ports = ports(&args);
    config.connections = args.max_connections;
    config.tls_sessions = args.tls_sessions.map(usize::from);
    if let Some(mebibytes) = args.memory_limit_mib {
        config.memory = lateen_proxy::MemoryBound::Limit(mebibytes.saturating_mul(1 << 20));
    }
    config.cache = args
        .cache
        .is_dir()
        .then(|| args.cache.join("last-good.bin"));
    let from_config = injected["concurrency"]
        .as_u64()
        .and_then(|n| usize::try_from(n).ok());
    config.concurrency = args.concurrency.or(from_config).unwrap_or(0);
    config.app_metrics = args.app_metrics.as_deref().and_then(app_metrics);
    if let Some(text) = args.app_probes.as_deref().filter(|text| !text.is_empty()) {
        config.app_probes = lateen_proxy::AppProbes::parse(text)?;
    }
    let captures_dns = args.dns_capture.eq_ignore_ascii_case("true");
    config.dns = (role == Role::Sidecar && captures_dns).then_some(capture::DNS_PORT);
    config.version = env!("CARGO_PKG_VERSION").to_owned();
    config.log_level = Some(level);
    lateen_proxy::run(config).map_err(Into::into)
}

/// Port of the control plane that serves configuration in plain text, when it was asked to.
const PLAIN_PORT: &str = ":15010";

/// How the proxy gets its certificate and believes the control plane.
fn identity(args: &ProxyArgs, discovery: &str) -> Result<lateen_proxy::Identity> {
    let server = |address: &str| lateen_proxy::ControlPlane {
        names: vec![host(address).to_owned()],
        roots: args.roots.clone(),
        token: Some(args.token.clone()),
    };
    let certificates = if let Some(files) = files(args) {
        lateen_proxy::Certificates::Files(files)
    } else if args.workload_api.exists() {
        lateen_proxy::Certificates::WorkloadApi(args.workload_api.clone())
    } else {
        let address = args.ca_address.as_deref().filter(|a| !a.is_empty());
        let address = address.unwrap_or(discovery);
        lateen_proxy::Certificates::Authority {
            address: address.to_owned(),
            server: server(address),
            key: key(args)?,
            lifetime: match &args.certificate_lifetime {
                Some(text) => lifetime(text)?,
                None => Duration::ZERO,
            },
        }
    };
    Ok(lateen_proxy::Identity {
        certificates,
        cache: args.cache.is_dir().then(|| args.cache.clone()),
        control_plane: (!discovery.ends_with(PLAIN_PORT)).then(|| server(discovery)),
    })
}

/// The kind of the certificate's key, by Istio's variables.
fn key(args: &ProxyArgs) -> Result<KeyKind> {
    KeyKind::of_istio(
        &args.ecc_signature_algorithm,
        &args.ecc_curve,
        &args.workload_rsa_key_size,
    )
    .map_err(anyhow::Error::msg)
}

/// The identity of a proxy that has no control plane.
fn alone(files: Files) -> lateen_proxy::Identity {
    lateen_proxy::Identity {
        certificates: lateen_proxy::Certificates::Files(files),
        cache: None,
        control_plane: None,
    }
}

fn files(args: &ProxyArgs) -> Option<Files> {
    Some(Files {
        chain: args.certificates.clone()?,
        key: args.key.clone()?,
        roots: args.roots.clone(),
    })
}

/// Where the proxy listens. One that runs by itself leaves the well-known ports to others, as there may be several.
fn ports(args: &ProxyArgs) -> lateen_proxy::Ports {
    let own = lateen_proxy::Ports {
        admin: args.admin_port,
        ..lateen_proxy::Ports::default()
    };
    let ports = match args.config {
        Some(_) => lateen_proxy::Ports {
            merged: 0,
            ready: 0,
            metrics: 0,
            ..own
        },
        None => own,
    };
    lateen_proxy::Ports {
        bind: args.bind.unwrap_or(ports.bind),
        ..ports
    }
}

/// The host of `host:port`.
fn host(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(host, _)| host)
}

/// A duration such as `24h` or `1h30m`.
fn lifetime(text: &str) -> Result<Duration> {
    let parsed: jiff::SignedDuration = text
        .parse()
        .with_context(|| format!("SECRET_TTL {text:?} is not a duration such as 24h"))?;
    Duration::try_from(parsed).with_context(|| format!("SECRET_TTL {text:?} is negative"))
}

fn log_level() -> String {
    std::env::var("LATEEN_LOG").unwrap_or_else(|_| "info".to_owned())
}

/// The injected `PROXY_CONFIG`: ProxyConfig as JSON or YAML.
fn proxy_config(text: &str) -> Result<serde_json::Value> {
    serde_saphyr::from_str(text).context("PROXY_CONFIG is not valid JSON or YAML")
}

/// The application's own metrics from `ISTIO_PROMETHEUS_ANNOTATIONS` (`{"scrape":"true","path":"/metrics","port":"9090"}`).
fn app_metrics(text: &str) -> Option<lateen_proxy::AppMetrics> {
    let read: serde_json::Value = serde_json::from_str(text).ok()?;
    let field = |name: &str| read[name].as_str().map(str::to_owned);
    Some(lateen_proxy::AppMetrics {
        port: field("port")
            .unwrap_or_else(|| "80".to_owned())
            .parse()
            .ok()?,
        path: field("path")
            .filter(|path| !path.is_empty())
            .unwrap_or_else(|| "/metrics".to_owned()),
    })
    .filter(|_| field("scrape").is_none_or(|scrape| scrape == "true"))
}

/// What a proxy is, from the pod's environment and its downward-API files.
fn scope(role: Role, args: &ProxyArgs) -> Scope {
    let labels = pod_info(&args.pod_info.join("labels"));
    let label = |names: &[&str]| names.iter().find_map(|name| labels.get(*name)).cloned();
    let workload = if args.workload.is_empty() {
        args.pod.clone()
    } else {
        args.workload.clone()
    };
    // Istio: canonical name and revision, with their fallbacks.
    let canonical_name = label(&[
        "service.istio.io/canonical-name",
        "app.kubernetes.io/name",
        "app",
    ])
    .unwrap_or_else(|| workload.clone());
    let canonical_revision = label(&[
        "service.istio.io/canonical-revision",
        "app.kubernetes.io/version",
        "version",
    ])
    .unwrap_or_else(|| "latest".to_owned());
    let domain = args
        .domain
        .split_once(".svc.")
        .map_or("cluster.local", |(_, domain)| domain);
    Scope {
        on_demand: role == Role::Sidecar && args.on_demand.eq_ignore_ascii_case("true"),
        role,
        pod: args.pod.as_str().into(),
        namespace: args.namespace.as_str().into(),
        labels: labels
            .iter()
            .map(|(k, v)| (k.as_str().into(), v.as_str().into()))
            .collect(),
        addresses: args.address.into_iter().collect(),
        service_account: args.service_account.as_str().into(),
        workload_name: workload.into(),
        canonical_name: canonical_name.into(),
        canonical_revision: canonical_revision.into(),
        cluster: args.cluster.as_str().into(),
        domain: domain.into(),
    }
}

/// Reads a downward-API file of `key="value"` lines; absent files are empty.
fn pod_info(path: &Path) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            let (key, value) = line.split_once('=')?;
            Some((
                key.to_owned(),
                serde_json::from_str(value).unwrap_or_else(|_| value.to_owned()),
            ))
        })
        .collect()
}

/// Writes or removes the capture rules of this network namespace.
///
/// # Errors
/// A list is not valid, or the kernel refuses.
pub fn capture(args: &CaptureArgs) -> Result<()> {
    if args.remove {
        return capture::remove().map_err(Into::into);
    }
    let rules = CaptureRules {
        inbound_ports: match args.include_inbound_ports.trim() {
            "*" => Ports::All,
            list => Ports::Only(items(list, "port")?),
        },
        excluded_inbound_ports: items(&args.exclude_inbound_ports, "port")?,
        outbound_networks: match args.include_outbound_cidrs.trim() {
            "*" => Networks::All,
            list => Networks::Only(items(list, "network such as 10.0.0.0/8")?),
        },
        excluded_outbound_networks: items(
            &args.exclude_outbound_cidrs,
            "network such as 10.0.0.0/8",
        )?,
        included_outbound_ports: items(&args.include_outbound_ports, "port")?,
        excluded_outbound_ports: items(&args.exclude_outbound_ports, "port")?,
        dns: match (args.redirect_dns, args.capture_all_dns) {
            (false, _) => Dns::None,
            (true, true) => Dns::All,
            (true, false) => {
                let servers = dns::Settings::system().servers.into_iter();
                Dns::Servers(servers.map(|server| server.ip()).collect())
            }
        },
        ..CaptureRules::default()
    };
    capture::apply(&rules)?;
    println!(
        "capture: outbound to port {}, inbound to port {}",
        rules.outbound_port, rules.inbound_port
    );
    Ok(())
}

/// The items of a comma-separated list; empty text is an empty list.
fn items<T: std::str::FromStr>(list: &str, what: &str) -> Result<Vec<T>> {
    list.split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
        .map(|item| {
            item.parse()
                .ok()
                .with_context(|| format!("{item:?} is not a {what}"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn downward_api_files_are_read_with_their_quoting() {
        let file = std::env::temp_dir().join(format!("lateen-labels-{}", std::process::id()));
        std::fs::write(&file, "app=\"reviews\"\nnote=\"a\\\"b\"\n").expect("written");
        let read = pod_info(&file);
        std::fs::remove_file(&file).expect("removed");
        assert_eq!(read["app"], "reviews");
        assert_eq!(read["note"], "a\"b");
        assert!(pod_info(Path::new("/nonexistent")).is_empty());
    }
}
