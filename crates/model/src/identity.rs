//! Names of workloads as certificates carry them. How a name is proved is not decided here.

use lateen_base::Str;
use serde::{Serialize, Serializer};
use std::fmt;

/// Longest SPIFFE id that is accepted, in bytes (SPIFFE: 2048).
const LONGEST: usize = 2048;

/// A SPIFFE id, such as `spiffe://cluster.local/ns/default/sa/sleep` (SPIFFE-ID §2).
/// The trust domain is lower case; the path is never empty. Equal ids have equal text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    uri: Str,
    /// Where the path begins in `uri`, the slash included.
    path: u16,
}

/// A text is no SPIFFE id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a SPIFFE id: {reason}")]
pub struct BadSpiffeId {
    /// The text, shortened.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl SpiffeId {
    /// The id of a Kubernetes service account (Istio: `spiffe://<trust domain>/ns/<namespace>/sa/<account>`).
    ///
    /// # Errors
    /// A part has characters that an id cannot have.
    pub fn of_account(
        trust_domain: &str,
        namespace: &str,
        account: &str,
    ) -> Result<Self, BadSpiffeId> {
        Self::parse(&format!(
            "spiffe://{trust_domain}/ns/{namespace}/sa/{account}"
        ))
    }

    /// Reads an id. Nothing is normalised: what is not in canonical form is refused.
    ///
    /// # Errors
    /// The scheme is not `spiffe`, the trust domain or a path segment is empty or has characters that are not
    /// allowed there (NUL, `%`, upper case in the trust domain, …), or the text is longer than 2048 bytes.
    pub fn parse(text: &str) -> Result<Self, BadSpiffeId> {
        let bad = |reason| BadSpiffeId {
            text: text.chars().take(80).collect(),
            reason,
        };
        if text.len() > LONGEST {
            return Err(bad("it is longer than 2048 bytes"));
        }
        let rest = text
            .strip_prefix("spiffe://")
            .ok_or_else(|| bad("it does not begin with spiffe://"))?;
        let (domain, path) = rest
            .split_once('/')
            .ok_or_else(|| bad("it has no path after the trust domain"))?;
        let in_domain =
            |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
        if domain.is_empty() || !domain.bytes().all(in_domain) {
            return Err(bad(
                "its trust domain may have lower-case letters, digits, dots, dashes and underscores only",
            ));
        }
        let in_path = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        let good = |segment: &str| {
            !segment.is_empty() && segment != "." && segment != ".." && segment.bytes().all(in_path)
        };
        if !path.split('/').all(good) {
            return Err(bad(
                "its path may have letters, digits, dots, dashes and underscores only, and no empty segment",
            ));
        }
        let at = "spiffe://".len() + domain.len();
        Ok(Self {
            uri: text.into(),
            path: at as u16,
        })
    }

    /// The whole id.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// The id as policies write it: without `spiffe://`.
    pub fn principal(&self) -> &str {
        &self.uri["spiffe://".len()..]
    }

    /// The trust domain.
    pub fn trust_domain(&self) -> &str {
        &self.uri["spiffe://".len()..usize::from(self.path)]
    }

    /// The Kubernetes namespace; absent when the id is not of Istio's form.
    pub fn namespace(&self) -> Option<&str> {
        self.account().map(|(namespace, _)| namespace)
    }

    /// The Kubernetes service account; absent when the id is not of Istio's form.
    pub fn service_account(&self) -> Option<&str> {
        self.account().map(|(_, account)| account)
    }

    fn account(&self) -> Option<(&str, &str)> {
        let path = self.uri[usize::from(self.path)..].strip_prefix("/ns/")?;
        let (namespace, rest) = path.split_once('/')?;
        let account = rest.strip_prefix("sa/")?;
        (!account.contains('/')).then_some((namespace, account))
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}

impl Serialize for SpiffeId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.uri)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_service_accounts_have_their_parts() {
        let id = SpiffeId::parse("spiffe://cluster.local/ns/default/sa/sleep").expect("valid");
        assert_eq!(id.trust_domain(), "cluster.local");
        assert_eq!(id.namespace(), Some("default"));
        assert_eq!(id.service_account(), Some("sleep"));
        assert_eq!(id.principal(), "cluster.local/ns/default/sa/sleep");
        let other = SpiffeId::parse("spiffe://example.org/vm/db-1").expect("valid");
        assert_eq!(other.namespace(), None);
    }

    #[test]
    fn what_could_be_read_two_ways_is_refused() {
        for text in [
            "",
            "https://cluster.local/ns/a/sa/b",
            "spiffe://cluster.local",
            "spiffe:///ns/a/sa/b",
            "spiffe://Cluster.local/ns/a/sa/b",
            "spiffe://cluster.local/ns/a/sa/",
            "spiffe://cluster.local/ns//sa/b",
            "spiffe://cluster.local/ns/../sa/b",
            "spiffe://cluster.local/ns/a%2Fb/sa/c",
            "spiffe://cluster.local/ns/a/sa/b\0.example.com",
            "spiffe://cluster.local:8080/ns/a/sa/b",
        ] {
            assert!(SpiffeId::parse(text).is_err(), "{text:?}");
        }
    }
}
