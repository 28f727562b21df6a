//! Fixed windows: they begin at multiples of their length since 1970, for everybody at the same time.

use std::time::Duration;

/// The length of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Unit {
    /// A second.
    Second = 1,
    /// A minute.
    Minute = 2,
    /// An hour.
    Hour = 3,
    /// A day.
    Day = 4,
    /// 30 days.
    Month = 5,
    /// 365 days.
    Year = 6,
}

/// A window at some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Its first second since 1970.
    pub start: u64,
    /// The second since 1970 at which the next one begins.
    pub end: u64,
    /// Time that is left of it, rounded down to milliseconds: who holds on to it no longer than this does not reach
    /// into the next window.
    pub left: Duration,
}

impl Unit {
    /// The unit of a name, in any case.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "second" => Self::Second,
            "minute" => Self::Minute,
            "hour" => Self::Hour,
            "day" => Self::Day,
            "month" => Self::Month,
            "year" => Self::Year,
            _ => return None,
        })
    }

    /// The unit of a number on the wire.
    pub fn numbered(number: i32) -> Option<Self> {
        [
            Self::Second,
            Self::Minute,
            Self::Hour,
            Self::Day,
            Self::Month,
            Self::Year,
        ]
        .into_iter()
        .find(|unit| *unit as i32 == number)
    }

    /// Its length in seconds (envoyproxy/ratelimit).
    pub fn seconds(self) -> u64 {
        match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3600,
            Self::Day => 24 * 3600,
            Self::Month => 30 * 24 * 3600,
            Self::Year => 365 * 24 * 3600,
        }
    }

    /// The window at `now`, the time since 1970.
    pub fn window(self, now: Duration) -> Window {
        let start = now.as_secs() - now.as_secs() % self.seconds();
        let end = start + self.seconds();
        let left = Duration::from_secs(end).saturating_sub(now);
        Window {
            start,
            end,
            left: Duration::from_millis(u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_begin_at_multiples_of_their_length() {
        let window = Unit::Minute.window(Duration::from_millis(125_250));
        assert_eq!((window.start, window.end), (120, 180));
        assert_eq!(window.left, Duration::from_millis(54_750));
        let window = Unit::Second.window(Duration::from_nanos(7_000_000_001));
        assert_eq!(window.left, Duration::from_millis(999), "rounded down");
    }
}
