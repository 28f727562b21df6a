//! The last good configuration on disk: what a restarted proxy starts from, control plane or not.
//!
//! Changes gather in memory by key and are merged into the file when it is written, so that no copy of
//! every resource has to stay in memory. The file is replaced as a whole (written beside, then renamed).

use crate::codec::{LOOKUP, decode, kind_of, type_url};
use lateen_model::lookup::Lookup;
use lateen_model::resource::{Key, Resource};
use lateen_proto::mesh::{Cache as File, Cached};
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

/// Largest file read; a larger one is ignored.
const MOST_BYTES: u64 = 256 << 20;

/// One resource as it was received.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Raw {
    pub version: String,
    pub bytes: Vec<u8>,
}

/// A cache file and the changes that it does not hold yet.
#[derive(Debug)]
pub(crate) struct Cache {
    path: PathBuf,
    node_id: String,
    /// New bytes by key; absent value: removed.
    pending: BTreeMap<Key, Option<Raw>>,
    /// Lookups in force; absent: as in the file.
    lookups: Option<BTreeSet<String>>,
}

/// What a cache file held.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    /// Resources with their versions.
    pub resources: Vec<(Resource, String)>,
    /// What was asked for, and answered by these.
    pub lookups: Vec<Lookup>,
}

/// The cache cannot be used or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CacheError {
    #[error(
        "cannot read or write {path}: {source}; the proxy goes on without its configuration cache"
    )]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "{path} holds no configuration of this proxy ({reason}); it is ignored and will be replaced"
    )]
    Unusable { path: PathBuf, reason: String },
}

impl Cache {
    pub fn new(path: PathBuf, node_id: String) -> Self {
        Self {
            path,
            node_id,
            pending: BTreeMap::new(),
            lookups: None,
        }
    }

    /// What the file holds; nothing when there is no file. What cannot be decoded is left out: the control plane will
    /// send it again.
    pub fn load(&self) -> Result<Loaded, CacheError> {
        let mut loaded = Loaded::default();
        for cached in self.read()?.resources {
            if cached.type_url == LOOKUP {
                loaded.lookups.extend(cached.name.parse::<Lookup>());
            } else if let Ok(resource) = decode(&cached.type_url, &cached.value) {
                loaded.resources.push((resource, cached.version));
            }
        }
        Ok(loaded)
    }

    /// Remembers the lookups in force until [`Self::flush`], in place of those before.
    pub fn note_lookups<'l>(&mut self, lookups: impl Iterator<Item = &'l Lookup>) {
        self.lookups = Some(lookups.map(Lookup::to_string).collect());
    }

    /// Remembers a change until [`Self::flush`].
    pub fn note(&mut self, key: Key, value: Option<Raw>) {
        self.pending.insert(key, value);
    }

    /// Whether something waits to be written.
    pub fn is_dirty(&self) -> bool {
        !self.pending.is_empty() || self.lookups.is_some()
    }

    /// Writes the file with all changes. On error they are kept for the next time.
    pub fn flush(&mut self) -> Result<(), CacheError> {
        let old = self.read().unwrap_or_default().resources;
        let known = |cached: &Cached| {
            let kind = kind_of(&cached.type_url)?;
            let name = cached.name.as_str().into();
            Some(Key { kind, name })
        };
        let kept = old.into_iter().filter(|cached| match known(cached) {
            Some(key) => !self.pending.contains_key(&key),
            None => cached.type_url == LOOKUP && self.lookups.is_none(),
        });
        let lookups = self.lookups.iter().flatten().map(|name| Cached {
            type_url: LOOKUP.to_owned(),
            name: name.clone(),
            ..Cached::default()
        });
        let new = self.pending.iter().filter_map(|(key, raw)| {
            let raw = raw.as_ref()?;
            Some(Cached {
                type_url: type_url(key.kind).to_owned(),
                name: key.name.to_string(),
                version: raw.version.clone(),
                value: raw.bytes.clone(),
            })
        });
        let file = File {
            node_id: self.node_id.clone(),
            resources: kept.chain(lookups).chain(new).collect(),
        };
        write_whole(&self.path, &file.encode_to_vec()).map_err(|e| self.io(e))?;
        self.pending.clear();
        self.lookups = None;
        Ok(())
    }

    fn read(&self) -> Result<File, CacheError> {
        let unusable = |reason: String| CacheError::Unusable {
            path: self.path.clone(),
            reason,
        };
        match std::fs::metadata(&self.path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(File::default()),
            Err(e) => return Err(self.io(e)),
            Ok(meta) if meta.len() > MOST_BYTES => return Err(unusable("too large".to_owned())),
            Ok(_) => {}
        }
        let bytes = std::fs::read(&self.path).map_err(|e| self.io(e))?;
        let file = File::decode(&*bytes).map_err(|e| unusable(e.to_string()))?;
        if file.node_id != self.node_id {
            return Err(unusable(format!("it is of node {:?}", file.node_id)));
        }
        Ok(file)
    }

    fn io(&self, source: io::Error) -> CacheError {
        CacheError::Io {
            path: self.path.clone(),
            source,
        }
    }
}

fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let beside = path.with_extension("new");
    // Gateways' private keys may be in it: nobody else reads it, whatever is left of an earlier attempt.
    match std::fs::remove_file(&beside) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&beside, path)
}
