//! Starting the node: clone into fresh namespaces, hand over listeners and pipes, become the node.
//! The caller's process stays small and single-threaded until this is done.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sched::CloneFlags;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, pipe2, setsid};
use serde::{Deserialize, Serialize};

use super::home::{Home, Lock, Record};
use super::{Publish, UpError, UpOptions, file_error};
use crate::pod::stage::clone_process;

/// The hidden first argument that makes the executable a node.
pub(super) const NODE_ARGUMENT: &str = "__lateen-node";

/// All that is needed to start a node.
pub(super) struct Launch<'a> {
    pub options: &'a UpOptions,
    /// The API server's, then one per published service.
    pub listeners: Vec<TcpListener>,
    pub lock: Lock,
}

/// A node that is ready.
pub(super) struct Started {
    pub record: Record,
    /// Present in the process that holds the node.
    pub node: Option<Node>,
}

/// The node's process. Dropping it kills the node, and with it everything inside.
#[derive(Debug)]
pub(super) struct Node {
    pid: Pid,
    lifeline: Option<OwnedFd>,
    home: Home,
    ended: bool,
    _lock: Lock,
}

/// What the node is told, through an inherited memory file.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct NodeConfig {
    /// The home on the host.
    pub home: PathBuf,
    /// The executable to run stages from.
    pub executable: PathBuf,
    /// Published services in the order of the listeners.
    pub published: Vec<Publish>,
    /// Inherited listeners: the API server's, then the published ones.
    pub listeners: Vec<i32>,
    /// The API server's address on the host.
    pub api: std::net::SocketAddr,
    /// Durable state of the API server.
    pub state: Option<PathBuf>,
    /// The user's image table.
    pub images: Option<PathBuf>,
    /// Filter of the node's log.
    pub log: String,
    /// Inherited pipe for [`Report`] lines.
    pub reports: i32,
    /// Inherited pipe whose end means: stop.
    pub lifeline: i32,
    /// Start, in seconds since 1970.
    pub started: i64,
}

/// One line from the node, or from a detached holder, to its starter.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    /// A step is done.
    Step(String),
    /// Everything works.
    Ready,
    /// It gives up, and why.
    Failed(String),
}

/// Starts the node as a child of this process.
pub(super) fn attached(
    launch: Launch<'_>,
    progress: &mut dyn FnMut(&str),
) -> Result<Started, UpError> {
    let home = launch.options.home.clone();
    let record = Record {
        pid: std::process::id().cast_signed(),
        started: jiff::Timestamp::now().as_second(),
        api: launch.options.api,
        published: launch.options.publish.clone(),
    };
    let log = open_log(&home)?;
    let (reports, report_end) = pipe()?;
    let (lifeline_end, lifeline) = pipe()?;
    let executable = std::env::current_exe()
        .map_err(|e| UpError::Node(format!("cannot find this executable: {e}")))?;
    let config = NodeConfig {
        home: absolute(home.path())?,
        executable,
        published: launch.options.publish.clone(),
        listeners: launch.listeners.iter().map(AsRawFd::as_raw_fd).collect(),
        api: launch.options.api,
        state: launch.options.state.as_deref().map(absolute).transpose()?,
        images: launch.options.images.as_deref().map(absolute).transpose()?,
        log: launch.options.log.clone(),
        reports: report_end.as_raw_fd(),
        lifeline: lifeline_end.as_raw_fd(),
        started: record.started,
    };
    let inherited: Vec<i32> = config
        .listeners
        .iter()
        .copied()
        .chain([config.reports, config.lifeline])
        .collect();
    let pid = clone_node(&config, &inherited, &log)?;
    // Only the node keeps these ends, so that their end means the node's end and the other way round.
    drop((report_end, lifeline_end, launch.listeners));
    let node = Node {
        pid,
        lifeline: Some(lifeline),
        home: home.clone(),
        ended: false,
        _lock: launch.lock,
    };
    home.write_record(&record)?;
    follow(reports, &home, progress)?;
    Ok(Started {
        record,
        node: Some(node),
    })
}

/// Starts a process that holds the node and outlives this one.
pub(super) fn detached(
    launch: Launch<'_>,
    progress: &mut dyn FnMut(&str),
) -> Result<Started, UpError> {
    let home = launch.options.home.clone();
    let (reports, report_end) = pipe()?;
    let fork = clone_process(CloneFlags::empty())
        .map_err(|e| UpError::Node(format!("cannot start a process: {e}")))?;
    if fork.is_none() {
        drop(reports);
        hold(launch, File::from(report_end));
    }
    // The lock belongs to the holder now: releasing this copy would release it for both.
    std::mem::forget(launch.lock);
    drop((report_end, launch.listeners));
    follow(reports, &home, progress)?;
    let record = home.running()?;
    Ok(Started { record, node: None })
}

/// The detached holder's whole life.
fn hold(launch: Launch<'_>, mut reports: File) -> ! {
    let outcome = (|| {
        setsid().map_err(|e| UpError::Node(format!("cannot detach: {e}")))?;
        redirect_standard()?;
        let own = [launch.lock.as_raw_fd(), reports.as_raw_fd()];
        let listeners = launch.listeners.iter().map(AsRawFd::as_raw_fd);
        close_all_but(&listeners.chain(own).collect::<Vec<i32>>());
        let mut signals = SigSet::empty();
        for signal in [
            Signal::SIGTERM,
            Signal::SIGINT,
            Signal::SIGHUP,
            Signal::SIGCHLD,
        ] {
            signals.add(signal);
        }
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&signals), None)
            .map_err(|e| UpError::Node(format!("cannot block signals: {e}")))?;
        let mut step = |text: &str| send(&mut reports, &Report::Step(text.to_owned()));
        let started = attached(launch, &mut step)?;
        Ok((started, signals))
    })();
    let (started, signals) = match outcome {
        Ok(ok) => ok,
        Err(e) => {
            let e: UpError = e;
            send(&mut reports, &Report::Failed(e.to_string()));
            std::process::exit(1);
        }
    };
    send(&mut reports, &Report::Ready);
    drop(reports);
    let Some(mut node) = started.node else {
        std::process::exit(1);
    };
    loop {
        match signals.wait() {
            Ok(Signal::SIGCHLD) if !node.ended() => {}
            Ok(Signal::SIGHUP) => {}
            _ => break,
        }
    }
    node.stop();
    std::process::exit(0);
}

fn send(reports: &mut File, report: &Report) {
    if let Ok(mut line) = serde_json::to_vec(report) {
        line.push(b'\n');
        let _ = reports.write_all(&line);
    }
}

/// Reads reports until the node is ready.
fn follow(reports: OwnedFd, home: &Home, progress: &mut dyn FnMut(&str)) -> Result<(), UpError> {
    for line in BufReader::new(File::from(reports)).lines() {
        let Ok(line) = line else { break };
        match serde_json::from_str(&line) {
            Ok(Report::Step(text)) => progress(&text),
            Ok(Report::Ready) => return Ok(()),
            Ok(Report::Failed(message)) => return Err(UpError::Node(message)),
            Err(_) => {}
        }
    }
    Err(UpError::Node(format!(
        "it ended without a word; its log is {}",
        home.log().display()
    )))
}

/// Clones into new namespaces; the child becomes the node.
fn clone_node(config: &NodeConfig, inherited: &[i32], log: &File) -> Result<Pid, UpError> {
    let (user, group) = (nix::unistd::geteuid(), nix::unistd::getegid());
    let mut flags = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC;
    if !user.is_root() {
        flags |= CloneFlags::CLONE_NEWUSER;
    }
    let child = clone_process(flags).map_err(|e| UpError::Unsupported(clone_refused(e)))?;
    if let Some(pid) = child {
        return Ok(Pid::from_raw(pid));
    }
    let outcome = (|| -> std::io::Result<()> {
        if !user.is_root() {
            std::fs::write("/proc/self/setgroups", "deny")?;
            std::fs::write("/proc/self/uid_map", format!("0 {user} 1"))?;
            std::fs::write("/proc/self/gid_map", format!("0 {group} 1"))?;
        }
        become_node(config, inherited, log)
    })();
    let reason = outcome.err().map_or(String::new(), |e| e.to_string());
    let report = Report::Failed(format!("cannot enter its namespaces: {reason}"));
    if let Ok(mut line) = serde_json::to_vec(&report) {
        line.push(b'\n');
        let _ = std::fs::write(format!("/proc/self/fd/{}", config.reports), line);
    }
    std::process::exit(1);
}

fn become_node(config: &NodeConfig, inherited: &[i32], log: &File) -> std::io::Result<()> {
    use std::os::unix::process::CommandExt;
    // Ctrl-C in the terminal is for the holder, which then stops the node in good order.
    setsid()?;
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    let memory = nix::sys::memfd::memfd_create(c"lateen-node", nix::sys::memfd::MFdFlags::empty())?;
    let mut memory = File::from(memory);
    memory.write_all(&serde_json::to_vec(config)?)?;
    close_others_on_exec()?;
    for fd in inherited.iter().chain([&memory.as_raw_fd()]) {
        keep_open(*fd)?;
    }
    let error = std::process::Command::new(&config.executable)
        .arg0("lateen-node")
        .arg(NODE_ARGUMENT)
        .arg(memory.as_raw_fd().to_string())
        .stdin(std::process::Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log.try_clone()?)
        .exec();
    Err(error)
}

/// Closes what the caller of this process left open, as [`close_others_on_exec`] does for the node.
fn close_all_but(keep: &[i32]) {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else {
        return;
    };
    let open: Vec<i32> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    for fd in open.into_iter().filter(|fd| *fd > 2 && !keep.contains(fd)) {
        // The listing's own descriptor is closed already.
        let _ = nix::unistd::close(fd);
    }
}

/// Whatever the caller of this process left open must not reach the node and its pods: a shell's pipe that
/// stays open in a detached sandbox keeps the shell waiting.
#[expect(unsafe_code, reason = "close_range(2) has no safe wrapper")]
fn close_others_on_exec() -> nix::Result<()> {
    let flags = libc::CLOSE_RANGE_CLOEXEC;
    // SAFETY: descriptors are only marked; nothing is closed under an owner.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, flags) };
    match nix::errno::Errno::result(result) {
        // Before Linux 5.11 there is no such call; the descriptors then stay as the caller had them.
        Err(nix::Error::ENOSYS | nix::Error::EINVAL) => Ok(()),
        other => other.map(drop),
    }
}

/// Lets a descriptor survive exec.
#[expect(unsafe_code, reason = "descriptors are known by number here")]
fn keep_open(fd: i32) -> nix::Result<()> {
    // SAFETY: the descriptor is open: its owner lives in the parent's frame, which this fork has a copy of.
    let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty())).map(drop)
}

fn clone_refused(error: nix::Error) -> String {
    match error {
        nix::Error::EPERM => "this machine lets this user make no namespaces (a container's seccomp profile, or a kernel setting): run as root, outside of restricted containers".into(),
        nix::Error::ENOSPC | nix::Error::EUSERS => "the limit of namespaces is reached: raise user.max_user_namespaces and user.max_net_namespaces".into(),
        nix::Error::EINVAL => "this kernel lacks a namespace kind (user, net, mount, pid, uts and ipc are needed): use a kernel with all of them".into(),
        other => format!("cannot make the node's namespaces: {other}"),
    }
}

fn open_log(home: &Home) -> Result<File, UpError> {
    let path = home.log();
    // The last run's log is kept beside it: it may tell why that run ended.
    let _ = std::fs::rename(&path, path.with_extension("log.1"));
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&path)
        .map_err(|e| file_error("open", &path, e))
}

fn redirect_standard() -> Result<(), UpError> {
    let fail = |e: std::io::Error| UpError::Node(format!("cannot detach: {e}"));
    let null = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")
        .map_err(fail)?;
    for target in 0..3 {
        crate::pod::stage::place(&null, target).map_err(|e| fail(e.into()))?;
    }
    nix::unistd::chdir("/").map_err(|e| fail(e.into()))
}

fn absolute(path: &Path) -> Result<PathBuf, UpError> {
    std::path::absolute(path).map_err(|e| file_error("find", path, e))
}

fn pipe() -> Result<(OwnedFd, OwnedFd), UpError> {
    pipe2(OFlag::O_CLOEXEC).map_err(|e| UpError::Node(format!("cannot make a pipe: {e}")))
}

// === Node ===

impl Node {
    /// Whether the node has ended.
    pub(super) fn ended(&mut self) -> bool {
        if !self.ended {
            let state = waitpid(self.pid, Some(WaitPidFlag::WNOHANG));
            self.ended = !matches!(state, Ok(WaitStatus::StillAlive));
        }
        self.ended
    }

    /// Asks the node to stop and waits; by force when it takes too long.
    pub(super) fn stop(mut self) {
        drop(self.lifeline.take());
        let start = Instant::now();
        while !self.ended() && start.elapsed() < STOP_LIMIT {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// How long a node may take to stop its pods.
const STOP_LIMIT: Duration = Duration::from_secs(12);

impl Drop for Node {
    fn drop(&mut self) {
        if !self.ended() {
            let _ = kill(self.pid, Signal::SIGKILL);
            let _ = waitpid(self.pid, None);
        }
        self.home.clean();
    }
}
