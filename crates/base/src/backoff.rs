//! Exponential backoff with full jitter. Pure: the caller sleeps.

use std::time::Duration;

/// Delays that double from `first` up to `most`, each drawn evenly from the upper half of its step.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    step: u32,
}

impl Backoff {
    /// A backoff whose first delay is at most `first` and whose delays never pass `most`.
    pub fn new(first: Duration, most: Duration) -> Self {
        Self {
            first,
            most,
            step: 0,
        }
    }

    /// The next delay; each call doubles the bound until it reaches `most`.
    pub fn next_delay(&mut self) -> Duration {
        let bound = self
            .first
            .saturating_mul(1u32.checked_shl(self.step).unwrap_or(u32::MAX))
            .min(self.most);
        self.step = self.step.saturating_add(1).min(31);
        bound / 2 + bound.mul_f64(0.5 * fastrand::f64())
    }

    /// Starts again from `first`: call it after a success.
    pub fn reset(&mut self) {
        self.step = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_within_bounds_and_resets() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        for bound in [100u64, 200, 400, 800, 1000, 1000] {
            let delay = backoff.next_delay().as_millis() as u64;
            assert!(
                delay >= bound / 2 && delay <= bound,
                "{delay} outside {}..={bound}",
                bound / 2
            );
        }
        backoff.reset();
        assert!(backoff.next_delay() <= Duration::from_millis(100));
    }
}
