//! Compares what the two proxies did, and holds the differences against the table of known ones.

use crate::case::{Case, Compare};
use crate::seen::Seen;
use anyhow::{Context as _, Result};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Percentage points that a share may be off.
const TOLERANCE: f64 = 17.0;

/// What is not there.
const ABSENT: &str = "(absent)";

/// The differences that are known, with their reasons.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Known {
    differences: Vec<Difference>,
}

/// A difference that is meant to be, or that waits to be mended.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Difference {
    /// The case's name; `*`: any.
    case: String,
    /// Position of the call, from 1; none: any.
    call: Option<usize>,
    /// The line that differs.
    at: String,
    /// What Lateen has there; none: anything.
    lateen: Option<String>,
    /// What Envoy has there; none: anything.
    envoy: Option<String>,
    /// Why.
    reason: String,
}

/// The result so far.
pub struct Report<'a> {
    known: &'a Known,
    /// Differences that were met, by position in the table.
    pub met: BTreeSet<usize>,
    pub problems: Vec<String>,
    pub cases: usize,
    pub requests: usize,
}

impl Known {
    /// Reads the table.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)?;
        serde_saphyr::from_str(&text).with_context(|| format!("{}", path.display()))
    }

    fn position(
        &self,
        (case, call): (&str, usize),
        at: &str,
        (ours, theirs): (&str, &str),
    ) -> Option<usize> {
        self.differences.iter().position(|known| {
            let fits = |wanted: &Option<String>, value: &str| {
                wanted.as_deref().is_none_or(|wanted| wanted == value)
            };
            (known.case == case || known.case == "*")
                && known.call.is_none_or(|known| known == call + 1)
                && known.at == at
                && fits(&known.lateen, ours)
                && fits(&known.envoy, theirs)
        })
    }

    /// A sentence for each difference that is no more.
    pub fn unused(&self, met: &BTreeSet<usize>) -> Vec<String> {
        let gone = |(at, known): (usize, &Difference)| {
            (!met.contains(&at)).then(|| {
                format!(
                    "known.yaml: case {}, {}: this difference is no more, take it out ({})",
                    known.case, known.at, known.reason
                )
            })
        };
        self.differences
            .iter()
            .enumerate()
            .filter_map(gone)
            .collect()
    }
}

impl<'a> Report<'a> {
    pub fn new(known: &'a Known) -> Self {
        Self {
            known,
            met: BTreeSet::new(),
            problems: Vec::new(),
            cases: 0,
            requests: 0,
        }
    }

    /// Adds one case, which both proxies have played.
    pub fn case(&mut self, case: &Case, ours: &[Vec<Seen>], theirs: &[Vec<Seen>]) {
        self.cases += 1;
        self.requests += ours.iter().map(Vec::len).sum::<usize>();
        match &case.compare {
            Compare::Each => self.each(case, ours, theirs),
            Compare::Order => self.each(case, &in_order(ours), &in_order(theirs)),
            Compare::Sticky => {
                for (at, pair) in ours.iter().zip(theirs).enumerate() {
                    self.lines(case, at, spread(pair.0), spread(pair.1));
                }
            }
            Compare::Shares(wanted) => {
                for (name, all) in [("lateen", ours), ("envoy", theirs)] {
                    let found = shares(all);
                    let off = |(upstream, share): (&String, &f64)| {
                        let found = found.get(upstream).copied().unwrap_or(0.0);
                        // What is never chosen, and what always is, leaves nothing to chance.
                        let exact = *share == 0.0 || *share == 100.0;
                        let allowed = if exact { 0.0 } else { TOLERANCE };
                        (found - share).abs() > allowed
                    };
                    let is_other = found.keys().any(|upstream| !wanted.contains_key(upstream));
                    if is_other || wanted.iter().any(off) {
                        self.problems.push(format!(
                            "{}: {name}: shares {found:?}, not {wanted:?}",
                            case.name
                        ));
                    }
                }
            }
        }
    }

    fn each(&mut self, case: &Case, ours: &[Vec<Seen>], theirs: &[Vec<Seen>]) {
        for (at, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
            for (ours, theirs) in ours.iter().zip(theirs) {
                let both = ours.requests.len().min(theirs.requests.len());
                self.lines(case, at, ours.lines(both), theirs.lines(both));
            }
        }
    }

    fn lines(
        &mut self,
        case: &Case,
        call: usize,
        ours: BTreeMap<String, String>,
        theirs: BTreeMap<String, String>,
    ) {
        let names: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
        for name in names {
            let value = |of: &BTreeMap<String, String>| {
                of.get(name).cloned().unwrap_or_else(|| ABSENT.to_owned())
            };
            let (ours, theirs) = (value(&ours), value(&theirs));
            if ours == theirs || case.ignore.contains(name) {
                continue;
            }
            match self
                .known
                .position((&case.name, call), name, (&ours, &theirs))
            {
                Some(at) => {
                    self.met.insert(at);
                }
                None => self.problems.push(format!(
                    "{}, call {}, {name}: lateen {ours:?}, envoy {theirs:?}",
                    case.name,
                    call + 1
                )),
            }
        }
    }
}

/// Endpoints renamed by the order in which they appear.
fn in_order(all: &[Vec<Seen>]) -> Vec<Vec<Seen>> {
    let mut names: Vec<String> = Vec::new();
    let mut all = all.to_vec();
    for request in all.iter_mut().flatten().flat_map(|seen| &mut seen.requests) {
        let at = names.iter().position(|name| *name == request.upstream);
        let at = at.unwrap_or_else(|| {
            names.push(request.upstream.clone());
            names.len() - 1
        });
        request.upstream = format!("endpoint {}", at + 1);
    }
    all
}

/// Whether repetitions of a call meet one endpoint or several, and what each of them is answered.
fn spread(all: &[Seen]) -> BTreeMap<String, String> {
    let met: BTreeSet<&str> = all
        .iter()
        .flat_map(|seen| &seen.requests)
        .map(|request| request.upstream.as_str())
        .collect();
    let statuses: BTreeSet<u16> = all.iter().map(|seen| seen.status).collect();
    let met = match met.len() {
        0 => "none",
        1 => "one",
        _ => "several",
    };
    BTreeMap::from([
        ("endpoints".to_owned(), met.to_owned()),
        ("status".to_owned(), format!("{statuses:?}")),
    ])
}

fn shares(all: &[Vec<Seen>]) -> BTreeMap<String, f64> {
    let mut counts: BTreeMap<String, f64> = BTreeMap::new();
    let mut total = 0.0;
    for request in all.iter().flatten().flat_map(|seen| &seen.requests) {
        *counts.entry(request.upstream.clone()).or_default() += 1.0;
        total += 1.0;
    }
    for count in counts.values_mut() {
        *count *= 100.0 / total;
    }
    counts
}
