//! One stream at the control plane as a pure state machine: requests and changes in, responses out.
//!
//! ```text
//! request --on_request--> Session <--pump-- Table
//!                            '--> responses, kinds in push order, one of each kind in flight
//! ```
//! Back-pressure: while a response of a kind waits for its acknowledgement, changes of that kind only
//! mark slots as owed; the latest value goes out afterwards. So a slow client costs one bit and at most
//! one set entry for each resource, never a copy.
//!
//! A client that is not sent everything (its Sidecar object limits it, or it is told on demand) is sent its reach; what
//! it asks for by lookup is answered after everything that the answer brings.

mod kind;
mod lookups;
mod status;
mod who;

pub use status::{KindStatus, ProxyStatus};

use crate::bits::Bits;
use crate::codec::{LOOKUP, kind_of};
use crate::node;
use crate::server::Identity;
use crate::table::{SlotId, Table};
use kind::{MOST_NAME_BYTES, MOST_NAMES, Subscription};
use lateen_model::decide::reach::Reach;
use lateen_model::lookup::NoLookup;
use lateen_model::mesh::Role;
use lateen_model::resource::Kind;
use lateen_proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use lookups::Lookups;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;
use who::{Who, is_for};

/// Kinds of which a client may be sent less than all that it may have.
const BY_NEED: [Kind; 4] = [
    Kind::Service,
    Kind::Workload,
    Kind::TrafficPolicy,
    Kind::RouteTable,
];

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
    #[error(transparent)]
    NoLookup(#[from] NoLookup),
}

/// State of one stream.
#[derive(Debug)]
pub(crate) struct Session {
    /// Who the peer proved to be; absent on a plaintext connection.
    identity: Option<Identity>,
    who: Option<Who>,
    connected_at: SystemTime,
    kinds: BTreeMap<Kind, Subscription>,
    /// Slots, of every kind, that the client holds some version of.
    held: Bits,
    lookups: Lookups,
    /// What the client is sent; absent: everything that it may have.
    reach: Option<Arc<Reach>>,
    /// Whether `reach` may be another by now.
    is_stale: bool,
    /// Revision of the table's directory at which it was found out.
    revision: u64,
    /// Generation of the table up to which changes are marked as owed.
    seen: u64,
    /// Generation up to which everything owed was sent.
    settled: u64,
    /// Generation up to which everything was sent and acknowledged.
    acked: u64,
    nonce: u64,
}

impl ProxyStatus {
    /// Whether this proxy is sent what is in a slot, when it asks for its kind.
    pub(crate) fn is_sent(&self, table: &Table, id: SlotId) -> bool {
        let within = match (&self.reach, table.directory()) {
            (Some(reach), Some(directory)) => directory.is_within(reach, id),
            _ => true,
        };
        within && is_for(table.slot(id).audience(), &self.scope, self.authenticated)
    }
}

/// The table as one client may see it.
struct View<'a> {
    table: &'a Table,
    who: &'a Who,
    reach: Option<&'a Reach>,
}

impl View<'_> {
    /// Whether the client is to have what is in a slot, if it asked for its kind.
    fn has(&self, id: SlotId) -> bool {
        let slot = self.table.slot(id);
        slot.alive && self.who.may_have(slot) && self.is_within(id)
    }

    fn is_within(&self, id: SlotId) -> bool {
        match (self.reach, self.table.directory()) {
            (Some(reach), Some(directory)) => directory.is_within(reach, id),
            _ => true,
        }
    }

    /// Slots of a kind that may be for the client.
    fn candidates(&self, kind: Kind) -> Vec<SlotId> {
        match (self.reach, self.table.directory()) {
            (Some(reach), Some(directory)) if BY_NEED.contains(&kind) => {
                let all = directory.all_within(reach).into_iter();
                all.filter(|id| self.table.slot(*id).key().kind == kind)
                    .collect()
            }
            _ => self.table.ids_of(kind).collect(),
        }
    }
}

impl Session {
    /// A stream of a peer that proved to be `identity`, or of an unknown one.
    pub fn new(identity: Option<Identity>, now: SystemTime) -> Self {
        Self {
            identity,
            who: None,
            connected_at: now,
            kinds: BTreeMap::new(),
            held: Bits::default(),
            lookups: Lookups::default(),
            reach: None,
            is_stale: true,
            revision: 0,
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
            self.who = Some(Who::of(&request, self.identity.as_ref())?);
        }
        if request.type_url == LOOKUP {
            let (more, less) = (
                &request.resource_names_subscribe,
                &request.resource_names_unsubscribe,
            );
            self.is_stale |= self.lookups.take(more, less)?;
            return Ok(());
        }
        let Some(kind) = kind_of(&request.type_url) else {
            return Err(Refused::UnknownType(request.type_url));
        };
        let sub = self.kinds.entry(kind).or_insert_with(|| {
            let versions = request.initial_resource_versions;
            Subscription::first(&request.resource_names_subscribe, versions)
        });
        if !request.response_nonce.is_empty() {
            sub.acknowledge(request.response_nonce, request.error_detail, now);
        }
        sub.subscribe(table, kind, request.resource_names_subscribe)?;
        sub.unsubscribe(
            table,
            kind,
            &request.resource_names_unsubscribe,
            &mut self.held,
        );
        Ok(())
    }

    /// Whether the table must know who refers to whom before anything is sent.
    pub fn needs_directory(&self) -> bool {
        let on_demand = |who: &Who| who.scope.on_demand && who.scope.role == Role::Sidecar;
        self.who.as_ref().is_some_and(on_demand)
    }

    /// Responses that can go out now.
    pub fn pump(&mut self, table: &Table, now: SystemTime) -> Vec<DeltaDiscoveryResponse> {
        let is_ready = table.is_ready() && (table.directory().is_some() || !self.needs_directory());
        if self.who.is_none() || !is_ready {
            return Vec::new();
        }
        self.note_changes(table);
        self.look_again(table);
        let Some(who) = &self.who else {
            return Vec::new();
        };
        let view = View {
            table,
            who,
            reach: self.reach.as_deref(),
        };
        for (kind, sub) in self.kinds.iter_mut().filter(|(_, sub)| sub.is_new()) {
            sub.compare(&view, *kind, &mut self.held);
        }
        let mut responses = Vec::new();
        for kind in Kind::ALL {
            let Some(sub) = self.kinds.get_mut(&kind) else {
                continue;
            };
            if sub.in_flight {
                if !sub.is_owed() {
                    continue;
                }
                // What refers must not overtake what is referred to.
                break;
            }
            if let Some(mut response) = sub.respond(&view, kind, &mut self.held) {
                self.nonce += 1;
                response.nonce = self.nonce.to_string();
                sub.sent(&response.nonce, now);
                responses.push(response);
            }
            if sub.is_owed() {
                break;
            }
        }
        if self.kinds.values().all(Subscription::is_settled) {
            self.settled = self.seen;
            if !self.is_waiting() {
                self.acked = self.seen;
            }
            if self.kinds.len() == Kind::ALL.len() {
                responses.extend(self.lookups.answer(table.generation()));
            }
        }
        responses
    }

    /// Takes note of changes without a response, if none of them concerns the client and it is owed nothing; false: the
    /// session must be [pumped](Self::pump).
    pub fn pass(&mut self, table: &Table) -> bool {
        let is_stale = self.is_stale && table.directory().is_some();
        let knows = table.directory().is_some() || !self.needs_directory();
        let mut kinds = self.kinds.values();
        let is_settled = kinds.all(|sub| sub.is_settled() && !sub.is_new());
        if is_stale || !knows || !is_settled || self.kinds.is_empty() || !table.is_ready() {
            return false;
        }
        let (Some(who), Some(mut changed)) = (&self.who, table.changed_since(self.seen)) else {
            return false;
        };
        let view = View {
            table,
            who,
            reach: self.reach.as_deref(),
        };
        let concerns = |id: SlotId| {
            let kind = table.slot(id).key().kind;
            let sub = self.kinds.get(&kind);
            let is_sent = sub.is_some_and(|sub| self.held.contains(id) || sub.wants(&view, id));
            is_sent || self.moves(table, kind, id)
        };
        if changed.any(concerns) {
            return false;
        }
        self.seen = table.generation();
        self.settled = self.seen;
        if !self.is_waiting() {
            self.acked = self.seen;
        }
        true
    }

    /// Whether the change of a slot can change what the client is to be sent beside it.
    fn moves(&self, table: &Table, kind: Kind, id: SlotId) -> bool {
        match (&self.reach, table.directory()) {
            (Some(reach), Some(directory)) => directory.matters(reach, kind, id, self.revision),
            _ => matches!(kind, Kind::SidecarScope | Kind::MeshSettings),
        }
    }

    /// Marks what changed since the last look as owed by its kind's subscription. New subscriptions are left out: they
    /// compare themselves with the whole table.
    fn note_changes(&mut self, table: &Table) {
        match table.changed_since(self.seen) {
            Some(changed) => {
                for id in changed {
                    let kind = table.slot(id).key().kind;
                    self.is_stale |= self.moves(table, kind, id);
                    if let Some(sub) = self.kinds.get_mut(&kind) {
                        sub.owe(id);
                    }
                }
            }
            None => {
                self.is_stale = true;
                for (kind, sub) in &mut self.kinds {
                    table.ids_of(*kind).for_each(|id| sub.owe(id));
                }
            }
        }
        self.seen = table.generation();
    }

    /// Finds out what the client is to be sent; what came in or fell out is owed.
    fn look_again(&mut self, table: &Table) {
        let (Some(who), Some(directory), true) = (&self.who, table.directory(), self.is_stale)
        else {
            return;
        };
        self.is_stale = false;
        self.revision = directory.revision();
        let new = directory.reach(&who.scope, self.lookups.asked());
        // Those that are new compare themselves with the whole table anyway.
        let compared = BY_NEED.map(|kind| {
            let sub = self.kinds.get(&kind);
            sub.is_some_and(|sub| !sub.is_new()).then_some(kind)
        });
        let mut owe = |id: SlotId| {
            if let Some(sub) = self.kinds.get_mut(&table.slot(id).key().kind) {
                sub.owe(id);
            }
        };
        match (self.reach.as_deref(), &new) {
            (None, None) => return,
            (Some(old), Some(new)) => directory.between(old, new).into_iter().for_each(owe),
            // Between everything and one reach lies what is outside of it.
            (Some(one), None) | (None, Some(one)) => {
                let kinds = compared.into_iter().flatten();
                let all = kinds.flat_map(|kind| table.ids_of(kind));
                all.filter(|id| !directory.is_within(one, *id))
                    .for_each(&mut owe);
            }
        }
        self.reach = new.map(Arc::new);
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

    /// The client's node id; absent before the first request.
    pub fn node_id(&self) -> Option<&str> {
        self.who.as_ref().map(|who| &*who.node_id)
    }

    /// The stream's state for people; absent before the first request.
    pub fn status(&self) -> Option<ProxyStatus> {
        let who = self.who.as_ref()?;
        let kinds = self.kinds.iter();
        Some(ProxyStatus {
            node_id: who.node_id.clone(),
            version: who.version.clone(),
            scope: who.scope.clone(),
            authenticated: who.authenticated,
            connected_at: self.connected_at,
            kinds: kinds
                .map(|(kind, sub)| (*kind, sub.status.clone()))
                .collect(),
            lookups: self.lookups.len(),
            reach: self.reach.clone(),
        })
    }
}
