//! Reading a pod's annotations: each value is checked before it reaches a container.

use super::InjectError;
use k8s_openapi::api::core::v1::Pod;
use std::collections::BTreeMap;

/// A pod's annotations.
pub(super) struct Annotations(BTreeMap<String, String>);

/// Annotations of capture and the option of `lateen capture` that each becomes.
const CAPTURE: [(&str, &str, Check); 6] = [
    (
        "includeOutboundIPRanges",
        "--include-outbound-cidrs",
        Check::Ranges,
    ),
    (
        "excludeOutboundIPRanges",
        "--exclude-outbound-cidrs",
        Check::Ranges,
    ),
    (
        "includeInboundPorts",
        "--include-inbound-ports",
        Check::Ports,
    ),
    (
        "excludeInboundPorts",
        "--exclude-inbound-ports",
        Check::Ports,
    ),
    (
        "includeOutboundPorts",
        "--include-outbound-ports",
        Check::Ports,
    ),
    (
        "excludeOutboundPorts",
        "--exclude-outbound-ports",
        Check::Ports,
    ),
];

/// What a list annotation may hold.
#[derive(Clone, Copy)]
enum Check {
    Ports,
    Ranges,
}

/// Capture settings of Istio that have no counterpart here.
const UNSUPPORTED: [&str; 2] = ["excludeInterfaces", "kubevirtInterfaces"];

impl Check {
    fn expected(self) -> &'static str {
        match self {
            Self::Ports => "a comma-separated list of ports from 0 to 65535, or *",
            Self::Ranges => "a comma-separated list of IP ranges such as 10.0.0.0/8, or *",
        }
    }

    fn accepts(self, item: &str) -> bool {
        match self {
            Self::Ports => item.parse::<u16>().is_ok(),
            Self::Ranges => match item.split_once('/') {
                Some((ip, bits)) => ip.parse::<std::net::IpAddr>().is_ok_and(|ip| {
                    let most = if ip.is_ipv4() { 32 } else { 128 };
                    bits.parse::<u8>().is_ok_and(|bits| bits <= most)
                }),
                None => item.parse::<std::net::IpAddr>().is_ok(),
            },
        }
    }
}

impl Annotations {
    pub(super) fn of(pod: &Pod) -> Self {
        Self(pod.metadata.annotations.clone().unwrap_or_default())
    }

    /// The value under `key`, without surrounding space.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(|value| value.trim())
    }

    /// A whole number.
    pub(super) fn number(&self, key: &str, default: i32) -> Result<i32, InjectError> {
        let Some(value) = self.text(key) else {
            return Ok(default);
        };
        value
            .parse()
            .ok()
            .filter(|number| *number >= 0)
            .ok_or_else(|| bad(key, value, "a whole number, 0 or more"))
    }

    /// `true` or `false`.
    pub(super) fn flag(&self, key: &str, default: bool) -> Result<bool, InjectError> {
        match self.text(key) {
            None => Ok(default),
            Some("true") => Ok(true),
            Some("false") => Ok(false),
            Some(other) => Err(bad(key, other, "true or false")),
        }
    }

    /// A Kubernetes quantity such as `100m` or `128Mi`.
    pub(super) fn quantity(&self, key: &str) -> Result<Option<String>, InjectError> {
        let Some(value) = self.text(key) else {
            return Ok(None);
        };
        let digits = value.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let suffix = &value[digits.len()..];
        let suffixes = [
            "", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei",
        ];
        let number = digits.parse::<f64>().is_ok_and(|n| n >= 0.0);
        if number && suffixes.contains(&suffix) {
            return Ok(Some(value.to_owned()));
        }
        Err(bad(key, value, "a quantity such as 100m or 128Mi"))
    }

    /// The options of `lateen capture` that the annotations `traffic.sidecar.istio.io/…` ask for.
    pub(super) fn capture_options(&self) -> Result<Vec<String>, InjectError> {
        for name in UNSUPPORTED {
            let key = format!("traffic.sidecar.istio.io/{name}");
            if self.text(&key).is_some_and(|value| !value.is_empty()) {
                return Err(InjectError::Unsupported(key));
            }
        }
        let mut options = Vec::new();
        for (name, option, check) in CAPTURE {
            let key = format!("traffic.sidecar.istio.io/{name}");
            let Some(value) = self.text(&key) else {
                continue;
            };
            let items: Vec<&str> = value
                .split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty())
                .collect();
            if items != ["*"] && !items.iter().all(|item| check.accepts(item)) {
                return Err(bad(&key, value, check.expected()));
            }
            options.push(format!("{option}={}", items.join(",")));
        }
        Ok(options)
    }
}

/// An annotation that cannot be used.
pub(super) fn bad(key: &str, value: &str, expected: &'static str) -> InjectError {
    InjectError::BadAnnotation {
        key: key.to_owned(),
        value: value.chars().take(200).collect(),
        expected,
    }
}
