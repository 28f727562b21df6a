//! Connections kept for the next request: idle HTTP/1 ones, and shared HTTP/2 connections, one per endpoint unless the
//! cluster bounds their streams.
//!
//! ```text
//! request: a kept connection -> else a place among the waiting -> a connection given back | a slot -> a new one
//! ```

mod connection;
mod place;
mod streams;

pub(crate) use connection::Connection;
pub(crate) use place::{Place, Preface, Terms};

use super::limits::{Kind, Slot, State};
use super::secure::{self, ConnectError, Connected, Purpose, Security};
use crate::live::Watchlist;
use crate::shared::Shared;
use connection::{IdleWatch, Life};
use lateen_base::Map;
use lateen_net::http::{self, Sender, Version, open_on};
use lateen_net::stream::Stream;
use place::IDLE;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;
use streams::Streams;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Idle connections kept per endpoint. With fewer than there are requests at once, many that end in one turn of the event
/// loop would end connections that the next requests need.
const MOST: usize = 1024;

/// A worker's connections.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    watchlist: Rc<Watchlist>,
    idle: RefCell<Map<Place, Vec<Kept>>>,
    waiting: RefCell<Map<Place, VecDeque<oneshot::Sender<Box<Connection>>>>>,
    streams: RefCell<Map<Place, Rc<Streams>>>,
}

/// An idle connection.
struct Kept {
    connection: Box<Connection>,
    _watch: Option<IdleWatch>,
}

/// How a connection is wanted.
pub(super) struct Wish<'a> {
    pub(super) version: Version,
    /// Bound on connecting.
    pub(super) timeout: Duration,
    /// Whether a kept one will not do.
    pub(super) fresh: bool,
    /// Where the cluster's connections and waiting requests are counted; absent: nowhere.
    pub(super) state: Option<&'a Arc<State>>,
}

impl Pool {
    pub(super) fn new(shared: &Arc<Shared>, watchlist: &Rc<Watchlist>) -> Self {
        Self {
            shared: Arc::clone(shared),
            watchlist: Rc::clone(watchlist),
            idle: RefCell::default(),
            waiting: RefCell::default(),
            streams: RefCell::default(),
        }
    }

    /// A kept connection that can take a request at once; none when there is none, or a fresh one is wanted.
    pub(super) fn kept(&self, place: &Place, wish: &Wish<'_>) -> Option<Box<Connection>> {
        match wish.version {
            Version::Http1 => self.take_idle(place).filter(|_| !wish.fresh),
            Version::Http2 => self.shared(place, wish),
        }
    }

    /// A new connection, or one that somebody else has opened or done with meanwhile.
    ///
    /// # Errors
    /// None could be opened, or the cluster's limits leave none.
    pub(super) async fn opened(
        self: &Rc<Self>,
        place: &Place,
        wish: &Wish<'_>,
    ) -> Result<Box<Connection>, ConnectError> {
        match wish.version {
            Version::Http1 => self.http1(place, wish).await,
            Version::Http2 => Box::pin(self.http2(place, wish)).await,
        }
    }

    async fn http1(
        self: &Rc<Self>,
        place: &Place,
        wish: &Wish<'_>,
    ) -> Result<Box<Connection>, ConnectError> {
        let Some(state) = wish.state else {
            return self.open(place, wish, None).await;
        };
        let most = place.pool().and_then(|pool| pool.max_connections);
        let _pending = pending(place, state)?;
        let handed = self.queue(place);
        let slot = tokio::select! {
            biased;
            Ok(connection) = handed => return Ok(connection),
            slot = state.connection(most) => slot,
        };
        self.open(place, wish, Some(slot)).await
    }

    async fn open(
        &self,
        place: &Place,
        wish: &Wish<'_>,
        slot: Option<Slot>,
    ) -> Result<Box<Connection>, ConnectError> {
        let purpose = match wish.version {
            Version::Http1 => Purpose::Http1,
            Version::Http2 => Purpose::Http2,
        };
        let connected = secure::connect(&self.shared, place, purpose, wish.timeout).await?;
        self.wrap(place, connected, wish.version, slot).await
    }

    async fn wrap(
        &self,
        place: &Place,
        connected: Connected,
        version: Version,
        slot: Option<Slot>,
    ) -> Result<Box<Connection>, ConnectError> {
        let (stream, held) = connected.watched(&self.shared, &self.watchlist)?;
        let (watch, held) = (stream.watch(), held.map(Rc::new));
        let slot = slot.map(Rc::new);
        let kept = slot.clone();
        let terms = http::Terms {
            ping: place.ping(),
            kept: kept.map(|slot| Box::new(slot) as Box<dyn std::any::Any>),
        };
        let sender = open_on(stream, version, &self.shared.limits, terms)
            .await
            .map_err(|error| ConnectError::Http(error.to_string()))?;
        Ok(Box::new(Connection {
            place: Rc::new(place.clone()),
            sender,
            local: watch.tcp().local_addr().ok(),
            watch,
            reused: false,
            used: Instant::now(),
            life: Life::new(),
            held,
            slot,
            _stream: None,
        }))
    }

    fn take_idle(&self, place: &Place) -> Option<Box<Connection>> {
        let mut idle = self.idle.borrow_mut();
        let kept = idle.get_mut(place)?;
        // The most recently used is the least likely to have been closed.
        while let Some(Kept { connection, .. }) = kept.pop() {
            if connection.is_usable() && connection.life.goes_on(place) {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps an HTTP/1 connection whose response is over; HTTP/2 ones are kept already.
    pub(super) fn give_back(self: &Rc<Self>, mut connection: Box<Connection>) {
        if matches!(connection.sender, Sender::Http2(_)) {
            return;
        }
        connection.reused = true;
        connection.used = Instant::now();
        connection.life.serve();
        if !connection.life.goes_on(&connection.place) {
            return;
        }
        if connection.sender.is_ready() {
            return self.keep(connection);
        }
        // The request's body may still be on its way, or the engine has not noticed the end yet.
        let pool = Rc::clone(self);
        tokio::task::spawn_local(async move {
            let mut connection = connection;
            if let Ok(true) = tokio::time::timeout(IDLE, connection.sender.ready()).await {
                pool.keep(connection);
            }
        });
    }

    /// Keeps a connection that was opened for something else and never used.
    pub(super) async fn offer(self: &Rc<Self>, place: Place, stream: Stream, slot: Option<Slot>) {
        let connected = Connected {
            stream,
            proof: None,
        };
        let wrapped = self.wrap(&place, connected, Version::Http1, slot).await;
        if let Ok(connection) = wrapped {
            self.keep(connection);
        }
    }

    fn keep(self: &Rc<Self>, connection: Box<Connection>) {
        let place = Rc::clone(&connection.place);
        // A certificate may have been renewed while the request was under way.
        let stale = matches!(place.security, Security::Mesh { .. })
            && place.generation != self.shared.generation();
        if stale {
            return;
        }
        let Some(connection) = self.hand_over(&place, connection) else {
            return;
        };
        let state = connection.state().cloned();
        let life = Rc::clone(&connection.life);
        let watch = place.is_watched().then(|| {
            let (pool, life) = (Rc::downgrade(self), Rc::clone(&life));
            let at = Rc::clone(&place);
            IdleWatch::begin(&place, &connection, move || drop_idle(&pool, &at, &life))
        });
        let wanted = state.is_some_and(|state| state.is_wanted());
        let kept = Kept {
            connection,
            _watch: watch,
        };
        self.put(&place, kept);
        // Who began to wait before this one could be lent would wait for ever.
        if wanted {
            drop_idle(&Rc::downgrade(self), &place, &life);
        }
    }

    fn put(&self, place: &Place, one: Kept) {
        let mut idle = self.idle.borrow_mut();
        match idle.get_mut(place) {
            Some(kept) if kept.len() >= MOST => {}
            Some(kept) => kept.push(one),
            None => {
                idle.insert(place.clone(), vec![one]);
            }
        }
    }

    /// Gives the connection to who waits longest for one to this place; it comes back when nobody does.
    fn hand_over(&self, place: &Place, mut connection: Box<Connection>) -> Option<Box<Connection>> {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.is_empty() {
            return Some(connection);
        }
        let Some(queue) = waiting.get_mut(place) else {
            return Some(connection);
        };
        while let Some(first) = queue.pop_front() {
            match first.send(connection) {
                Ok(()) => return None,
                Err(back) => connection = back,
            }
        }
        waiting.remove(place);
        Some(connection)
    }

    fn queue(&self, place: &Place) -> oneshot::Receiver<Box<Connection>> {
        let (hand, handed) = oneshot::channel();
        let mut waiting = self.waiting.borrow_mut();
        let queue = waiting.entry(place.clone()).or_default();
        queue.retain(|other| !other.is_closed());
        queue.push_back(hand);
        handed
    }

    /// Drops what is old or ended.
    pub(super) fn sweep(&self) {
        self.idle.borrow_mut().retain(|place, kept| {
            let idle = place.idle().unwrap_or(Duration::MAX);
            kept.retain(|k| k.connection.used.elapsed() < idle && !k.connection.watch.is_spent());
            !kept.is_empty()
        });
        self.waiting.borrow_mut().retain(|_, queue| {
            queue.retain(|other| !other.is_closed());
            !queue.is_empty()
        });
        self.streams
            .borrow_mut()
            .retain(|place, streams| Rc::strong_count(streams) > 1 || streams.sweep(place));
    }

    /// Lets go of connections that were opened with the mesh's certificates of before: what is under way on them is
    /// finished, new requests open new ones.
    pub(super) fn renewed(&self) {
        let current = self.shared.generation();
        let stays = |place: &Place| {
            !matches!(place.security, Security::Mesh { .. }) || place.generation == current
        };
        self.idle.borrow_mut().retain(|place, _| stays(place));
        self.streams.borrow_mut().retain(|place, _| stays(place));
    }
}

/// A place among those who wait for a connection.
fn pending(place: &Place, state: &Arc<State>) -> Result<Slot, ConnectError> {
    let most = place.pool().and_then(|pool| pool.max_pending);
    state
        .begin(Kind::Pending, most)
        .ok_or(ConnectError::Overflow)
}

/// Ends the idle connection that lives this `life`, if it is still idle.
fn drop_idle(pool: &Weak<Pool>, place: &Place, life: &Rc<Life>) {
    let Some(pool) = pool.upgrade() else { return };
    let mut idle = pool.idle.borrow_mut();
    let Some(kept) = idle.get_mut(place) else {
        return;
    };
    let at = kept
        .iter()
        .position(|k| Rc::ptr_eq(&k.connection.life, life));
    let gone = at.map(|at| kept.remove(at));
    drop(idle);
    drop(gone);
}
