//! Places for connections: so many at once, and so many of one address. When they are taken, whoever has been of no use
//! for longest makes room: so silence keeps nobody out.

mod limited;

pub(crate) use limited::limited;

use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How many connections, and how long each may be of no use before another takes its place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// At once.
    pub(crate) all: usize,
    /// Of one address at once.
    pub(crate) of_one: usize,
    /// A connection that has nothing to do keeps its place for so long.
    pub(crate) idle: Duration,
    /// One that works on something, for so long since it began.
    pub(crate) busy: Duration,
}

/// The places of one server. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Places(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    bounds: Bounds,
    taken: Mutex<Taken>,
    left: Notify,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    /// By number, so in order of arrival.
    all: BTreeMap<u64, Entry>,
    of: HashMap<IpAddr, usize>,
}

#[derive(Debug)]
struct Entry {
    source: IpAddr,
    /// Since when it is as it is.
    since: Instant,
    state: State,
    cut: CancellationToken,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    /// So many things are worked on.
    Busy(usize),
    /// It never makes room.
    Settled,
    /// It was told to go.
    Cut,
}

/// One place; it is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    shared: Arc<Shared>,
    number: u64,
    cut: CancellationToken,
}

/// Something that a connection works on.
#[derive(Debug)]
pub(crate) struct Work(Arc<Place>);

impl Places {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self(Arc::new(Shared {
            bounds,
            taken: Mutex::default(),
            left: Notify::new(),
        }))
    }

    /// A place for a connection from `source`. Waits while all are taken by others that are of use; none: the source
    /// has as many as it may.
    pub(crate) async fn enter(&self, source: IpAddr) -> Option<Place> {
        let source = source.to_canonical();
        let bounds = &self.0.bounds;
        loop {
            let left = self.0.left.notified();
            tokio::pin!(left);
            left.as_mut().enable();
            let wait = {
                let mut taken = self.0.taken.lock();
                let now = Instant::now();
                let own = taken.of.get(&source).copied().unwrap_or_default();
                if own >= bounds.of_one && !taken.evict(Some(source), bounds, now) {
                    return None;
                }
                if taken.of.values().sum::<usize>() < bounds.all || taken.evict(None, bounds, now) {
                    return Some(self.take(&mut taken, source, now));
                }
                taken.earliest(bounds)
            };
            tokio::select! {
                () = left => {}
                () = sleep(wait) => {}
            }
        }
    }

    fn take(&self, taken: &mut Taken, source: IpAddr, now: Instant) -> Place {
        let number = taken.next;
        taken.next += 1;
        let cut = CancellationToken::new();
        let entry = Entry {
            source,
            since: now,
            state: State::Idle,
            cut: cut.clone(),
        };
        taken.all.insert(number, entry);
        *taken.of.entry(source).or_default() += 1;
        Place {
            shared: Arc::clone(&self.0),
            number,
            cut,
        }
    }
}

async fn sleep(until: Option<Instant>) {
    match until {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

impl Entry {
    /// From when on it must make room for others; none: never, or it has been told already.
    fn ripe(&self, bounds: &Bounds) -> Option<Instant> {
        match self.state {
            State::Idle => Some(self.since + bounds.idle),
            State::Busy(_) => Some(self.since + bounds.busy),
            State::Settled | State::Cut => None,
        }
    }
}

impl Taken {
    /// Has the connection that has been ripe for longest make room; false: there is none.
    fn evict(&mut self, of: Option<IpAddr>, bounds: &Bounds, now: Instant) -> bool {
        let ripe = |(number, entry): (&u64, &Entry)| {
            let at = entry.ripe(bounds).filter(|at| *at <= now)?;
            let meant = of.is_none_or(|source| entry.source == source);
            meant.then_some((at, *number))
        };
        let Some((_, number)) = self.all.iter().filter_map(ripe).min() else {
            return false;
        };
        if let Some(entry) = self.all.get_mut(&number) {
            entry.state = State::Cut;
            entry.cut.cancel();
            let source = entry.source;
            self.leave(source);
        }
        true
    }

    fn earliest(&self, bounds: &Bounds) -> Option<Instant> {
        self.all.values().filter_map(|e| e.ripe(bounds)).min()
    }

    fn leave(&mut self, source: IpAddr) {
        if let Some(count) = self.of.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                self.of.remove(&source);
            }
        }
    }
}

impl Place {
    /// Ends when the connection must go.
    pub(crate) fn cut(&self) -> &CancellationToken {
        &self.cut
    }

    /// It is of use from now on: it makes room for nobody.
    pub(crate) fn settle(&self) {
        if let Some(entry) = self.shared.taken.lock().all.get_mut(&self.number)
            && entry.state != State::Cut
        {
            entry.state = State::Settled;
        }
    }

    /// Since when it has nothing to do; none: it works.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        let taken = self.shared.taken.lock();
        let entry = taken.all.get(&self.number)?;
        (entry.state == State::Idle).then_some(entry.since)
    }

    /// Works on something until the answer is dropped.
    pub(crate) fn work(self: &Arc<Self>) -> Work {
        self.count(true);
        Work(Arc::clone(self))
    }

    fn count(&self, more: bool) {
        let mut taken = self.shared.taken.lock();
        let Some(entry) = taken.all.get_mut(&self.number) else {
            return;
        };
        let next = match (entry.state, more) {
            (State::Idle, true) => State::Busy(1),
            (State::Busy(count), true) => State::Busy(count + 1),
            (State::Busy(count), false) if count > 1 => State::Busy(count - 1),
            (State::Busy(_), false) => State::Idle,
            (other, _) => other,
        };
        // Work upon work does not make it younger.
        if !matches!((entry.state, next), (State::Busy(_), State::Busy(_))) {
            entry.since = Instant::now();
        }
        entry.state = next;
        if matches!(next, State::Idle) {
            self.shared.left.notify_waiters();
        }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.0.count(false);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.shared.taken.lock();
        if let Some(entry) = taken.all.remove(&self.number)
            && entry.state != State::Cut
        {
            taken.leave(entry.source);
        }
        drop(taken);
        self.shared.left.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    const BOUNDS: Bounds = Bounds {
        all: 3,
        of_one: 2,
        idle: Duration::from_secs(1),
        busy: Duration::from_secs(10),
    };

    fn from(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_silent_for_longest_makes_room() {
        let places = Places::new(BOUNDS);
        let first = places.enter(from(1)).await.expect("a place");
        let settled = places.enter(from(2)).await.expect("a place");
        settled.settle();
        let busy = Arc::new(places.enter(from(3)).await.expect("a place"));
        let work = busy.work();
        assert!(
            places.enter(from(4)).now_or_never().is_none(),
            "all are new"
        );
        let third = places.enter(from(4)).await.expect("the first made room");
        assert!(first.cut().is_cancelled());
        drop(third);
        let third = places.enter(from(4)).await.expect("a place");
        // Whoever works for too long goes too, whoever is settled never.
        let start = Instant::now();
        third.settle();
        let fourth = places.enter(from(5)).await.expect("the busy one made room");
        assert!(busy.cut().is_cancelled() && !settled.cut().is_cancelled());
        assert!(start.elapsed() >= Duration::from_secs(8));
        drop((work, fourth));
    }

    #[tokio::test(start_paused = true)]
    async fn one_address_does_not_take_all() {
        let places = Places::new(BOUNDS);
        let one = places.enter(from(1)).await.expect("a place");
        let _two = places.enter(from(1)).await.expect("a place");
        assert!(places.enter(from(1)).await.is_none());
        let _other = places.enter(from(2)).await.expect("a place");
        tokio::time::advance(BOUNDS.idle).await;
        let _three = places
            .enter(from(1))
            .await
            .expect("its own oldest made room");
        assert!(one.cut().is_cancelled());
    }
}
