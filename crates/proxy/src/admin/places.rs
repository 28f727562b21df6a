//! Connections of one of the proxy's own servers. There are few places, and whoever says nothing must not keep those out
//! who ask whether the proxy is ready: when all are taken, the one that has idled longest makes room.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Instant;
use tokio::task::AbortHandle;

/// Connections that one server has at once.
const MOST: usize = 64;

/// The places of a server.
#[derive(Default)]
pub(super) struct Places(RefCell<Vec<Rc<Place>>>);

/// A connection's place.
pub(super) struct Place {
    /// Requests under way.
    busy: Cell<usize>,
    idle_since: Cell<Instant>,
    task: RefCell<Option<AbortHandle>>,
}

/// Held while a request is answered.
pub(super) struct Working(Rc<Place>);

impl Places {
    /// A place; none when everybody is being answered.
    pub(super) fn take(&self) -> Option<Rc<Place>> {
        let mut all = self.0.borrow_mut();
        all.retain(|place| !place.is_over());
        if all.len() >= MOST {
            let idle = all.iter().enumerate().filter(|(_, p)| p.busy.get() == 0);
            let (oldest, _) = idle.min_by_key(|(_, place)| place.idle_since.get())?;
            let place = all.remove(oldest);
            if let Some(task) = place.task.take() {
                task.abort();
            }
        }
        let place = Rc::new(Place {
            busy: Cell::new(0),
            idle_since: Cell::new(Instant::now()),
            task: RefCell::new(None),
        });
        all.push(Rc::clone(&place));
        Some(place)
    }
}

impl Place {
    /// Whoever makes room stops this task.
    pub(super) fn belongs_to(&self, task: AbortHandle) {
        self.task.replace(Some(task));
    }

    pub(super) fn work(self: &Rc<Self>) -> Working {
        self.busy.set(self.busy.get() + 1);
        Working(Rc::clone(self))
    }

    fn is_over(&self) -> bool {
        self.task
            .borrow()
            .as_ref()
            .is_none_or(AbortHandle::is_finished)
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.0.busy.set(self.0.busy.get() - 1);
        self.0.idle_since.set(Instant::now());
    }
}
