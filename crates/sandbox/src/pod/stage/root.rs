//! A container's root: the host's programs (writable through overlays that keep the changes in the
//! container's scratch directory), an own `/tmp`, `/run`, `/var`, `/root`, `/dev`, `/proc`, and its volumes.
//! Nothing here changes the host: all happens in the container's mount namespace.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::{ContainerTask, Mount};

/// Host directories that a container has its own of, or must not see.
const OWN: [&str; 13] = [
    "proc",
    "sys",
    "dev",
    "tmp",
    "run",
    "var",
    "root",
    "etc",
    "boot",
    "mnt",
    "media",
    "lost+found",
    "efi",
];

const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Builds the root and makes it this process's.
pub(super) fn enter(task: &ContainerTask) -> Result<(), String> {
    let scratch = Path::new(&task.scratch);
    let root = scratch.join("root");
    make_directory(&root)?;
    bind(&root, &root, false).map_err(|e| at("prepare the root", &root, &e))?;
    host_directories(scratch, &root)?;
    own_directories(&root)?;
    etc(scratch, &root)?;
    devices(&root)?;
    system(&root, task.privileged)?;
    executable(&root, &task.executable)?;
    for directory in &task.host_directories {
        place(&root, directory, directory, true)?;
    }
    for Mount {
        source,
        target,
        read_only,
    } in &task.mounts
    {
        place(&root, source, target, *read_only)?;
    }
    pivot(&root)
}

/// The host's top-level directories: an overlay where the kernel allows one, else read-only.
fn host_directories(scratch: &Path, root: &Path) -> Result<(), String> {
    let entries = fs::read_dir("/").map_err(|e| format!("cannot read /: {e}"))?;
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|n| !OWN.contains(n)) else {
            continue;
        };
        let from = entry.path();
        let to = root.join(name);
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if kind.is_symlink() {
            if let Ok(target) = fs::read_link(&from) {
                let _ = symlink(target, &to);
            }
        } else if kind.is_dir() && fs::read_dir(&from).is_ok_and(|mut d| d.next().is_some()) {
            make_directory(&to)?;
            if overlay(scratch, &from, &to).is_err() {
                bind(&from, &to, true).map_err(|e| at("show", &from, &e))?;
            }
        }
    }
    Ok(())
}

/// Mounts an overlay of one host directory whose changes go to the scratch directory.
fn overlay(scratch: &Path, from: &Path, to: &Path) -> Result<(), String> {
    let name = to.file_name().unwrap_or_default();
    let upper = scratch.join("upper").join(name);
    let work = scratch.join("work").join(name);
    make_directory(&upper)?;
    make_directory(&work)?;
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        from.display(),
        upper.display(),
        work.display()
    );
    let attempt = |options: &str| {
        let overlay = Some("overlay");
        mount(overlay, to, overlay, MsFlags::empty(), Some(options))
    };
    // User namespaces need `userxattr`; kernels whose tmpfs has no user attributes refuse it to root.
    attempt(&format!("{options},userxattr"))
        .or_else(|_| attempt(&options))
        .map_err(|e| e.to_string())
}

fn own_directories(root: &Path) -> Result<(), String> {
    for name in [
        "proc",
        "sys",
        "dev",
        "run",
        "run/lock",
        "root",
        "var",
        "var/log",
        "var/lib",
        "var/cache",
        "var/spool",
        "mnt",
        "media",
    ] {
        make_directory(&root.join(name))?;
    }
    for name in ["tmp", "var/tmp"] {
        let path = root.join(name);
        make_directory(&path)?;
        let _ = fs::set_permissions(&path, fs::Permissions::from_mode(0o1777));
    }
    let _ = symlink("/run", root.join("var/run"));
    Ok(())
}

/// `/etc`: the host's, with name resolution by files and then DNS.
fn etc(scratch: &Path, root: &Path) -> Result<(), String> {
    let to = root.join("etc");
    make_directory(&to)?;
    let upper = scratch.join("upper/etc");
    make_directory(&upper)?;
    own_files(&upper)?;
    if overlay(scratch, Path::new("/etc"), &to).is_ok() {
        return Ok(());
    }
    // Without overlays: links to a read-only view of the host's files beside our own ones.
    let view = root.join(".host/etc");
    make_directory(&view)?;
    bind(Path::new("/etc"), &view, true).map_err(|e| at("show", Path::new("/etc"), &e))?;
    own_files(&to)?;
    let entries = fs::read_dir("/etc").map_err(|e| format!("cannot read /etc: {e}"))?;
    for entry in entries.flatten() {
        let target = to.join(entry.file_name());
        if target.symlink_metadata().is_err() {
            let _ = symlink(Path::new("/.host/etc").join(entry.file_name()), target);
        }
    }
    Ok(())
}

fn own_files(directory: &Path) -> Result<(), String> {
    let write = |name: &str, text: &str| {
        let path = directory.join(name);
        fs::write(&path, text).map_err(|e| at_io("write", &path, &e))
    };
    // The host's order may ask services that a pod cannot reach (resolved, mDNS).
    write(
        "nsswitch.conf",
        "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nservices: files\nprotocols: files\n",
    )?;
    for name in ["hosts", "resolv.conf", "hostname"] {
        write(name, "")?;
    }
    Ok(())
}

fn devices(root: &Path) -> Result<(), String> {
    let dev = root.join("dev");
    tmpfs(&dev, "mode=755,size=64k").map_err(|e| at("mount", &dev, &e))?;
    for name in DEVICES {
        let to = dev.join(name);
        let _ = fs::write(&to, "");
        bind(&Path::new("/dev").join(name), &to, false).map_err(|e| at("show", &to, &e))?;
    }
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ] {
        let _ = symlink(target, dev.join(name));
    }
    for name in ["pts", "shm"] {
        make_directory(&dev.join(name))?;
    }
    mount(
        Some("devpts"),
        &dev.join("pts"),
        Some("devpts"),
        MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC,
        Some("newinstance,ptmxmode=0666,mode=0620"),
    )
    .map_err(|e| at("mount", &dev.join("pts"), &e))?;
    tmpfs(&dev.join("shm"), "mode=1777,size=64m").map_err(|e| at("mount", &dev.join("shm"), &e))
}

/// `/proc` of the container's own processes and a read-only `/sys`.
fn system(root: &Path, privileged: bool) -> Result<(), String> {
    let hardened = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_NODEV;
    let proc = root.join("proc");
    mount(Some("proc"), &proc, Some("proc"), hardened, None::<&str>)
        .map_err(|e| at("mount", &proc, &e))?;
    if !privileged {
        // The kernel's settings belong to the host; those of the network are the pod's own.
        let settings = proc.join("sys");
        bind(&settings, &settings, true).map_err(|e| at("protect", &settings, &e))?;
        let network = settings.join("net");
        let _ = bind(&network, &network, false);
        let _ = remount(&network, MsFlags::empty());
    }
    let sys = root.join("sys");
    // Not every kernel lets a user namespace have its own; programs here can do without.
    let _ = mount(
        Some("sysfs"),
        &sys,
        Some("sysfs"),
        hardened | MsFlags::MS_RDONLY,
        None::<&str>,
    );
    Ok(())
}

/// Shows the running executable as `/usr/local/bin/lateen`.
fn executable(root: &Path, path: &str) -> Result<(), String> {
    let target = root.join("usr/local/bin/lateen");
    if fs::write(&target, "").is_err() && !target.exists() {
        // `/usr` is read-only here: an own `/usr/local` in its place.
        let local = root.join("usr/local");
        tmpfs(&local, "mode=755,size=1m").map_err(|e| at("mount", &local, &e))?;
        make_directory(&local.join("bin"))?;
        fs::write(&target, "").map_err(|e| at_io("create", &target, &e))?;
    }
    bind(Path::new(path), &target, true).map_err(|e| at("show", &target, &e))
}

/// Mounts a file or directory of the node at a path in the container, making the mount point.
fn place(root: &Path, source: &str, target: &str, read_only: bool) -> Result<(), String> {
    let from = Path::new(source);
    let to = resolve(root, target)?;
    let kind = fs::metadata(from).map_err(|e| at_io("find", from, &e))?;
    if kind.is_dir() {
        fs::create_dir_all(&to).map_err(|e| at_io("create the mount point", &to, &e))?;
    } else if !to.exists() {
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent).map_err(|e| at_io("create the mount point", &to, &e))?;
        }
        fs::write(&to, "").map_err(|e| at_io("create the mount point", &to, &e))?;
    }
    bind(from, &to, read_only).map_err(|e| at("mount", &to, &e))
}

/// A container path below the new root, with links followed as the container would follow them.
fn resolve(root: &Path, target: &str) -> Result<PathBuf, String> {
    let mut path = PathBuf::new();
    let mut pending: Vec<std::ffi::OsString> = parts(Path::new(target));
    pending.reverse();
    let mut hops = 0;
    while let Some(part) = pending.pop() {
        if part == ".." {
            path.pop();
            continue;
        }
        let next = path.join(&part);
        let Ok(link) = fs::read_link(root.join(&next)) else {
            path = next;
            continue;
        };
        hops += 1;
        if hops > 40 {
            return Err(format!("mount path {target} has too many links"));
        }
        if link.is_absolute() {
            path = PathBuf::new();
        }
        pending.extend(parts(&link).into_iter().rev());
    }
    Ok(root.join(path))
}

fn parts(path: &Path) -> Vec<std::ffi::OsString> {
    path.components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        })
        .collect()
}

fn pivot(root: &Path) -> Result<(), String> {
    let fail = |e: nix::Error| format!("cannot enter the container's root: {e}");
    nix::unistd::chdir(root).map_err(fail)?;
    // Both at the same place: the old root then lies over the new one and is taken away.
    nix::unistd::pivot_root(".", ".").map_err(fail)?;
    umount2(".", MntFlags::MNT_DETACH).map_err(fail)?;
    nix::unistd::chdir("/").map_err(fail)
}

fn bind(from: &Path, to: &Path, read_only: bool) -> nix::Result<()> {
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(from), to, None::<&str>, flags, None::<&str>)?;
    if read_only {
        remount(to, MsFlags::MS_RDONLY)?;
    }
    Ok(())
}

/// Changes a bind mount's flags, keeping those that a user namespace may not clear.
fn remount(path: &Path, flags: MsFlags) -> nix::Result<()> {
    use nix::sys::statvfs::{FsFlags, statvfs};
    let current = statvfs(path)?.flags();
    let mut all = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | flags;
    for (present, keep) in [
        (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
        (FsFlags::ST_NOATIME, MsFlags::MS_NOATIME),
        (FsFlags::ST_NODIRATIME, MsFlags::MS_NODIRATIME),
        (FsFlags::ST_RELATIME, MsFlags::MS_RELATIME),
    ] {
        if current.contains(present) {
            all |= keep;
        }
    }
    mount(None::<&str>, path, None::<&str>, all, None::<&str>)
}

fn tmpfs(path: &Path, options: &str) -> nix::Result<()> {
    mount(
        Some("tmpfs"),
        path,
        Some("tmpfs"),
        MsFlags::MS_NOSUID,
        Some(options),
    )
}

fn make_directory(path: &Path) -> Result<(), String> {
    fs::create_dir_all(path).map_err(|e| at_io("create", path, &e))
}

fn at(what: &str, path: &Path, error: &nix::Error) -> String {
    format!("cannot {what} {}: {error}", path.display())
}

fn at_io(what: &str, path: &Path, error: &io::Error) -> String {
    format!("cannot {what} {}: {error}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_follow_links_inside_the_root_only() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let root = directory.path();
        fs::create_dir_all(root.join("run")).expect("made");
        fs::create_dir_all(root.join("var")).expect("made");
        symlink("/run", root.join("var/run")).expect("made");
        symlink("../../../../etc", root.join("run/up")).expect("made");
        for (target, expected) in [
            ("/var/run/secrets", "run/secrets"),
            ("/var/run/up/x", "etc/x"),
            ("/a/../../b", "b"),
            ("/", ""),
        ] {
            assert_eq!(resolve(root, target), Ok(root.join(expected)), "{target}");
        }
    }
}
