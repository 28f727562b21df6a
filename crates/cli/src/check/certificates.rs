//! Ends of certificates: what is too soon for a CA, and when a proxy's renewal is overdue. Pure but for the clock.

use jiff::Timestamp;
use serde_json::Value;
use std::fmt;
use std::time::Duration;

/// A proxy's certificate is renewed after half of its life; with less than this part left something is wrong.
const OVERDUE: f64 = 0.2;

/// How a proxy's certificate is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Life {
    Good,
    /// There is none.
    Missing,
    /// It has ended.
    Expired(String),
    /// It should have been renewed long ago.
    Overdue(String),
}

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Good => f.write_str("its certificate is renewed in time"),
            Self::Missing => {
                f.write_str("it has no certificate: its log says why the CA does not sign one")
            }
            Self::Expired(at) => write!(f, "its certificate has expired at {at}"),
            Self::Overdue(at) => write!(
                f,
                "its certificate ends at {at} and should have been renewed: its log says why it was not"
            ),
        }
    }
}

/// The sentence about something that ends within `threshold` or has ended; none while there is time.
pub(super) fn ends_soon(what: &str, expires: &Value, threshold: Duration) -> Option<String> {
    let at = expires.as_str()?;
    let Ok(end) = at.parse::<Timestamp>() else {
        return Some(format!("{what} ends at {at:?}, which is no time"));
    };
    let left = end.as_second() - Timestamp::now().as_second();
    match u64::try_from(left) {
        Err(_) | Ok(0) => Some(format!("{what} has expired at {at}")),
        Ok(left) if left < threshold.as_secs() => Some(format!(
            "{what} ends at {at}, in {}: rotate the CA (`lateen ca rotate`)",
            span(left)
        )),
        Ok(_) => None,
    }
}

fn span(seconds: u64) -> String {
    match seconds {
        s if s >= 2 * 86_400 => format!("{} days", s / 86_400),
        s if s >= 2 * 3600 => format!("{} hours", s / 3600),
        s => format!("{} minutes", s / 60),
    }
}

/// Judges a proxy's page `/certs`.
pub(super) fn life(page: &Value) -> Life {
    let chain = &page["certificates"][0]["cert_chain"][0];
    let time = |field: &str| chain[field].as_str()?.parse::<Timestamp>().ok();
    let (Some(from), Some(until)) = (time("valid_from"), time("expiration_time")) else {
        return Life::Missing;
    };
    let at = until.to_string();
    let left = until.as_second() - Timestamp::now().as_second();
    let whole = until.as_second() - from.as_second();
    if left <= 0 {
        Life::Expired(at)
    } else if (left as f64) < whole as f64 * OVERDUE {
        Life::Overdue(at)
    } else {
        Life::Good
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::SignedDuration;
    use serde_json::json;

    fn at(hours: i64) -> String {
        let time = Timestamp::now().checked_add(SignedDuration::from_hours(hours));
        time.expect("in range").to_string()
    }

    #[test]
    fn a_ca_that_ends_soon_is_told_in_time() {
        let month = Duration::from_secs(30 * 86_400);
        let check = |hours: i64, part: Option<&str>| {
            let told = ends_soon("the root", &json!(at(hours)), month);
            match part {
                None => assert_eq!(told, None),
                Some(part) => assert!(told.clone().unwrap_or_default().contains(part), "{told:?}"),
            }
        };
        check(24 * 365, None);
        check(24 * 20 + 1, Some("in 20 days"));
        check(5, Some("hours: rotate"));
        check(-1, Some("has expired at"));
        assert_eq!(ends_soon("x", &Value::Null, month), None);
    }

    #[test]
    fn a_proxys_certificate_is_renewed_at_half_life() {
        let check = |from: i64, until: i64, expected: fn(&Life) -> bool| {
            let chain = json!({ "valid_from": at(from), "expiration_time": at(until) });
            let page = json!({ "certificates": [{ "cert_chain": [chain] }] });
            let life = life(&page);
            assert!(expected(&life), "{from} {until}: {life}");
        };
        check(-1, 23, |life| *life == Life::Good);
        check(-13, 11, |life| *life == Life::Good);
        check(-21, 3, |life| matches!(life, Life::Overdue(_)));
        check(-25, -1, |life| matches!(life, Life::Expired(_)));
        assert_eq!(life(&json!({ "certificates": [] })), Life::Missing);
    }
}
