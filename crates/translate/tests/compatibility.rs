//! `docs/compatibility.md` against the code: every field of the schemas is on the page, and what the page calls
//! not in force is exactly what translation says so about.

use lateen_api::notice::Notice;
use lateen_translate::alone;
use lateen_translate::mesh::Mesh;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// One object or more for each kind, with every field that has no effect yet or is refused.
const FIXTURE: &str = include_str!("compatibility.yaml");

const KINDS: [&str; 9] = [
    "VirtualService",
    "DestinationRule",
    "Gateway",
    "ServiceEntry",
    "Sidecar",
    "WorkloadEntry",
    "PeerAuthentication",
    "RequestAuthentication",
    "AuthorizationPolicy",
];

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/compatibility.md");
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The page's text below the heading of a kind, up to the next heading.
fn section<'p>(page: &'p str, heading: &str) -> &'p str {
    let from = page
        .find(&format!("\n### {heading}\n"))
        .unwrap_or_else(|| panic!("docs/compatibility.md has no heading {heading}"));
    let text = &page[from + 5..];
    &text[..text.find("\n##").unwrap_or(text.len())]
}

/// Every text between backticks.
fn quoted(text: &str) -> BTreeSet<String> {
    text.split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

/// Fields named in the first column of the section's table.
fn later(section: &str) -> BTreeSet<String> {
    section
        .lines()
        .filter(|line| line.starts_with("| `"))
        .flat_map(|line| quoted(line.split('|').nth(1).unwrap_or_default()))
        .collect()
}

/// `spec.http[0].match[1].uri` as `http[].match[].uri`.
fn general(field: &str) -> String {
    let mut out = String::new();
    let mut inside = false;
    for c in field.trim_start_matches("spec.").chars() {
        match c {
            '[' => (inside, _) = (true, out.push('[')),
            ']' => (inside, _) = (false, out.push(']')),
            _ if inside => {}
            c => out.push(c),
        }
    }
    out
}

/// Every field path of a schema, with `[]` after lists.
fn paths(schema: &Value, path: &str, found: &mut BTreeSet<String>) {
    let Some(properties) = schema["properties"].as_object() else {
        return;
    };
    for (name, below) in properties {
        let (below, list) = match below.get("items") {
            Some(items) => (items, "[]"),
            None => (below, ""),
        };
        let path = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        found.insert(path.clone());
        paths(below, &format!("{path}{list}"), found);
    }
}

/// Whether the page names the field, or a part of the object around it that it does not take to pieces.
fn named(field: &str, names: &BTreeSet<String>) -> bool {
    if names.contains(field) {
        return true;
    }
    let mut above = field;
    while let Some((shorter, _)) = above.rsplit_once('.') {
        above = shorter.trim_end_matches("[]");
        let pieces = [format!("{above}."), format!("{above}[].")];
        let taken_apart = |name: &String| pieces.iter().any(|piece| name.starts_with(piece));
        if names.contains(above) {
            return !names.iter().any(taken_apart);
        }
        if names.iter().any(taken_apart) {
            return false;
        }
    }
    false
}

#[test]
fn every_field_is_on_the_page() {
    let page = page();
    for kind in KINDS {
        let mut fields = BTreeSet::new();
        let schema = lateen_api::crd::spec_schema(kind).expect("a typed kind");
        paths(schema, "", &mut fields);
        let names = quoted(section(&page, kind));
        let has_pieces = |field: &String| {
            let piece = [format!("{field}."), format!("{field}[].")];
            fields
                .iter()
                .any(|f| piece.iter().any(|p| f.starts_with(p)))
        };
        let missing: Vec<_> = fields
            .iter()
            .filter(|field| !has_pieces(field) && !named(field, &names))
            .collect();
        assert!(
            missing.is_empty(),
            "{kind}: not in docs/compatibility.md: {missing:#?}"
        );
        let unknown: Vec<_> = later(section(&page, kind))
            .into_iter()
            .filter(|name| !fields.contains(name.trim_end_matches("[]")))
            .collect();
        assert!(
            unknown.is_empty(),
            "{kind} has no such fields: {unknown:#?}"
        );
    }
}

#[test]
fn what_has_no_effect_says_so_and_is_on_the_page() {
    let page = page();
    let mut said: Vec<(String, String)> = Vec::new();
    for document in lateen_api::yaml::parse("compatibility.yaml", FIXTURE) {
        assert_eq!(document.notices, [], "the fixture names known fields only");
        let object = document.object.as_ref().expect("an Istio object");
        let (_, notices) = alone(object, &Mesh::default());
        let about = |notice: &Notice| (notice.subject.kind.clone(), general(&notice.field));
        said.extend(notices.iter().map(about));
    }
    for kind in KINDS {
        let said: BTreeSet<_> = said
            .iter()
            .filter(|(of, _)| of == kind)
            .map(|(_, field)| field.trim_end_matches("[]").to_owned())
            .collect();
        let shown: BTreeSet<_> = later(section(&page, kind))
            .into_iter()
            .map(|name| name.trim_end_matches("[]").to_owned())
            .collect();
        assert_eq!(
            said, shown,
            "{kind}: what translation says, and the table on the page"
        );
    }
}
