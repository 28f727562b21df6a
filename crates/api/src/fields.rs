//! Field types that several kinds share: durations as written, string matches, ports, label maps.
//! Nothing here looks beyond one field.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

/// Labels, annotations and selectors as written.
pub type Labels = BTreeMap<String, String>;

/// A duration as written, such as `10s`, `1.5s`, `250ms` or `1h30m`. [`Self::parse`] gives its value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DurationText(pub String);

/// A duration that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a duration; write a number with a unit, such as 10s, 250ms or 1h30m")]
pub struct BadDuration(pub String);

impl DurationText {
    /// The pattern of a valid duration, for schemas.
    pub const PATTERN: &str = r"^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$";

    /// The duration's value. Fractions are kept to the nanosecond.
    ///
    /// # Errors
    /// The text is not a sequence of numbers with units `h`, `m`, `s`, `ms`, `us` or `ns`, or is longer than 292 years.
    pub fn parse(&self) -> Result<Duration, BadDuration> {
        parse_duration(&self.0).ok_or_else(|| BadDuration(self.0.clone()))
    }
}

/// Go's duration syntax without signs (Istio: durations in YAML).
fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut nanos: u128 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let unit_at = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(unit_at);
        let unit_end = tail
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let scale: u128 = match unit {
            "h" => 3_600_000_000_000,
            "m" => 60_000_000_000,
            "s" => 1_000_000_000,
            "ms" => 1_000_000,
            "us" | "µs" => 1_000,
            "ns" => 1,
            _ => return None,
        };
        nanos = nanos.checked_add(scaled(number, scale)?)?;
        rest = tail;
    }
    // Go's bound: an int64 of nanoseconds.
    i64::try_from(nanos)
        .ok()
        .map(|n| Duration::from_nanos(n.unsigned_abs()))
}

/// `number` (digits, optionally a fraction) times `scale`.
fn scaled(number: &str, scale: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || whole.len() > 18 || (number.contains('.') && fraction.is_empty()) {
        return None;
    }
    let mut value = whole.parse::<u128>().ok()?.checked_mul(scale)?;
    let mut place = scale;
    for digit in fraction.chars() {
        place /= 10;
        value += u128::from(digit.to_digit(10)?) * place;
    }
    Some(value)
}

impl JsonSchema for DurationText {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "maxLength": 64, "pattern": Self::PATTERN })
    }
}

/// How a string is matched: at most one of the fields. None of them means that the thing is present.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct StringMatch {
    /// Equal to this.
    pub exact: Option<String>,
    /// Starts with this.
    pub prefix: Option<String>,
    /// The whole string matches this RE2 expression.
    pub regex: Option<String>,
}

/// A port given by its number.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PortSelector {
    /// Port number, 1 to 65535.
    #[schemars(range(min = 0, max = 65535))]
    pub number: Option<u32>,
}

/// A share in percent, from 0.0 to 100.0.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Percent {
    /// Percentage; 0.0 when absent.
    #[schemars(range(min = 0.0, max = 100.0))]
    pub value: Option<f64>,
}

/// Labels that workloads must all carry.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LabelSelector {
    /// Required labels.
    pub labels: Labels,
}

/// Labels that workloads must all carry, in the form that policies use.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MatchLabels {
    /// Required labels.
    pub match_labels: Labels,
}

/// An object that a policy is attached to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["kind", "name"]))]
pub struct TargetReference {
    /// Its API group; Kubernetes' core group when empty.
    #[schemars(length(max = 253))]
    pub group: Option<String>,
    /// Its kind: Gateway, GatewayClass, Service or ServiceEntry.
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its namespace, which must be the policy's own; leave it out.
    #[schemars(length(max = 253))]
    pub namespace: Option<String>,
}

/// A port that a gateway, sidecar listener or service entry declares.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Port {
    /// Port number, 1 to 65535.
    #[schemars(range(min = 0, max = 65535))]
    pub number: Option<u32>,
    /// One of HTTP, HTTPS, GRPC, GRPC-WEB, HTTP2, MONGO, TCP, TLS.
    pub protocol: Option<String>,
    /// A name, unique in the object.
    pub name: Option<String>,
    /// Port on the endpoints; the port number when absent.
    #[schemars(range(min = 0, max = 65535))]
    pub target_port: Option<u32>,
}

/// Where traffic goes: a service, optionally a subset of it, and a port.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["host"]))]
pub struct Destination {
    /// A service's host name. A short name is looked for in the namespace of the rule that names it.
    pub host: String,
    /// A subset that a DestinationRule for the host defines.
    pub subset: Option<String>,
    /// Port of the service; needed when the service has several.
    pub port: Option<PortSelector>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, want: Option<Duration>) {
        assert_eq!(DurationText(text.into()).parse().ok(), want, "{text:?}");
    }

    #[test]
    fn durations() {
        check("10s", Some(Duration::from_secs(10)));
        check("1.5s", Some(Duration::from_millis(1500)));
        check("1h30m", Some(Duration::from_secs(5400)));
        check("250ms", Some(Duration::from_millis(250)));
        check("0s", Some(Duration::ZERO));
        check("0.0001s", Some(Duration::from_micros(100)));
        for bad in [
            "",
            "10",
            "s",
            "1.s",
            "-1s",
            "1 s",
            "1d",
            "99999999999999999999h",
            ".5s",
        ] {
            check(bad, None);
        }
    }
}
