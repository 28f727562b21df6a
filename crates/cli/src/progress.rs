//! Progress lines: one per component, with a mark and the time it took.

use std::io::IsTerminal as _;
use std::time::Instant;

/// Prints progress of one command.
pub struct Progress {
    start: Instant,
    last: Instant,
    color: bool,
}

impl Default for Progress {
    fn default() -> Self {
        let now = Instant::now();
        Self {
            start: now,
            last: now,
            color: std::io::stdout().is_terminal(),
        }
    }
}

impl Progress {
    /// A component is done; the time shown is that since the line before.
    pub fn done(&mut self, what: &str) {
        let took = self.last.elapsed().as_secs_f64();
        self.last = Instant::now();
        let mark = if self.color {
            "\u{1b}[32m✔\u{1b}[0m"
        } else {
            "✔"
        };
        println!("{mark} {what} ({took:.1} s)");
    }

    /// Seconds since the command began.
    pub fn seconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }
}
