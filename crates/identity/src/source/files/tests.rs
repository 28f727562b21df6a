//! Files that somebody renews, well and badly: the last good certificate stays in use.

use super::*;
use crate::ca::Authority;
use crate::fixture::{HOUR, authority, sleep_id, svid};
use std::path::Path;
use tempfile::TempDir;

/// A folder with the three files, and what is published of them.
struct Folder {
    dir: TempDir,
    ca: Authority,
    state: watch::Receiver<State>,
}

impl Folder {
    fn new() -> Self {
        let (sender, state) = watch::channel(State::default());
        let dir = tempfile::tempdir().expect("a directory");
        let folder = Self {
            dir,
            ca: authority("cluster.local"),
            state,
        };
        folder.renew();
        let path = |name: &str| folder.dir.path().join(name);
        let files = Files {
            chain: path("chain.pem"),
            key: path("key.pem"),
            roots: path("roots.pem"),
        };
        tokio::spawn(async move { follow(&files, &Notify::new(), &sender).await });
        folder
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path().join(name), text).expect("written");
    }

    /// Writes a new certificate; its serial number.
    fn renew(&self) -> String {
        let svid = svid(&self.ca, &sleep_id(), HOUR);
        self.write("chain.pem", &svid.chain_pem());
        self.write("key.pem", &svid.key_pem());
        self.write("roots.pem", self.ca.root_pem());
        svid.serial
    }

    async fn until(&mut self, good: impl Fn(&State) -> bool) -> State {
        let found = self.state.wait_for(|state| good(state)).await;
        found.expect("the source runs").clone()
    }

    /// Waits until there is something wrong, which must be this.
    async fn wrong(&mut self, what: &str) -> State {
        let state = self.until(|state| state.last_error.is_some()).await;
        let why = state.last_error.clone().unwrap_or_default();
        assert!(why.contains(what), "{why}");
        state
    }
}

fn serial(state: &State) -> &str {
    &state.svid.as_ref().expect("a certificate").serial
}

#[tokio::test(start_paused = true)]
async fn certificates_come_from_files_and_are_renewed_there() {
    let mut folder = Folder::new();
    let first = folder.until(|state| state.svid.is_some()).await;
    assert_eq!(first.roots, folder.ca.root_pem());
    assert_eq!(first.last_error, None);
    let serial_of_second = folder.renew();
    let second = folder.until(|state| state.renewals == 2).await;
    assert_eq!(serial(&second), serial_of_second);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_used_leaves_the_last_good_in_use() {
    let mut folder = Folder::new();
    let first = folder.until(|state| state.svid.is_some()).await;
    for (file, text, what) in [
        (
            "roots.pem",
            "no roots",
            "roots.pem: the roots cannot be used",
        ),
        (
            "roots.pem",
            first.svid.as_ref().expect("one").chain_pem().as_str(),
            "roots.pem: there is no usable root",
        ),
        ("chain.pem", "no certificate", "chain.pem: "),
        ("key.pem", "no key", "chain.pem: "),
    ] {
        folder.write(file, text);
        let state = folder.wrong(what).await;
        assert_eq!(serial(&state), serial(&first), "{what}");
        assert_eq!(state.roots, first.roots, "{what}");
        folder.write("chain.pem", &first.svid.as_ref().expect("one").chain_pem());
        folder.write("key.pem", &first.svid.as_ref().expect("one").key_pem());
        folder.write("roots.pem", &first.roots);
        folder.until(|state| state.last_error.is_none()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_that_was_away_is_no_lasting_error() {
    let mut folder = Folder::new();
    let first = folder.until(|state| state.svid.is_some()).await;
    let (key, aside) = (folder.path().join("key.pem"), folder.path().join("aside"));
    std::fs::rename(&key, &aside).expect("moved");
    let state = folder.wrong("key.pem cannot be read").await;
    assert_eq!(serial(&state), serial(&first));
    std::fs::rename(&aside, &key).expect("moved back");
    let state = folder.until(|state| state.last_error.is_none()).await;
    assert_eq!(state.renewals, 1, "nothing is new");
}
