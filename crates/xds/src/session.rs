//! One stream at the control plane as a pure state machine: requests and changes in, responses out.
//!
//! ```text
//! request --on_request--> Session <--pump-- Table
//!                            '--> responses, kinds in push order, one of each kind in flight
//! ```
//! Back-pressure: while a response of a kind waits for its acknowledgement, changes of that kind only
//! mark slots as owed; the latest value goes out afterwards. So a slow client costs one bit and at most
//! one set entry for each resource, never a copy.

use crate::bits::Bits;
use crate::codec::{kind_of, type_url};
use crate::node;
use crate::server::Identity;
use crate::table::{Slot, SlotId, Table, version_text};
use lateen_model::decide::resources::Audience;
use lateen_model::mesh::Scope;
use lateen_model::resource::{Kind, Resource};
use lateen_proto::discovery::{
    Any, DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource as Wire,
};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::SystemTime;

/// Bound on the resources in one response: half of it is the least that a full one has.
const MESSAGE_BYTES: usize = 1 << 20;

/// Names of removed resources and of unknown ones in one response.
const MESSAGE_NAMES: usize = 10_000;

/// Names of one kind that a stream may ask for; proxies ask for all and name none.
const MOST_NAMES: usize = 10_000;

/// Bytes of those names.
const MOST_NAME_BYTES: usize = 1 << 20;

/// One connected proxy.
#[derive(Debug, Clone)]
pub struct ProxyStatus {
    /// Node id.
    pub node_id: String,
    /// The proxy's version.
    pub version: String,
    /// What it says it is: pod, namespace, labels. Namespace and service account are proved when it is
    /// [`authenticated`](Self::authenticated).
    pub scope: Scope,
    /// Whether it proved who it is; it did not on a plaintext connection.
    pub authenticated: bool,
    /// When its stream was opened.
    pub connected_at: SystemTime,
    /// State of each kind that it subscribed to.
    pub kinds: BTreeMap<Kind, KindStatus>,
}

/// One kind on one stream.
#[derive(Debug, Clone, Default)]
pub struct KindStatus {
    /// Resources that the proxy has been told of and not told to remove.
    pub resources: usize,
    /// Nonce of the last answer.
    pub sent: Option<String>,
    /// Nonce of the last answer that it accepted or refused.
    pub acked: Option<String>,
    /// The refusal, when the last answer was refused.
    pub nack: Option<String>,
    /// When the last answer was sent.
    pub sent_at: Option<SystemTime>,
    /// When it was acknowledged.
    pub acked_at: Option<SystemTime>,
    /// Answers sent on this stream.
    pub pushes: u64,
    /// Resources and removals that those answers carried.
    pub carried: u64,
    /// Answers refused on this stream.
    pub rejects: u64,
}

/// Why a stream is closed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("the first request of a stream must carry a node")]
    NoNode,
    #[error(transparent)]
    BadNode(#[from] node::BadNode),
    #[error(
        "the connection belongs to service account {proved}, the node says {claimed}: a proxy must be told the \
         namespace and service account of its own pod (POD_NAMESPACE and SERVICE_ACCOUNT)"
    )]
    Impostor {
        /// `namespace/name` as proved.
        proved: String,
        /// `namespace/name` as the node says.
        claimed: String,
    },
    #[error("type {0:?} is not served: this control plane serves lateen.mesh.v1 only")]
    UnknownType(String),
    #[error(
        "more than {MOST_NAMES} names or {MOST_NAME_BYTES} bytes of names of one type are asked for: ask for all (*)"
    )]
    TooManyNames,
}

/// State of one stream.
#[derive(Debug)]
pub(crate) struct Session {
    /// Who the peer proved to be; absent on a plaintext connection.
    identity: Option<Identity>,
    who: Option<Who>,
    connected_at: SystemTime,
    kinds: BTreeMap<Kind, Subscription>,
    /// Generation of the table up to which changes are marked as owed.
    seen: u64,
    /// Generation up to which everything owed was sent.
    settled: u64,
    /// Generation up to which everything was sent and acknowledged.
    acked: u64,
    nonce: u64,
}

#[derive(Debug)]
struct Who {
    node_id: String,
    scope: Scope,
    version: String,
    authenticated: bool,
}

impl Who {
    fn may_have(&self, slot: &Slot) -> bool {
        is_for(&slot.audience, &self.scope, self.authenticated)
    }
}

impl ProxyStatus {
    /// Whether a resource is sent to this proxy, when it asks for it.
    pub fn may_have(&self, resource: &Resource) -> bool {
        is_for(&Audience::of(resource), &self.scope, self.authenticated)
    }
}

/// Whether something is for a proxy. What is for single accounts goes only to those that proved theirs.
fn is_for(audience: &Audience, scope: &Scope, authenticated: bool) -> bool {
    let personal = matches!(audience, Audience::Accounts { .. });
    (authenticated || !personal) && audience.includes(scope)
}

/// State of one kind.
#[derive(Debug, Default)]
struct Subscription {
    /// Names asked for; absent: all (`*`).
    only: Option<HashSet<String>>,
    /// What the client said it had, until the table is ready to compare.
    initial: Option<BTreeMap<String, String>>,
    /// Slots that the client holds some version of.
    held: Bits,
    /// Slots to look at before the next response.
    owed: BTreeSet<SlotId>,
    /// Names to be told as gone that no slot has.
    gone: BTreeSet<String>,
    /// Bytes of the names asked for.
    bytes: usize,
    /// Whether a response is due even when it is empty.
    answer_due: bool,
    in_flight: bool,
    status: KindStatus,
}

impl Session {
    /// A stream of a peer that proved to be `identity`, or of an unknown one.
    pub fn new(identity: Option<Identity>, now: SystemTime) -> Self {
        Self {
            identity,
            who: None,
            connected_at: now,
            kinds: BTreeMap::new(),
            seen: 0,
            settled: 0,
            acked: 0,
            nonce: 0,
        }
    }

    /// Takes a request: a subscription, an acceptance or a refusal.
    pub fn on_request(
        &mut self,
        table: &Table,
        request: DeltaDiscoveryRequest,
        now: SystemTime,
    ) -> Result<(), Refused> {
        if self.who.is_none() {
            let node = request.node.as_ref().ok_or(Refused::NoNode)?;
            let (scope, version) = node::decode(node)?;
            if let Some(identity) = &self.identity {
                identity.check(&scope)?;
            }
            self.who = Some(Who {
                node_id: node.id.clone(),
                scope,
                version,
                authenticated: self.identity.is_some(),
            });
        }
        let Some(kind) = kind_of(&request.type_url) else {
            return Err(Refused::UnknownType(request.type_url));
        };
        let sub = self.kinds.entry(kind).or_insert_with(|| Subscription {
            initial: Some(request.initial_resource_versions),
            answer_due: true,
            ..Subscription::first(&request.resource_names_subscribe)
        });
        if !request.response_nonce.is_empty() {
            sub.acknowledge(request.response_nonce, request.error_detail, now);
        }
        sub.subscribe(table, kind, request.resource_names_subscribe)?;
        sub.unsubscribe(table, kind, &request.resource_names_unsubscribe);
        Ok(())
    }

    /// Responses that can go out now.
    pub fn pump(&mut self, table: &Table, now: SystemTime) -> Vec<DeltaDiscoveryResponse> {
        let Some(who) = self.who.as_ref().filter(|_| table.is_ready()) else {
            return Vec::new();
        };
        note_changes(&mut self.kinds, table, self.seen);
        self.seen = table.generation();
        for (kind, sub) in &mut self.kinds {
            sub.compare(table, *kind, who);
        }
        let mut responses = Vec::new();
        for kind in Kind::ALL {
            let Some(sub) = self.kinds.get_mut(&kind) else {
                continue;
            };
            if sub.in_flight {
                if sub.owed.is_empty() {
                    continue;
                }
                // What refers must not overtake what is referred to.
                break;
            }
            if let Some(mut response) = sub.respond(table, kind, who) {
                self.nonce += 1;
                response.nonce = self.nonce.to_string();
                sub.sent(&response.nonce, now);
                responses.push(response);
            }
            if !sub.owed.is_empty() {
                break;
            }
        }
        if self.kinds.values().all(Subscription::is_settled) {
            self.settled = self.seen;
            if !self.is_waiting() {
                self.acked = self.seen;
            }
        }
        responses
    }

    /// Whether a response waits for its acknowledgement.
    pub fn is_waiting(&self) -> bool {
        self.kinds.values().any(|sub| sub.in_flight)
    }

    /// Generation up to which the client has acknowledged everything; absent before it subscribed.
    pub fn acked(&self) -> Option<u64> {
        (!self.kinds.is_empty()).then_some(self.acked)
    }

    /// Generation up to which removed slots are of no more interest.
    pub fn settled(&self) -> u64 {
        self.settled
    }

    /// The stream's state for people; absent before the first request.
    pub fn status(&self) -> Option<ProxyStatus> {
        let who = self.who.as_ref()?;
        let kinds = self.kinds.iter().map(|(kind, sub)| {
            let status = KindStatus {
                resources: sub.held.len(),
                ..sub.status.clone()
            };
            (*kind, status)
        });
        Some(ProxyStatus {
            node_id: who.node_id.clone(),
            version: who.version.clone(),
            scope: who.scope.clone(),
            authenticated: who.authenticated,
            connected_at: self.connected_at,
            kinds: kinds.collect(),
        })
    }
}

impl Identity {
    /// Whether a node that says it is `scope` is this one.
    fn check(&self, scope: &Scope) -> Result<(), Refused> {
        let same =
            self.namespace == scope.namespace && self.service_account == scope.service_account;
        if same {
            return Ok(());
        }
        let name = |namespace: &str, account: &str| {
            let text = format!("{namespace}/{account}");
            text.chars().take(200).collect()
        };
        Err(Refused::Impostor {
            proved: name(&self.namespace, &self.service_account),
            claimed: name(&scope.namespace, &scope.service_account),
        })
    }
}

/// Marks what changed after generation `seen` as owed by its kind's subscription. New subscriptions are
/// left out: they compare themselves with the whole table.
fn note_changes(kinds: &mut BTreeMap<Kind, Subscription>, table: &Table, seen: u64) {
    let mut owe = |id: SlotId| {
        let sub = kinds.get_mut(&table.slot(id).key.kind);
        if let Some(sub) = sub.filter(|sub| sub.initial.is_none()) {
            sub.owed.insert(id);
        }
    };
    match table.changed_since(seen) {
        Some(changed) => changed.for_each(&mut owe),
        None => table.ids().for_each(&mut owe),
    }
}

impl Subscription {
    /// A first request without names, or with `*`, asks for all (xDS: wildcard subscription).
    fn first(names: &[String]) -> Self {
        let all = names.is_empty() || names.iter().any(|n| n == "*");
        Self {
            only: (!all).then(HashSet::new),
            ..Self::default()
        }
    }

    fn acknowledge(
        &mut self,
        nonce: String,
        refusal: Option<lateen_proto::discovery::Status>,
        now: SystemTime,
    ) {
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

    fn subscribe(&mut self, table: &Table, kind: Kind, names: Vec<String>) -> Result<(), Refused> {
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

    fn unsubscribe(&mut self, table: &Table, kind: Kind, names: &[String]) {
        let Some(only) = &mut self.only else {
            return;
        };
        for name in names {
            if only.remove(name) {
                self.bytes -= name.len();
                self.gone.remove(name);
            }
            if let Some(id) = table.find(kind, name) {
                self.held.remove(id);
                self.owed.remove(&id);
            }
        }
    }

    /// Compares what the client said it has with the table: only the difference is owed.
    fn compare(&mut self, table: &Table, kind: Kind, who: &Who) {
        let Some(mut has) = self.initial.take() else {
            return;
        };
        for id in table.ids() {
            let slot = table.slot(id);
            if slot.key.kind != kind {
                continue;
            }
            let theirs = has.remove(&*slot.key.name);
            let wanted = slot.alive && self.wants(&slot.key.name) && who.may_have(slot);
            let current = theirs
                .as_ref()
                .is_some_and(|v| *v == version_text(slot.version));
            if theirs.is_some() {
                self.held.insert(id);
            }
            if current != wanted || (theirs.is_some() && !current) {
                self.owed.insert(id);
            }
        }
        self.gone.extend(has.into_keys());
    }

    fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only.contains(name))
    }

    /// The next response: owed slots up to the bounds on one message.
    fn respond(&mut self, table: &Table, kind: Kind, who: &Who) -> Option<DeltaDiscoveryResponse> {
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
            let wanted = slot.alive && self.wants(&slot.key.name) && who.may_have(slot);
            let cost = slot.bytes.len() + 2 * slot.key.name.len() + 100;
            let full = size + cost > MESSAGE_BYTES || removed.len() >= MESSAGE_NAMES;
            if full && (size > 0 || !removed.is_empty()) {
                break;
            }
            self.owed.pop_first();
            if wanted {
                self.held.insert(id);
                size += cost;
                resources.push(Wire {
                    version: version_text(slot.version),
                    name: slot.key.name.to_string(),
                    resource: Some(Any {
                        type_url: type_url(kind).to_owned(),
                        value: slot.bytes.clone(),
                    }),
                });
            } else if self.held.contains(id) {
                self.held.remove(id);
                removed.push(slot.key.name.to_string());
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

    fn sent(&mut self, nonce: &str, now: SystemTime) {
        self.in_flight = true;
        self.status.sent = Some(nonce.to_owned());
        self.status.sent_at = Some(now);
        self.status.pushes += 1;
    }

    fn is_settled(&self) -> bool {
        self.owed.is_empty() && self.gone.is_empty() && !self.answer_due
    }
}
