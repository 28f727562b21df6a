//! How busy each endpoint is, as this worker sees it. Kept by address: a new snapshot changes nothing.

use lateen_base::Map;
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;

/// Requests and connections under way, per endpoint.
#[derive(Debug, Default)]
pub(crate) struct Loads(RefCell<Map<SocketAddr, Rc<Cell<u32>>>>);

/// One request or connection under way at an endpoint.
#[derive(Debug)]
pub(crate) struct Load(Rc<Cell<u32>>);

impl Loads {
    /// Counts one more at `address` until the result is dropped.
    pub(super) fn begin(&self, address: SocketAddr) -> Load {
        let count = Rc::clone(self.0.borrow_mut().entry(address).or_default());
        count.set(count.get() + 1);
        Load(count)
    }

    /// How much is under way at `address`.
    pub(super) fn active(&self, address: SocketAddr) -> u32 {
        self.0.borrow().get(&address).map_or(0, |count| count.get())
    }

    /// Forgets endpoints where nothing is under way.
    pub(super) fn sweep(&self) {
        self.0.borrow_mut().retain(|_, count| count.get() > 0);
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
