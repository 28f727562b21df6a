//! The store on disk: a redb file written by one thread, many waiting writes per commit.

use super::{Inner, Key, Resource};
use parking_lot::RwLock;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde_json::Value;
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

impl Journal {
    pub(super) fn start(database: Database, inner: Arc<RwLock<Inner>>) -> Result<Self, String> {
        let (sender, receiver) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("lateen-store".to_owned())
            .spawn(move || run(&database, &inner, &receiver))
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

/// Opens the file and reads all of it.
pub(super) fn open(file: &Path) -> Result<(Database, Saved), String> {
    if let Some(directory) = file.parent() {
        std::fs::create_dir_all(directory).map_err(|error| error.to_string())?;
    }
    let database = Database::create(file).map_err(|error| error.to_string())?;
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

fn run(database: &Database, inner: &RwLock<Inner>, receiver: &mpsc::Receiver<(Entry, Receipt)>) {
    while let Ok(first) = receiver.recv() {
        let mut batch = vec![first];
        batch.extend(receiver.try_iter().take(BATCH - 1));
        match write(database, &batch) {
            Ok(()) => {
                let state = inner.read();
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
            Err(error) => {
                let why = error.to_string();
                tracing::error!(%why, "the object store could not be written; the waiting changes are taken back");
                let mut state = inner.write();
                // Nobody appends while the lock is held: this is every change that is not durable.
                batch.extend(receiver.try_iter());
                let revision = state.revision;
                state
                    .collections
                    .values_mut()
                    .for_each(|collection| collection.roll_back(revision));
                drop(state);
                batch
                    .into_iter()
                    .for_each(|(_, receipt)| drop(receipt.send(Err(why.clone()))));
            }
        }
    }
}

fn write(
    database: &Database,
    batch: &[(Entry, Receipt)],
) -> Result<(), Box<dyn std::error::Error>> {
    let transaction = database.begin_write()?;
    {
        let mut objects = transaction.open_table(OBJECTS)?;
        for (entry, _) in batch {
            let Key {
                resource,
                namespace,
                name,
            } = &entry.key;
            let key = format!(
                "{}\0{}\0{namespace}\0{name}",
                resource.group, resource.plural
            );
            match &entry.object {
                Some(object) => {
                    drop(objects.insert(key.as_str(), serde_json::to_vec(&**object)?.as_slice())?)
                }
                None => drop(objects.remove(key.as_str())?),
            }
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
