//! What users write, call by call: each case is configuration in Istio's YAML, calls, and what becomes of them.
//! `docs/compat.md` is made from the same cases. Nothing is sent anywhere: the plans are the proxy's own decisions.
//!
//! Write a new case without `plan`, run `UPDATE_EXPECT=1 cargo test -p lateen-translate --test simulation`, and read what
//! stands there then: is it what Istio's documentation says?

#[path = "simulation/bless.rs"]
mod bless;
#[path = "simulation/call.rs"]
mod call;
#[path = "simulation/case.rs"]
mod case;
#[path = "simulation/cluster.rs"]
mod cluster;
#[path = "simulation/demand.rs"]
mod demand;
#[path = "simulation/fields.rs"]
mod fields;
#[path = "simulation/page.rs"]
mod page;
#[path = "simulation/run.rs"]
mod run;
#[path = "simulation/show.rs"]
mod show;
#[path = "simulation/world.rs"]
mod world;

use case::Case;
use run::Outcome;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use world::World;

/// The kinds that the page is about.
const KINDS: [&str; 5] = [
    "VirtualService",
    "DestinationRule",
    "Gateway",
    "ServiceEntry",
    "Sidecar",
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/simulation")
}

fn is_blessing() -> bool {
    std::env::var_os("UPDATE_EXPECT").is_some_and(|value| value == "1")
}

/// Every case, in order of the files' names.
fn cases() -> Vec<Case> {
    let entries = fs::read_dir(folder().join("cases")).expect("cases");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("entry").path()).collect();
    files.sort();
    let cases: Vec<_> = files.iter().flat_map(|file| case::read(file)).collect();
    let mut titles = BTreeMap::new();
    for case in &cases {
        let before = titles.insert(case.title.clone(), case.place());
        assert_eq!(
            before,
            None,
            "{}: the title is another case's",
            case.place()
        );
    }
    cases
}

#[test]
fn every_call_goes_where_its_case_says() {
    let world = World::read(&folder().join("world.yaml"));
    let mut wrong = Vec::new();
    let mut edits = bless::Edits::default();
    for case in &cases() {
        let outcome = run::run(&world, case, &case.objects);
        for (call, plan) in case.calls.iter().zip(&outcome.plans) {
            if call.plan.as_ref() == Some(plan) {
                continue;
            }
            edits.plan(case, call, plan);
            let want = call.plan.as_deref().unwrap_or("(none)");
            wrong.push(format!(
                "{}: {}\n  call {}\n--- the case says\n{want}\n--- it is\n{plan}",
                case.place(),
                case.title,
                call.text
            ));
        }
        if let Some(problem) = about_notices(case, &outcome) {
            edits.notices(case, &outcome.notices);
            wrong.push(problem);
        }
    }
    if is_blessing() {
        edits.write();
        return;
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n\n")
    );
}

#[test]
fn proxies_that_are_told_on_demand_decide_the_same() {
    let world = World::read(&folder().join("world.yaml"));
    let mut wrong = Vec::new();
    for case in &cases() {
        let plans = run::run_on_demand(&world, case);
        for (call, plan) in case.calls.iter().zip(&plans) {
            if call.plan.as_ref() != Some(plan) && !is_passed_as_http(call.plan.as_deref(), plan) {
                let want = call.plan.as_deref().unwrap_or("(none)");
                wrong.push(format!(
                    "{}: {}\n  call {}\n--- the case says\n{want}\n--- on demand it is\n{plan}",
                    case.place(),
                    case.title,
                    call.text
                ));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new(), "{} wrong", wrong.len());
}

/// The one difference: which ports are HTTP somewhere is not known, so HTTP to an address that nobody has is seen to be
/// HTTP, whatever the port. It goes where its bytes would have gone.
fn is_passed_as_http(everything: Option<&str>, on_demand: &str) -> bool {
    everything == Some("tcp PassthroughCluster -> the address that was called")
        && on_demand == "PassthroughCluster -> the address that was called (allow_any)"
}

/// Every notice is expected, and every expected notice comes.
fn about_notices(case: &Case, outcome: &Outcome) -> Option<String> {
    let said = &outcome.notices;
    let unexpected = said
        .iter()
        .filter(|notice| !case.notices.iter().any(|want| notice.contains(want)));
    let missing = case
        .notices
        .iter()
        .filter(|want| !said.iter().any(|notice| notice.contains(*want)));
    let unexpected: Vec<_> = unexpected.map(|n| format!("  unexpected: {n}")).collect();
    let missing: Vec<_> = missing.map(|n| format!("  missing: {n}")).collect();
    let lines = [unexpected, missing].concat();
    (!lines.is_empty()).then(|| {
        format!(
            "{}: {}: notices\n{}",
            case.place(),
            case.title,
            lines.join("\n")
        )
    })
}

#[test]
fn the_page_lists_every_field_with_what_shows_it() {
    let world = World::read(&folder().join("world.yaml"));
    let cases = cases();
    let shown = page::Shown::by(&world, &cases);
    assert_eq!(
        shown.problems,
        Vec::<String>::new(),
        "cases that do not show what they name"
    );
    let page = page::render(&shown, &cases);
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/compat.md");
    if is_blessing() {
        fs::write(&file, &page.text).expect("docs/compat.md");
    }
    assert!(
        page.missing.is_empty(),
        "{} fields are shown by no case and no notice is about them: {:#?}",
        page.missing.len(),
        page.missing
    );
    assert!(cases.len() >= 250, "only {} cases", cases.len());
    let there = fs::read_to_string(&file).unwrap_or_default();
    assert!(
        there == page.text,
        "docs/compat.md is out of date: run UPDATE_EXPECT=1 cargo test -p lateen-translate --test simulation"
    );
}
