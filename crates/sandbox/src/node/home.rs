//! The sandbox's directory on the host: kubeconfig, lock, record of the running instance, log.
//! Everything else lives inside the node's namespaces.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::{Publish, UpError, file_error};

/// The directory of a sandbox on the host. One sandbox at a time runs from a home.
#[derive(Debug, Clone)]
pub struct Home {
    path: PathBuf,
}

/// Facts about the running instance, in `sandbox.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The process that holds it.
    pub pid: i32,
    /// Start, in seconds since 1970.
    pub started: i64,
    /// The API server's address.
    pub api: SocketAddr,
    /// Published services.
    pub published: Vec<Publish>,
}

/// Held by the process that holds the node; the kernel lets go of it with the process.
pub(crate) type Lock = Flock<File>;

impl Home {
    /// A home at a path; nothing is created yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The usual home: `~/.lateen/sandbox` below the given home directory of the user.
    pub fn below(user_home: &Path) -> Self {
        Self::new(user_home.join(".lateen/sandbox"))
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.path.join("kubeconfig")
    }

    /// The node's log.
    pub fn log(&self) -> PathBuf {
        self.path.join("logs/node.log")
    }

    pub(crate) fn control(&self) -> PathBuf {
        self.path.join("control.sock")
    }

    /// The place where the node mounts its own file system; empty on the host.
    pub(crate) fn run(&self) -> PathBuf {
        self.path.join("run")
    }

    fn record(&self) -> PathBuf {
        self.path.join("sandbox.json")
    }

    pub(crate) fn create(&self) -> Result<(), UpError> {
        for directory in [self.path.clone(), self.path.join("logs"), self.run()] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&directory)
                .map_err(|e| file_error("create", &directory, e))?;
        }
        Ok(())
    }

    pub(crate) fn lock(&self) -> Result<Lock, UpError> {
        let path = self.path.join("lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(|e| file_error("open", &path, e))?;
        Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, e)| match e {
            nix::errno::Errno::EWOULDBLOCK => UpError::AlreadyRunning {
                pid: self.read_record().map_or(0, |r| r.pid),
                home: self.path.display().to_string(),
            },
            other => file_error("lock", &path, other.into()),
        })
    }

    /// The record of a run that was killed: one that ended by itself removes it.
    pub(crate) fn killed(&self, _held: &Lock) -> Option<Record> {
        self.read_record()
    }

    /// Removes what a run leaves on the host, also one that was killed.
    pub(crate) fn clean(&self) {
        for path in [self.record(), self.kubeconfig(), self.control()] {
            let _ = fs::remove_file(path);
        }
    }

    pub(crate) fn write_record(&self, record: &Record) -> Result<(), UpError> {
        let text = serde_json::to_vec_pretty(record).map_err(std::io::Error::from);
        let path = self.record();
        text.and_then(|text| write_private(&path, &text))
            .map_err(|e| file_error("write", &path, e))
    }

    /// The running instance of this home.
    pub(crate) fn running(&self) -> Result<Record, UpError> {
        let not_running = || UpError::NotRunning {
            home: self.path.display().to_string(),
        };
        if !self.path.join("lock").exists() {
            return Err(not_running());
        }
        match self.lock() {
            // Nobody holds it: whatever record is there is a dead one's.
            Ok(_free) => Err(not_running()),
            Err(UpError::AlreadyRunning { .. }) => self.read_record().ok_or_else(|| {
                UpError::Node("it is just starting or stopping; try again in a second".into())
            }),
            Err(other) => Err(other),
        }
    }

    fn read_record(&self) -> Option<Record> {
        let mut text = String::new();
        File::open(self.record())
            .ok()?
            .read_to_string(&mut text)
            .ok()?;
        serde_json::from_str(&text).ok()
    }
}

/// Whether a process exists.
pub(crate) fn alive(pid: i32) -> bool {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None) != Err(nix::errno::Errno::ESRCH)
}

/// Writes a file that only its owner may read, whole or not at all.
pub(crate) fn write_private(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let draft = path.with_extension("new");
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&draft)?;
    file.write_all(text)?;
    file.flush()?;
    fs::rename(draft, path)
}
