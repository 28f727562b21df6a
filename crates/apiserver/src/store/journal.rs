//! The store on disk: a redb file written by one thread, many waiting writes per commit.

use super::{Inner, Key, Resource};
use parking_lot::RwLock;
use redb::backends::FileBackend;
use redb::{Builder, Database, ReadableDatabase, ReadableTable, Table, TableDefinition};
use serde_json::Value;
use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, mpsc};
use tokio::sync::oneshot;

const OBJECTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("objects");
const COUNTERS: TableDefinition<'_, &str, u64> = TableDefinition::new("counters");
const REVISION: &str = "revision";
/// Writes per commit.
const BATCH: usize = 512;

pub(super) struct Entry {
    pub(super) key: Key,
    pub(super) revision: u64,
    /// Absent: removed.
    pub(super) object: Option<Arc<Value>>,
}

type Receipt = oneshot::Sender<Result<(), String>>;

pub(super) struct Journal {
    sender: Option<mpsc::Sender<(Entry, Receipt)>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

pub(super) struct Saved {
    pub(super) revision: u64,
    pub(super) objects: Vec<(Key, Value)>,
}

/// Opens the database; again after a failed write, which leaves an open one unusable.
pub(super) type Opener = Box<dyn Fn() -> Result<Database, String> + Send>;

impl Journal {
    pub(super) fn start(
        database: Database,
        opener: Opener,
        inner: Arc<RwLock<Inner>>,
    ) -> Result<Self, String> {
        let (sender, receiver) = mpsc::channel();
        let writer = Writer {
            database: Some(database),
            opener,
            inner,
            doubtful: HashSet::new(),
        };
        let thread = std::thread::Builder::new()
            .name("lateen-store".to_owned())
            .spawn(move || writer.run(&receiver))
            .map_err(|error| error.to_string())?;
        Ok(Self {
            sender: Some(sender),
            thread: Some(thread),
        })
    }

    /// Called under the store's write lock, so that entries arrive in the order of their revisions.
    pub(super) fn append(&self, entry: Entry) -> oneshot::Receiver<Result<(), String>> {
        let (receipt, receiver) = oneshot::channel();
        if let Some(sender) = &self.sender {
            // A failed send drops the receipt, which the waiting writer sees.
            let _ = sender.send((entry, receipt));
        }
        receiver
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.sender = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// How to open a file, made with its directory if there is none. Secrets are in it: only the owner may read it.
pub(super) fn opener(file: &Path) -> Opener {
    use std::os::unix::fs::OpenOptionsExt;
    let path = file.to_owned();
    Box::new(move || {
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory).map_err(|error| error.to_string())?;
        }
        let mut options = std::fs::OpenOptions::new();
        options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600);
        let file = options.open(&path).map_err(|error| error.to_string())?;
        let backend = FileBackend::new(file).map_err(|error| error.to_string())?;
        Builder::new()
            .create_with_backend(backend)
            .map_err(|error| error.to_string())
    })
}

/// Opens a database and reads all of it.
pub(super) fn open(opener: &Opener) -> Result<(Database, Saved), String> {
    let database = opener()?;
    let saved = load(&database).map_err(|error| error.to_string())?;
    Ok((database, saved))
}

fn load(database: &Database) -> Result<Saved, Box<dyn std::error::Error>> {
    // Creates the tables in a new file.
    let write = database.begin_write()?;
    write.open_table(OBJECTS)?;
    write.open_table(COUNTERS)?;
    write.commit()?;
    let read = database.begin_read()?;
    let revision = read
        .open_table(COUNTERS)?
        .get(REVISION)?
        .map_or(0, |value| value.value());
    let mut saved = Saved {
        revision,
        objects: Vec::new(),
    };
    for row in read.open_table(OBJECTS)?.iter()? {
        let (key, bytes) = row?;
        let parts: Vec<&str> = key.value().split('\0').collect();
        let &[group, plural, namespace, name] = parts.as_slice() else {
            return Err(format!("unreadable key {:?}", key.value()).into());
        };
        let key = Key {
            resource: Resource::new(group, plural),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        saved
            .objects
            .push((key, serde_json::from_slice(bytes.value())?));
    }
    Ok(saved)
}

struct Writer {
    database: Option<Database>,
    opener: Opener,
    inner: Arc<RwLock<Inner>>,
    /// What a failed commit may have written all the same; the next one puts it right.
    doubtful: HashSet<Key>,
}

impl Writer {
    fn run(mut self, receiver: &mpsc::Receiver<(Entry, Receipt)>) {
        while let Ok(first) = receiver.recv() {
            let mut batch = vec![first];
            batch.extend(receiver.try_iter().take(BATCH - 1));
            match self.write(&batch) {
                Ok(()) => {
                    self.doubtful.clear();
                    let state = self.inner.read();
                    for (entry, _) in &batch {
                        if let Some(collection) = state.collections.get(&entry.key.resource) {
                            collection.publish(entry.revision);
                        }
                    }
                    drop(state);
                    batch
                        .into_iter()
                        .for_each(|(_, receipt)| drop(receipt.send(Ok(()))));
                }
                Err(error) => self.take_back(batch, receiver, &error.to_string()),
            }
        }
    }

    fn take_back(
        &mut self,
        mut batch: Vec<(Entry, Receipt)>,
        receiver: &mpsc::Receiver<(Entry, Receipt)>,
        why: &str,
    ) {
        tracing::error!(%why, "the object store could not be written; the waiting changes are taken back");
        self.database = None;
        let mut state = self.inner.write();
        // Nobody appends while the lock is held: this is every change that is not durable.
        batch.extend(receiver.try_iter());
        let revision = state.revision;
        state
            .collections
            .values_mut()
            .for_each(|collection| collection.roll_back(revision));
        drop(state);
        for (entry, receipt) in batch {
            self.doubtful.insert(entry.key);
            let _ = receipt.send(Err(why.to_owned()));
        }
    }

    fn write(&mut self, batch: &[(Entry, Receipt)]) -> Result<(), Box<dyn std::error::Error>> {
        let database = match self.database.take() {
            Some(database) => database,
            None => (self.opener)()?,
        };
        let database = self.database.insert(database);
        let transaction = database.begin_write()?;
        {
            let mut objects = transaction.open_table(OBJECTS)?;
            let place = |key: &Key| (key.namespace.clone(), key.name.clone());
            for key in &self.doubtful {
                let state = self.inner.read();
                let collection = state.collections.get(&key.resource);
                let object = collection.and_then(|found| found.objects.get(&place(key)).cloned());
                drop(state);
                put(&mut objects, key, object.as_deref())?;
            }
            for (entry, _) in batch {
                put(&mut objects, &entry.key, entry.object.as_deref())?;
            }
            let newest = batch
                .iter()
                .map(|(entry, _)| entry.revision)
                .max()
                .unwrap_or(0);
            transaction.open_table(COUNTERS)?.insert(REVISION, newest)?;
        }
        transaction.commit()?;
        Ok(())
    }
}

fn put(
    objects: &mut Table<'_, &'static str, &'static [u8]>,
    key: &Key,
    object: Option<&Value>,
) -> Result<(), Box<dyn std::error::Error>> {
    let Key {
        resource,
        namespace,
        name,
    } = key;
    let key = format!(
        "{}\0{}\0{namespace}\0{name}",
        resource.group, resource.plural
    );
    match object {
        Some(object) => drop(objects.insert(key.as_str(), serde_json::to_vec(object)?.as_slice())?),
        None => drop(objects.remove(key.as_str())?),
    }
    Ok(())
}
