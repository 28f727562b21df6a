//! Becoming the program: terminal or files, identity, environment, `execve`. Used for a container's own
//! program and for commands in a running container.

use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use nix::sched::{CloneFlags, setns};
use nix::unistd::{
    AccessFlags, Gid, Uid, access, chdir, execve, setgid, setgroups, setsid, setuid,
};

use super::{ExecTask, Link, Program, Reply, syscalls};

/// Where a program is looked for when the environment names no PATH.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Enters a running container and runs a command there.
pub(super) fn start(link: &Link, task: &ExecTask, files: Vec<OwnedFd>) -> Result<(), String> {
    let mut files = files.into_iter();
    let standard: Vec<OwnedFd> = files.by_ref().take(3).collect();
    // The mount namespace comes last: it changes what paths mean.
    for (namespace, kind) in files.zip([
        CloneFlags::CLONE_NEWPID,
        CloneFlags::CLONE_NEWNET,
        CloneFlags::CLONE_NEWUTS,
        CloneFlags::CLONE_NEWIPC,
        CloneFlags::CLONE_NEWNS,
    ]) {
        setns(namespace, kind).map_err(|e| format!("cannot enter the container: {e}"))?;
    }
    // A pid namespace holds only for children; CLONE_PARENT makes the node the one that sees its end.
    let child = syscalls::clone_process(CloneFlags::CLONE_PARENT)
        .map_err(|e| format!("cannot start a process in the container: {e}"))?;
    match child {
        Some(pid) => link
            .reply(&Reply::Pid(pid), &[])
            .map_err(|e| format!("cannot answer: {e}")),
        None => Err(run(
            link,
            &task.program,
            task.capabilities.as_deref(),
            standard,
        )),
    }
}

/// Becomes the program; returns only to say why it could not.
pub(super) fn run(
    link: &Link,
    program: &Program,
    capabilities: Option<&[u32]>,
    standard: Vec<OwnedFd>,
) -> String {
    match prepare(link, program, capabilities, standard) {
        Ok(never) => match never {},
        Err(message) => message,
    }
}

fn prepare(
    link: &Link,
    program: &Program,
    capabilities: Option<&[u32]>,
    standard: Vec<OwnedFd>,
) -> Result<std::convert::Infallible, String> {
    setsid().map_err(|e| format!("setsid: {e}"))?;
    let standard = if program.tty {
        terminal(link)?
    } else {
        standard
    };
    for (number, file) in (0..).zip(&standard) {
        syscalls::place(file, number).map_err(|e| format!("cannot place file {number}: {e}"))?;
        if let Some(user) = program.user.map(Uid::from_raw) {
            // So that the program can open `/dev/stdout` again under its own name.
            let _ = nix::unistd::fchown(file, Some(user), None);
        }
    }
    let directory = Path::new(&program.directory);
    if !directory.exists() {
        // Container runtimes make a missing working directory.
        let _ = std::fs::create_dir_all(directory);
    }
    chdir(directory)
        .map_err(|e| format!("cannot use working directory {}: {e}", program.directory))?;
    if let Some(keep) = capabilities {
        syscalls::bound_capabilities(keep).map_err(|e| format!("capabilities: {e}"))?;
    }
    become_user(program)?;
    if program.no_new_privileges {
        nix::sys::prctl::set_no_new_privs().map_err(|e| format!("no_new_privs: {e}"))?;
    }
    syscalls::default_signals().map_err(|e| format!("signals: {e}"))?;
    let name = program.argv.first().ok_or("no program was given")?;
    let path = search(name, program)?;
    let arguments = strings(program.argv.iter().cloned())?;
    let environment = strings(program.env.iter().map(|(k, v)| format!("{k}={v}")))?;
    let path = CString::new(path).map_err(|_| "the program's path has a zero byte".to_owned())?;
    execve(&path, &arguments, &environment)
        .map_err(|e| format!("exec: \"{name}\": {}", e.desc().to_lowercase()))
}

fn become_user(program: &Program) -> Result<(), String> {
    if program.user.is_none() && program.group.is_none() && program.groups.is_empty() {
        return Ok(());
    }
    let group = program.group.map(Gid::from_raw);
    let mut groups: Vec<Gid> = program.groups.iter().copied().map(Gid::from_raw).collect();
    groups.extend(group);
    setgroups(&groups).map_err(|e| format!("cannot set groups: {e}"))?;
    if let Some(group) = group {
        setgid(group).map_err(|e| format!("cannot become group {group}: {e}"))?;
    }
    if let Some(user) = program.user {
        setuid(Uid::from_raw(user)).map_err(|e| format!("cannot become user {user}: {e}"))?;
    }
    Ok(())
}

/// A new terminal of the container's own; its master side goes to the node.
fn terminal(link: &Link) -> Result<Vec<OwnedFd>, String> {
    use nix::fcntl::{OFlag, open};
    let fail = |e: nix::Error| format!("cannot open a terminal: {e}");
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let master = nix::pty::posix_openpt(flags).map_err(fail)?;
    nix::pty::unlockpt(&master).map_err(fail)?;
    let name = nix::pty::ptsname_r(&master).map_err(fail)?;
    let side = || open(name.as_str(), flags, nix::sys::stat::Mode::empty()).map_err(fail);
    let sides = vec![side()?, side()?, side()?];
    syscalls::controlling_terminal(&sides[0]).map_err(fail)?;
    link.reply(&Reply::Terminal, &[master.as_raw_fd()])
        .map_err(|e| format!("cannot hand the terminal over: {e}"))?;
    Ok(sides)
}

/// The program's path: names without a slash are looked for in the program's own PATH.
fn search(name: &str, program: &Program) -> Result<String, String> {
    if name.contains('/') {
        return Ok(name.to_owned());
    }
    let path = program
        .env
        .iter()
        .find(|(key, _)| key == "PATH")
        .map_or(DEFAULT_PATH, |(_, value)| value.as_str());
    path.split(':')
        .map(|directory| format!("{directory}/{name}"))
        .find(|candidate| access(candidate.as_str(), AccessFlags::X_OK).is_ok())
        .ok_or_else(|| {
            format!(
                "exec: \"{name}\": executable file not found in $PATH; containers run the programs \
                 of this machine, so install it here or change the command"
            )
        })
}

fn strings(items: impl Iterator<Item = String>) -> Result<Vec<CString>, String> {
    items
        .map(|item| {
            CString::new(item)
                .map_err(|_| "an argument or variable has a zero byte; remove it".to_owned())
        })
        .collect()
}
