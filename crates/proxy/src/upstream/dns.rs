//! Addresses of names that ServiceEntries give or clients ask for, kept as long as the answers hold.

use lateen_base::Str;
use lateen_model::decide::cluster::NamedEndpoint;
use lateen_net::dns::Resolver;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// How soon a failed name is asked again.
const KEEP_FAILURE: Duration = Duration::from_secs(2);
/// Bound on asking.
const PATIENCE: Duration = Duration::from_secs(5);
/// Names kept: a bound, not a tuning. Clients choose some of them.
const MOST: usize = 1024;

/// A worker's resolved names.
#[derive(Debug)]
pub(crate) struct Names {
    resolver: Arc<Resolver>,
    /// The IP version that this proxy can call; absent: both, or not known.
    only: Option<fn(&IpAddr) -> bool>,
    slots: RefCell<HashMap<Str, Rc<Slot>>>,
}

/// One name.
#[derive(Debug, Default)]
struct Slot {
    addresses: RefCell<Vec<IpAddr>>,
    /// Absent: never asked.
    until: Cell<Option<Instant>>,
    has_failed: Cell<bool>,
    /// Held by whoever asks, so that others wait for the same answer.
    asking: Mutex<()>,
}

impl Slot {
    fn is_fresh(&self) -> bool {
        self.until.get().is_some_and(|until| until > Instant::now())
    }
}

impl Names {
    /// Names for a proxy with these addresses of its own.
    pub(crate) fn new(resolver: &Arc<Resolver>, own: &[IpAddr]) -> Rc<Self> {
        let only: Option<fn(&IpAddr) -> bool> = match own {
            [] => None,
            own if own.iter().all(IpAddr::is_ipv4) => Some(IpAddr::is_ipv4),
            own if own.iter().all(IpAddr::is_ipv6) => Some(IpAddr::is_ipv6),
            _ => None,
        };
        Rc::new(Self {
            resolver: Arc::clone(resolver),
            only,
            slots: RefCell::default(),
        })
    }

    /// Addresses of every host with its port, and whose they are; a host that does not resolve adds none.
    pub(crate) async fn resolve<'h>(
        self: &Rc<Self>,
        hosts: &'h [NamedEndpoint],
    ) -> Vec<(SocketAddr, &'h NamedEndpoint)> {
        let mut all = Vec::new();
        for named in hosts {
            let found = self.one(&named.host).await;
            all.extend(
                found
                    .into_iter()
                    .map(|ip| (SocketAddr::new(ip, named.port), named)),
            );
        }
        all
    }

    /// Addresses of one name in the answer's order. Those of the last good answer are used while the name cannot be
    /// resolved anew.
    pub(crate) async fn one(self: &Rc<Self>, host: &str) -> Vec<IpAddr> {
        let slot = self.slot(host);
        if !slot.is_fresh() {
            let is_stale = slot.has_failed.get() && !slot.addresses.borrow().is_empty();
            if is_stale {
                // Nobody waits for a resolver that did not answer last time.
                let (names, slot, host) = (Rc::clone(self), Rc::clone(&slot), Str::from(host));
                tokio::task::spawn_local(async move { names.ask(&slot, &host).await });
            } else {
                self.ask(&slot, host).await;
            }
        }
        slot.addresses.borrow().clone()
    }

    fn slot(&self, host: &str) -> Rc<Slot> {
        let mut slots = self.slots.borrow_mut();
        if let Some(slot) = slots.get(host) {
            return Rc::clone(slot);
        }
        if slots.len() >= MOST {
            slots.retain(|_, slot| slot.is_fresh());
        }
        if slots.len() >= MOST {
            slots.clear();
        }
        Rc::clone(slots.entry(host.into()).or_default())
    }

    async fn ask(&self, slot: &Slot, host: &str) {
        let _asking = slot.asking.lock().await;
        if slot.is_fresh() {
            return;
        }
        let found = tokio::time::timeout(PATIENCE, self.resolver.lookup(host)).await;
        let reason = match found {
            Ok(Ok(found)) => {
                *slot.addresses.borrow_mut() = self.callable(found.addresses);
                slot.until.set(Some(Instant::now() + found.ttl));
                slot.has_failed.set(false);
                return;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        tracing::warn!("cannot resolve {host}: {reason}");
        slot.until.set(Some(Instant::now() + KEEP_FAILURE));
        slot.has_failed.set(true);
    }

    /// The addresses of the version that can be called; all when there is none of it.
    fn callable(&self, mut all: Vec<IpAddr>) -> Vec<IpAddr> {
        if let Some(only) = self.only.filter(|only| all.iter().any(only)) {
            all.retain(only);
        }
        all
    }
}
