//! Tokens that were verified: kept for a while, since verifying costs more than everything else a proxy does.

use http::{HeaderName, HeaderValue};
use lateen_model::decide::authz::Token;
use std::collections::HashMap;
use std::sync::Arc;

/// Tokens of a generation; two are kept.
const MOST: usize = 1024;

/// Longest token that is kept, in bytes.
const LONGEST: usize = 8 * 1024;

/// What a rule makes of a token that it takes.
#[derive(Debug)]
pub(super) struct Verified {
    pub(super) token: Arc<Token>,
    /// Headers that the upstream gets.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// Seconds since 1970.
    pub(super) not_before: Option<u64>,
    /// Seconds since 1970; absent: never.
    pub(super) expires: Option<u64>,
}

/// Verified tokens by their whole text, one table per rule.
#[derive(Debug, Default)]
pub(super) struct Kept {
    young: HashMap<Box<str>, Arc<Verified>>,
    old: HashMap<Box<str>, Arc<Verified>>,
}

impl Kept {
    pub(super) fn find(&mut self, token: &str) -> Option<Arc<Verified>> {
        if let Some(found) = self.young.get(token) {
            return Some(Arc::clone(found));
        }
        let (text, found) = self.old.remove_entry(token)?;
        self.put(text, Arc::clone(&found));
        Some(found)
    }

    pub(super) fn insert(&mut self, token: &str, verified: Arc<Verified>) {
        if token.len() <= LONGEST {
            self.put(token.into(), verified);
        }
    }

    fn put(&mut self, token: Box<str>, verified: Arc<Verified>) {
        if self.young.len() >= MOST {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(token, verified);
    }
}
