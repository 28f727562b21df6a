//! Paths with parts that are left open.

use super::values::Pattern;
use lateen_base::Str;

/// A path with `{*}` (one segment) and `{**}` (any number of them, at most once and last), as Envoy's URI templates.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Template {
    /// Texts around the single segments.
    pieces: Vec<Str>,
    /// The text after `{**}`; absent: there is no `{**}`.
    tail: Option<Str>,
}

impl Template {
    /// Reads a template; absent: the text is none.
    pub fn read(text: &str) -> Option<Self> {
        if !text.contains("{*}") && !text.contains("{**}") {
            return None;
        }
        let (head, tail) = match text.split_once("{**}") {
            Some((head, tail)) => (head, Some(tail.into())),
            None => (text, None),
        };
        Some(Self {
            pieces: head.split("{*}").map(Str::from).collect(),
            tail,
        })
    }

    /// Whether `path` has this form.
    pub fn matches(&self, path: &str) -> bool {
        let mut rest = path;
        for (at, piece) in self.pieces.iter().enumerate() {
            if at > 0 {
                let segment = rest.find('/').unwrap_or(rest.len());
                if segment == 0 {
                    return false;
                }
                rest = &rest[segment..];
            }
            match rest.strip_prefix(&**piece) {
                Some(left) => rest = left,
                None => return false,
            }
        }
        match &self.tail {
            Some(tail) => rest.ends_with(&**tail),
            None => rest.is_empty(),
        }
    }

    /// What every path of this form begins or ends with, whichever says more.
    pub fn necessary(&self) -> Pattern {
        let head = self.pieces.first().map_or("", |p| p);
        let end = self.tail.as_deref().or(self.pieces.last().map(|p| &**p));
        let end = end.unwrap_or("");
        match head.len() >= end.len() {
            true => Pattern::Prefix(head.into()),
            false => Pattern::Suffix(end.into()),
        }
    }
}
