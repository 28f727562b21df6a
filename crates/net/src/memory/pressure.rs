//! Whether the process holds more memory than it may, so that new work is refused before the kernel ends everything.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How often the process looks at itself at most.
const EVERY: Duration = Duration::from_millis(100);

/// How much of a container's limit may be used before new work is refused (Envoy's advice: 95%, and less before that).
const SHARE: u64 = 90;

/// A process's memory against a bound. Asking is cheap enough for every connection and request.
#[derive(Debug)]
pub struct Pressure {
    /// Bytes; absent: no bound.
    soft: Option<u64>,
    began: Instant,
    /// When to look again, in milliseconds since `began`.
    next: AtomicU64,
    held: AtomicU64,
    is_high: AtomicBool,
    shed: AtomicU64,
}

impl Pressure {
    /// Refuses new work while the process holds more than `soft` bytes; absent: never.
    pub fn new(soft: Option<u64>) -> Self {
        Self {
            soft,
            began: Instant::now(),
            next: AtomicU64::new(0),
            held: AtomicU64::new(0),
            is_high: AtomicBool::new(false),
            shed: AtomicU64::new(0),
        }
    }

    /// Nine tenths of what the container may use (`memory.max` of its cgroup); no bound where there is none.
    pub fn from_container() -> Self {
        let text = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
        let most = text.and_then(|text| text.trim().parse::<u64>().ok());
        Self::new(most.map(|most| most / 100 * SHARE))
    }

    /// Whether new connections and requests are to be refused now (503, flag `OM`). Each `true` counts as one refusal.
    pub fn is_high(&self) -> bool {
        let Some(soft) = self.soft else {
            return false;
        };
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let due = self.next.load(Ordering::Relaxed);
        let next = now + EVERY.as_millis() as u64;
        let mine = now >= due
            && self
                .next
                .compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if mine && let Some(held) = resident() {
            self.held.store(held, Ordering::Relaxed);
            self.is_high.store(held > soft, Ordering::Relaxed);
        }
        let is_high = self.is_high.load(Ordering::Relaxed);
        if is_high {
            self.shed.fetch_add(1, Ordering::Relaxed);
        }
        is_high
    }

    /// Bytes that the process held when it last looked; 0 before.
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// How much was refused since the beginning.
    pub fn shed(&self) -> u64 {
        self.shed.load(Ordering::Relaxed)
    }
}

/// Bytes of memory that this process holds and that are its own: what counts against a container's limit, without the
/// pages of files that the kernel can drop at any time. None without `/proc`.
pub fn resident() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let mut fields = text.split_ascii_whitespace().map(str::parse::<u64>);
    let (resident, shared) = (fields.nth(1)?.ok()?, fields.next()?.ok()?);
    Some(resident.saturating_sub(shared) * page())
}

fn page() -> u64 {
    let size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE);
    size.ok()
        .flatten()
        .and_then(|size| u64::try_from(size).ok())
        .unwrap_or(4096)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_the_bound_is_pressure() {
        let held = resident().unwrap();
        assert!(held > 64 * 1024, "{held}");
        assert!(!Pressure::new(None).is_high());
        assert!(!Pressure::new(Some(1 << 40)).is_high());
        let small = Pressure::new(Some(4096));
        assert!(small.is_high() && small.is_high());
        assert_eq!(small.shed(), 2);
        assert!(small.held() > 4096);
    }
}
