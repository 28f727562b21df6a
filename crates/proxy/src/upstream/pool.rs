//! Connections kept for the next request: idle HTTP/1 ones, and one shared HTTP/2 connection per endpoint.

use super::secure::{self, ConnectError, Connected, Purpose, Security};
use crate::live::{Held, Watchlist};
use crate::shared::Shared;
use lateen_net::http::{Sender, Version, open};
use lateen_net::stream::{Stream, Watch};
use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long an idle connection is kept.
const IDLE: Duration = Duration::from_secs(60);
/// Idle connections kept per endpoint.
const MOST: usize = 64;
/// A connection used within this time is not asked again whether it still lives.
const FRESH: Duration = Duration::from_millis(5);

/// An endpoint, and how it is called: connections of different places are not interchangeable, as capture tells sources
/// apart, and peers tell certificates apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) address: SocketAddr,
    /// Absent: the kernel chooses.
    pub(super) source: Option<IpAddr>,
    /// Whether it is the application beside us.
    pub(super) beside: bool,
    pub(super) security: Security,
    /// Of the certificates in use; 0 without TLS.
    pub(super) generation: u64,
}

/// A connection to an endpoint.
pub(super) struct Connection {
    pub(super) sender: Sender,
    pub(super) watch: Watch,
    /// Whether it has served a request before.
    pub(super) reused: bool,
    used: Instant,
    /// Keeps an eye on the endpoint's certificate; absent without TLS.
    held: Option<Rc<Held>>,
}

/// A worker's connections.
pub(super) struct Pool {
    shared: Arc<Shared>,
    watchlist: Rc<Watchlist>,
    idle: RefCell<HashMap<Place, Vec<Connection>>>,
    slots: RefCell<HashMap<Place, Rc<Slot>>>,
}

/// The place of an HTTP/2 connection; the lock is held by whoever opens it, so that the rest wait and share it.
#[derive(Default)]
struct Slot {
    connection: RefCell<Option<Connection>>,
    opening: tokio::sync::Mutex<()>,
}

impl Pool {
    pub(super) fn new(shared: &Arc<Shared>, watchlist: &Rc<Watchlist>) -> Self {
        Self {
            shared: Arc::clone(shared),
            watchlist: Rc::clone(watchlist),
            idle: RefCell::default(),
            slots: RefCell::default(),
        }
    }

    /// A connection that can take a request at once: a kept one, unless `fresh` is asked for, else a new one.
    pub(super) async fn connection(
        self: &Rc<Self>,
        place: &Place,
        version: Version,
        timeout: Duration,
        fresh: bool,
    ) -> Result<Connection, ConnectError> {
        match version {
            Version::Http1 => {
                if let Some(kept) = self.take_idle(place).filter(|_| !fresh) {
                    return Ok(kept);
                }
                self.open(place, version, timeout).await
            }
            Version::Http2 => {
                let slot = self.slot(place);
                if fresh {
                    slot.connection.take();
                }
                if let Some(shared) = slot.share() {
                    return Ok(shared);
                }
                let _opening = slot.opening.lock().await;
                if let Some(shared) = slot.share() {
                    return Ok(shared);
                }
                let connection = self.open(place, version, timeout).await?;
                let mine = connection.share();
                *slot.connection.borrow_mut() = Some(connection);
                // Only HTTP/1 cannot be shared.
                match mine {
                    Some(mine) => Ok(Connection {
                        reused: false,
                        ..mine
                    }),
                    None => self.open(place, version, timeout).await,
                }
            }
        }
    }

    fn slot(&self, place: &Place) -> Rc<Slot> {
        let mut slots = self.slots.borrow_mut();
        if let Some(slot) = slots.get(place) {
            return Rc::clone(slot);
        }
        Rc::clone(slots.entry(place.clone()).or_default())
    }

    async fn open(
        &self,
        place: &Place,
        version: Version,
        timeout: Duration,
    ) -> Result<Connection, ConnectError> {
        let purpose = match version {
            Version::Http1 => Purpose::Http1,
            Version::Http2 => Purpose::Http2,
        };
        let connected = secure::connect(&self.shared, place, purpose, timeout).await?;
        self.wrap(connected, version).await
    }

    async fn wrap(
        &self,
        connected: Connected,
        version: Version,
    ) -> Result<Connection, ConnectError> {
        let (stream, held) = connected.watched(&self.shared, &self.watchlist)?;
        let (watch, held) = (stream.watch(), held.map(Rc::new));
        let sender = open(stream, version, &self.shared.limits)
            .await
            .map_err(|error| ConnectError::Http(error.to_string()))?;
        Ok(Connection {
            sender,
            watch,
            reused: false,
            used: Instant::now(),
            held,
        })
    }

    fn take_idle(&self, place: &Place) -> Option<Connection> {
        let mut idle = self.idle.borrow_mut();
        let kept = idle.get_mut(place)?;
        // The most recently used is the least likely to have been closed.
        while let Some(connection) = kept.pop() {
            if connection.is_usable() {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps an HTTP/1 connection whose response is over; HTTP/2 ones are kept already.
    pub(super) fn give_back(self: &Rc<Self>, place: Place, connection: Connection) {
        if matches!(connection.sender, Sender::Http2(_)) {
            return;
        }
        let connection = Connection {
            reused: true,
            used: Instant::now(),
            ..connection
        };
        if connection.sender.is_ready() {
            return self.keep(place, connection);
        }
        // The request's body may still be on its way, or the engine has not noticed the end yet.
        let pool = Rc::clone(self);
        tokio::task::spawn_local(async move {
            let mut connection = connection;
            if let Ok(true) = tokio::time::timeout(IDLE, connection.sender.ready()).await {
                pool.keep(place, connection);
            }
        });
    }

    /// Keeps a connection that was opened for something else and never used.
    pub(super) async fn offer(self: &Rc<Self>, place: Place, stream: Stream) {
        let connected = Connected {
            stream,
            proof: None,
        };
        if let Ok(connection) = self.wrap(connected, Version::Http1).await {
            self.keep(place, connection);
        }
    }

    fn keep(&self, place: Place, connection: Connection) {
        let mut idle = self.idle.borrow_mut();
        let kept = idle.entry(place.clone()).or_default();
        // A certificate may have been renewed while the request was under way.
        let stale = matches!(place.security, Security::Mesh { .. })
            && place.generation != self.shared.generation();
        if !stale && kept.len() < MOST {
            kept.push(connection);
        }
    }

    /// Drops what is old or ended.
    pub(super) fn sweep(&self) {
        self.idle.borrow_mut().retain(|_, kept| {
            kept.retain(|c| c.used.elapsed() < IDLE && !c.watch.is_spent());
            !kept.is_empty()
        });
        self.slots.borrow_mut().retain(|_, slot| {
            Rc::strong_count(slot) > 1
                || slot
                    .connection
                    .borrow()
                    .as_ref()
                    .is_some_and(|c| c.sender.is_ready() && c.used.elapsed() < 10 * IDLE)
        });
    }

    /// Lets go of connections that were opened with the mesh's certificates of before: what is under way on them is
    /// finished, new requests open new ones.
    pub(super) fn renewed(&self) {
        let current = self.shared.generation();
        let stays = |place: &Place| {
            !matches!(place.security, Security::Mesh { .. }) || place.generation == current
        };
        self.idle.borrow_mut().retain(|place, _| stays(place));
        self.slots.borrow_mut().retain(|place, _| stays(place));
    }
}

impl Connection {
    fn is_usable(&self) -> bool {
        self.sender.is_ready() && (self.used.elapsed() < FRESH || !self.watch.is_spent())
    }

    fn share(&self) -> Option<Self> {
        let sender = self.sender.share()?;
        Some(Self {
            sender,
            watch: self.watch.clone(),
            reused: true,
            used: self.used,
            held: self.held.clone(),
        })
    }
}

impl Slot {
    fn share(&self) -> Option<Connection> {
        let mut held = self.connection.borrow_mut();
        let connection = held.as_mut().filter(|c| c.sender.is_ready())?;
        connection.used = Instant::now();
        connection.share()
    }
}
