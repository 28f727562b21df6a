//! Connections that were let in are looked at again: when a certificate is revoked, a root leaves the trust bundle or
//! a policy changes, those that would not be let in any more are cut. Requests are checked one by one elsewhere.

use crate::authorize::Tunnel;
use crate::identity::Membership;
use crate::security;
use crate::shared::Shared;
use lateen_base::Str;
use lateen_model::decide::plan::{ConnectionFacts, Fault, FaultReason, Peer};
use lateen_model::decide::snapshot::Snapshot;
use lateen_net::listen::reset_on_close;
use lateen_net::stream::Watch;
use rustls::pki_types::CertificateDer;
use socket2::SockRef;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::Shutdown;
use std::rc::Rc;
use std::time::SystemTime;
use tokio::sync::Notify;

/// Connections looked at before others get a turn.
const AT_ONCE: usize = 64;

/// A peer's certificates, leaf first; empty: it showed none.
pub(crate) type Chain = Rc<[CertificateDer<'static>]>;

/// What is looked at, beside the peer's certificate.
pub(crate) enum Review {
    /// Nothing: an endpoint that we called.
    Endpoint,
    /// Whether its client may still come as it came.
    Http(ConnectionFacts, Peer),
    /// As HTTP, and the policies for connections; with the providers that agreed to it.
    Tcp(ConnectionFacts, Peer, Vec<Str>),
    /// Whether the request that a tunnel began with would still be let in.
    Tunnel(Box<Tunnel>),
}

/// A worker's connections under review.
#[derive(Default)]
pub(crate) struct Watchlist {
    entries: RefCell<HashMap<u64, Rc<Entry>>>,
    next: Cell<u64>,
}

/// One connection's place on the list, until it is dropped.
pub(crate) struct Held {
    list: Rc<Watchlist>,
    number: u64,
    entry: Rc<Entry>,
}

struct Entry {
    watch: Watch,
    chain: Chain,
    /// When the peer was verified: certificates may expire while their connection goes on.
    since: SystemTime,
    review: Review,
    fault: RefCell<Option<Fault>>,
    told: Notify,
}

impl Watchlist {
    /// Puts a connection on the list.
    pub(crate) fn hold(self: &Rc<Self>, watch: Watch, chain: Chain, review: Review) -> Held {
        let number = self.next.get();
        self.next.set(number + 1);
        let entry = Rc::new(Entry {
            watch,
            chain,
            since: SystemTime::now(),
            review,
            fault: RefCell::default(),
            told: Notify::new(),
        });
        self.entries.borrow_mut().insert(number, Rc::clone(&entry));
        Held {
            list: Rc::clone(self),
            number,
            entry,
        }
    }

    /// Looks at every connection; at certificates only when `trust` has changed.
    pub(crate) async fn review(&self, shared: &Shared, trust: bool) {
        let live = shared.live.load_full();
        let member = shared.member.load_full().filter(|_| trust);
        let all: Vec<Rc<Entry>> = self.entries.borrow().values().cloned().collect();
        // Many connections share few peers, and verifying a chain is dear.
        let mut verified = HashMap::new();
        for (at, entry) in all.iter().enumerate() {
            if at % AT_ONCE == AT_ONCE - 1 {
                tokio::task::yield_now().await;
            }
            if entry.fault.borrow().is_some() {
                continue;
            }
            let objection = member
                .as_ref()
                .and_then(|member| entry.distrust(member, &mut verified))
                .or_else(|| entry.objection(&live.snapshot));
            if let Some(fault) = objection {
                entry.cut(fault);
            }
        }
    }
}

impl Entry {
    fn distrust(
        &self,
        member: &Membership,
        verified: &mut HashMap<Vec<u8>, Option<String>>,
    ) -> Option<Fault> {
        let leaf = self.chain.first()?;
        let problem = verified.entry(leaf.to_vec()).or_insert_with(|| {
            let done = member.bundles.verify(&self.chain, self.since);
            done.err().map(|error| error.to_string())
        });
        Some(Fault {
            reason: FaultReason::HandshakeFailed,
            origin: None,
            subject: format!("the peer is not trusted any more: {}", problem.as_ref()?),
        })
    }

    fn objection(&self, snapshot: &Snapshot) -> Option<Fault> {
        match &self.review {
            Review::Endpoint => None,
            Review::Http(facts, peer) => security::must_be_mutual(snapshot, facts, peer),
            Review::Tcp(facts, peer, asked) => security::must_be_mutual(snapshot, facts, peer)
                .or_else(|| {
                    let refused = security::admit_again(snapshot, facts, peer, asked);
                    Some(refused.err()?.fault)
                }),
            Review::Tunnel(tunnel) => tunnel.objection(snapshot),
        }
    }

    fn cut(&self, fault: Fault) {
        *self.fault.borrow_mut() = Some(fault);
        match self.review {
            // Whoever serves these waits for the word, and ends them.
            Review::Http(..) | Review::Tcp(..) | Review::Tunnel(_) => self.told.notify_one(),
            Review::Endpoint => {
                reset_on_close(self.watch.tcp());
                // The peer may have ended it already.
                let _ = SockRef::from(self.watch.tcp()).shutdown(Shutdown::Both);
            }
        }
    }
}

impl Held {
    /// Resolves once the connection must end, with the reason.
    pub(crate) async fn cut(&self) -> Fault {
        loop {
            if let Some(fault) = self.why() {
                return fault;
            }
            self.entry.told.notified().await;
        }
    }

    /// Why the connection was cut; absent: it was not.
    pub(crate) fn why(&self) -> Option<Fault> {
        self.entry.fault.borrow().clone()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.list.entries.borrow_mut().remove(&self.number);
    }
}
