//! One stream at the proxy as a pure state machine: responses in, updates and acknowledgements out.

use crate::cache::Raw;
use crate::codec::{LOOKUP, decode, kind_of, type_url};
use lateen_model::lookup::Lookup;
use lateen_model::resource::{Key, Kind, Resource};
use lateen_proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node, Status};
use std::collections::{BTreeMap, HashMap};

/// Size of the versions in one request above which they are left out, and everything is sent anew.
const VERSIONS_BYTES: usize = 3 << 20;

/// Lookups held; the oldest answered one is given up for one more, those of peers first.
const MOST_LOOKUPS: usize = 4096;

/// gRPC's `INVALID_ARGUMENT`.
const INVALID_ARGUMENT: i32 = 3;

/// What the proxy holds, across streams.
#[derive(Debug, Default)]
pub(crate) struct Subscription {
    versions: BTreeMap<Kind, HashMap<Box<str>, Box<str>>>,
    /// Kinds whose first full answer on this stream has come.
    answered: BTreeMap<Kind, bool>,
    /// What was asked by name or address: when, and whether it was answered.
    lookups: HashMap<Lookup, (u64, bool)>,
    /// Number of the next lookup.
    next: u64,
}

/// What one response means.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub changed: Vec<Resource>,
    pub removed: Vec<Key>,
    /// The same, as bytes for the cache.
    pub raw: Vec<(Key, Option<Raw>)>,
    /// One sentence for each resource that was refused.
    pub refused: Vec<String>,
    /// The acknowledgement.
    pub reply: DeltaDiscoveryRequest,
    /// Whether with this response every kind has had its first full answer.
    pub synced: bool,
    /// Lookups whose answer has come as a whole.
    pub found: Vec<Lookup>,
}

/// A request for more names, and what is given up for them.
#[derive(Debug)]
pub(crate) struct Asking {
    pub request: DeltaDiscoveryRequest,
    pub forgotten: Vec<Lookup>,
}

impl Subscription {
    /// Takes over what the cache held.
    pub fn remember(&mut self, key: &Key, version: &str) {
        let known = self.versions.entry(key.kind).or_default();
        known.insert((*key.name).into(), version.into());
    }

    /// Takes over a lookup that the cache held with its answer.
    pub fn remember_lookup(&mut self, lookup: Lookup) {
        self.next += 1;
        self.lookups.insert(lookup, (self.next, true));
    }

    /// Every lookup that was answered.
    pub fn lookups(&self) -> impl Iterator<Item = &Lookup> {
        let answered = self.lookups.iter().filter(|(_, (_, answered))| *answered);
        answered.map(|(lookup, _)| lookup)
    }

    /// Asks for more; absent: it was asked for already.
    pub fn ask(&mut self, lookup: Lookup) -> Option<Asking> {
        if self.lookups.contains_key(&lookup) {
            return None;
        }
        let mut forgotten = Vec::new();
        if self.lookups.len() >= MOST_LOOKUPS {
            let answered = self.lookups.iter().filter(|(_, (_, answered))| *answered);
            // Who calls is of less interest than who is called.
            let rank = |lookup: &Lookup| !matches!(lookup, Lookup::Peer(_));
            let oldest = answered.min_by_key(|(lookup, (number, _))| (rank(lookup), *number));
            forgotten.extend(oldest.map(|(lookup, _)| lookup.clone()));
        }
        for lookup in &forgotten {
            self.lookups.remove(lookup);
        }
        let request = DeltaDiscoveryRequest {
            type_url: LOOKUP.to_owned(),
            resource_names_subscribe: vec![lookup.to_string()],
            resource_names_unsubscribe: forgotten.iter().map(Lookup::to_string).collect(),
            ..DeltaDiscoveryRequest::default()
        };
        self.next += 1;
        self.lookups.insert(lookup, (self.next, false));
        Some(Asking { request, forgotten })
    }

    /// Requests that open a stream: lookups, so that nothing is taken away that they brought, and one for each kind, with
    /// the versions already held.
    pub fn open(&mut self, node: Node) -> Vec<DeltaDiscoveryRequest> {
        self.answered.clear();
        let lookups = (!self.lookups.is_empty()).then(|| DeltaDiscoveryRequest {
            type_url: LOOKUP.to_owned(),
            resource_names_subscribe: self.lookups.keys().map(Lookup::to_string).collect(),
            ..DeltaDiscoveryRequest::default()
        });
        let kinds = Kind::ALL.into_iter().map(|kind| DeltaDiscoveryRequest {
            type_url: type_url(kind).to_owned(),
            resource_names_subscribe: vec!["*".to_owned()],
            initial_resource_versions: self.versions_of(kind),
            ..DeltaDiscoveryRequest::default()
        });
        let mut requests: Vec<_> = lookups.into_iter().chain(kinds).collect();
        if let Some(first) = requests.first_mut() {
            first.node = Some(node);
        }
        requests
    }

    fn versions_of(&self, kind: Kind) -> BTreeMap<String, String> {
        let Some(known) = self.versions.get(&kind) else {
            return BTreeMap::new();
        };
        let size: usize = known.iter().map(|(n, v)| n.len() + v.len() + 8).sum();
        if size > VERSIONS_BYTES {
            return BTreeMap::new();
        }
        let pairs = known.iter();
        pairs.map(|(n, v)| (n.to_string(), v.to_string())).collect()
    }

    /// Takes a response. Good resources are taken even when others in it are refused: of those the old
    /// value stays.
    pub fn on_response(&mut self, response: DeltaDiscoveryResponse) -> Outcome {
        let mut outcome = Outcome::default();
        match kind_of(&response.type_url) {
            None if response.type_url == LOOKUP => {
                for wire in &response.resources {
                    if let Ok(lookup) = wire.name.parse()
                        && let Some((_, answered @ false)) = self.lookups.get_mut(&lookup)
                    {
                        *answered = true;
                        outcome.found.push(lookup);
                    }
                }
            }
            None => outcome
                .refused
                .push(format!("type {:?} was not asked for", response.type_url)),
            Some(kind) => {
                let partial = response.system_version_info.ends_with('+');
                self.take(kind, &response, &mut outcome);
                let was_synced = self.is_synced();
                let answered = self.answered.entry(kind).or_default();
                *answered |= !partial;
                outcome.synced = !was_synced && self.is_synced();
            }
        }
        outcome.reply = DeltaDiscoveryRequest {
            type_url: response.type_url,
            response_nonce: response.nonce,
            error_detail: (!outcome.refused.is_empty()).then(|| Status {
                code: INVALID_ARGUMENT,
                message: outcome.refused.join("; "),
            }),
            ..DeltaDiscoveryRequest::default()
        };
        outcome
    }

    fn take(&mut self, kind: Kind, response: &DeltaDiscoveryResponse, outcome: &mut Outcome) {
        let known = self.versions.entry(kind).or_default();
        for wire in &response.resources {
            let (url, value) = match &wire.resource {
                Some(any) => (any.type_url.as_str(), &*any.value),
                None => (response.type_url.as_str(), &[][..]),
            };
            let resource = match decode(url, value) {
                Ok(resource) => resource,
                Err(error) => {
                    outcome.refused.push(error.to_string());
                    continue;
                }
            };
            let key = resource.key();
            if key.kind != kind || *key.name != *wire.name {
                let refusal = format!("{} came under the name {}", key.name, wire.name);
                outcome.refused.push(refusal);
                continue;
            }
            known.insert(wire.name.as_str().into(), wire.version.as_str().into());
            let raw = Raw {
                version: wire.version.clone(),
                bytes: value.to_vec(),
            };
            outcome.raw.push((key, Some(raw)));
            outcome.changed.push(resource);
        }
        for name in &response.removed_resources {
            if known.remove(name.as_str()).is_some() {
                let name = name.as_str().into();
                let key = Key { kind, name };
                outcome.raw.push((key.clone(), None));
                outcome.removed.push(key);
            }
        }
    }

    fn is_synced(&self) -> bool {
        let answered = |kind| self.answered.get(&kind).copied().unwrap_or(false);
        Kind::ALL.into_iter().all(answered)
    }
}
