//! A sandbox for one test: started, used through kubectl and curl, ended. Failures print what the user would see.

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Who runs the sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum As {
    /// Whoever runs the tests.
    Caller,
    /// An ordinary user (65534), when the tests run as root.
    Nobody,
    /// The caller, who sees a small disk at [`Mesh::SMALL_DISK`].
    OnSmallDisk,
}

/// A running sandbox.
pub struct Mesh {
    pub home: PathBuf,
    binary: PathBuf,
    child: Child,
    user: As,
    pub api_port: u16,
    pub http_port: u16,
    _folder: tempfile::TempDir,
}

/// A free port of the loopback.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|l| l.local_addr())
        .map(|a| a.port())
        .expect("a free port")
}

/// The project's root, where `samples/` lies.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ has a parent")
        .to_owned()
}

/// The binary under test: `$LATEEN_BIN` (set by `cargo xtask e2e`).
fn binary() -> Result<PathBuf> {
    let path =
        std::env::var_os("LATEEN_BIN").context("LATEEN_BIN is not set: run `cargo xtask e2e`")?;
    Ok(PathBuf::from(path))
}

impl Mesh {
    /// Where a sandbox that was started [`As::OnSmallDisk`] finds it; nobody else does.
    pub const SMALL_DISK: &str = "/mnt";

    /// `sandbox up` with `arguments`, as the caller.
    pub fn up(arguments: &[&str]) -> Result<Self> {
        Self::up_as(As::Caller, arguments)
    }

    /// `sandbox up` with `arguments`; returns once it says that it is ready.
    pub fn up_as(user: As, arguments: &[&str]) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("lateen-e2e-").tempdir()?;
        let (home, binary) = (
            folder.path().join("home"),
            install_binary(folder.path(), user)?,
        );
        std::fs::create_dir(&home)?;
        if user == As::Nobody {
            nix::unistd::chown(&home, Some(65534.into()), Some(65534.into()))?;
        }
        let (api_port, http_port) = (free_port(), free_port());
        let child = Self::start(&binary, &home, user, (api_port, http_port), arguments)?;
        let mut mesh = Self {
            home,
            binary,
            child,
            user,
            api_port,
            http_port,
            _folder: folder,
        };
        mesh.wait_ready()?;
        Ok(mesh)
    }

    fn start(
        binary: &Path,
        home: &Path,
        user: As,
        ports: (u16, u16),
        arguments: &[&str],
    ) -> Result<Child> {
        let log =
            std::fs::File::create(home.parent().context("home has a parent")?.join("up.log"))?;
        let mut command = match user {
            As::OnSmallDisk => on_small_disk(binary),
            As::Caller | As::Nobody => as_user(Command::new(binary), user),
        };
        command
            .args([
                "sandbox",
                "up",
                "--api-port",
                &ports.0.to_string(),
                "--http-port",
                &ports.1.to_string(),
            ])
            .args(arguments)
            .env("LATEEN_HOME", home)
            .env("HOME", home)
            .env_remove("KUBECONFIG")
            .current_dir(root())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        command
            .spawn()
            .with_context(|| format!("cannot start {}", binary.display()))
    }

    /// Starts again with the same home and ports, after a kill.
    pub fn start_again(&mut self, arguments: &[&str]) -> Result<()> {
        self.child = Self::start(
            &self.binary,
            &self.home,
            self.user,
            (self.api_port, self.http_port),
            arguments,
        )?;
        self.wait_ready()
    }

    fn wait_ready(&mut self) -> Result<()> {
        let limit = Instant::now() + Duration::from_secs(90);
        loop {
            let log = self.log();
            if log.contains("Ready in") {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("sandbox up ended with {status}:\n{log}");
            }
            ensure!(
                Instant::now() < limit,
                "sandbox up is not ready after 90 s:\n{log}{}",
                self.node_log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What `sandbox up` printed.
    pub fn log(&self) -> String {
        self.home
            .parent()
            .and_then(|p| std::fs::read_to_string(p.join("up.log")).ok())
            .unwrap_or_default()
    }

    /// The last of the node's own log.
    pub fn node_log(&self) -> String {
        let text = std::fs::read_to_string(self.home.join("logs/node.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(40).collect();
        lines
            .into_iter()
            .rev()
            .map(|line| format!("{line}\n"))
            .collect()
    }

    /// Runs `lateen` with `arguments`.
    pub fn lateen(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = as_user(Command::new(&self.binary), self.user);
        command
            .args(arguments)
            .env("LATEEN_HOME", &self.home)
            .env("HOME", &self.home)
            .env_remove("KUBECONFIG");
        Ok(command.current_dir(root()).stdin(Stdio::null()).output()?)
    }

    /// kubectl with this mesh's kubeconfig.
    pub fn kubectl_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command
            .args(arguments)
            .env("KUBECONFIG", self.home.join("kubeconfig"))
            .current_dir(root());
        command.env("HOME", &self.home).stdin(Stdio::null());
        command
    }

    /// Runs kubectl and returns what it printed; a failure names what it said.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let output = self
            .kubectl_command(arguments)
            .output()
            .context("cannot start kubectl: is it installed?")?;
        let shown = format!("{}{}", text(&output.stdout), text(&output.stderr));
        ensure!(
            output.status.success(),
            "kubectl {} failed:\n{shown}",
            arguments.join(" ")
        );
        Ok(text(&output.stdout))
    }

    /// Runs kubectl, expects it to fail, and returns what it said.
    pub fn kubectl_fails(&self, arguments: &[&str]) -> Result<String> {
        let output = self.kubectl_command(arguments).output()?;
        ensure!(
            !output.status.success(),
            "kubectl {} should have failed",
            arguments.join(" ")
        );
        Ok(text(&output.stderr))
    }

    /// Applies YAML text.
    pub fn apply(&self, yaml: &str) -> Result<String> {
        let file = self
            .home
            .parent()
            .context("home has a parent")?
            .join("apply.yaml");
        std::fs::write(&file, yaml)?;
        self.kubectl(&["apply", "-f", file.to_str().context("path is UTF-8")?])
    }

    /// An object as JSON.
    pub fn object(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.kubectl(&[&["get", "-o", "json"], arguments].concat())?;
        Ok(serde_json::from_str(&text)?)
    }

    /// `curl` of the ingress gateway: status and body.
    pub fn curl(&self, path: &str, arguments: &[&str]) -> Result<(u16, String)> {
        let url = format!("http://127.0.0.1:{}{path}", self.http_port);
        let output = Command::new("curl")
            .args(["-sS", "-m", "10", "-w", "\n%{http_code}", &url])
            .args(arguments)
            .output()?;
        let all = text(&output.stdout);
        let (body, status) = all.rsplit_once('\n').unwrap_or(("", "0"));
        Ok((status.parse().unwrap_or_default(), body.to_owned()))
    }

    /// Runs a command in a pod's application container.
    pub fn exec(&self, target: &str, container: &str, command: &[&str]) -> Result<String> {
        self.kubectl(&[&["exec", target, "-c", container, "--"], command].concat())
    }

    /// Kills the host process without warning.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Ends it as Ctrl-C does, and waits.
    pub fn interrupt(&mut self) -> Result<()> {
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(self.child.id() as i32),
            nix::sys::signal::Signal::SIGINT,
        )?;
        let limit = Instant::now() + Duration::from_secs(40);
        while self.child.try_wait()?.is_none() {
            ensure!(
                Instant::now() < limit,
                "sandbox up does not end within 40 s of Ctrl-C:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "--- sandbox up\n{}--- node log\n{}",
                self.log(),
                self.node_log()
            );
        }
        if self.child.try_wait().ok().flatten().is_none() {
            let _ = self.interrupt();
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn install_binary(folder: &Path, user: As) -> Result<PathBuf> {
    let source = binary()?;
    if user != As::Nobody {
        return Ok(source);
    }
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))?;
    let copy = folder.join("lateen");
    std::fs::copy(&source, &copy)?;
    std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o755))?;
    Ok(copy)
}

/// In a mount namespace of its own, so that the disk goes with the process.
fn on_small_disk(binary: &Path) -> Command {
    let mut command = Command::new("unshare");
    command.arg(if nix::unistd::geteuid().is_root() {
        "-m"
    } else {
        "-rm"
    });
    let mount = format!(
        "mount -t tmpfs -o size=3m small {} && exec \"$0\" \"$@\"",
        Mesh::SMALL_DISK
    );
    command.args(["sh", "-c", &mount]).arg(binary);
    command
}

fn as_user(mut command: Command, user: As) -> Command {
    use std::os::unix::process::CommandExt as _;
    if user == As::Nobody {
        command.uid(65534).gid(65534);
    }
    command
}

/// The system's Python, which pods have too, if it has a module: they see neither `/root` nor what is installed there.
pub fn python(module: &str) -> Result<&'static str> {
    const SYSTEM: &str = "/usr/bin/python3";
    let script = format!("import {module}");
    let output = Command::new(SYSTEM).args(["-c", &script]).output();
    let output = output.with_context(|| format!("{SYSTEM}: install Debian's python3"))?;
    ensure!(
        output.status.success(),
        "{SYSTEM} has no {module}: {}",
        text(&output.stderr)
    );
    Ok(SYSTEM)
}

/// Bytes as text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Polls `probe` until it is true. For states of other processes, which announce nothing.
pub fn eventually(what: &str, seconds: u64, mut probe: impl FnMut() -> Result<bool>) -> Result<()> {
    let limit = Instant::now() + Duration::from_secs(seconds);
    let mut last = None;
    loop {
        match probe() {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(error) => last = Some(error),
        }
        if Instant::now() > limit {
            bail!(
                "{what}: not within {seconds} s{}",
                last.map(|e| format!(" ({e:#})")).unwrap_or_default()
            );
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
