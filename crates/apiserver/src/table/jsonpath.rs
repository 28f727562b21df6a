//! The JSONPath of printer columns: fields, indexes, quoted fields, and filters on equality.

use serde_json::Value;

/// A parsed path. Parts that are not understood select nothing.
#[derive(Debug)]
pub(super) struct Path(Vec<Step>);

#[derive(Debug)]
enum Step {
    Field(String),
    Index(i64),
    /// `[*]`: the first item stands for all, as printing one cell needs.
    Any,
    /// `[?(@.type=="Ready")]`.
    Filter(Vec<String>, String),
    Nothing,
}

impl Path {
    pub(super) fn parse(text: &str) -> Self {
        let mut steps = Vec::new();
        let mut rest = text.trim().trim_start_matches('$');
        while !rest.is_empty() {
            if let Some(inner) = rest.strip_prefix('[') {
                let (step, after) = bracket(inner);
                steps.push(step);
                rest = after;
                continue;
            }
            rest = rest.trim_start_matches('.');
            let mut name = String::new();
            let mut chars = rest.char_indices();
            let mut end = rest.len();
            while let Some((index, c)) = chars.next() {
                match c {
                    // Dots in labels and annotations are escaped.
                    '\\' => name.extend(chars.next().map(|(_, c)| c)),
                    '.' | '[' => {
                        end = index;
                        break;
                    }
                    c => name.push(c),
                }
            }
            rest = &rest[end..];
            if !name.is_empty() {
                steps.push(Step::Field(name));
            }
        }
        Self(steps)
    }

    pub(super) fn find<'a>(&self, value: &'a Value) -> Option<&'a Value> {
        self.0.iter().try_fold(value, |value, step| match step {
            Step::Field(name) => value.get(name),
            Step::Index(index) => {
                let items = value.as_array()?;
                let index = if *index < 0 {
                    i64::try_from(items.len()).ok()? + index
                } else {
                    *index
                };
                items.get(usize::try_from(index).ok()?)
            }
            Step::Any => value.as_array()?.first(),
            Step::Filter(path, wanted) => value.as_array()?.iter().find(|item| {
                let found = path.iter().try_fold(*item, |value, part| value.get(part));
                match found {
                    Some(Value::String(text)) => text == wanted,
                    Some(Value::Bool(truth)) => wanted.parse() == Ok(*truth),
                    Some(other) => {
                        serde_json::from_str::<Value>(wanted).is_ok_and(|wanted| wanted == *other)
                    }
                    None => false,
                }
            }),
            Step::Nothing => None,
        })
    }
}

fn bracket(inner: &str) -> (Step, &str) {
    let Some(end) = closing(inner) else {
        return (Step::Nothing, "");
    };
    let (body, after) = (inner[..end].trim(), &inner[end + 1..]);
    let unquote = |text: &str| text.trim().trim_matches(['\'', '"']).to_owned();
    let step = if body == "*" {
        Step::Any
    } else if let Ok(index) = body.parse() {
        Step::Index(index)
    } else if body.starts_with(['\'', '"']) {
        Step::Field(unquote(body))
    } else {
        let filter = body
            .strip_prefix("?(")
            .and_then(|rest| rest.strip_suffix(')'))
            .and_then(|text| text.split_once("=="));
        match filter {
            Some((path, wanted)) => {
                let path = path.trim().trim_start_matches('@').trim_start_matches('.');
                Step::Filter(
                    path.split('.').map(str::to_owned).collect(),
                    unquote(wanted),
                )
            }
            None => Step::Nothing,
        }
    };
    (step, after)
}

/// Position of the bracket's end, quotes respected.
fn closing(text: &str) -> Option<usize> {
    let mut quote = None;
    for (index, c) in text.char_indices() {
        match (quote, c) {
            (None, ']') => return Some(index),
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            _ => {}
        }
    }
    None
}
