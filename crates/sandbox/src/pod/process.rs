//! Processes as the node sees them: launching through a stage, hearing of their end at once, signalling
//! without ever hitting a stranger that got the same number.

use std::collections::{HashMap, VecDeque};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use parking_lot::Mutex;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::stage::{Link, Reply, STAGE_ARGUMENT, Task};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exit {
    /// Exit code; 128 plus the signal's number when a signal ended it.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
}

/// A launched process. It runs on when this value is dropped.
#[derive(Debug, Clone)]
pub(crate) struct Process {
    /// Process id in the node's pid namespace.
    pub pid: i32,
    exit: watch::Receiver<Option<Exit>>,
    reaper: Reaper,
}

/// Launches processes and reaps all children of the node.
#[derive(Debug, Clone)]
pub(crate) struct Reaper {
    executable: Arc<PathBuf>,
    children: Arc<Mutex<Children>>,
}

#[derive(Debug, Default)]
struct Children {
    claimed: HashMap<i32, watch::Sender<Option<Exit>>>,
    /// Ends seen before anyone asked for them.
    unclaimed: VecDeque<(i32, Exit)>,
}

/// How many ends nobody asked for are remembered: stages and orphans end unasked all the time.
const UNCLAIMED_LIMIT: usize = 256;

/// What a launch gave.
#[derive(Debug)]
pub(crate) struct Launched {
    /// The program's process.
    pub process: Process,
    /// Its terminal's master side, when it asked for one.
    pub terminal: Option<OwnedFd>,
}

impl Reaper {
    /// A reaper for this process's children. Stages run from `executable`.
    ///
    /// # Errors
    /// The signal handler cannot be installed.
    pub(crate) fn start(executable: &Path) -> std::io::Result<Self> {
        let reaper = Self {
            executable: Arc::new(executable.to_owned()),
            children: Arc::default(),
        };
        let mut ends = signal(SignalKind::child())?;
        let children = reaper.children.clone();
        tokio::spawn(async move {
            loop {
                children.lock().reap();
                if ends.recv().await.is_none() {
                    return;
                }
            }
        });
        Ok(reaper)
    }

    /// Launches a task with its files and waits until its program runs or fails to.
    ///
    /// # Errors
    /// One sentence; nothing is left running.
    pub(crate) async fn launch(
        &self,
        task: Task,
        files: Vec<Arc<OwnedFd>>,
    ) -> Result<Launched, String> {
        let reaper = self.clone();
        tokio::task::spawn_blocking(move || reaper.launch_blocking(&task, &files))
            .await
            .map_err(|e| format!("the launch was interrupted: {e}"))?
    }

    fn launch_blocking(&self, task: &Task, files: &[Arc<OwnedFd>]) -> Result<Launched, String> {
        use std::os::fd::AsFd;
        use std::os::unix::process::CommandExt;
        let (link, far) = Link::pair().map_err(|e| format!("cannot make a socket: {e}"))?;
        // The child is left to the reaper, like all children: nobody else may wait for it.
        let _ = Command::new(self.executable.as_ref())
            .arg0("lateen-stage")
            .arg(STAGE_ARGUMENT)
            .env_clear()
            .stdin(Stdio::from(far))
            .stdout(Stdio::null())
            .spawn()
            .map_err(|e| format!("cannot start {}: {e}", self.executable.display()))?;
        let borrowed: Vec<BorrowedFd<'_>> = files.iter().map(|file| file.as_fd()).collect();
        link.send_task(task, &borrowed)
            .map_err(|e| format!("cannot instruct the stage: {e}"))?;
        let mut process = None;
        let mut terminal = None;
        let mut failure = None;
        while let Some((reply, file)) = link
            .receive_reply()
            .map_err(|e| format!("the stage does not answer: {e}"))?
        {
            match reply {
                Reply::Pid(pid) => process = Some(self.claim(pid)),
                Reply::Terminal => terminal = file,
                Reply::Error(message) => failure = Some(message),
            }
        }
        match (process, failure) {
            (_, Some(message)) => Err(message),
            (Some(process), None) => Ok(Launched { process, terminal }),
            (None, None) => Err("the stage died before it started the program".into()),
        }
    }

    fn claim(&self, pid: i32) -> Process {
        let mut children = self.children.lock();
        let (sender, exit) = watch::channel(None);
        // While this lock is held nothing is reaped, so a living number is this process and no other.
        let early = children.take_unclaimed(pid);
        match early.filter(|_| !exists(pid)) {
            Some(end) => {
                let _ = sender.send(Some(end));
            }
            None => {
                children.claimed.insert(pid, sender);
            }
        }
        Process {
            pid,
            exit,
            reaper: self.clone(),
        }
    }
}

impl Process {
    /// Resolves when the process has ended.
    pub(crate) async fn ended(&self) -> Exit {
        let mut exit = self.exit.clone();
        loop {
            if let Some(end) = *exit.borrow_and_update() {
                return end;
            }
            if exit.changed().await.is_err() {
                return Exit {
                    code: 255,
                    signal: None,
                };
            }
        }
    }

    /// Sends a signal, unless the process has ended.
    pub(crate) fn signal(&self, signal: Signal) {
        let children = self.reaper.children.lock();
        if children.claimed.contains_key(&self.pid) {
            let _ = kill(Pid::from_raw(self.pid), signal);
        }
    }

    /// Whether it still runs.
    pub(crate) fn running(&self) -> bool {
        self.exit.borrow().is_none()
    }
}

impl Children {
    fn reap(&mut self) {
        loop {
            let (pid, exit) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, Exit { code, signal: None }),
                Ok(WaitStatus::Signaled(pid, signal, _)) => {
                    let number = signal as i32;
                    let exit = Exit {
                        code: 128 + number,
                        signal: Some(number),
                    };
                    (pid, exit)
                }
                Ok(WaitStatus::StillAlive) | Err(_) => return,
                Ok(_) => continue,
            };
            match self.claimed.remove(&pid.as_raw()) {
                Some(waiter) => {
                    let _ = waiter.send(Some(exit));
                }
                None => {
                    if self.unclaimed.len() == UNCLAIMED_LIMIT {
                        self.unclaimed.pop_front();
                    }
                    self.unclaimed.push_back((pid.as_raw(), exit));
                }
            }
        }
    }

    fn take_unclaimed(&mut self, pid: i32) -> Option<Exit> {
        let at = self.unclaimed.iter().rposition(|(p, _)| *p == pid)?;
        self.unclaimed.remove(at).map(|(_, exit)| exit)
    }
}

fn exists(pid: i32) -> bool {
    kill(Pid::from_raw(pid), None).is_ok()
}
