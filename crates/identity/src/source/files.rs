//! Certificates that somebody else puts into files and renews there: a VM's provisioning, cert-manager's CSI driver.
//! The files are read anew when they change; what cannot be used is told, and the last good one stays in use.

use super::State;
use crate::anchors::{Anchors, Kind};
use crate::pem;
use crate::svid::Svid;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::sleep;

/// How often the files are looked at. Kubernetes swaps a folder's link, so that watching a file would miss it.
const LOOK: Duration = Duration::from_secs(5);
/// Longest file that is read, in bytes.
const LONGEST: u64 = 1 << 20;

/// Where the files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// Certificates, leaf first, as PEM.
    pub chain: PathBuf,
    /// The leaf's private key, as PEM; may be the same file.
    pub key: PathBuf,
    /// The roots that the mesh believes, as PEM.
    pub roots: PathBuf,
}

/// Follows the files until the end of the world.
pub(super) async fn follow(files: &Files, renew: &Notify, state: &watch::Sender<State>) {
    let mut seen = None;
    loop {
        match files.read() {
            Ok(text) if seen.as_ref().is_some_and(|(old, _)| *old == text) => {
                if let Some((_, true)) = seen {
                    readable_again(state);
                }
            }
            Ok(text) => {
                let meaning = text.meaning(files);
                let good = meaning.is_ok();
                match meaning {
                    Ok(svid) => publish(svid, &text.roots, state),
                    Err(why) => fail(why, state),
                }
                seen = Some((text, good));
            }
            Err(why) => fail(why, state),
        }
        tokio::select! {
            () = sleep(LOOK) => {}
            () = renew.notified() => {}
        }
    }
}

fn publish(svid: Svid, roots: &str, state: &watch::Sender<State>) {
    tracing::info!(identity = %svid.id, serial = svid.serial, "new certificate from files");
    state.send_modify(|state| {
        state.svid = Some(Arc::new(svid));
        roots.clone_into(&mut state.roots);
        state.last_error = None;
        state.failures = 0;
        state.renewals += 1;
    });
}

/// What is in use is in the files again.
fn readable_again(state: &watch::Sender<State>) {
    state.send_if_modified(|state| {
        state.failures = 0;
        state.last_error.take().is_some()
    });
}

fn fail(why: String, state: &watch::Sender<State>) {
    state.send_if_modified(|state| {
        state.failures += 1;
        let news = state.last_error.as_ref() != Some(&why);
        if news {
            tracing::warn!("{why}");
            state.last_error = Some(why);
        }
        news
    });
}

/// What the files hold.
#[derive(PartialEq)]
struct Text {
    chain: String,
    key: String,
    roots: String,
}

impl Text {
    /// The certificate, when all of it can be used.
    fn meaning(&self, files: &Files) -> Result<Svid, String> {
        let of = || {
            Svid::new(
                pem::certificates(&self.chain)?,
                pem::private_key(&self.key)?,
            )
        };
        let svid = of().map_err(|error| format!("{}: {error}", files.chain.display()))?;
        // Roots that cannot be read would leave nobody to be believed.
        Anchors::read(&self.roots, "", Kind::Authorities, &mut Vec::new())
            .map_err(|why| format!("{}: {why}", files.roots.display()))?;
        Ok(svid)
    }
}

impl Files {
    fn read(&self) -> Result<Text, String> {
        Ok(Text {
            chain: read(&self.chain)?,
            key: read(&self.key)?,
            roots: read(&self.roots)?,
        })
    }
}

fn read(path: &Path) -> Result<String, String> {
    let told = |error: std::io::Error| format!("{} cannot be read: {error}", path.display());
    let length = std::fs::metadata(path).map_err(told)?.len();
    if length > LONGEST {
        return Err(format!("{} is longer than 1 MiB", path.display()));
    }
    std::fs::read_to_string(path).map_err(told)
}

#[cfg(test)]
mod tests;
