//! The objects of one resource and the log of their changes.

use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use tokio::sync::watch;

/// Changes kept per resource; a watcher that falls further behind lists anew.
const LOG_LIMIT: usize = if cfg!(test) { 100 } else { 2_000 };

/// One change.
#[derive(Debug, Clone)]
pub struct Event {
    /// Revision of the change.
    pub revision: u64,
    /// The object after the change; for a removal its last state with the removal's revision.
    pub object: Arc<Value>,
    /// The object before the change; absent when it was created.
    pub previous: Option<Arc<Value>>,
    /// Whether it was removed.
    pub deleted: bool,
}

pub(super) struct Collection {
    pub(super) objects: BTreeMap<(String, String), Arc<Value>>,
    /// Newest durable revision.
    pub(super) newest: watch::Sender<u64>,
    log: VecDeque<Event>,
    /// Changes up to this revision are forgotten.
    floor: u64,
}

impl Collection {
    pub(super) fn new(base: u64) -> Self {
        Self {
            objects: BTreeMap::new(),
            newest: watch::Sender::new(base),
            log: VecDeque::new(),
            floor: base,
        }
    }

    pub(super) fn list(&self, namespace: Option<&str>) -> Vec<Arc<Value>> {
        let Some(namespace) = namespace else {
            return self.objects.values().cloned().collect();
        };
        let start = Bound::Included((namespace.to_owned(), String::new()));
        let range = self.objects.range((start, Bound::Unbounded));
        range
            .take_while(|((place, _), _)| place == namespace)
            .map(|(_, object)| object.clone())
            .collect()
    }

    pub(super) fn record(&mut self, event: Event) {
        if self.log.len() >= LOG_LIMIT
            && let Some(oldest) = self.log.pop_front()
        {
            self.floor = oldest.revision;
        }
        self.log.push_back(event);
    }

    pub(super) fn publish(&self, revision: u64) {
        self.newest.send_replace(revision);
    }

    /// Whether a change waits for the disk.
    pub(super) fn is_pending(&self) -> bool {
        self.log
            .back()
            .is_some_and(|event| event.revision > *self.newest.borrow())
    }

    pub(super) fn after(&self, after: u64, limit: usize) -> Option<Vec<Event>> {
        if after < self.floor {
            return None;
        }
        let durable = *self.newest.borrow();
        let start = self.log.partition_point(|event| event.revision <= after);
        Some(
            self.log
                .range(start..)
                .take_while(|event| event.revision <= durable)
                .take(limit)
                .cloned()
                .collect(),
        )
    }

    /// Takes back every change that is not durable. Watchers are made to list anew, as readers may have seen them.
    pub(super) fn roll_back(&mut self, revision: u64) {
        let durable = *self.newest.borrow();
        while let Some(event) = self.log.pop_back_if(|event| event.revision > durable) {
            let metadata = &event.object["metadata"];
            let text = |key: &str| metadata[key].as_str().unwrap_or_default().to_owned();
            let place = (text("namespace"), text("name"));
            match event.previous {
                Some(previous) => self.objects.insert(place, previous),
                None => self.objects.remove(&place),
            };
        }
        self.log.clear();
        self.floor = revision;
        self.publish(revision);
    }
}
