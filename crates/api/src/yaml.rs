//! YAML (and JSON) text to documents with line numbers, and back. The only place that knows the YAML library.
//!
//! Documents are parsed one by one: what is wrong with one leaves the others alone.

mod tree;

use crate::check::{Unknown, check};
use crate::notice::{Notice, Place, Subject, any_error};
use crate::object::{Object, Untyped, from_json};
use crate::path::{Step, steps};
use crate::{kinds, kubernetes};
use serde_json::Value;
use tree::{Content, Node};

/// Longest text that is read: 16 MiB.
pub const MAX_TEXT: usize = 16 << 20;

/// One document of a text, or one item of a `List`.
#[derive(Debug, Clone)]
pub struct Document {
    /// File name as the user gave it.
    pub file: String,
    /// Line where it begins, from 1.
    pub line: usize,
    /// The whole document as written, nulls included; null when it is not valid YAML.
    pub value: Value,
    /// The object; absent when a notice is an error.
    pub object: Option<Object>,
    /// What was found while reading, with places.
    pub notices: Vec<Notice>,
    tree: Node,
}

impl Document {
    /// Line of a field such as `spec.http[0].route`: of the deepest part of the path that exists.
    pub fn line_of(&self, field: &str) -> usize {
        line_in(&self.tree, self.line, field)
    }

    /// Adds file and line to notices about this document that came from elsewhere, such as validation.
    pub fn place(&self, notices: &mut [Notice]) {
        for notice in notices.iter_mut().filter(|n| n.place.is_none()) {
            notice.place = Some(Place {
                file: self.file.clone(),
                line: self.line_of(&notice.field),
            });
        }
    }
}

/// Parses a text of any number of documents. `file` is only for notices. Lists are taken apart into their items;
/// documents without content are left out.
pub fn parse(file: &str, text: &str) -> Vec<Document> {
    if text.len() > MAX_TEXT {
        let message = format!(
            "the text is {} bytes long; at most {MAX_TEXT} are read: split it",
            text.len()
        );
        return vec![broken(file, 1, message)];
    }
    let mut documents = Vec::new();
    for (first_line, chunk) in chunks(text) {
        match tree::parse(chunk, first_line) {
            Ok(node) if node.is_empty() => {}
            Ok(node) => read(file, node, &mut documents),
            Err(bad) => documents.push(broken(file, bad.line, bad.message)),
        }
    }
    documents
}

/// A value as YAML text, ending in a line break.
pub fn render(value: &Value) -> String {
    // Serialising a JSON value to a string has no way to fail: no IO, no custom types.
    let mut text = serde_saphyr::to_string(value).expect("a JSON value is always valid YAML");
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// Looks up the line of a field path.
pub type Lines = Box<dyn Fn(&str) -> usize>;

/// Parses a text that is one document without being an object, such as MeshConfig: the value, and the line of each
/// field. Empty text is null.
///
/// # Errors
/// The text is not YAML: the line and a sentence.
pub fn plain(text: &str) -> Result<(Value, Lines), (usize, String)> {
    if text.len() > MAX_TEXT {
        return Err((1, format!("is longer than {MAX_TEXT} bytes: shorten it")));
    }
    let tree = if text.trim().is_empty() {
        Node::empty(1)
    } else {
        tree::parse(text, 1).map_err(|bad| (bad.line, bad.message))?
    };
    let value = tree.to_value();
    Ok((value, Box::new(move |field| line_in(&tree, 1, field))))
}

fn line_in(tree: &Node, first: usize, field: &str) -> usize {
    let mut node = tree;
    let mut line = first;
    for step in steps(field) {
        let below = match &step {
            Step::Key(key) => node.member(key),
            Step::Index(index) => node.item(*index),
        };
        let Some((at, below)) = below else { break };
        line = at;
        node = below;
    }
    line
}

fn read(file: &str, node: Node, documents: &mut Vec<Document>) {
    let value = node.to_value();
    let is_list = value["kind"]
        .as_str()
        .is_some_and(|kind| kind.ends_with("List") && value["metadata"]["name"].is_null());
    if is_list
        && let Some((
            _,
            Node {
                content: Content::List(items),
                ..
            },
        )) = node.member("items")
    {
        for item in items {
            read(file, item.clone(), documents);
        }
        return;
    }
    let (mut object, mut notices) = from_json(value.clone());
    if let Some(Object::Kubernetes(untyped)) = &object {
        notices.extend(check_kubernetes(untyped));
        if any_error(&notices) {
            object = None;
        }
    }
    let mut document = Document {
        file: file.to_owned(),
        line: node.line,
        value,
        object,
        notices: Vec::new(),
        tree: node,
    };
    document.place(&mut notices);
    notices.sort_by_key(|n| n.place.as_ref().map(|p| p.line));
    document.notices = notices;
    documents.push(document);
}

/// Kubernetes objects are checked in files only: from an API server they come checked.
fn check_kubernetes(untyped: &Untyped) -> Vec<Notice> {
    let subject = Subject::new(&untyped.kind, &untyped.meta);
    kinds::find(&untyped.api_version, &untyped.kind)
        .and_then(kubernetes::schema)
        .map(|schema| check(&schema, &untyped.value, "", &subject, Unknown::Warning))
        .unwrap_or_default()
}

fn broken(file: &str, line: usize, message: String) -> Document {
    let mut notice = Notice::error(&Subject::default(), "", message);
    notice.place = Some(Place {
        file: file.to_owned(),
        line,
    });
    Document {
        file: file.to_owned(),
        line,
        value: Value::Null,
        object: None,
        notices: vec![notice],
        tree: Node::empty(line),
    }
}

/// Documents of a text with the number of their first line. A line that starts with `---` or is `...` ends one
/// (YAML 1.2 §9.1.2: at the start of a line these are always markers, whatever is open).
fn chunks(text: &str) -> Vec<(usize, &str)> {
    let mut chunks = Vec::new();
    let (mut start, mut first_line) = (0, 1);
    let mut at = 0;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let bare = line.trim_end();
        let marker = bare == "..." || bare == "---" || line.starts_with("--- ");
        if marker && at > start {
            chunks.push((first_line, &text[start..at]));
        }
        if marker {
            // The marker's own line stays with what follows it: `--- # comment` and `--- {a: b}` are allowed.
            let skip = if bare == "..." { line.len() } else { 0 };
            start = at + skip;
            first_line = number + 1 + usize::from(skip > 0);
        }
        at += line.len();
    }
    if at > start {
        chunks.push((first_line, &text[start..at]));
    }
    chunks
}

#[cfg(test)]
mod tests;
