//! Cron schedules: five fields, or one of the short names such as `@hourly`. Pure.

use std::str::FromStr;

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

/// The minutes, hours and days at which something happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Schedule {
    minutes: Vec<bool>,
    hours: Vec<bool>,
    days: Vec<bool>,
    months: Vec<bool>,
    weekdays: Vec<bool>,
    /// Whether the day of the month, and that of the week, say anything: if both do, either will do.
    days_said: (bool, bool),
}

const MONTHS: [&str; 12] = [
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

impl FromStr for Schedule {
    type Err = String;

    fn from_str(text: &str) -> Result<Schedule, String> {
        let expanded = match text.trim() {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            other => other,
        };
        let fields: Vec<&str> = expanded.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields[..] else {
            return Err(format!(
                "schedule {text:?} must have five fields, as in \"*/5 * * * *\""
            ));
        };
        let wrap = |error| format!("schedule {text:?}: {error}");
        let mut weekday_set = field(weekdays, 0, 7, &WEEKDAYS).map_err(wrap)?;
        // Sunday is 0 and 7.
        weekday_set[0] |= weekday_set[7];
        let said = |field: &str| !field.starts_with('*') && field != "?";
        Ok(Schedule {
            minutes: field(minutes, 0, 59, &[]).map_err(wrap)?,
            hours: field(hours, 0, 23, &[]).map_err(wrap)?,
            days: field(days, 1, 31, &[]).map_err(wrap)?,
            months: field(months, 1, 12, &MONTHS).map_err(wrap)?,
            weekdays: weekday_set,
            days_said: (said(days), said(weekdays)),
        })
    }
}

/// The values that a field admits; index is value.
fn field(text: &str, low: usize, high: usize, names: &[&str]) -> Result<Vec<bool>, String> {
    let mut set = vec![false; high + 1];
    let value = |word: &str| {
        let named = names
            .iter()
            .position(|name| word.eq_ignore_ascii_case(name));
        let number = named.map(|at| at + low).or_else(|| word.parse().ok());
        number
            .filter(|number| (low..=high).contains(number))
            .ok_or_else(|| format!("{word:?} is not between {low} and {high}"))
    };
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (
                range,
                step.parse().map_err(|_| format!("bad step {step:?}"))?,
            ),
            None => (part, 1),
        };
        if step == 0 {
            return Err("a step must not be 0".to_owned());
        }
        let (from, to) = match range {
            "*" | "?" => (low, high),
            _ => match range.split_once('-') {
                Some((from, to)) => (value(from)?, value(to)?),
                None if part.contains('/') => (value(range)?, high),
                None => (value(range)?, value(range)?),
            },
        };
        if from > to {
            return Err(format!("range {range:?} ends before it begins"));
        }
        (from..=to)
            .step_by(step)
            .for_each(|value| set[value] = true);
    }
    Ok(set)
}

impl Schedule {
    /// The first time after `time`; absent when there is none in the next five years.
    pub(super) fn next_after(&self, time: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let start = zone.to_datetime(time);
        let mut date = start.date();
        for _ in 0..(5 * 366) {
            if self.admits(date) {
                let found = self.times(date).find_map(|at| {
                    let at = zone.to_timestamp(at).ok()?;
                    (at > time).then_some(at)
                });
                if found.is_some() {
                    return found;
                }
            }
            date = date.checked_add(1.day()).ok()?;
        }
        None
    }

    /// The last time after `from` and not after `to`; absent: none. Looks back a month at most.
    pub(super) fn last_between(
        &self,
        from: Timestamp,
        to: Timestamp,
        zone: &TimeZone,
    ) -> Option<Timestamp> {
        let mut date = zone.to_datetime(to).date();
        for _ in 0..32 {
            if self.admits(date) {
                let times: Vec<_> = self.times(date).collect();
                let found = times.into_iter().rev().find_map(|at| {
                    let at = zone.to_timestamp(at).ok()?;
                    (at <= to).then_some(at)
                });
                if found.is_some() {
                    return found.filter(|at| *at > from);
                }
            }
            date = date.checked_sub(1.day()).ok()?;
        }
        None
    }

    fn admits(&self, date: Date) -> bool {
        let day = self.days[usize::from(date.day().unsigned_abs())];
        let weekday = date.weekday().to_sunday_zero_offset().unsigned_abs();
        let weekday = self.weekdays[usize::from(weekday)];
        let fits = match self.days_said {
            (true, true) => day || weekday,
            _ => day && weekday,
        };
        fits && self.months[usize::from(date.month().unsigned_abs())]
    }

    fn times(&self, date: Date) -> impl Iterator<Item = DateTime> {
        let hours = (0..24_i8).filter(|hour| self.hours[usize::from(hour.unsigned_abs())]);
        hours.flat_map(move |hour| {
            let minutes = (0..60_i8).filter(|at| self.minutes[usize::from(at.unsigned_abs())]);
            minutes.map(move |minute| date.at(hour, minute, 0, 0))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(schedule: &str, after: &str, expected: &str) {
        let schedule: Schedule = schedule.parse().unwrap();
        let next = schedule
            .next_after(after.parse().unwrap(), &TimeZone::UTC)
            .unwrap();
        assert_eq!(next.to_string(), expected);
        let last = schedule.last_between(after.parse().unwrap(), next, &TimeZone::UTC);
        assert_eq!(last, Some(next));
    }

    #[test]
    fn next_times() {
        check(
            "*/5 * * * *",
            "2026-01-01T00:03:00Z",
            "2026-01-01T00:05:00Z",
        );
        check(
            "0 9-17 * * mon-fri",
            "2026-01-02T17:00:00Z",
            "2026-01-05T09:00:00Z",
        );
        check("@monthly", "2026-01-31T10:00:00Z", "2026-02-01T00:00:00Z");
        check("0 0 13 * 5", "2026-11-06T00:00:00Z", "2026-11-13T00:00:00Z");
        check(
            "30 1 29 2 *",
            "2026-01-01T00:00:00Z",
            "2028-02-29T01:30:00Z",
        );
    }

    #[test]
    fn nonsense() {
        let error = |text: &str| text.parse::<Schedule>().unwrap_err();
        assert!(error("* * *").contains("five fields"));
        assert_eq!(
            error("61 * * * *"),
            "schedule \"61 * * * *\": \"61\" is not between 0 and 59"
        );
        assert!(error("*/0 * * * *").contains("must not be 0"));
        assert!(error("5-1 * * * *").contains("ends before it begins"));
    }
}
