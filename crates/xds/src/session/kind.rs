//! One kind of resource on one stream: what the client holds, what it is owed, and the next response.

use super::status::KindStatus;
use super::{Refused, View};
use crate::bits::Bits;
use crate::codec::type_url;
use crate::table::{SlotId, Table, version_text};
use bytes::Bytes;
use lateen_model::resource::Kind;
use lateen_proto::discovery::{Any, DeltaDiscoveryResponse, Resource as Wire, Status};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::SystemTime;

/// Bound on the resources in one response: half of it is the least that a full one has.
const MESSAGE_BYTES: usize = 1 << 20;

/// Names of removed resources and of unknown ones in one response.
const MESSAGE_NAMES: usize = 10_000;

/// Names of one kind that a stream may ask for; proxies ask for all and name none.
pub(super) const MOST_NAMES: usize = 10_000;

/// Bytes of those names.
pub(super) const MOST_NAME_BYTES: usize = 1 << 20;

/// State of one kind.
#[derive(Debug, Default)]
pub(super) struct Subscription {
    /// Names asked for; absent: all (`*`).
    only: Option<HashSet<String>>,
    /// What the client said it had, until the table is ready to compare.
    initial: Option<BTreeMap<String, String>>,
    /// Slots to look at before the next response.
    owed: BTreeSet<SlotId>,
    /// Names to be told as gone that no slot has.
    gone: BTreeSet<String>,
    /// Bytes of the names asked for.
    bytes: usize,
    /// Whether a response is due even when it is empty.
    answer_due: bool,
    pub in_flight: bool,
    pub status: KindStatus,
}

impl Subscription {
    /// A first request without names, or with `*`, asks for all (xDS: wildcard subscription).
    pub fn first(names: &[String], versions: BTreeMap<String, String>) -> Self {
        let all = names.is_empty() || names.iter().any(|n| n == "*");
        Self {
            only: (!all).then(HashSet::new),
            initial: Some(versions),
            answer_due: true,
            ..Self::default()
        }
    }

    /// Takes an acceptance or a refusal.
    pub fn acknowledge(&mut self, nonce: String, refusal: Option<Status>, now: SystemTime) {
        // An answer to an older response says nothing about the one under way.
        if self.status.sent.as_ref() != Some(&nonce) || !self.in_flight {
            return;
        }
        self.in_flight = false;
        self.status.acked = Some(nonce);
        self.status.acked_at = Some(now);
        self.status.rejects += u64::from(refusal.is_some());
        self.status.nack = refusal.map(|status| status.message);
    }

    /// Adds names.
    pub fn subscribe(
        &mut self,
        table: &Table,
        kind: Kind,
        names: Vec<String>,
    ) -> Result<(), Refused> {
        let Some(only) = &mut self.only else {
            return Ok(());
        };
        for name in names {
            if !only.contains(&name) {
                self.bytes += name.len();
                if only.len() >= MOST_NAMES || self.bytes > MOST_NAME_BYTES {
                    return Err(Refused::TooManyNames);
                }
            }
            match table.find(kind, &name) {
                Some(id) => {
                    self.owed.insert(id);
                }
                // xDS: a name that does not exist is answered as removed.
                None => {
                    self.gone.insert(name.clone());
                }
            }
            only.insert(name);
        }
        Ok(())
    }

    /// Takes names back: the client has forgotten them.
    pub fn unsubscribe(&mut self, table: &Table, kind: Kind, names: &[String], held: &mut Bits) {
        let Some(only) = &mut self.only else {
            return;
        };
        for name in names {
            if only.remove(name) {
                self.bytes -= name.len();
                self.gone.remove(name);
            }
            if let Some(id) = table.find(kind, name) {
                self.status.resources -= usize::from(held.remove(id));
                self.owed.remove(&id);
            }
        }
    }

    fn hold(&mut self, held: &mut Bits, id: SlotId) {
        self.status.resources += usize::from(held.insert(id));
    }

    fn drop_held(&mut self, held: &mut Bits, id: SlotId) {
        self.status.resources -= usize::from(held.remove(id));
    }

    /// Marks a slot as to be looked at, unless everything is compared anyway.
    pub fn owe(&mut self, id: SlotId) {
        if self.initial.is_none() {
            self.owed.insert(id);
        }
    }

    /// Whether it has not compared itself with the table yet.
    pub fn is_new(&self) -> bool {
        self.initial.is_some()
    }

    /// Compares what the client said it has with the table: only the difference is owed.
    pub fn compare(&mut self, view: &View<'_>, kind: Kind, held: &mut Bits) {
        let Some(has) = self.initial.take() else {
            return;
        };
        let table = view.table;
        for (name, version) in has {
            let Some(id) = table.find(kind, &name) else {
                self.gone.insert(name);
                continue;
            };
            self.hold(held, id);
            if !self.wants(view, id) || version_text(table.slot(id).version) != version {
                self.owed.insert(id);
            }
        }
        for id in view.candidates(kind) {
            if !held.contains(id) && self.wants(view, id) {
                self.owed.insert(id);
            }
        }
    }

    /// Whether the client is to have what is in a slot.
    pub fn wants(&self, view: &View<'_>, id: SlotId) -> bool {
        let slot = view.table.slot(id);
        let named = self
            .only
            .as_ref()
            .is_none_or(|only| only.contains(&*slot.key().name));
        named && view.has(id)
    }

    /// The next response: owed slots up to the bounds on one message.
    pub fn respond(
        &mut self,
        view: &View<'_>,
        kind: Kind,
        held: &mut Bits,
    ) -> Option<DeltaDiscoveryResponse> {
        // Of a dozen kinds most have nothing to say, at every message.
        if self.is_settled() {
            return None;
        }
        let table = view.table;
        let mut resources = Vec::new();
        let mut removed = Vec::new();
        while removed.len() < MESSAGE_NAMES
            && let Some(name) = self.gone.pop_first()
        {
            removed.push(name);
        }
        let mut size = 0;
        while let Some(id) = self.owed.first().copied() {
            let slot = table.slot(id);
            let bytes = slot.bytes();
            let name = &slot.key().name;
            let cost = bytes.map_or(0, Bytes::len) + 2 * name.len() + 100;
            let full = size + cost > MESSAGE_BYTES || removed.len() >= MESSAGE_NAMES;
            if full && (size > 0 || !removed.is_empty()) {
                break;
            }
            self.owed.pop_first();
            if let Some(bytes) = bytes.filter(|_| self.wants(view, id)) {
                self.hold(held, id);
                size += cost;
                resources.push(Wire {
                    version: version_text(slot.version),
                    name: name.to_string(),
                    resource: Some(Any {
                        type_url: type_url(kind).to_owned(),
                        value: bytes.clone(),
                    }),
                });
            } else if held.contains(id) {
                self.drop_held(held, id);
                removed.push(name.to_string());
            }
        }
        let more = !self.owed.is_empty() || !self.gone.is_empty();
        if resources.is_empty() && removed.is_empty() && !self.answer_due {
            return None;
        }
        self.answer_due = false;
        self.status.carried += (resources.len() + removed.len()) as u64;
        let mark = if more { "+" } else { "" };
        Some(DeltaDiscoveryResponse {
            system_version_info: format!("{}{mark}", table.generation()),
            resources,
            type_url: type_url(kind).to_owned(),
            nonce: String::new(),
            removed_resources: removed,
        })
    }

    pub fn sent(&mut self, nonce: &str, now: SystemTime) {
        self.in_flight = true;
        self.status.sent = Some(nonce.to_owned());
        self.status.sent_at = Some(now);
        self.status.pushes += 1;
    }

    /// Whether slots wait to be looked at.
    pub fn is_owed(&self) -> bool {
        !self.owed.is_empty()
    }

    pub fn is_settled(&self) -> bool {
        self.owed.is_empty() && self.gone.is_empty() && !self.answer_due
    }
}
