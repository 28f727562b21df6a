//! Cases of `store`: text in, observable result out.

use super::*;

fn key(name: &str) -> Key {
    Key {
        resource: Resource::new("", "configmaps"),
        namespace: "default".into(),
        name: name.into(),
    }
}

fn object(name: &str, text: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "default"}, "data": {"a": text}})
}

async fn write(store: &Store, name: &str, expect: Expect, text: &str) -> u64 {
    let committed = store
        .put(&key(name), expect, object(name, text))
        .expect("expected write");
    revision_of(&committed.durable().await.expect("durable"))
}

#[tokio::test]
async fn writes_are_checked_and_seen_by_watchers_in_order() {
    let store = Store::in_memory();
    let start = store.revision();
    let first = write(&store, "x", Expect::Absent, "1").await;
    assert_eq!(
        store.put(&key("x"), Expect::Absent, object("x", "2")).err(),
        Some(Refused::Exists)
    );
    assert_eq!(
        store
            .put(&key("x"), Expect::Revision(first - 1), object("x", "2"))
            .err(),
        Some(Refused::Changed)
    );
    assert_eq!(
        store
            .put(&key("y"), Expect::Revision(1), object("y", "2"))
            .err(),
        Some(Refused::Missing)
    );
    let second = write(&store, "x", Expect::Revision(first), "2").await;
    let _ = store
        .remove(&key("x"), Expect::Revision(second))
        .expect("remove")
        .durable()
        .await;
    let events = store.events(&key("x").resource, start, 10).expect("kept");
    let seen: Vec<(u64, bool, bool)> = events
        .iter()
        .map(|event| (event.revision, event.previous.is_some(), event.deleted))
        .collect();
    assert_eq!(
        seen,
        [
            (first, false, false),
            (second, true, false),
            (second + 1, true, true)
        ]
    );
    assert!(
        store.events(&key("x").resource, 0, 10).is_none(),
        "before the store's start nothing is known"
    );
}

#[tokio::test]
async fn a_reopened_store_has_the_same_objects_and_revisions() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let file = directory.path().join("objects.redb");
    let store = Store::open(&file).expect("open");
    let kept = write(&store, "kept", Expect::Absent, "1").await;
    let gone = write(&store, "gone", Expect::Absent, "1").await;
    let _ = store
        .remove(&key("gone"), Expect::Revision(gone))
        .expect("remove")
        .durable()
        .await;
    let revision = store.revision();
    drop(store);
    let store = Store::open(&file).expect("reopen");
    assert_eq!(store.revision(), revision);
    let (objects, _) = store.all(&key("x").resource, Some("default"));
    assert_eq!(
        objects
            .iter()
            .map(|object| revision_of(object))
            .collect::<Vec<_>>(),
        [kept]
    );
    assert!(
        store.events(&key("x").resource, kept, 10).is_none(),
        "events do not survive; watchers list anew"
    );
    assert!(store.events(&key("x").resource, revision, 10).is_some());
}

#[tokio::test]
async fn many_writers_share_commits_and_none_is_lost() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let file = directory.path().join("objects.redb");
    let store = Arc::new(Store::open(&file).expect("open"));
    let writers = (0..200).map(|index| {
        let store = store.clone();
        tokio::spawn(async move { write(&store, &format!("o{index}"), Expect::Absent, "1").await })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.expect("writer");
    }
    drop(store);
    assert_eq!(
        Store::open(&file)
            .expect("reopen")
            .all(&key("x").resource, None)
            .0
            .len(),
        200
    );
}

/// Set for the child that is killed: the file it writes.
const VICTIM: &str = "LATEEN_TEST_STORE";

/// Not a test of its own: what the killed child does. It tells each write after it is acknowledged.
#[tokio::test]
async fn victim() {
    use std::io::Write;
    let Some(file) = std::env::var_os(VICTIM) else {
        return;
    };
    let store = Store::open(Path::new(&file)).expect("open");
    for index in 0.. {
        write(&store, &format!("o{index}"), Expect::Absent, "1").await;
        let mut output = std::io::stdout();
        writeln!(output, "wrote {index}").expect("told");
        output.flush().expect("told");
    }
}

#[tokio::test]
async fn a_killed_process_loses_nothing_it_acknowledged() {
    use std::io::{BufRead, BufReader};
    let directory = tempfile::tempdir().expect("temporary directory");
    let file = directory.path().join("objects.redb");
    let mut child = std::process::Command::new(std::env::current_exe().expect("this test"))
        .args(["store::tests::victim", "--exact", "--nocapture"])
        .env(VICTIM, &file)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("child");
    let lines = BufReader::new(child.stdout.take().expect("piped"))
        .lines()
        .map_while(Result::ok);
    let told = lines.filter_map(|line| line.rsplit_once("wrote ")?.1.parse::<usize>().ok());
    let last = told
        .take_while(|index| *index <= 30)
        .last()
        .expect("some writes");
    child.kill().expect("killed");
    child.wait().expect("ended");
    let store = Store::open(&file).expect("reopen");
    for index in 0..=last {
        assert!(
            store.object(&key(&format!("o{index}"))).is_some(),
            "o{index} of {last}"
        );
    }
}

/// A disk that can be full.
#[derive(Debug, Clone, Default)]
struct Disk {
    content: Arc<redb::backends::InMemoryBackend>,
    full: Arc<std::sync::atomic::AtomicBool>,
}

impl Disk {
    fn check(&self) -> Result<(), std::io::Error> {
        if self.full.load(std::sync::atomic::Ordering::SeqCst) {
            return Err(std::io::Error::from(std::io::ErrorKind::StorageFull));
        }
        Ok(())
    }
}

impl redb::StorageBackend for Disk {
    fn len(&self) -> Result<u64, std::io::Error> {
        self.content.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), std::io::Error> {
        self.content.read(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<(), std::io::Error> {
        self.check()?;
        self.content.set_len(len)
    }

    fn sync_data(&self) -> Result<(), std::io::Error> {
        self.check()?;
        self.content.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), std::io::Error> {
        self.check()?;
        self.content.write(offset, data)
    }
}

#[tokio::test]
async fn a_full_disk_takes_back_what_it_could_not_keep() {
    use std::sync::atomic::Ordering;
    let disk = Disk::default();
    let opened = disk.clone();
    let opener = move || {
        let database = redb::Builder::new().create_with_backend(opened.clone());
        database.map_err(|error| error.to_string())
    };
    let store = Store::open_with(Box::new(opener)).expect("open");
    let first = write(&store, "x", Expect::Absent, "1").await;
    disk.full.store(true, Ordering::SeqCst);
    let failed = store
        .put(&key("x"), Expect::Revision(first), object("x", "2"))
        .expect("taken");
    let error = failed.durable().await.expect_err("a full disk");
    assert!(error.message.contains("could not be written"), "{error}");
    let failed = store
        .put(&key("y"), Expect::Absent, object("y", "1"))
        .expect("taken");
    assert!(failed.durable().await.is_err());
    let found = store.object(&key("x")).expect("still there");
    assert_eq!(
        (revision_of(&found), &found["data"]["a"]),
        (first, &json!("1"))
    );
    assert!(store.object(&key("y")).is_none());
    assert!(
        store.events(&key("x").resource, first, 10).is_none(),
        "watchers list anew"
    );
    disk.full.store(false, Ordering::SeqCst);
    write(&store, "x", Expect::Revision(first), "3").await;
}
