//! Sorted prefixes (or suffixes) with values: which of them a text begins (or ends) with, without trying each.

use lateen_base::Str;
use std::cmp::Ordering;

/// Prefixes or suffixes with a value each. Empty ones are allowed: every text has them.
#[derive(Debug)]
pub(super) struct Affixes<T> {
    end: End,
    /// In order of text, seen from its end for suffixes.
    entries: Vec<Entry<T>>,
}

/// Which end of a text counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Prefix,
    Suffix,
}

#[derive(Debug)]
struct Entry<T> {
    text: Str,
    /// The longest other entry that this one begins with.
    parent: Option<usize>,
    value: T,
}

impl<T> Affixes<T> {
    /// Sorts the entries; texts are different from each other.
    pub fn new(end: End, entries: impl IntoIterator<Item = (Str, T)>) -> Self {
        let mut entries: Vec<_> = entries
            .into_iter()
            .map(|(text, value)| Entry {
                text,
                parent: None,
                value,
            })
            .collect();
        entries.sort_by(|a, b| end.compare(&a.text, &b.text));
        let mut open: Vec<usize> = Vec::new();
        for at in 0..entries.len() {
            let text = entries[at].text.clone();
            while let Some(last) = open.last() {
                if end.covers(&entries[*last].text, &text) {
                    break;
                }
                open.pop();
            }
            entries[at].parent = open.last().copied();
            open.push(at);
        }
        Self { end, entries }
    }

    /// The values of every entry that `text` begins (or ends) with, the longest first.
    ///
    /// All of them sort before `text`, and whatever sorts between one of them and `text` begins with it too. So they
    /// are on the way up from the last entry that does not sort after `text`.
    pub fn of<'a>(&'a self, text: &str) -> impl Iterator<Item = &'a T> + use<'a, T> {
        let after = self
            .entries
            .partition_point(|e| self.end.compare(&e.text, text) != Ordering::Greater);
        let mut at = after.checked_sub(1);
        while let Some(entry) = at.map(|at| &self.entries[at]) {
            if self.end.covers(&entry.text, text) {
                break;
            }
            at = entry.parent;
        }
        std::iter::from_fn(move || {
            let entry = &self.entries[at?];
            at = entry.parent;
            Some(&entry.value)
        })
    }

    /// Whether `text` begins (or ends) with any of them.
    pub fn covers(&self, text: &str) -> bool {
        !self.entries.is_empty() && self.of(text).next().is_some()
    }
}

impl End {
    fn compare(self, a: &str, b: &str) -> Ordering {
        match self {
            Self::Prefix => a.cmp(b),
            Self::Suffix => a.bytes().rev().cmp(b.bytes().rev()),
        }
    }

    fn covers(self, affix: &str, text: &str) -> bool {
        match self {
            Self::Prefix => text.starts_with(affix),
            Self::Suffix => text.ends_with(affix),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(end: End, texts: &[&str], text: &str, want: &[&str]) {
        let entries = texts.iter().map(|t| (Str::from(*t), *t));
        let affixes = Affixes::new(end, entries);
        let found: Vec<_> = affixes.of(text).copied().collect();
        assert_eq!(found, want, "{text}");
        assert_eq!(affixes.covers(text), !want.is_empty());
    }

    #[test]
    fn all_that_a_text_begins_with() {
        let all = ["/a", "/a/b", "/a/b/c", "/b", "", "/a/z", "/a/b!"];
        check(End::Prefix, &all, "/a/b/x", &["/a/b", "/a", ""]);
        check(End::Prefix, &all, "/a/b/c/d", &["/a/b/c", "/a/b", "/a", ""]);
        check(End::Prefix, &all, "/c", &[""]);
        check(End::Prefix, &all[..4], "/c", &[]);
        check(End::Prefix, &all, "", &[""]);
        check(End::Prefix, &[], "x", &[]);
    }

    #[test]
    fn all_that_a_text_ends_with() {
        let all = [".com", ".example.com", "a.example.com", ".org"];
        check(
            End::Suffix,
            &all,
            "a.example.com",
            &["a.example.com", ".example.com", ".com"],
        );
        check(End::Suffix, &all, "example.com", &[".com"]);
        check(End::Suffix, &all, "com", &[]);
    }
}
