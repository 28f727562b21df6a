//! The control plane's resources as bytes: each encoded once, numbered, and shared by every stream.
//!
//! A resource lives in a slot. Every change gets a generation and a line in the log, from which
//! streams learn what concerns them; a stream that the log has left behind looks at every slot.

use crate::bits::Bits;
use crate::encoded::Encoded;
use bytes::Bytes;
use lateen_model::decide::reach::Directory;
use lateen_model::decide::resources::Audience;
use lateen_model::resource::{Key, Kind, Resource};
use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;

/// Lines that the log keeps.
const LOG_LINES: usize = 1 << 16;

/// Index of a slot.
pub(crate) type SlotId = u32;

/// One resource.
#[derive(Debug)]
pub(crate) struct Slot {
    /// As it is sent, or was before it was removed.
    encoded: Arc<Encoded>,
    /// Hash of the bytes: the same content has the same version, also after a restart.
    pub version: u64,
    /// False: removed, and kept until every stream has told its client.
    pub alive: bool,
}

impl Slot {
    pub fn key(&self) -> &Key {
        self.encoded.key()
    }

    pub fn audience(&self) -> &Audience {
        self.encoded.audience()
    }

    /// The encoded resource; absent: it was removed.
    pub fn bytes(&self) -> Option<&Bytes> {
        self.alive.then_some(self.encoded.bytes())
    }
}

/// All resources.
#[derive(Debug, Default)]
pub(crate) struct Table {
    slots: Vec<Slot>,
    by_key: HashMap<Key, SlotId>,
    /// Slots in use of each kind, removed ones too.
    by_kind: HashMap<Kind, Bits>,
    /// Who refers to whom; absent while every proxy is sent everything.
    directory: Option<Directory>,
    /// Slots that nothing refers to.
    free: Vec<SlotId>,
    /// Removed slots with the generation of their removal, oldest first.
    removed: VecDeque<(u64, SlotId)>,
    log: VecDeque<(u64, SlotId)>,
    /// The newest generation that the log no longer covers.
    log_floor: u64,
    generation: u64,
    ready: bool,
}

/// What one change did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Applied {
    /// The store's generation afterwards; it grows with each call that changed something.
    pub generation: u64,
    /// Resources whose bytes are new.
    pub changed: usize,
    /// Resources taken out.
    pub removed: usize,
    /// Encoded size of the changed ones.
    pub bytes: usize,
}

/// The version of a resource with these bytes.
pub(crate) fn version_of(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

/// A version as it is written on the wire.
pub(crate) fn version_text(version: u64) -> String {
    format!("{version:016x}")
}

impl Table {
    /// [`Self::apply_encoded`] of resources that nobody has encoded yet.
    #[cfg(test)]
    pub fn apply(&mut self, changed: Vec<Resource>, removed: Vec<Key>) -> Applied {
        let encoded: Vec<_> = changed.iter().map(|r| Arc::new(Encoded::of(r))).collect();
        self.apply_encoded(&encoded, removed)
    }

    /// Puts `changed` in and takes `removed` out; what has the same bytes as before is no change.
    pub fn apply_encoded(&mut self, changed: &[Arc<Encoded>], removed: Vec<Key>) -> Applied {
        let mut applied = Applied::default();
        let next = self.generation + 1;
        for resource in changed {
            let size = resource.bytes().len();
            if self.put(resource, next) {
                applied.changed += 1;
                applied.bytes += size;
            }
        }
        for key in removed {
            if self.take(&key, next) {
                applied.removed += 1;
            }
        }
        if applied.changed + applied.removed > 0 {
            self.generation = next;
        }
        while self.log.len() > LOG_LINES {
            if let Some((generation, _)) = self.log.pop_front() {
                self.log_floor = generation;
            }
        }
        applied.generation = self.generation;
        applied
    }

    fn put(&mut self, resource: &Arc<Encoded>, generation: u64) -> bool {
        let key = resource.key().clone();
        let version = version_of(resource.bytes());
        let known = self.by_key.get(&key).copied();
        if known.is_some_and(|id| self.slot(id).alive && self.slot(id).version == version) {
            return false;
        }
        let slot = Slot {
            encoded: Arc::clone(resource),
            version,
            alive: true,
        };
        let kind = key.kind;
        let id = match known.or_else(|| self.free.pop()) {
            Some(id) => {
                self.slots[id as usize] = slot;
                id
            }
            None => {
                self.slots.push(slot);
                (self.slots.len() - 1) as SlotId
            }
        };
        self.by_key.insert(key, id);
        self.by_kind.entry(kind).or_default().insert(id);
        self.log.push_back((generation, id));
        self.note_directory(id, resource);
        true
    }

    /// Tells the directory of a new resource; makes one when it is the first that needs it.
    fn note_directory(&mut self, id: SlotId, resource: &Encoded) {
        if self.directory.is_none() && resource.key().kind != Kind::SidecarScope {
            return;
        }
        match (&mut self.directory, resource.decode()) {
            (Some(directory), Some(resource)) => directory.put(id, &resource),
            (None, Some(Resource::SidecarScope(scope))) if scope.egress.is_some() => {
                self.make_directory();
            }
            _ => {}
        }
    }

    /// Looks at everything for who refers to whom, and from then on at every change.
    pub fn make_directory(&mut self) {
        if self.directory.is_some() {
            return;
        }
        let mut directory = Directory::default();
        for (id, slot) in (0..).zip(&self.slots) {
            let alive = slot.alive.then_some(&slot.encoded);
            if let Some(resource) = alive.and_then(|encoded| encoded.decode()) {
                directory.put(id, &resource);
            }
        }
        self.directory = Some(directory);
    }

    /// Who refers to whom; absent while every proxy is sent everything.
    pub fn directory(&self) -> Option<&Directory> {
        self.directory.as_ref()
    }

    fn take(&mut self, key: &Key, generation: u64) -> bool {
        let Some(id) = self.by_key.get(key).copied() else {
            return false;
        };
        let slot = &mut self.slots[id as usize];
        if !slot.alive {
            return false;
        }
        slot.alive = false;
        if let Some(directory) = &mut self.directory {
            directory.take(id);
        }
        self.removed.push_back((generation, id));
        self.log.push_back((generation, id));
        true
    }

    /// Gives up removed slots that every stream has dealt with: those removed up to `settled`.
    pub fn forget_removed(&mut self, settled: u64) {
        while let Some((generation, id)) = self.removed.front().copied() {
            if generation > settled {
                break;
            }
            self.removed.pop_front();
            let slot = &self.slots[id as usize];
            let kind = slot.key().kind;
            // It may have come back since, or stand in the queue a second time.
            if !slot.alive && self.by_key.get(slot.key()) == Some(&id) {
                self.by_key.remove(slot.key());
                if let Some(ids) = self.by_kind.get_mut(&kind) {
                    ids.remove(id);
                }
                self.free.push(id);
            }
        }
    }

    pub fn mark_ready(&mut self) {
        self.ready = true;
    }

    pub fn is_ready(&self) -> bool {
        self.ready
    }

    pub fn generation(&self) -> u64 {
        self.generation
    }

    pub fn slot(&self, id: SlotId) -> &Slot {
        &self.slots[id as usize]
    }

    pub fn find(&self, kind: Kind, name: &str) -> Option<SlotId> {
        let key = Key {
            kind,
            name: name.into(),
        };
        self.by_key.get(&key).copied()
    }

    /// Every slot of a kind in use, removed ones too.
    pub fn ids_of(&self, kind: Kind) -> impl Iterator<Item = SlotId> {
        self.by_kind.get(&kind).into_iter().flat_map(Bits::iter)
    }

    /// Slots ever made, for tests of their reuse.
    #[cfg(test)]
    pub fn slots_allocated(&self) -> usize {
        self.slots.len()
    }

    /// Slots changed after generation `seen`, perhaps more than once; none: the log is too short,
    /// look at all.
    pub fn changed_since(&self, seen: u64) -> Option<impl Iterator<Item = SlotId>> {
        if seen < self.log_floor {
            return None;
        }
        let start = self
            .log
            .partition_point(|(generation, _)| *generation <= seen);
        Some(self.log.range(start..).map(|(_, id)| *id))
    }
}
