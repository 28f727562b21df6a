//! Restart back-off as Kubernetes has it: the first restart at once, then 10 s, doubling to 300 s; ten
//! minutes of running start it anew. Pure: the caller sleeps.

use std::time::Duration;

/// The back-off of one container.
#[derive(Debug, Clone, Default)]
pub(crate) struct RestartBackoff {
    ends: u32,
}

const FIRST: Duration = Duration::from_secs(10);
const MOST: Duration = Duration::from_secs(300);
const FORGET: Duration = Duration::from_secs(600);

impl RestartBackoff {
    /// How long to wait before the restart after a run of this length.
    pub(crate) fn after_run(&mut self, ran: Duration) -> Duration {
        if ran >= FORGET {
            self.ends = 0;
        }
        self.ends += 1;
        match self.ends {
            1 => Duration::ZERO,
            n => FIRST
                .saturating_mul(1u32.checked_shl(n - 2).unwrap_or(u32::MAX))
                .min(MOST),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_from_the_second_restart_and_forgets_after_a_long_run() {
        let mut backoff = RestartBackoff::default();
        let mut after = |ran| backoff.after_run(Duration::from_secs(ran)).as_secs();
        let seen: Vec<u64> = (0..8).map(|_| after(1)).collect();
        assert_eq!(seen, [0, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(after(600), 0);
        assert_eq!(after(1), 10);
    }
}
