//! What a schema cannot say about a single object: hosts, expressions, weights, names that exclude each other.
//! Errors mean that the object must not be put in force (the admission webhook refuses it, translation keeps the
//! last good value). What several objects mean together is `translate`'s.

mod attachment;
mod authorization_policy;
mod destination_rule;
mod gateway;
mod peer_authentication;
mod rate_limit_policy;
mod request_authentication;
mod service_entry;
mod sidecar;
mod virtual_service;

pub use authorization_policy::{authorization_policy, condition_key};
pub use destination_rule::destination_rule;
pub use gateway::gateway;
pub use peer_authentication::peer_authentication;
pub use rate_limit_policy::rate_limit_policy;
pub use request_authentication::request_authentication;
pub use service_entry::{service_entry, workload_entry};
pub use sidecar::sidecar;
pub use virtual_service::virtual_service;

use crate::fields::{DurationText, Labels, StringMatch};
use crate::notice::{Notice, Subject};
use crate::object::Object;
use std::net::IpAddr;

/// Istio's code for an object that fails validation (Istio: `SchemaValidationError`).
pub const INVALID: &str = "IST0106";

/// Istio's code for a deprecated field (Istio: `Deprecated`).
pub const DEPRECATED: &str = "IST0002";

/// Validates one object of any kind. Kinds without a type of their own give no notice.
pub fn validate(object: &Object) -> Vec<Notice> {
    match object {
        Object::Gateway(config) => gateway(config),
        Object::VirtualService(config) => virtual_service(config),
        Object::DestinationRule(config) => destination_rule(config),
        Object::ServiceEntry(config) => service_entry(config),
        Object::Sidecar(config) => sidecar(config),
        Object::WorkloadEntry(config) => workload_entry(config),
        Object::PeerAuthentication(config) => peer_authentication(config),
        Object::RequestAuthentication(config) => request_authentication(config),
        Object::AuthorizationPolicy(config) => authorization_policy(config),
        Object::RateLimitPolicy(config) => rate_limit_policy(config),
        Object::Kubernetes(_) | Object::Unsupported(_) => Vec::new(),
    }
}

/// Notices about one object, while they are found.
struct Findings {
    subject: Subject,
    notices: Vec<Notice>,
}

impl Findings {
    fn new(subject: Subject) -> Self {
        Self {
            subject,
            notices: Vec::new(),
        }
    }

    fn error(&mut self, field: impl Into<String>, message: impl Into<String>) {
        let notice = Notice::error(&self.subject, field, message);
        self.notices.push(notice.code(INVALID));
    }

    fn warning(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.notices
            .push(Notice::warning(&self.subject, field, message));
    }

    fn deprecated(&mut self, field: impl Into<String>, message: impl Into<String>) {
        let notice = Notice::warning(&self.subject, field, message);
        self.notices.push(notice.code(DEPRECATED));
    }

    /// A host name: exact, `*.suffix`, `*` or an address.
    fn host(&mut self, field: &str, host: &str) {
        if let Some(message) = bad_host(host) {
            self.error(field, message);
        }
    }

    fn string_match(&mut self, field: &str, wanted: &StringMatch) {
        let given = [&wanted.exact, &wanted.prefix, &wanted.regex]
            .into_iter()
            .flatten()
            .count();
        if given > 1 {
            self.error(
                field,
                "exact, prefix and regex exclude each other: keep one of them",
            );
        }
        if let Some(regex) = &wanted.regex {
            self.regex(&format!("{field}.regex"), regex);
        }
    }

    fn regex(&mut self, field: &str, regex: &str) {
        // Bounds and anchoring are those of the proxy: what passes here compiles there.
        let compiled = regex::RegexBuilder::new(&format!("^(?:{regex})$"))
            .size_limit(1 << 20)
            .build();
        if let Err(e) = compiled {
            let reason = e.to_string();
            let reason = reason.lines().last().unwrap_or_default();
            let reason = reason.strip_prefix("error: ").unwrap_or(reason);
            self.error(
                field,
                format!("{regex:?} is not a valid RE2 expression: {reason}"),
            );
        }
    }

    /// A port that must be given, 1 to 65535.
    fn port(&mut self, field: &str, number: Option<u32>) {
        match number {
            Some(1..=65535) => {}
            Some(number) => self.error(field, format!("{number} is not a port; use 1 to 65535")),
            None => self.error(field, "is missing: give a port, 1 to 65535"),
        }
    }

    fn duration(&mut self, field: &str, duration: Option<&DurationText>) {
        if let Some(Err(bad)) = duration.map(DurationText::parse) {
            self.error(field, bad.to_string());
        }
    }

    /// An address or a range.
    fn subnet(&mut self, field: &str, subnet: &str) {
        if !is_subnet(subnet) {
            self.error(
                field,
                format!("{subnet:?} is neither an address nor a range such as 10.0.0.0/8"),
            );
        }
    }

    fn export_to(&mut self, export_to: &[String]) {
        for (i, entry) in export_to.iter().enumerate() {
            let field = format!("spec.exportTo[{i}]");
            if !matches!(entry.as_str(), "." | "*" | "~") && !is_label(entry) {
                self.error(
                    field,
                    format!("{entry:?} is not a namespace; use a name, \".\" or \"*\""),
                );
            } else if export_to.len() > 1 && matches!(entry.as_str(), "*" | "~") {
                self.error(field, format!("{entry:?} excludes other entries: keep one"));
            }
        }
    }

    fn labels(&mut self, field: &str, labels: &Labels) {
        for (key, value) in labels {
            if value.contains('*') {
                let field = crate::path::key(field, key);
                self.error(field, "wildcards do not work in label values");
            }
        }
    }
}

/// The sentence about a host that cannot be used. Absent: it can.
pub(crate) fn bad_host(host: &str) -> Option<String> {
    if host.is_empty() {
        return Some("is empty: name a host".into());
    }
    if host == "*" || host.parse::<IpAddr>().is_ok() {
        return None;
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    let rest = name.strip_prefix("*.").unwrap_or(name);
    if name.len() > 253 {
        return Some(format!(
            "is {} characters long; at most 253 are allowed",
            name.len()
        ));
    }
    if rest.contains("://") || rest.contains('/') || rest.contains(':') {
        return Some(format!(
            "{host:?} is not a host name: leave out scheme, port and path"
        ));
    }
    if !rest.split('.').all(is_label) {
        let cure = if rest.contains('*') {
            "a wildcard may only be the whole first part, as in *.example.com"
        } else {
            "use letters, digits and -, parted by dots"
        };
        return Some(format!("{host:?} is not a host name: {cure}"));
    }
    None
}

/// A part of a DNS name, in any case (RFC 1123 §2.1).
fn is_label(text: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= 63
        && edge(text.chars().next())
        && edge(text.chars().last())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}

/// Whether a text can be a header's name (RFC 9110 §5.1).
fn is_token(text: &str) -> bool {
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    !text.is_empty() && text.chars().all(token)
}

fn is_subnet(text: &str) -> bool {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let Ok(address) = address.parse::<IpAddr>() else {
        return false;
    };
    let most = if address.is_ipv4() { 32 } else { 128 };
    prefix.is_none_or(|prefix| prefix.parse::<u8>().is_ok_and(|bits| bits <= most))
}

#[cfg(test)]
mod tests;
