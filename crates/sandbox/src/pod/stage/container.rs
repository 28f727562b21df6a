//! Starting a container: join the pod's namespaces, make the container's own, build its root, run.

use std::os::fd::OwnedFd;

use nix::sched::{CloneFlags, setns};

use super::{ContainerTask, Link, Reply, exec, root, syscalls};

/// Starts the container's program as a child of the node.
pub(super) fn start(link: &Link, task: &ContainerTask, files: Vec<OwnedFd>) -> Result<(), String> {
    let mut files = files.into_iter();
    let standard: Vec<OwnedFd> = files.by_ref().take(3).collect();
    for (namespace, kind) in files.zip([
        CloneFlags::CLONE_NEWNET,
        CloneFlags::CLONE_NEWUTS,
        CloneFlags::CLONE_NEWIPC,
    ]) {
        setns(namespace, kind).map_err(|e| format!("cannot join the pod's namespaces: {e}"))?;
    }
    let flags = CloneFlags::CLONE_PARENT | CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS;
    let child = syscalls::clone_process(flags)
        .map_err(|e| format!("cannot make the container's namespaces: {e}"))?;
    match child {
        Some(pid) => link
            .reply(&Reply::Pid(pid), &[])
            .map_err(|e| format!("cannot answer: {e}")),
        None => {
            root::enter(task)?;
            Err(exec::run(
                link,
                &task.program,
                task.capabilities.as_deref(),
                standard,
            ))
        }
    }
}
