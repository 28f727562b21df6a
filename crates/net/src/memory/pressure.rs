//! Whether the process holds more memory than it may, so that new work is refused before the kernel ends everything.
//! While it does, connections of this process that nobody uses are kept for less long ([`is_pressed`]).

use std::fs::read_to_string;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// How often the process looks at itself at most.
const EVERY: Duration = Duration::from_millis(25);

/// Whether the process as a whole is short of memory, as the last look of any [`Pressure`] found it.
static PRESSED: AtomicBool = AtomicBool::new(false);
static NEWS: Notify = Notify::const_new();

/// Bytes that the process may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Above this, requests are refused (503, flag `OM`).
    pub requests: u64,
    /// Above this, connections are reset as they come.
    pub connections: u64,
}

impl Bounds {
    /// Nine tenths of `limit` for requests and nineteen twentieths for connections (Envoy's advice is 92.5% and 95%).
    pub fn within(limit: u64) -> Self {
        Self {
            requests: limit / 100 * 90,
            connections: limit / 100 * 95,
        }
    }

    /// Those of the container's limit; none where there is none.
    pub fn of_container() -> Option<Self> {
        container_limit(Path::new("/")).map(Self::within)
    }
}

/// How much memory the process holds, against its bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Enough is left.
    Fine,
    /// Requests are to be refused.
    High,
    /// Connections are to be refused, too.
    Critical,
}

/// A process's memory against a bound. Asking is cheap enough for every connection and request.
#[derive(Debug)]
pub struct Pressure {
    bounds: Option<Bounds>,
    began: Instant,
    /// When to look again, in milliseconds since `began`.
    next: AtomicU64,
    held: AtomicU64,
    level: AtomicU8,
    shed: AtomicU64,
}

impl Pressure {
    /// Against `bounds`; absent: the level is always [`Level::Fine`].
    pub fn new(bounds: Option<Bounds>) -> Self {
        Self {
            bounds,
            began: Instant::now(),
            next: AtomicU64::new(0),
            held: AtomicU64::new(0),
            level: AtomicU8::new(Level::Fine as u8),
            shed: AtomicU64::new(0),
        }
    }

    /// The level as of some milliseconds ago at most.
    pub fn level(&self) -> Level {
        let Some(bounds) = self.bounds else {
            return Level::Fine;
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
            self.note(held, bounds);
        }
        match self.level.load(Ordering::Relaxed) {
            n if n == Level::Critical as u8 => Level::Critical,
            n if n == Level::High as u8 => Level::High,
            _ => Level::Fine,
        }
    }

    fn note(&self, held: u64, bounds: Bounds) {
        let level = match held {
            _ if held > bounds.connections => Level::Critical,
            _ if held > bounds.requests => Level::High,
            _ => Level::Fine,
        };
        self.held.store(held, Ordering::Relaxed);
        let before = self.level.swap(level as u8, Ordering::Relaxed);
        let is_high = level >= Level::High;
        if is_high != (before >= Level::High as u8) {
            PRESSED.store(is_high, Ordering::Relaxed);
            NEWS.notify_waiters();
        }
    }

    /// Counts something that was refused over the level.
    pub fn refused(&self) {
        self.shed.fetch_add(1, Ordering::Relaxed);
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

impl Drop for Pressure {
    fn drop(&mut self) {
        if self.level.load(Ordering::Relaxed) >= Level::High as u8 {
            PRESSED.store(false, Ordering::Relaxed);
        }
    }
}

/// Whether the process is short of memory: whoever keeps something for later keeps it for less long.
pub fn is_pressed() -> bool {
    PRESSED.load(Ordering::Relaxed)
}

/// Resolves when [`is_pressed`] changes; a change before the first poll is missed.
pub async fn changed() {
    NEWS.notified().await;
}

/// Bytes of memory that this process holds and that are its own: what counts against a container's limit, without the
/// pages of files that the kernel can drop at any time. None without `/proc`.
pub fn resident() -> Option<u64> {
    let text = read_to_string("/proc/self/statm").ok()?;
    let mut fields = text.split_ascii_whitespace().map(str::parse::<u64>);
    let (resident, shared) = (fields.nth(1)?.ok()?, fields.next()?.ok()?);
    Some(resident.saturating_sub(shared) * page())
}

/// What cgroups let this process have, in bytes: the least limit on the way up from its own group, of version 2
/// (`memory.max`) or 1 (`memory.limit_in_bytes`). None where there is none.
fn container_limit(root: &Path) -> Option<u64> {
    let groups = read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let mount = root.join("sys/fs/cgroup");
    let mut files: Vec<PathBuf> = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(kinds), Some(path)) = (parts.next(), parts.next()) else {
            continue;
        };
        let (top, name) = match kinds {
            "" => (mount.clone(), "memory.max"),
            _ if kinds.split(',').any(|kind| kind == "memory") => {
                (mount.join("memory"), "memory.limit_in_bytes")
            }
            _ => continue,
        };
        // Within a container the path may be one of the host's: then only the top is there.
        let own = top.join(path.trim_start_matches('/'));
        let up = own.ancestors().take_while(|dir| dir.starts_with(&top));
        files.extend(up.map(|dir| dir.join(name)));
    }
    let limit = |file: &PathBuf| read_to_string(file).ok()?.trim().parse::<u64>().ok();
    // Version 1 writes "no limit" as a number that no machine has.
    let limits = files.iter().filter_map(limit).filter(|n| *n < 1 << 60);
    limits.min()
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
    fn more_than_the_bounds_is_pressure() {
        let held = resident().unwrap();
        assert!(held > 64 * 1024, "{held}");
        assert_eq!(Pressure::new(None).level(), Level::Fine);
        let of = |requests, connections| {
            let bounds = Bounds {
                requests,
                connections,
            };
            Pressure::new(Some(bounds))
        };
        assert_eq!(of(1 << 40, 1 << 40).level(), Level::Fine);
        let small = of(4096, 1 << 40);
        assert_eq!((small.level(), small.level()), (Level::High, Level::High));
        assert!(small.held() > 4096 && is_pressed());
        assert_eq!(of(4096, 4096).level(), Level::Critical);
        drop(small);
        assert!(!is_pressed());
    }

    #[test]
    fn limits_of_containers_of_both_kinds_are_found() {
        let root = std::env::temp_dir().join(format!("lateen-cgroup-{}", std::process::id()));
        let put = |path: &str, text: &str| {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        assert_eq!(container_limit(&root), None);
        put("proc/self/cgroup", "0::/kubepods/pod1\n");
        put("sys/fs/cgroup/memory.max", "max\n");
        assert_eq!(container_limit(&root), None);
        put("sys/fs/cgroup/kubepods/memory.max", "2000\n");
        put("sys/fs/cgroup/kubepods/pod1/memory.max", "3000\n");
        assert_eq!(container_limit(&root), Some(2000));
        put(
            "proc/self/cgroup",
            "4:cpu,memory:/docker/1\n1:name=systemd:/x\n",
        );
        put(
            "sys/fs/cgroup/memory/memory.limit_in_bytes",
            "9223372036854771712\n",
        );
        assert_eq!(container_limit(&root), None);
        put("sys/fs/cgroup/memory/memory.limit_in_bytes", "1000\n");
        assert_eq!(container_limit(&root), Some(1000));
        std::fs::remove_dir_all(&root).unwrap();
    }
}
