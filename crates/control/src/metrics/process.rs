//! Figures of this process from `/proc`, under Prometheus' usual names. Absent where `/proc` is.

use super::Page;

/// Clock ticks per second in `/proc/self/stat`; Linux fixes it at 100 for user space.
const TICKS: f64 = 100.0;

/// Adds memory, processor time, threads and open files.
pub(super) fn render(page: &mut Page) {
    if let Some(bytes) = status_kib("VmRSS:") {
        page.gauge("process_resident_memory_bytes", bytes * 1024.0);
    }
    if let Some(bytes) = status_kib("VmSize:") {
        page.gauge("process_virtual_memory_bytes", bytes * 1024.0);
    }
    if let Some(threads) = status_kib("Threads:") {
        page.gauge("process_threads", threads);
    }
    if let Some(seconds) = processor_seconds() {
        page.head("process_cpu_seconds_total", "counter");
        page.sample("process_cpu_seconds_total", &[], seconds);
    }
    if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
        page.gauge("process_open_fds", files.count() as f64);
    }
}

/// A number of `/proc/self/status`.
fn status_kib(field: &str) -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_whitespace().next()?.parse().ok()
}

/// User and system time.
fn processor_seconds() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the program's name in brackets and may hold spaces.
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS)
}
