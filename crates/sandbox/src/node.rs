//! The node's life as the host sees it: start it in its own namespaces, ask how it is, stop it.
//! What happens inside is in `node::inside`.

mod checks;
mod control;
mod home;
mod inside;
mod listen;
mod mounts;
mod publish;
mod spawn;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

pub use control::{Component, Status};
pub use home::Home;
pub(crate) use inside::run_if_asked;

use home::Record;

/// How a sandbox is to be started.
#[derive(Debug, Clone)]
pub struct UpOptions {
    /// Where its files on the host live.
    pub home: Home,
    /// The host address of the API server; port 0 takes a free one.
    pub api: SocketAddr,
    /// Host addresses that lead to services.
    pub publish: Vec<Publish>,
    /// Keep the API's state in this directory across runs; absent: in memory.
    pub state: Option<PathBuf>,
    /// The user's image table.
    pub images: Option<PathBuf>,
    /// Whether the sandbox outlives this process.
    pub detach: bool,
    /// Filter of the node's own log (`node.log`), in `RUST_LOG` syntax.
    pub log: String,
}

/// A host address that leads to a service in the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publish {
    /// Address on the host.
    pub listen: SocketAddr,
    /// Where connections go.
    pub target: Target,
    /// Left out, without an error, when the address is in use.
    #[serde(default)]
    pub optional: bool,
}

/// A port of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Namespace of the service.
    pub namespace: String,
    /// Name of the service.
    pub service: String,
    /// Port name or number as the service has it.
    pub port: String,
}

/// Why a sandbox did not start, stop or answer.
#[derive(Debug, thiserror::Error)]
pub enum UpError {
    /// Another one runs from the same home.
    #[error(
        "a sandbox is already running (pid {pid}, home {home}): use it, or stop it with `lateen sandbox down`"
    )]
    AlreadyRunning {
        /// The process that holds it.
        pid: i32,
        /// Its home.
        home: String,
    },
    /// No sandbox runs.
    #[error("no sandbox is running (home {home}): start one with `lateen sandbox up`")]
    NotRunning {
        /// The home looked at.
        home: String,
    },
    /// A port is taken.
    #[error("cannot listen on {address}: {holder}; stop it, or choose another port")]
    PortInUse {
        /// The address.
        address: SocketAddr,
        /// Who has it, as far as this user may see.
        holder: String,
    },
    /// Something this machine lacks.
    #[error("{0}")]
    Unsupported(String),
    /// A file of the home could not be written.
    #[error("cannot {what} {path}: {reason}{cure}")]
    File {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: String,
        /// What the system said.
        reason: String,
        /// What to do about it, beginning with `; `, or empty.
        cure: &'static str,
    },
    /// The node ended before it was ready.
    #[error("the node did not start: {0}")]
    Node(String),
}

/// A running sandbox, as its starter holds it. Dropping it in the process that holds the node (not
/// detached) stops the node at once.
#[derive(Debug)]
pub struct Sandbox {
    home: Home,
    record: Record,
    node: Option<spawn::Node>,
}

/// Starts a sandbox and waits until its API server, pod runner, controllers, service proxy and DNS work.
/// `progress` hears one short sentence per finished step. Call it before starting any thread.
///
/// # Errors
/// One sentence that names the cure; nothing is left running.
pub fn up(options: UpOptions, progress: &mut dyn FnMut(&str)) -> Result<Sandbox, UpError> {
    checks::machine()?;
    if let Some(images) = &options.images {
        crate::images::Images::with_file(images)
            .map_err(|e| UpError::Unsupported(e.to_string()))?;
    }
    options.home.create()?;
    let lock = options.home.lock()?;
    let killed = options.home.killed(&lock);
    options.home.clean();
    let mut options = options;
    let listeners = listen::all(&mut options, killed.as_ref())?;
    let launch = spawn::Launch {
        options: &options,
        listeners,
        lock,
    };
    let started = if options.detach {
        spawn::detached(launch, progress)?
    } else {
        spawn::attached(launch, progress)?
    };
    Ok(Sandbox {
        home: options.home,
        record: started.record,
        node: started.node,
    })
}

impl Sandbox {
    /// The kubeconfig of an administrator.
    pub fn kubeconfig(&self) -> PathBuf {
        self.home.kubeconfig()
    }

    /// The API server's address on the host.
    pub fn api(&self) -> SocketAddr {
        self.record.api
    }

    /// Published services with the addresses they really got.
    pub fn published(&self) -> &[Publish] {
        &self.record.published
    }

    /// The process that holds the sandbox: this one, or the detached one.
    pub fn pid(&self) -> i32 {
        self.record.pid
    }

    /// Whether the node has ended by itself. Always false for a detached sandbox that still runs.
    pub fn ended(&mut self) -> bool {
        match &mut self.node {
            Some(node) => node.ended(),
            None => !home::alive(self.record.pid),
        }
    }

    /// Stops the pods gracefully and then the node; blocks until all is gone, at most about ten seconds.
    ///
    /// # Errors
    /// A detached sandbox could not be signalled.
    pub fn stop(mut self) -> Result<(), UpError> {
        match self.node.take() {
            Some(node) => {
                node.stop();
                self.home.clean();
                Ok(())
            }
            None => down(&self.home),
        }
    }
}

/// Stops the sandbox of a home and waits for its end: gracefully for some seconds, then by force.
///
/// # Errors
/// None runs, or it belongs to another user.
pub fn down(home: &Home) -> Result<(), UpError> {
    let record = home.running()?;
    let pid = nix::unistd::Pid::from_raw(record.pid);
    let signal = |signal| {
        nix::sys::signal::kill(pid, signal).map_err(|e| UpError::File {
            what: "signal the process of",
            path: home.path().display().to_string(),
            reason: e.to_string(),
            cure: "; stop it as the user who started it",
        })
    };
    signal(nix::sys::signal::Signal::SIGTERM)?;
    if !gone(home, Duration::from_secs(15)) {
        signal(nix::sys::signal::Signal::SIGKILL)?;
        gone(home, Duration::from_secs(5));
    }
    home.clean();
    Ok(())
}

/// How the sandbox of a home is.
///
/// # Errors
/// None runs, or it does not answer.
pub fn status(home: &Home) -> Result<Status, UpError> {
    let record = home.running()?;
    control::ask(home, &record)
}

/// Waits until nobody holds the home's lock.
fn gone(home: &Home, most: Duration) -> bool {
    let start = Instant::now();
    while start.elapsed() < most {
        if home.running().is_err() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}

fn file_error(what: &'static str, path: &Path, error: std::io::Error) -> UpError {
    let cure = match error.kind() {
        std::io::ErrorKind::StorageFull => "; free some disk space or set LATEEN_HOME elsewhere",
        std::io::ErrorKind::PermissionDenied
        | std::io::ErrorKind::NotFound
        | std::io::ErrorKind::ReadOnlyFilesystem => {
            "; set LATEEN_HOME to a directory you may write"
        }
        _ => "",
    };
    UpError::File {
        what,
        path: path.display().to_string(),
        reason: error.to_string(),
        cure,
    }
}
