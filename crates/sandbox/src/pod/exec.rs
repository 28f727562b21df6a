//! Running a command in a running container, with its files or a terminal of its own.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use super::handle::Run;
use super::process::{Launched, Process, Reaper};
use super::stage::{ExecTask, Program, Task};

/// A command's own files, when it has no terminal.
pub(crate) struct Files {
    pub stdin: Arc<OwnedFd>,
    pub stdout: Arc<OwnedFd>,
    pub stderr: Arc<OwnedFd>,
}

/// Starts a command in a container.
///
/// # Errors
/// The container has ended, or the program cannot be started.
pub(crate) async fn start(
    reaper: &Reaper,
    run: &Run,
    command: Vec<String>,
    tty: bool,
    files: Files,
) -> Result<Launched, String> {
    let mut all = vec![files.stdin, files.stdout, files.stderr];
    for namespace in ["pid", "net", "uts", "ipc", "mnt"] {
        let path = format!("/proc/{}/ns/{namespace}", run.process.pid);
        let file = File::open(path).map_err(|_| "the container has ended".to_owned())?;
        all.push(Arc::new(file.into()));
    }
    // The number could be a stranger's by now; the process's end would have been seen before that.
    if !run.process.running() {
        return Err("the container has ended".into());
    }
    let mut program = Program {
        argv: command,
        tty,
        ..run.program.as_ref().clone()
    };
    if tty && !program.env.iter().any(|(name, _)| name == "TERM") {
        program.env.push(("TERM".into(), "xterm".into()));
    }
    let task = ExecTask {
        program,
        capabilities: run.capabilities.clone(),
    };
    reaper.launch(Task::Exec(task), all).await
}

/// A pipe whose ends close on exec: (read, write).
pub(crate) fn pipe_pair() -> std::io::Result<(OwnedFd, OwnedFd)> {
    Ok(pipe2(OFlag::O_CLOEXEC)?)
}

/// `/dev/null` for reading and writing.
pub(crate) fn null() -> std::io::Result<Arc<OwnedFd>> {
    let file = File::options().read(true).write(true).open("/dev/null")?;
    Ok(Arc::new(file.into()))
}

/// What a command said, and how it ended.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Exit code.
    pub code: i32,
    /// The beginning of its output and errors, together.
    pub output: String,
}

/// How much of a probe's or hook's output is kept. Kubernetes: 10 KiB.
const OUTPUT_LIMIT: u64 = 10 << 10;

/// Runs a command to its end, killing it when it takes too long.
///
/// # Errors
/// It could not be started, or took too long.
pub(crate) async fn run_to_end(
    reaper: &Reaper,
    run: &Run,
    command: Vec<String>,
    most: Duration,
) -> Result<Answer, String> {
    let (read, write) = pipe_pair().map_err(|e| e.to_string())?;
    let write = Arc::new(write);
    let files = Files {
        stdin: null().map_err(|e| e.to_string())?,
        stdout: write.clone(),
        stderr: write,
    };
    let launched = start(reaper, run, command, false, files).await?;
    let process = KillOnDrop(launched.process);
    let receiver = pipe::Receiver::from_owned_fd(read).map_err(|e| e.to_string())?;
    let mut output = Vec::new();
    let finish = async {
        let mut limited = receiver.take(OUTPUT_LIMIT);
        let end = process.0.ended();
        let read = limited.read_to_end(&mut output);
        // A child that outlives the command may keep the pipe: the command's end is what counts.
        let mut end = std::pin::pin!(end);
        tokio::select! {
            exit = &mut end => exit,
            _ = read => end.await,
        }
    };
    match tokio::time::timeout(most, finish).await {
        Ok(exit) => Ok(Answer {
            code: exit.code,
            output: String::from_utf8_lossy(&output).trim_end().to_owned(),
        }),
        Err(_) => Err(format!("command timed out after {}s", most.as_secs())),
    }
}

/// Kills a process that nobody waits for any more.
pub(crate) struct KillOnDrop(pub(crate) Process);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        self.0.signal(nix::sys::signal::Signal::SIGKILL);
    }
}
