//! The measured process: starting and ending it, its CPU time and memory.

use crate::arguments::Run;
use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// How long a control plane may take to be ready.
const READY: Duration = Duration::from_secs(120);

/// A running control plane. It ends when this is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    ports: Vec<u16>,
}

/// CPU time and memory of a process.
#[derive(Debug, Clone, Copy)]
pub struct Use {
    /// User and system time since its start, in seconds.
    pub cpu: f64,
    /// Resident memory, in MB (10⁶ bytes).
    pub memory: f64,
    /// The most that it was.
    pub peak: f64,
}

/// Free ports for a control plane.
///
/// # Errors
/// None is left.
pub fn ports() -> Result<Vec<u16>> {
    let listeners: Vec<TcpListener> = (0..5)
        .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .collect::<Result<_, _>>()?;
    listeners
        .iter()
        .map(|listener| Ok(listener.local_addr()?.port()))
        .collect()
}

impl Process {
    /// Starts a control plane on `ports`.
    ///
    /// # Errors
    /// This program cannot be started again.
    pub fn start(run: &Run, kubeconfig: &Path, ports: &[u16]) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let list: Vec<String> = ports.iter().map(ToString::to_string).collect();
        command
            .arg("host")
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .arg("--ports")
            .arg(list.join(","));
        if let Some(quiet) = run.quiet {
            command.arg("--quiet").arg(quiet.to_string());
        }
        Ok(Self {
            child: command.spawn().context("cannot start the control plane")?,
            ports: ports.to_vec(),
        })
    }

    /// Where it serves delta ADS.
    pub fn discovery(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.ports[2]).into()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it says that it is ready.
    ///
    /// # Errors
    /// It ended, or it takes too long.
    pub async fn ready(&mut self) -> Result<()> {
        let address: SocketAddr = (Ipv4Addr::LOCALHOST, self.ports[0]).into();
        let began = Instant::now();
        while began.elapsed() < READY {
            if let Some(status) = self.child.try_wait()? {
                bail!("the control plane ended: {status}");
            }
            if says_ready(address).await.unwrap_or(false) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        bail!("the control plane is not ready after {} s", READY.as_secs())
    }

    /// What it has used so far.
    ///
    /// # Errors
    /// It has ended.
    pub fn used(&self) -> Result<Use> {
        let id = self.id();
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
        let after = stat.rsplit_once(')').context("no stat")?.1;
        let fields: Vec<&str> = after.split_whitespace().collect();
        let ticks: f64 = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
        let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
        let field = |name: &str| -> Result<f64> {
            let line = status.lines().find(|line| line.starts_with(name));
            let number = line.and_then(|line| line.split_whitespace().nth(1));
            Ok(number.context("no memory in status")?.parse::<f64>()? * 1024.0 / 1e6)
        };
        Ok(Use {
            cpu: ticks / 100.0,
            memory: field("VmRSS:")?,
            peak: field("VmHWM:")?,
        })
    }

    /// Begins the peak of memory anew.
    pub fn reset_peak(&self) {
        // Where the kernel does not allow it the peak is that of the whole life.
        let _ = std::fs::write(format!("/proc/{}/clear_refs", self.id()), "5");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // In order first: what it has noted of itself is written at its end (`cargo xtask dist`).
        let id = Pid::from_raw(self.child.id().cast_signed());
        let _ = kill(id, Signal::SIGTERM);
        for _ in 0..100 {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn says_ready(address: SocketAddr) -> Result<bool> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    let request = b"GET /ready HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer.starts_with(b"HTTP/1.1 200"))
}
