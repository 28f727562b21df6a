//! What a proxy can spare: places for connections and memory. What goes beyond is refused at once, so that the rest is
//! served: connections are reset as they come, requests are answered 503 with the flag `OM` (Envoy: overload manager).

use crate::config::{Config, MemoryBound};
use crate::worker::Entry;
use lateen_model::mesh::Role;
use lateen_net::budget::{Admission, ConnectionBudget, raise_descriptors};
use lateen_net::memory::{Bounds, Level, Pressure, release_free_heap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often memory is looked at while nothing comes.
const LOOK: Duration = Duration::from_millis(250);

/// What is left to give.
pub(crate) struct Overload {
    places: Arc<ConnectionBudget>,
    pressure: Pressure,
    /// Whether the application's own connections must find places even when clients take all they can get.
    has_application: bool,
    trimming: Arc<AtomicBool>,
}

/// Why a connection is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    Connections,
    Memory,
}

impl Full {
    /// One sentence for the log.
    pub(crate) fn sentence(self) -> &'static str {
        match self {
            Self::Connections => {
                "connections are reset: as many are open as there may be (more descriptors allow more)"
            }
            Self::Memory => {
                "connections are reset: nearly all memory that the proxy may hold is in use"
            }
        }
    }
}

impl Overload {
    /// Bounds of `config`. Raises the process's limit on descriptors first.
    pub(crate) fn new(config: &Config) -> Self {
        raise_descriptors();
        let places = match config.connections {
            Some(most) => ConnectionBudget::new(most),
            None => ConnectionBudget::from_descriptors(),
        };
        let bounds = match config.memory {
            MemoryBound::Container => Bounds::of_container(),
            MemoryBound::Limit(bytes) => Some(Bounds::within(bytes)),
            MemoryBound::Bounds(bounds) => Some(bounds),
            MemoryBound::None => None,
        };
        Self {
            places,
            pressure: Pressure::new(bounds),
            has_application: config.scope.role == Role::Sidecar,
            trimming: Arc::default(),
        }
    }

    /// A place for a connection, to be given back by dropping it.
    pub(crate) fn admit(&self, entry: Entry) -> Result<Admission, Full> {
        if self.pressure.level() == Level::Critical {
            self.places.note_refused();
            return Err(Full::Memory);
        }
        let place = if self.has_application && entry != Entry::Outbound {
            self.places.admit_stranger()
        } else {
            self.places.admit()
        };
        place.ok_or(Full::Connections)
    }

    /// Whether a request is to be refused; counts it then.
    pub(crate) fn refuses_request(&self) -> bool {
        let refuses = self.pressure.level() >= Level::High;
        if refuses {
            self.pressure.refused();
        }
        refuses
    }

    /// Looks at memory, and gives free parts of the heap back while there is too little; runs for a worker's life.
    pub(crate) async fn keep(&self) {
        loop {
            tokio::time::sleep(LOOK).await;
            if self.pressure.level() == Level::Fine || self.trimming.swap(true, Ordering::Relaxed) {
                continue;
            }
            let trimming = Arc::clone(&self.trimming);
            tokio::task::spawn_blocking(move || {
                release_free_heap();
                trimming.store(false, Ordering::Relaxed);
            });
        }
    }

    /// Counters and gauges, with their kinds.
    pub(crate) fn figures(&self) -> [(&'static str, &'static str, u64); 4] {
        let places = &self.places;
        [
            ("lateen_connections_open", "gauge", places.open() as u64),
            (
                "lateen_connections_refused_total",
                "counter",
                places.refused() as u64,
            ),
            (
                "lateen_requests_shed_total",
                "counter",
                self.pressure.shed(),
            ),
            ("lateen_memory_held_bytes", "gauge", self.pressure.held()),
        ]
    }
}
