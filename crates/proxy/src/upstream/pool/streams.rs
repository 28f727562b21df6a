//! Shared HTTP/2 connections to one place: one for all requests, or as many as the bound on their streams needs.

use super::connection::{IdleWatch, Life, StreamUse};
use super::place::IDLE;
use super::{Connection, Place, Pool, Wish, pending};
use crate::upstream::secure::ConnectError;
use std::cell::RefCell;
use std::pin::pin;
use std::rc::Rc;
use tokio::sync::{Mutex, Notify};
use tokio::time::Instant;

/// The lock is held by whoever opens one, so that the rest wait and share it.
#[derive(Default)]
pub(super) struct Streams {
    connections: RefCell<Vec<Shared>>,
    opening: Mutex<()>,
    /// A stream is over.
    freed: Notify,
}

struct Shared {
    connection: Box<Connection>,
    idle: Option<IdleWatch>,
}

impl Pool {
    /// A kept connection that can take one more stream; where a fresh one is wanted, those that are kept are let go.
    pub(super) fn shared(&self, place: &Place, wish: &Wish<'_>) -> Option<Box<Connection>> {
        let streams = self.streams_of(place);
        if wish.fresh {
            streams.connections.take();
            return None;
        }
        streams.share(place)
    }

    /// A new connection, or one that somebody else has opened meanwhile.
    pub(super) async fn http2(
        self: &Rc<Self>,
        place: &Place,
        wish: &Wish<'_>,
    ) -> Result<Box<Connection>, ConnectError> {
        let streams = self.streams_of(place);
        let most = place.pool().and_then(|pool| pool.max_connections);
        let _pending = wish.state.map(|state| pending(place, state)).transpose()?;
        loop {
            let mut freed = pin!(streams.freed.notified());
            freed.as_mut().enable();
            if let Some(shared) = streams.share(place) {
                return Ok(shared);
            }
            let _opening = tokio::select! {
                biased;
                guard = streams.opening.lock() => guard,
                () = freed.as_mut() => continue,
            };
            if let Some(shared) = streams.share(place) {
                return Ok(shared);
            }
            let slot = match wish.state {
                None => None,
                Some(state) => tokio::select! {
                    biased;
                    slot = state.connection(most) => Some(slot),
                    () = freed.as_mut() => continue,
                },
            };
            let mut connection = self.open(place, wish, slot).await?;
            // Only HTTP/1 cannot be shared.
            let Some(mine) = connection.share() else {
                return Ok(connection);
            };
            connection.used = Instant::now();
            let mut mine = streams.begin(place, mine);
            mine.reused = false;
            streams.connections.borrow_mut().push(Shared {
                connection,
                idle: None,
            });
            return Ok(mine);
        }
    }

    fn streams_of(&self, place: &Place) -> Rc<Streams> {
        let mut all = self.streams.borrow_mut();
        if let Some(streams) = all.get(place) {
            return Rc::clone(streams);
        }
        Rc::clone(all.entry(place.clone()).or_default())
    }
}

impl Streams {
    /// A handle to a connection that can take one more stream.
    fn share(self: &Rc<Self>, place: &Place) -> Option<Box<Connection>> {
        let mut connections = self.connections.borrow_mut();
        // What is used up ends with its last stream.
        connections.retain(|c| c.connection.sender.is_ready() && c.connection.life.goes_on(place));
        let most = place.pool().and_then(|pool| pool.max_concurrent_streams);
        let most = most.unwrap_or(u32::MAX);
        let free = connections
            .iter_mut()
            .find(|c| c.connection.life.active.get() < most)?;
        free.connection.used = Instant::now();
        free.idle = None;
        let shared = free.connection.share()?;
        drop(connections);
        Some(self.begin(place, shared))
    }

    /// Counts a stream where that matters.
    fn begin(self: &Rc<Self>, place: &Place, mut connection: Box<Connection>) -> Box<Connection> {
        connection.life.serve();
        if place.terms.is_none() {
            return connection;
        }
        let life = &connection.life;
        let over: Rc<dyn Fn()> = {
            let (streams, life) = (Rc::downgrade(self), Rc::clone(life));
            let place = place.clone();
            Rc::new(move || {
                if let Some(streams) = streams.upgrade() {
                    streams.over(&place, &life);
                }
            })
        };
        connection._stream = Some(StreamUse::begin(life, over));
        connection
    }

    /// A stream is over; the connection may be idle now.
    fn over(self: &Rc<Self>, place: &Place, life: &Rc<Life>) {
        self.freed.notify_one();
        if life.active.get() > 0 || !place.is_watched() {
            return;
        }
        let mut connections = self.connections.borrow_mut();
        let ours = |c: &&mut Shared| Rc::ptr_eq(&c.connection.life, life);
        let Some(found) = connections.iter_mut().find(ours) else {
            return;
        };
        let state = found.connection.state().cloned();
        let end = {
            let (streams, life) = (Rc::downgrade(self), Rc::clone(life));
            move || {
                if let Some(streams) = streams.upgrade() {
                    streams.end_idle(&life);
                }
            }
        };
        found.idle = Some(IdleWatch::begin(place, &found.connection, end));
        drop(connections);
        // Who began to wait before this one could be lent would wait for ever.
        if state.is_some_and(|state| state.is_wanted()) && !self.is_waited_for() {
            self.end_idle(life);
        }
    }

    /// Whether somebody here waits for a stream, who has just been told.
    fn is_waited_for(&self) -> bool {
        self.opening.try_lock().is_err()
    }

    fn end_idle(&self, life: &Rc<Life>) {
        let mut connections = self.connections.borrow_mut();
        let is_idle = |c: &Shared| Rc::ptr_eq(&c.connection.life, life) && life.active.get() == 0;
        let at = connections.iter().position(is_idle);
        let gone = at.map(|at| connections.remove(at));
        drop(connections);
        drop(gone);
    }

    /// Whether anything is left that may be used again.
    pub(super) fn sweep(&self, place: &Place) -> bool {
        let idle = place.idle();
        let mut connections = self.connections.borrow_mut();
        connections.retain(|c| {
            let used = c.connection.used.elapsed();
            let old = idle.is_some_and(|idle| used >= 10 * idle.max(IDLE));
            c.connection.sender.is_ready() && (!old || c.connection.life.active.get() > 0)
        });
        !connections.is_empty()
    }
}
