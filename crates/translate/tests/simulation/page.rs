//! `docs/compat.md`: every field of the five kinds, its state, and the cases that show it.
//!
//! A case shows a field when its calls end otherwise without it: the field is taken out of the case's objects and the case
//! runs again. Fields without effect are those that translation tells of, on the fixture of `compatibility.rs`.

use crate::KINDS;
use crate::case::Case;
use crate::fields::{contained, general, leaves, remove};
use crate::run::{Outcome, run};
use crate::world::World;
use lateen_translate::alone;
use lateen_translate::mesh::Mesh;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Objects with every field that has no effect yet or is refused.
const FIXTURE: &str = include_str!("../compatibility.yaml");

/// Fields that no decision depends on and of which nothing is said to users, who must write most of them.
const LABELS: [(&str, &str, &str); 8] = [
    (
        "Gateway",
        "servers[].port.targetPort",
        "deprecated; none in Istio either",
    ),
    ("Sidecar", "egress[].port.name", "a name for people"),
    (
        "Sidecar",
        "egress[].port.protocol",
        "the services' own ports say what is spoken",
    ),
    (
        "Sidecar",
        "egress[].port.targetPort",
        "deprecated; none in Istio either",
    ),
    (
        "Sidecar",
        "inboundConnectionPool.http.h2UpgradePolicy",
        "for what goes out only, as in Istio",
    ),
    (
        "Sidecar",
        "ingress[].connectionPool.http.h2UpgradePolicy",
        "for what goes out only, as in Istio",
    ),
    ("Sidecar", "ingress[].port.name", "a name for people"),
    (
        "Sidecar",
        "ingress[].port.targetPort",
        "deprecated; `defaultEndpoint` says where the application is",
    ),
];

/// Which case shows which field.
#[derive(Default)]
pub struct Shown {
    /// Positions of cases by kind and path.
    by_field: BTreeMap<(String, String), Vec<usize>>,
    /// What is wrong with the cases' own words.
    pub problems: Vec<String>,
}

impl Shown {
    pub fn by(world: &World, cases: &[Case]) -> Self {
        let leaves: BTreeMap<_, _> = KINDS.iter().map(|kind| (*kind, leaves(kind))).collect();
        let mut shown = Self::default();
        for (at, case) in cases.iter().enumerate() {
            let as_written = run(world, case, &case.objects);
            for (kind, path) in &case.fields {
                match leaves.get(kind.as_str()) {
                    Some(leaves) => shown.add(world, (at, case), (kind, path, leaves), &as_written),
                    None => shown.problem(case, format!("{kind} is not on the page")),
                }
            }
        }
        shown
    }

    fn problem(&mut self, case: &Case, text: String) {
        self.problems.push(format!("{}: {text}", case.place()));
    }

    /// Notes a field, or with `.**` every field below.
    fn add(
        &mut self,
        world: &World,
        (at, case): (usize, &Case),
        (kind, path, leaves): (&str, &str, &BTreeSet<String>),
        as_written: &Outcome,
    ) {
        let objects: Vec<_> = case.objects.iter().filter(|o| o["kind"] == kind).collect();
        let below = path.strip_suffix(".**");
        if below.is_none() && !leaves.contains(path) {
            self.problem(case, format!("{kind} has no field {path}"));
            return;
        }
        let there = contained(leaves, below.unwrap_or(path), &objects);
        if there.is_empty() {
            self.problem(case, format!("its objects have no {kind} {path}"));
        }
        for leaf in there {
            let without: Vec<_> = case
                .objects
                .iter()
                .map(|o| taken_out(o, kind, &leaf))
                .collect();
            let changed = run(world, case, &without);
            if changed.plans != as_written.plans || (as_written.refused && !changed.refused) {
                self.by_field
                    .entry((kind.to_owned(), leaf))
                    .or_default()
                    .push(at);
            } else if below.is_none() && changed.notices == as_written.notices {
                self.problem(
                    case,
                    format!("without {kind} {leaf} everything stays as it is"),
                );
            }
        }
    }
}

fn taken_out(object: &Value, kind: &str, path: &str) -> Value {
    let mut object = object.clone();
    if object["kind"] == kind {
        remove(&mut object["spec"], path);
    }
    object
}

/// What translation says of fields without effect, by kind and path.
fn notices() -> BTreeMap<(String, String), (bool, String)> {
    let mut said = BTreeMap::new();
    for document in lateen_api::yaml::parse("compatibility.yaml", FIXTURE) {
        let object = document.object.as_ref().expect("an Istio object");
        for notice in alone(object, &Mesh::default()).1 {
            let field = general(&notice.field);
            let field = field.trim_end_matches("[]").to_owned();
            let key = (notice.subject.kind.clone(), field);
            said.entry(key)
                .or_insert((notice.is_error(), notice.message));
        }
    }
    said
}

/// The same field of the whole host's policy: what is said of it holds for ports and subsets too.
fn twin(field: &str) -> String {
    let field = field.strip_prefix("subsets[].").unwrap_or(field);
    field.replace("trafficPolicy.portLevelSettings[].", "trafficPolicy.")
}

/// The notice about a field, or about something around it.
fn about<'n>(
    said: &'n BTreeMap<(String, String), (bool, String)>,
    kind: &str,
    field: &str,
) -> Option<&'n (bool, String)> {
    let twin = twin(field);
    [field, &twin].into_iter().find_map(|field| {
        let mut part = field;
        loop {
            let key = (kind.to_owned(), part.trim_end_matches("[]").to_owned());
            if let Some(found) = said.get(&key) {
                return Some(found);
            }
            part = part.rsplit_once('.')?.0;
        }
    })
}

/// The page, and the fields that nothing is known of.
pub struct Page {
    pub text: String,
    pub missing: Vec<String>,
}

pub fn render(shown: &Shown, cases: &[Case]) -> Page {
    let said = notices();
    let mut missing = Vec::new();
    let mut summary = String::new();
    let mut tables = String::new();
    for kind in KINDS {
        tables +=
            &format!("\n## {kind}\n\n| field | state | cases | such as |\n|---|---|---|---|\n");
        let mut counts = [0_usize; 4];
        for field in leaves(kind) {
            let by = shown.by_field.get(&(kind.to_owned(), field.clone()));
            let number = by.map_or(0, Vec::len);
            let label = LABELS
                .iter()
                .find(|(k, path, _)| *k == kind && *path == field);
            let (state, at) = match (number, about(&said, kind, &field)) {
                (0, None) if label.is_some() => (
                    format!("no effect: {}", label.map_or("", |(.., why)| why)),
                    2,
                ),
                (0, None) => {
                    missing.push(format!("{kind} {field}"));
                    continue;
                }
                (0, Some((true, message))) => (format!("refused: {message}"), 3),
                (0, Some((false, message))) => (format!("no effect: {message}"), 2),
                (_, Some((_, message))) => (format!("in force, partly: {message}"), 1),
                (_, None) => ("in force".to_owned(), 0),
            };
            counts[at] += 1;
            // The case with the fewest fields is about this one.
            let example = by
                .into_iter()
                .flatten()
                .min_by_key(|at| cases[**at].fields.len());
            let example = example.map_or("", |at| &cases[*at].title);
            tables += &format!(
                "| `{field}` | {} | {number} | {} |\n",
                cell(&state),
                cell(example)
            );
        }
        let [full, partly, none, refused] = counts;
        let of_kind = cases
            .iter()
            .filter(|c| c.fields.iter().any(|(k, _)| k == kind))
            .count();
        summary += &format!("| {kind} | {full} | {partly} | {none} | {refused} | {of_kind} |\n");
    }
    let text = format!("{HEAD}\n{TITLES}{summary}{tables}");
    Page { text, missing }
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

const TITLES: &str = "\
| kind | in force | partly | no effect | refused | cases |
|---|---|---|---|---|---|
";

const HEAD: &str = "\
# Fields

Every field of the five kinds that decide where traffic goes, and what shows that it does. This page is made by
`cargo xtask bless` from the cases in `crates/translate/tests/simulation/cases`, each of which is configuration, calls, and
what becomes of them; do not edit it. What the words mean, and every other kind, is in [compatibility.md](compatibility.md).

*in force*: some case's calls end otherwise when the field is taken out. *in force, partly*: so too, but not every value
has its effect, and what is said about the others stands there. *no effect*: the field is accepted and kept, and whoever
writes it is told. *refused*: the object is not put in force. What is said of a field of `trafficPolicy` holds for the same
field of ports and subsets.
";
