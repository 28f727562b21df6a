//! The node's mount namespace: private, with a `/proc` of the node's processes and a file system of its own
//! that vanishes with it.

use std::fs;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};

/// Directories of the node.
#[derive(Debug, Clone)]
pub(crate) struct RunDirectory {
    path: PathBuf,
}

impl RunDirectory {
    /// Prepares mounts; `place` is an empty directory of the host, which stays empty there.
    ///
    /// # Errors
    /// One sentence with the cure.
    pub(super) fn mount(place: &Path, executable: &Path) -> Result<Self, String> {
        mount(
            None::<&str>,
            "/",
            None::<&str>,
            MsFlags::MS_REC | MsFlags::MS_PRIVATE,
            None::<&str>,
        )
        .map_err(|e| format!("cannot make the mounts private: {e}"))?;
        mount(
            Some("proc"),
            "/proc",
            Some("proc"),
            MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_NODEV,
            None::<&str>,
        )
        .map_err(|e| {
            format!("cannot mount /proc for the node ({e}): a container with a masked /proc cannot host a sandbox; run it outside, or with --privileged")
        })?;
        mount(
            Some("tmpfs"),
            place,
            Some("tmpfs"),
            MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
            Some("mode=755"),
        )
        .map_err(|e| {
            format!(
                "cannot mount a memory file system on {}: {e}",
                place.display()
            )
        })?;
        let run = Self {
            path: place.to_owned(),
        };
        run.keep_executable(executable)?;
        Ok(run)
    }

    /// Pins the running executable: a rebuild on the host replaces the file, not this view of it.
    fn keep_executable(&self, executable: &Path) -> Result<(), String> {
        let fail = |e: std::io::Error| format!("cannot use {}: {e}", self.path.display());
        fs::create_dir_all(self.path.join("bin")).map_err(fail)?;
        fs::create_dir_all(self.pods()).map_err(fail)?;
        let target = self.executable();
        fs::write(&target, "").map_err(fail)?;
        mount(
            Some(executable),
            &target,
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )
        .map_err(|e| format!("cannot show {} to pods: {e}", executable.display()))
    }

    /// The executable that stages and containers run.
    pub(crate) fn executable(&self) -> PathBuf {
        self.path.join("bin/lateen")
    }

    /// Where each pod has its directory.
    pub(crate) fn pods(&self) -> PathBuf {
        self.path.join("pods")
    }
}
