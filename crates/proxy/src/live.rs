//! Connections that were let in are looked at again: when a certificate is revoked, a root leaves the trust bundle, a
//! policy or a gateway's server changes, those that would not be let in any more are cut. Requests are checked one by one
//! elsewhere.
//!
//! A connection is put on the list and then looked at, both at once: what changed while it was silent, or shook hands,
//! counts for it, and what changes later finds it on the list.

mod proof;

pub(crate) use proof::{AtServer, Chain, Proof};

use crate::authorize::Tunnel;
use crate::security;
use crate::shared::Shared;
use lateen_base::Str;
use lateen_model::decide::plan::{ConnectionFacts, Fault, Peer};
use lateen_model::decide::snapshot::Snapshot;
use lateen_net::listen::reset_on_close;
use lateen_net::stream::Watch;
use proof::Verified;
use socket2::SockRef;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::Shutdown;
use std::rc::Rc;
use tokio::sync::Notify;

/// Connections looked at before others get a turn.
const AT_ONCE: usize = 64;

/// What is looked at, beside how the peer proved who it is.
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
    proof: RefCell<Proof>,
    review: Review,
    fault: RefCell<Option<Fault>>,
    told: Notify,
}

impl Watchlist {
    /// Puts a connection on the list and looks at it: [`Held::why`] tells whether it must end at once.
    pub(crate) fn hold(
        self: &Rc<Self>,
        shared: &Shared,
        watch: Watch,
        proof: Proof,
        review: Review,
    ) -> Held {
        let number = self.next.get();
        self.next.set(number + 1);
        let entry = Rc::new(Entry {
            watch,
            proof: RefCell::new(proof),
            review,
            fault: RefCell::default(),
            told: Notify::new(),
        });
        self.entries.borrow_mut().insert(number, Rc::clone(&entry));
        entry.look(shared, &mut Verified::new());
        Held {
            list: Rc::clone(self),
            number,
            entry,
        }
    }

    /// Looks at every connection.
    pub(crate) async fn review(&self, shared: &Shared) {
        let all: Vec<Rc<Entry>> = self.entries.borrow().values().cloned().collect();
        // Many connections share few peers, and verifying a chain is dear.
        let mut verified = Verified::new();
        let mut generation = shared.generation();
        for (at, entry) in all.iter().enumerate() {
            if at % AT_ONCE == AT_ONCE - 1 {
                tokio::task::yield_now().await;
                // What was found out counts for the roots that it was found out with.
                if generation != shared.generation() {
                    generation = shared.generation();
                    verified.clear();
                }
            }
            entry.look(shared, &mut verified);
        }
    }
}

impl Entry {
    /// Cuts the connection when it would not be let in now.
    fn look(&self, shared: &Shared, verified: &mut Verified) {
        if self.fault.borrow().is_some() {
            return;
        }
        let live = shared.live.load();
        let mut proof = self.proof.borrow_mut();
        let objection = proof
            .distrust(shared, verified)
            .or_else(|| proof.outgrown(shared, &live.snapshot))
            .or_else(|| self.objection(&live.snapshot));
        if let Some(fault) = objection {
            self.cut(fault);
        }
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
