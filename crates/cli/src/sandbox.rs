//! `lateen sandbox`: starts and stops the cluster, installs the mesh into it, and shows how it is.

use crate::args::{ExecArgs, LogsArgs, Sandbox as Verb, UpArgs};
use crate::cluster::{Cluster, documents};
use crate::install;
use crate::progress::Progress;
use anyhow::{Context as _, Result, bail, ensure};
use futures::AsyncBufReadExt as _;
use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{AttachParams, LogParams};
use lateen_sandbox::{Home, Publish, Sandbox, Target, UpOptions};
use serde_json::json;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// How long each part of the mesh may take to become ready.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// Where the ingress gateway's 443 is published when nothing is said and nobody is there.
const HTTPS_PORT: u16 = 8443;

const BOOKINFO: &str = include_str!("../../../samples/bookinfo/platform/kube/bookinfo.yaml");
const BOOKINFO_GATEWAY: &str =
    include_str!("../../../samples/bookinfo/networking/bookinfo-gateway.yaml");

/// Where the sandbox keeps its files: `$LATEEN_HOME`, else `~/.lateen/sandbox`.
pub fn home() -> PathBuf {
    sandbox_home().path().to_owned()
}

fn sandbox_home() -> Home {
    match std::env::var_os("LATEEN_HOME") {
        Some(path) => Home::new(path),
        None => Home::below(&PathBuf::from(
            std::env::var_os("HOME").unwrap_or_else(|| "/tmp".into()),
        )),
    }
}

/// Runs one of the sandbox's verbs.
///
/// # Errors
/// One sentence that names the cure.
pub fn run(verb: Verb) -> Result<ExitCode> {
    match verb {
        Verb::Up(args) => up(&args).map(|()| ExitCode::SUCCESS),
        Verb::Down => {
            lateen_sandbox::down(&sandbox_home())?;
            println!("✔ sandbox stopped");
            Ok(ExitCode::SUCCESS)
        }
        Verb::Status => crate::status::print(&sandbox_home()).map(|()| ExitCode::SUCCESS),
        Verb::Kubeconfig => {
            println!("{}", sandbox_home().kubeconfig().display());
            Ok(ExitCode::SUCCESS)
        }
        Verb::Exec(args) => crate::runtime()?.block_on(exec(&args)),
        Verb::Logs(args) => crate::runtime()?
            .block_on(logs(&args))
            .map(|()| ExitCode::SUCCESS),
    }
}

fn up(args: &UpArgs) -> Result<()> {
    if let Some(demo) = &args.demo {
        ensure!(
            demo == "bookinfo",
            "there is no demo {demo:?}: the one there is is bookinfo"
        );
    }
    let mut progress = Progress::default();
    let options = options(args)?;
    // No thread may exist before this: the node is made of namespaces that only a lone thread can enter.
    let mut sandbox = lateen_sandbox::up(options, &mut |step| progress.done(step))?;
    let runtime = crate::runtime()?;
    let outcome = runtime.block_on(async {
        tokio::select! {
            installed = install_all(args, &mut progress) => installed.map(|()| true),
            interrupted = stopped() => interrupted.map(|()| false),
        }
    });
    match outcome {
        Ok(true) => {}
        Ok(false) => return sandbox.stop().map_err(Into::into),
        Err(error) => {
            let log = sandbox_home().log();
            let _ = sandbox.stop();
            return Err(error.context(format!(
                "the mesh did not come up (the node's log: {})",
                log.display()
            )));
        }
    }
    tell(args, &sandbox, &progress);
    if args.detach {
        return Ok(());
    }
    let interrupted = runtime.block_on(async {
        loop {
            tokio::select! {
                interrupted = stopped() => return interrupted.map(|()| true),
                () = tokio::time::sleep(Duration::from_millis(300)) => {
                    if sandbox.ended() {
                        return Ok(false);
                    }
                }
            }
        }
    })?;
    if !interrupted {
        bail!(
            "the node has ended by itself; its log: {}",
            sandbox_home().log().display()
        );
    }
    println!("stopping…");
    sandbox.stop()?;
    println!("✔ sandbox stopped");
    Ok(())
}

async fn stopped() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut term, mut int) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    Ok(())
}

fn options(args: &UpArgs) -> Result<UpOptions> {
    let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut publish = Vec::new();
    if !args.no_mesh {
        let ingress = |listen, port: &str, optional| Publish {
            listen: local(listen),
            target: Target {
                namespace: "istio-system".to_owned(),
                service: "istio-ingressgateway".to_owned(),
                port: port.to_owned(),
            },
            optional,
        };
        publish.push(ingress(args.http_port, "80", false));
        let (https_port, optional) = match args.https_port {
            Some(asked) => (asked, false),
            None => (HTTPS_PORT, true),
        };
        publish.push(ingress(https_port, "443", optional));
    }
    for text in &args.publish {
        publish.push(
            published(text).with_context(|| {
                format!("--publish {text:?} is not PORT=NAMESPACE/SERVICE:PORT")
            })?,
        );
    }
    Ok(UpOptions {
        home: sandbox_home(),
        api: local(args.api_port),
        publish,
        state: args.state.clone(),
        images: args.images.clone(),
        detach: args.detach,
        log: std::env::var("LATEEN_LOG").unwrap_or_else(|_| "info".to_owned()),
    })
}

fn published(text: &str) -> Option<Publish> {
    let (port, target) = text.split_once('=')?;
    let (namespace, rest) = target.split_once('/')?;
    let (service, service_port) = rest.split_once(':')?;
    Some(Publish {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, port.parse().ok()?)),
        target: Target {
            namespace: namespace.to_owned(),
            service: service.to_owned(),
            port: service_port.to_owned(),
        },
        optional: false,
    })
}

async fn install_all(args: &UpArgs, progress: &mut Progress) -> Result<()> {
    if args.no_mesh {
        return Ok(());
    }
    let kubeconfig = sandbox_home().kubeconfig();
    let mut cluster = Cluster::connect(Some(&kubeconfig), Some("default".to_owned())).await?;
    install::crds(&mut cluster).await?;
    progress.done("Istio core installed: resource definitions");
    install::control_plane(&cluster).await?;
    install::gateways(&cluster).await?;
    install::available(&cluster, "istio-system", READY_LIMIT).await?;
    progress.done("istiod and the gateways installed");
    if args.demo.is_some() {
        let label = json!({"apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": "default", "labels": {"istio-injection": "enabled"}}});
        cluster.apply(&label).await?;
        for (name, manifest) in [
            ("bookinfo.yaml", BOOKINFO),
            ("bookinfo-gateway.yaml", BOOKINFO_GATEWAY),
        ] {
            for object in documents(name, manifest)? {
                cluster
                    .apply(&object)
                    .await
                    .with_context(|| crate::objects::label(&object))?;
            }
        }
        install::available(&cluster, "default", READY_LIMIT).await?;
        page_opens(args.http_port).await?;
        progress.done("bookinfo: every pod 2/2, the page opens");
    }
    Ok(())
}

/// Waits for the first 200 through the gateway.
async fn page_opens(port: u16) -> Result<()> {
    let start = tokio::time::Instant::now();
    let address = format!("127.0.0.1:{port}");
    loop {
        let headers = http::HeaderMap::new();
        let local = tokio::task::LocalSet::new();
        let got = local
            .run_until(lateen_apps::http::fetch(
                &address,
                "/productpage",
                &headers,
                Duration::from_secs(5),
            ))
            .await;
        let said = match got {
            Ok((status, _)) if status == 200 => return Ok(()),
            Ok((status, _)) => format!("status {status}"),
            Err(error) => format!("{error:#}"),
        };
        ensure!(
            start.elapsed() < Duration::from_secs(20),
            "http://{address}/productpage does not open: {said}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn tell(args: &UpArgs, sandbox: &Sandbox, progress: &Progress) {
    println!("\nReady in {:.1} s.", progress.seconds());
    println!(
        "  kubectl       export KUBECONFIG={}",
        sandbox.kubeconfig().display()
    );
    println!("  API server    https://{}", sandbox.api());
    for publish in sandbox.published() {
        let target = &publish.target;
        let scheme = if target.port == "443" {
            "https"
        } else {
            "http"
        };
        let url = format!("{scheme}://{}", publish.listen);
        println!(
            "  {url:<27} → {}/{}:{}",
            target.namespace, target.service, target.port
        );
    }
    if args.demo.is_some() {
        println!(
            "  bookinfo      http://127.0.0.1:{}/productpage",
            args.http_port
        );
    }
    let end = if args.detach {
        "lateen sandbox down"
    } else {
        "Ctrl-C, or lateen sandbox down"
    };
    println!("  to stop       {end}");
}

/// The pod that `name` means: itself, or the first running pod of `deploy/NAME`.
///
/// # Errors
/// There is none.
pub async fn pod_name(cluster: &Cluster, name: &str) -> Result<(String, String)> {
    let (plain, namespace) = match name.split_once('.') {
        Some((pod, namespace)) => (pod, namespace.to_owned()),
        None => (name, cluster.namespace.clone()),
    };
    let Some((kind, owner)) = plain.split_once('/') else {
        return Ok((namespace, plain.to_owned()));
    };
    if kind.starts_with("po") {
        return Ok((namespace, owner.to_owned()));
    }
    ensure!(
        kind.starts_with("deploy"),
        "{name}: use a pod's name or deploy/NAME"
    );
    let deployment = cluster
        .read(&format!(
            "/apis/apps/v1/namespaces/{namespace}/deployments/{owner}"
        ))
        .await?;
    let labels = deployment["spec"]["selector"]["matchLabels"]
        .as_object()
        .cloned()
        .unwrap_or_default();
    let selector: Vec<String> = labels
        .iter()
        .map(|(k, v)| format!("{k}%3D{}", v.as_str().unwrap_or_default()))
        .collect();
    let path = format!(
        "/api/v1/namespaces/{namespace}/pods?labelSelector={}",
        selector.join("%2C")
    );
    let pods = cluster.read(&path).await?;
    let running = pods["items"].as_array().into_iter().flatten().find(|pod| {
        pod["status"]["phase"] == "Running" && pod["metadata"]["deletionTimestamp"].is_null()
    });
    let pod = running.with_context(|| {
        format!("deployment {owner} has no running pod in namespace {namespace}")
    })?;
    Ok((namespace, crate::cluster::text(&pod["metadata"]["name"])))
}

async fn exec(args: &ExecArgs) -> Result<ExitCode> {
    let cluster = Cluster::connect(
        args.connection.kubeconfig.as_deref(),
        args.connection.namespace.clone(),
    )
    .await?;
    let (namespace, pod) = pod_name(&cluster, &args.pod).await?;
    let pods: Api<Pod> = Api::namespaced(cluster.client().clone(), &namespace);
    let mut wanted = AttachParams::default()
        .stdin(args.stdin)
        .stdout(true)
        .stderr(true);
    wanted.container = args.container.clone();
    let mut running = pods.exec(&pod, &args.command, &wanted).await?;
    let out = running.stdout().context("no standard output")?;
    let err = running.stderr().context("no standard error")?;
    let status = running.take_status().context("no exit status")?;
    let input = running.stdin();
    if let Some(mut input) = input.filter(|_| args.stdin) {
        tokio::spawn(async move {
            let _ = tokio::io::copy(&mut tokio::io::stdin(), &mut input).await;
        });
    }
    let (mut out, mut err) = (out, err);
    let (mut stdout, mut stderr) = (tokio::io::stdout(), tokio::io::stderr());
    let (one, two) = tokio::join!(
        tokio::io::copy(&mut out, &mut stdout),
        tokio::io::copy(&mut err, &mut stderr)
    );
    one?;
    two?;
    let code = status
        .await
        .and_then(|status| status.details)
        .and_then(|details| details.causes)
        .and_then(|causes| {
            causes
                .into_iter()
                .find(|c| c.reason.as_deref() == Some("ExitCode"))
        })
        .and_then(|cause| cause.message?.parse::<u8>().ok())
        .unwrap_or(0);
    Ok(ExitCode::from(code))
}

async fn logs(args: &LogsArgs) -> Result<()> {
    let cluster = Cluster::connect(
        args.connection.kubeconfig.as_deref(),
        args.connection.namespace.clone(),
    )
    .await?;
    let (namespace, pod) = pod_name(&cluster, &args.pod).await?;
    let pods: Api<Pod> = Api::namespaced(cluster.client().clone(), &namespace);
    let wanted = LogParams {
        container: args.container.clone(),
        follow: args.follow,
        tail_lines: args.tail,
        ..LogParams::default()
    };
    let mut lines = pods.log_stream(&pod, &wanted).await?.lines();
    while let Some(line) = lines.try_next().await? {
        println!("{line}");
    }
    Ok(())
}
