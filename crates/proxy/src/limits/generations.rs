//! A map of bounded size: what was used lately stays.

use std::collections::HashMap;
use std::hash::Hash;

/// Two maps: what is used moves to the younger one; when that is full, the older one is forgotten and the younger takes
/// its place. So at least the last `most` entries that were used are there, and never more than twice as many.
#[derive(Debug)]
pub(super) struct Generations<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    most: usize,
}

impl<K: Eq + Hash + Clone, V> Generations<K, V> {
    pub(super) fn new(most: usize) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            most: most.max(1),
        }
    }

    /// The entry; made when it is not there.
    pub(super) fn entry(&mut self, key: &K, make: impl FnOnce() -> V) -> &mut V {
        if !self.young.contains_key(key) {
            let value = self.old.remove(key).unwrap_or_else(make);
            if self.young.len() >= self.most {
                self.old = std::mem::take(&mut self.young);
            }
            self.young.insert(key.clone(), value);
        }
        // It was put in just now, or was there.
        self.young.get_mut(key).expect("the entry is there")
    }

    /// The entry, if it is there.
    pub(super) fn find(&mut self, key: &K) -> Option<&mut V> {
        match self.young.contains_key(key) {
            true => self.young.get_mut(key),
            false => self.old.get_mut(key),
        }
    }

    pub(super) fn remove(&mut self, key: &K) {
        self.young.remove(key);
        self.old.remove(key);
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}
