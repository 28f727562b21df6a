//! The last certificate on disk, so that a restarted proxy can serve before the CA answers.

use crate::svid::Svid;
use std::fs::{OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// A certificate that ends sooner than this is not worth loading.
const WORTHWHILE: Duration = Duration::from_secs(60);
/// Longest file that is read, in bytes.
const LONGEST: u64 = 1 << 20;

/// A private directory.
pub(super) struct Cache {
    dir: PathBuf,
}

/// What was kept.
pub(super) struct Kept {
    pub(super) svid: Svid,
    /// PEM.
    pub(super) roots: String,
}

impl Cache {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// The kept certificate, when it is still valid for a while; the error is one sentence for the log.
    pub(super) fn load(&self, now: SystemTime) -> Result<Option<Kept>, String> {
        let path = self.dir.join("svid.pem");
        let Some(text) = read(&path).map_err(|error| ignored(&path, &error))? else {
            return Ok(None);
        };
        let svid = Svid::from_pem(&text).map_err(|error| ignored(&path, &error))?;
        if svid.remaining(now) <= WORTHWHILE || now < svid.not_before {
            return Ok(None);
        }
        let path = self.dir.join("roots.pem");
        let roots = read(&path).map_err(|error| ignored(&path, &error))?;
        let roots = roots.unwrap_or_default();
        Ok(Some(Kept { svid, roots }))
    }

    /// Keeps a certificate with its key and the roots that came with it.
    pub(super) fn store(&self, svid: &Svid, roots: &str) -> io::Result<()> {
        std::fs::create_dir_all(&self.dir)?;
        self.write("roots.pem", roots)?;
        self.write("svid.pem", &(svid.chain_pem() + &svid.key_pem()))
    }

    /// Writes aside and renames, so that a reader sees the old text or the new.
    fn write(&self, name: &str, text: &str) -> io::Result<()> {
        let aside = self.dir.join(format!(".{name}.new"));
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&aside)?;
        // The mode above counts for new files only.
        file.set_permissions(Permissions::from_mode(0o600))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&aside, self.dir.join(name))
    }
}

fn read(path: &Path) -> io::Result<Option<String>> {
    match std::fs::metadata(path) {
        Ok(found) if found.len() > LONGEST => Err(io::Error::other("it is longer than 1 MiB")),
        Ok(_) => std::fs::read_to_string(path).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn ignored(path: &Path, error: &dyn std::fmt::Display) -> String {
    format!(
        "the kept certificate {} is ignored and a new one asked for: {error}",
        path.display()
    )
}
