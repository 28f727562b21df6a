//! One kept connection, its age and use, and the watch over it while it is idle.

use super::Place;
use crate::live::Held;
use crate::upstream::limits::{Slot, State};
use crate::upstream::secure::Security;
use lateen_net::http::Sender;
use lateen_net::stream::Watch;
use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// A connection used within this time is not asked again whether it still lives.
const FRESH: Duration = Duration::from_millis(5);

/// A connection to an endpoint. It goes from hand to hand, boxed.
pub(crate) struct Connection {
    /// Where it leads, and for whom it may be used.
    pub(super) place: Rc<Place>,
    pub(crate) sender: Sender,
    pub(crate) watch: Watch,
    /// Our address; absent: the connection had ended when it was asked for.
    pub(crate) local: Option<SocketAddr>,
    /// Whether it has served a request before.
    pub(crate) reused: bool,
    pub(super) used: Instant,
    pub(super) life: Rc<Life>,
    /// Keeps an eye on the endpoint's certificate; absent without TLS.
    pub(super) held: Option<Rc<Held>>,
    /// Its place among the connections of the cluster; absent: they are not counted. The engine has it as well.
    pub(super) slot: Option<Rc<Slot>>,
    /// One of the streams of an HTTP/2 connection that sets terms.
    pub(super) _stream: Option<StreamUse>,
}

/// What all handles to one connection know of it.
pub(super) struct Life {
    pub(super) born: Instant,
    pub(super) served: Cell<u32>,
    /// Streams under way (HTTP/2).
    pub(super) active: Cell<u32>,
}

impl Life {
    pub(super) fn new() -> Rc<Self> {
        Rc::new(Self {
            born: Instant::now(),
            served: Cell::new(0),
            active: Cell::new(0),
        })
    }

    /// Whether it may take another request.
    pub(super) fn goes_on(&self, place: &Place) -> bool {
        self.served.get() < place.most_requests() && self.born.elapsed() < place.life()
    }

    pub(super) fn serve(&self) {
        self.served.set(self.served.get() + 1);
    }
}

impl Connection {
    pub(super) fn is_usable(&self) -> bool {
        self.sender.is_ready() && (self.used.elapsed() < FRESH || !self.watch.is_spent())
    }

    /// How the endpoint is called.
    pub(crate) fn security(&self) -> &Security {
        &self.place.security
    }

    pub(super) fn share(&self) -> Option<Box<Self>> {
        let sender = self.sender.share()?;
        Some(Box::new(Self {
            place: Rc::clone(&self.place),
            sender,
            watch: self.watch.clone(),
            local: self.local,
            reused: true,
            used: self.used,
            life: Rc::clone(&self.life),
            held: self.held.clone(),
            slot: self.slot.clone(),
            _stream: None,
        }))
    }

    /// The state of the cluster that counts it.
    pub(super) fn state(&self) -> Option<&Arc<State>> {
        self.slot.as_ref().map(|slot| slot.state())
    }
}

/// One stream under way, until it is dropped.
pub(crate) struct StreamUse {
    life: Rc<Life>,
    over: Rc<dyn Fn()>,
}

impl StreamUse {
    /// Begins one; `over` is called after it has ended.
    pub(super) fn begin(life: &Rc<Life>, over: Rc<dyn Fn()>) -> Self {
        life.active.set(life.active.get() + 1);
        Self {
            life: Rc::clone(life),
            over,
        }
    }
}

impl Drop for StreamUse {
    fn drop(&mut self) {
        self.life.active.set(self.life.active.get() - 1);
        (self.over)();
    }
}

/// The watch over an idle connection: `end` is called when its time is over or somebody needs its slot, unless this is
/// dropped before.
pub(super) struct IdleWatch {
    task: AbortHandle,
    lent: Option<(Arc<State>, Arc<Notify>)>,
}

impl IdleWatch {
    pub(super) fn begin(place: &Place, connection: &Connection, end: impl Fn() + 'static) -> Self {
        let lent = connection.state().map(|state| {
            let wanted = Arc::new(Notify::new());
            state.lend(&wanted);
            (Arc::clone(state), wanted)
        });
        let rest = place.life().saturating_sub(connection.life.born.elapsed());
        let time = place.idle().unwrap_or(Duration::MAX).min(rest);
        let wanted = lent.as_ref().map(|(_, wanted)| Arc::clone(wanted));
        let task = tokio::task::spawn_local(async move {
            let called = async {
                match &wanted {
                    Some(wanted) => wanted.notified().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = tokio::time::sleep(time) => {}
                () = called => {}
            }
            end();
        });
        Self {
            task: task.abort_handle(),
            lent,
        }
    }
}

impl Drop for IdleWatch {
    fn drop(&mut self) {
        self.task.abort();
        if let Some((state, wanted)) = &self.lent {
            state.take_back(wanted);
        }
    }
}
