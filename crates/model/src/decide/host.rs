//! Host names as keys: one canonical form, and tables that prefer exact names to wildcards.

use lateen_base::{Map, Str};
use std::borrow::Cow;

/// The form in which hosts are compared: lower case, without port, brackets and trailing dot.
/// Allocates only when the host has upper-case letters.
pub fn canonical(authority: &str) -> Cow<'_, str> {
    let host = without_port(authority);
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.bytes().any(|b| b.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    }
}

/// The host part of `host`, `host:port`, `[v6]` or `[v6]:port`.
fn without_port(authority: &str) -> &str {
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split_once(']').map_or(rest, |(host, _)| host);
    }
    match authority.split_once(':') {
        // A bare IPv6 address has more colons and no port.
        Some((host, port)) if !port.contains(':') => host,
        _ => authority,
    }
}

/// The port in `host:port` or `[v6]:port`; absent when there is none or it is not a number.
pub fn port_of(authority: &str) -> Option<u16> {
    let tail = match authority.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?.1,
        None => authority,
    };
    let (head, port) = tail.split_once(':')?;
    if !head.is_empty() && port.contains(':') {
        return None;
    }
    port.parse().ok()
}

/// Values by host pattern: exact name first, then the longest `*suffix`, then `*`.
#[derive(Debug, Clone)]
pub struct HostTable<T> {
    exact: Map<Str, T>,
    /// By the text after `*`; the empty text is `*` itself.
    suffixes: Map<Str, T>,
    /// Lengths that occur in `suffixes`, longest first.
    lengths: Vec<usize>,
}

impl<T> Default for HostTable<T> {
    fn default() -> Self {
        Self {
            exact: Map::default(),
            suffixes: Map::default(),
            lengths: Vec::new(),
        }
    }
}

impl<T> HostTable<T> {
    /// Adds a pattern unless it is there already: the first entry for a pattern wins.
    pub fn insert_first(&mut self, pattern: &str, value: T) {
        self.slot(pattern, || value);
    }

    /// The value of a pattern, made by `make` when it is new.
    pub fn slot(&mut self, pattern: &str, make: impl FnOnce() -> T) -> &mut T {
        match pattern.strip_prefix('*') {
            Some(suffix) => {
                if let Err(at) = self
                    .lengths
                    .binary_search_by(|length| suffix.len().cmp(length))
                {
                    self.lengths.insert(at, suffix.len());
                }
                self.suffixes.entry(suffix.into()).or_insert_with(make)
            }
            None => self.exact.entry(pattern.into()).or_insert_with(make),
        }
    }

    /// The value of the most specific pattern that covers `host` (canonical form).
    pub fn find(&self, host: &str) -> Option<&T> {
        self.find_all(host).next()
    }

    /// Values of all patterns that cover `host`, the most specific first.
    pub fn find_all<'t, 'h>(
        &'t self,
        host: &'h str,
    ) -> impl Iterator<Item = &'t T> + use<'t, 'h, T> {
        let (wild, text) = match host.strip_prefix('*') {
            Some(rest) => (true, rest),
            None => (false, host),
        };
        let exact = if wild {
            self.suffixes.get(text)
        } else {
            self.exact.get(text)
        };
        let shorter = self
            .lengths
            .iter()
            .filter(move |length| **length < text.len())
            .filter_map(move |length| self.suffixes.get(text.get(text.len() - length..)?));
        exact.into_iter().chain(shorter)
    }

    /// Whether this very pattern was added.
    pub fn has(&self, pattern: &str) -> bool {
        match pattern.strip_prefix('*') {
            Some(suffix) => self.suffixes.contains_key(suffix),
            None => self.exact.contains_key(pattern),
        }
    }

    /// Every value, to be changed in place.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.exact.values_mut().chain(self.suffixes.values_mut())
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.suffixes.is_empty()
    }

    /// Every pattern with its value, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (String, &T)> {
        let exact = self.exact.iter().map(|(host, v)| (host.to_string(), v));
        let wild = self
            .suffixes
            .iter()
            .map(|(tail, v)| (format!("*{tail}"), v));
        exact.chain(wild)
    }
}
