//! The rules of one host, found by path: the first in the user's order that takes a request, without trying those whose
//! path cannot be the request's. What a path cannot tell (regexes, ignored case, no path) is tried in order.
//!
//! ```text
//! path ─┬─ the same path            ─┐
//!       ├─ each prefix that it has  ─┼─> first alternative that matches in full; lowest position of all wins
//!       └─ alternatives of any path ─┘
//! ```

use super::{Rule, matches, split_path};
use crate::decide::plan::RequestHead;
use crate::matching::StringMatch;
use crate::route::HttpMatch;
use lateen_base::Str;
use std::collections::{BTreeMap, HashMap};
use std::ops::Deref;
use std::sync::Arc;

/// Below so many rules the plain walk is as fast.
const FEW: usize = 8;

/// Rules of one host in the order in which they are tried.
#[derive(Debug, Default)]
pub(in crate::decide) struct Rules {
    all: Vec<Arc<Rule>>,
    /// Absent: the rules are few.
    index: Option<Index>,
}

/// The rule that takes a request, the alternative that it meets, and the route's name.
pub(in crate::decide) type Found<'r> = (&'r Arc<Rule>, Option<&'r HttpMatch>, &'r Str);

/// Alternatives by what they say of the path. Lists hold positions in `alternatives`, in order.
#[derive(Debug, Default)]
struct Index {
    /// Of each alternative, its rule and its place there.
    alternatives: Vec<(usize, usize)>,
    exact: HashMap<Str, Vec<u32>>,
    /// In order of their texts.
    prefixes: Vec<Prefix>,
    /// Those that a path cannot choose among.
    others: Vec<u32>,
}

#[derive(Debug)]
struct Prefix {
    text: Str,
    alternatives: Vec<u32>,
    /// The longest other prefix that this one begins with.
    shorter: Option<usize>,
}

impl Rules {
    /// Rules in the order in which they are tried.
    pub fn new(all: Vec<Arc<Rule>>) -> Self {
        let index = (all.len() >= FEW).then(|| Index::new(&all));
        Self { all, index }
    }

    /// Adds rules behind the others. They are walked until [`Rules::new`] makes an index of all.
    pub fn add(&mut self, more: impl IntoIterator<Item = Arc<Rule>>) {
        self.all.extend(more);
        self.index = None;
    }

    /// The first rule that takes the request.
    pub fn find(&self, head: &RequestHead<'_>) -> Option<Found<'_>> {
        match &self.index {
            Some(index) => index.find(&self.all, head),
            None => self.walk(head),
        }
    }

    /// The same, by trying one rule after the other.
    pub fn walk(&self, head: &RequestHead<'_>) -> Option<Found<'_>> {
        self.all.iter().find_map(|rule| {
            (0..rule.alternatives.len()).find_map(|place| meets(rule, place, head))
        })
    }
}

impl Deref for Rules {
    type Target = [Arc<Rule>];

    fn deref(&self) -> &[Arc<Rule>] {
        &self.all
    }
}

fn meets<'r>(rule: &'r Arc<Rule>, place: usize, head: &RequestHead<'_>) -> Option<Found<'r>> {
    let (at, name) = &rule.alternatives[place];
    let Some(at) = at else {
        return Some((rule, None, name));
    };
    let wanted = &rule.source().matches[*at];
    matches(wanted, head).then_some((rule, Some(wanted), name))
}

/// The alternative's condition on the path; absent: it has none.
fn path_of(rule: &Rule, place: usize) -> Option<&HttpMatch> {
    let (at, _) = &rule.alternatives[place];
    at.map(|at| &rule.source().matches[at])
}

impl Index {
    fn new(all: &[Arc<Rule>]) -> Self {
        let mut index = Self::default();
        let mut prefixes: BTreeMap<Str, Vec<u32>> = BTreeMap::new();
        for (number, rule) in all.iter().enumerate() {
            for place in 0..rule.alternatives.len() {
                let position = index.alternatives.len() as u32;
                index.alternatives.push((number, place));
                let wanted = path_of(rule, place).filter(|wanted| !wanted.ignore_uri_case);
                match wanted.and_then(|wanted| wanted.uri.as_ref()) {
                    Some(StringMatch::Exact(path)) => {
                        index.exact.entry(path.clone()).or_default().push(position);
                    }
                    Some(StringMatch::Prefix(path)) => {
                        prefixes.entry(path.clone()).or_default().push(position);
                    }
                    Some(StringMatch::Regex(_) | StringMatch::Present) | None => {
                        index.others.push(position);
                    }
                }
            }
        }
        for (text, alternatives) in prefixes {
            let before = index.prefixes.len().checked_sub(1);
            let shorter = index.longest(before, &text);
            index.prefixes.push(Prefix {
                text,
                alternatives,
                shorter,
            });
        }
        index
    }

    /// The longest prefix of `path`, sought from `last` on: the last in order that is not behind `path`. What begins
    /// `path` begins everything between itself and `path`, so it is `last` or one of its shorter ones.
    fn longest(&self, last: Option<usize>, path: &str) -> Option<usize> {
        let mut at = last;
        while let Some(here) = at {
            if path.starts_with(&*self.prefixes[here].text) {
                return at;
            }
            at = self.prefixes[here].shorter;
        }
        None
    }

    fn find<'r>(&self, all: &'r [Arc<Rule>], head: &RequestHead<'_>) -> Option<Found<'r>> {
        let (path, _) = split_path(head.path);
        let mut best = Best {
            found: None,
            before: u32::MAX,
        };
        let mut offer = |positions: &[u32]| best.offer(positions, self, all, head);
        if let Some(positions) = self.exact.get(path) {
            offer(positions);
        }
        let behind = self.prefixes.partition_point(|p| &*p.text <= path);
        let mut at = self.longest(behind.checked_sub(1), path);
        while let Some(here) = at {
            let prefix = &self.prefixes[here];
            offer(&prefix.alternatives);
            at = prefix.shorter;
        }
        offer(&self.others);
        best.found
    }
}

/// What was found so far.
struct Best<'r> {
    found: Option<Found<'r>>,
    /// Its position: only what comes before it is of interest.
    before: u32,
}

impl<'r> Best<'r> {
    fn offer(
        &mut self,
        positions: &[u32],
        index: &Index,
        all: &'r [Arc<Rule>],
        head: &RequestHead<'_>,
    ) {
        for position in positions.iter().take_while(|p| **p < self.before) {
            let (number, place) = index.alternatives[*position as usize];
            if let Some(found) = meets(&all[number], place, head) {
                (self.found, self.before) = (Some(found), *position);
                return;
            }
        }
    }
}
