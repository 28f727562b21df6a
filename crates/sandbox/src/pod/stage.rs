//! The hidden second life of the executable: a single-threaded process that enters or makes namespaces and
//! becomes a container's program. The node cannot do this itself, because a thread of a multi-threaded
//! process may not. The node sends a [`Task`] with open files over a socket; the stage answers with
//! [`Reply`] messages, and the socket's end means that the program runs.
//!
//! node ──spawn──▶ stage ──clone(CLONE_PARENT, new pid+mount ns)──▶ program (a child of the node)

mod container;
mod exec;
mod root;
mod syscalls;

use std::io::{IoSlice, IoSliceMut, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg,
    sendmsg, socketpair,
};
use serde::{Deserialize, Serialize};

pub(crate) use syscalls::{clone_process, place, set_window_size};

/// The hidden first argument that makes the executable a stage.
pub(crate) const STAGE_ARGUMENT: &str = "__lateen-stage";

/// What a stage is asked to become.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Task {
    /// A container: files are stdin, stdout, stderr, then the pod's net, uts and ipc namespaces.
    Container(ContainerTask),
    /// A command in a running container: files are stdin, stdout, stderr, then the container's pid, net,
    /// uts, ipc and mount namespaces.
    Exec(ExecTask),
}

/// A container to start.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct ContainerTask {
    /// An empty directory of this container on the sandbox's own file system.
    pub scratch: String,
    /// The executable as the node sees it, shown in the container as `/usr/local/bin/lateen`.
    pub executable: String,
    /// Mounts over the root, in order.
    pub mounts: Vec<Mount>,
    /// Host directories outside the usual ones to show read-only at the same path.
    pub host_directories: Vec<String>,
    /// What to run and as whom.
    pub program: Program,
    /// Capabilities to keep in the bounding set, as numbers; absent: all (a user namespace bounds them).
    pub capabilities: Option<Vec<u32>>,
    /// Whether `/proc/sys` outside the network part stays writable.
    pub privileged: bool,
}

/// One mount in a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Mount {
    /// A file or directory as the node sees it.
    pub source: String,
    /// Absolute path in the container.
    pub target: String,
    /// Whether writes fail.
    pub read_only: bool,
}

/// A command to run in a container.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct ExecTask {
    /// What to run and as whom.
    pub program: Program,
    /// As in [`ContainerTask::capabilities`].
    pub capabilities: Option<Vec<u32>>,
}

/// A program with its surroundings.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Program {
    /// Program and arguments; never empty.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// Working directory.
    pub directory: String,
    /// User id; absent: unchanged.
    pub user: Option<u32>,
    /// Group id; absent: unchanged.
    pub group: Option<u32>,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Whether it gets a terminal of its own in place of the three files.
    pub tty: bool,
    /// Whether it may never gain privileges.
    pub no_new_privileges: bool,
}

/// What a stage answers. The end of the socket without an error means success.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// The program's process id in the node's pid namespace.
    Pid(i32),
    /// The terminal's master side, as the attached file.
    Terminal,
    /// It failed; nothing runs.
    Error(String),
}

/// One end of the conversation between node and stage.
#[derive(Debug)]
pub(crate) struct Link(OwnedFd);

// === entry ===

/// Runs the stage when the executable was started as one, and then does not return.
pub(crate) fn run_if_asked(argument: Option<&str>) {
    if argument != Some(STAGE_ARGUMENT) {
        return;
    }
    let code = match stage() {
        Ok(()) => 0,
        Err((link, message)) => {
            if let Some(link) = link {
                let _ = link.reply(&Reply::Error(message), &[]);
            }
            1
        }
    };
    std::process::exit(code);
}

type Failure = (Option<Link>, String);

fn stage() -> Result<(), Failure> {
    let link = Link::from_stdin().map_err(|e| (None, e.to_string()))?;
    let (task, files) = match link.receive_task() {
        Ok(received) => received,
        Err(e) => return Err((Some(link), format!("cannot read the task: {e}"))),
    };
    let outcome = match task {
        Task::Container(task) => container::start(&link, &task, files),
        Task::Exec(task) => exec::start(&link, &task, files),
    };
    outcome.map_err(|message| (Some(link), message))
}

// === Link ===

impl Link {
    /// A connected pair: one end for the node, one to become the stage's standard input.
    pub(crate) fn pair() -> nix::Result<(Self, OwnedFd)> {
        let (near, far) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )?;
        Ok((Self(near), far))
    }

    fn from_stdin() -> nix::Result<Self> {
        // A duplicate that closes on exec, so that the program does not inherit the conversation.
        let duplicate = nix::fcntl::fcntl(
            std::io::stdin().as_fd(),
            nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(10),
        )?;
        Ok(Self(own(duplicate)))
    }

    /// Sends a task with its files. The task travels in a memory file, so its size is not bounded by the socket.
    pub(crate) fn send_task(&self, task: &Task, files: &[BorrowedFd<'_>]) -> std::io::Result<()> {
        let body = serde_json::to_vec(task)?;
        let memory =
            nix::sys::memfd::memfd_create(c"lateen-task", nix::sys::memfd::MFdFlags::MFD_CLOEXEC)?;
        let mut file = std::fs::File::from(memory);
        std::io::Write::write_all(&mut file, &body)?;
        file.seek(SeekFrom::Start(0))?;
        let mut raw: Vec<RawFd> = vec![file.as_raw_fd()];
        raw.extend(files.iter().map(AsRawFd::as_raw_fd));
        self.send(b"task", &raw)?;
        Ok(())
    }

    fn receive_task(&self) -> std::io::Result<(Task, Vec<OwnedFd>)> {
        let mut buffer = [0u8; 16];
        let (_, mut files) = self.receive(&mut buffer)?;
        if files.is_empty() {
            return Err(std::io::Error::other("no task was sent"));
        }
        let mut body = Vec::new();
        std::fs::File::from(files.remove(0)).read_to_end(&mut body)?;
        Ok((serde_json::from_slice(&body)?, files))
    }

    fn reply(&self, reply: &Reply, files: &[RawFd]) -> std::io::Result<()> {
        let mut body = serde_json::to_vec(reply)?;
        body.truncate(REPLY_LIMIT);
        self.send(&body, files)
    }

    /// The next answer with an attached file, or nothing when the stage has closed its end.
    pub(crate) fn receive_reply(&self) -> std::io::Result<Option<(Reply, Option<OwnedFd>)>> {
        let mut buffer = [0u8; REPLY_LIMIT];
        let (length, mut files) = self.receive(&mut buffer)?;
        if length == 0 {
            return Ok(None);
        }
        let reply = serde_json::from_slice(&buffer[..length])?;
        Ok(Some((reply, files.pop())))
    }

    fn send(&self, body: &[u8], files: &[RawFd]) -> std::io::Result<()> {
        let rights = [ControlMessage::ScmRights(files)];
        let control: &[ControlMessage<'_>] = if files.is_empty() { &[] } else { &rights };
        sendmsg::<()>(
            self.0.as_raw_fd(),
            &[IoSlice::new(body)],
            control,
            MsgFlags::MSG_NOSIGNAL,
            None,
        )?;
        Ok(())
    }

    fn receive(&self, buffer: &mut [u8]) -> std::io::Result<(usize, Vec<OwnedFd>)> {
        let mut space = nix::cmsg_space!([RawFd; MOST_FILES]);
        let mut slices = [IoSliceMut::new(buffer)];
        let message = loop {
            match recvmsg::<()>(
                self.0.as_raw_fd(),
                &mut slices,
                Some(&mut space),
                MsgFlags::MSG_CMSG_CLOEXEC,
            ) {
                Err(nix::errno::Errno::EINTR) => {}
                other => break other?,
            }
        };
        let mut files = Vec::new();
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(raw) = control {
                files.extend(raw.into_iter().map(own));
            }
        }
        Ok((message.bytes, files))
    }
}

const REPLY_LIMIT: usize = 4096;
const MOST_FILES: usize = 16;

/// Takes ownership of a descriptor that the kernel has just made for this process.
#[expect(unsafe_code, reason = "the kernel hands descriptors over as numbers")]
fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: every caller passes a descriptor it has just received from fcntl or recvmsg and keeps nowhere else.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
