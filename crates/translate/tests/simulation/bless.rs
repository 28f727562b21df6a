//! Writes plans and notices into case files: what is there is replaced line by line, everything else is kept.

use crate::case::{Call, Case};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

/// Changes by file.
#[derive(Default)]
pub struct Edits(BTreeMap<PathBuf, Vec<Edit>>);

/// Lines from `line` on (from 1), with those below it that are indented more, become `text`.
struct Edit {
    line: usize,
    /// The key whose value is replaced; where the line has another key, `text` is added after (or, for notices, before).
    key: &'static str,
    text: Vec<String>,
}

impl Edits {
    pub fn plan(&mut self, case: &Case, call: &Call, plan: &str) {
        let text = match plan.lines().count() {
            1 => vec![format!("plan: {}", scalar(plan))],
            _ => {
                let lines = plan.lines().map(|line| format!("  {line}"));
                std::iter::once("plan: |".to_owned()).chain(lines).collect()
            }
        };
        self.add(
            case,
            Edit {
                line: call.line,
                key: "plan",
                text,
            },
        );
    }

    pub fn notices(&mut self, case: &Case, notices: &[String]) {
        let lines = notices
            .iter()
            .map(|notice| format!("  - {}", scalar(notice)));
        let text = match notices.is_empty() {
            true => Vec::new(),
            false => std::iter::once("notices:".to_owned())
                .chain(lines)
                .collect(),
        };
        self.add(
            case,
            Edit {
                line: case.notices_line,
                key: "notices",
                text,
            },
        );
    }

    fn add(&mut self, case: &Case, edit: Edit) {
        self.0.entry(case.file.clone()).or_default().push(edit);
    }

    /// Writes the files.
    pub fn write(self) {
        for (file, mut edits) in self.0 {
            let text = fs::read_to_string(&file).expect("a case file");
            let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
            edits.sort_by_key(|edit| (edit.line, edit.key == "plan"));
            for edit in edits.into_iter().rev() {
                edit.apply(&mut lines);
            }
            fs::write(&file, lines.join("\n") + "\n").expect("a case file");
        }
    }
}

impl Edit {
    fn apply(self, lines: &mut Vec<String>) {
        let at = self.line - 1;
        let content = lines[at].trim_start_matches([' ', '-']);
        let indent = lines[at].len() - content.len();
        let is_there = content.starts_with(&format!("{}:", self.key));
        let pad = |line: &String| format!("{}{line}", " ".repeat(indent));
        let new: Vec<_> = self.text.iter().map(pad).collect();
        let range = match (is_there, self.key) {
            (true, _) => {
                let more = |line: &&String| {
                    !line.is_empty() && line.len() - line.trim_start().len() > indent
                };
                at..at + 1 + lines[at + 1..].iter().take_while(more).count()
            }
            (false, "plan") => at + 1..at + 1,
            (false, _) => at..at,
        };
        lines.splice(range, new);
    }
}

/// A text of one line in YAML.
fn scalar(text: &str) -> String {
    let risky = text.contains(": ")
        || text.contains(" #")
        || text.ends_with(':')
        || text.starts_with(|c: char| !c.is_alphanumeric());
    let number = text.parse::<f64>().is_ok();
    match risky || number {
        true => format!("'{}'", text.replace('\'', "''")),
        false => text.to_owned(),
    }
}
