//! A YAML document as a tree that remembers lines.

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::Spanned;
use std::fmt;

/// Nesting deeper than this is refused (Kubernetes' JSON decoder has a bound too): no stack can overflow later.
const MAX_DEPTH: usize = 128;

/// A value and the line where it begins.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) content: Content,
}

/// What a node holds.
#[derive(Debug, Clone)]
pub(super) enum Content {
    Scalar(Value),
    List(Vec<Node>),
    Map(Vec<Member>),
}

/// One entry of a mapping: key, the key's line, value.
type Member = (String, usize, Node);

/// Text that is not YAML: the line, and a sentence.
pub(super) struct Bad {
    pub(super) line: usize,
    pub(super) message: String,
}

/// Parses one document that begins on line `first_line` of its file.
pub(super) fn parse(text: &str, first_line: usize) -> Result<Node, Bad> {
    // YAML 1.1 octal modes (`defaultMode: 0644`) are what kubectl reads.
    let options = serde_saphyr::options! {
        legacy_octal_numbers: true,
        emit_comments: false,
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: 100_000 },
    };
    let mut node: Node =
        serde_saphyr::from_str_with_options(text, options).map_err(|e| bad(&e, first_line))?;
    node.settle(first_line, 0).map_err(|()| Bad {
        line: first_line,
        message: format!("is nested deeper than {MAX_DEPTH} levels: flatten it"),
    })?;
    Ok(node)
}

fn bad(error: &serde_saphyr::Error, first_line: usize) -> Bad {
    let line = error
        .location()
        .and_then(|location| usize::try_from(location.line()).ok())
        .unwrap_or(1)
        .max(1);
    let text = error.without_snippet().to_string();
    // The library repeats the place, counted from the document's own first line, which would mislead.
    let said = text.split(" at line ").next().unwrap_or(&text);
    let said = said
        .split_once(": ")
        .filter(|(head, _)| head.starts_with("error: line"))
        .map_or(said, |(_, tail)| tail);
    Bad {
        line: first_line + line - 1,
        message: format!("is not valid YAML: {}", said.lines().next().unwrap_or(said)),
    }
}

impl Node {
    pub(super) fn empty(line: usize) -> Self {
        Self {
            line,
            content: Content::Scalar(Value::Null),
        }
    }

    /// Whether there is nothing in the document.
    pub(super) fn is_empty(&self) -> bool {
        matches!(self.content, Content::Scalar(Value::Null))
    }

    /// The key's line and the value of a mapping's entry.
    pub(super) fn member(&self, name: &str) -> Option<(usize, &Node)> {
        let Content::Map(members) = &self.content else {
            return None;
        };
        let (_, line, node) = members.iter().find(|(key, ..)| key == name)?;
        Some((*line, node))
    }

    /// The line and value of a list's entry.
    pub(super) fn item(&self, index: usize) -> Option<(usize, &Node)> {
        let Content::List(items) = &self.content else {
            return None;
        };
        items.get(index).map(|node| (node.line, node))
    }

    /// The value without lines.
    pub(super) fn to_value(&self) -> Value {
        match &self.content {
            Content::Scalar(value) => value.clone(),
            Content::List(items) => items.iter().map(Self::to_value).collect(),
            Content::Map(members) => Value::Object(
                members
                    .iter()
                    .map(|(key, _, node)| (key.clone(), node.to_value()))
                    .collect::<Map<_, _>>(),
            ),
        }
    }

    /// Turns lines of the document into lines of the file, and refuses too deep nesting.
    fn settle(&mut self, first_line: usize, depth: usize) -> Result<(), ()> {
        if depth > MAX_DEPTH {
            return Err(());
        }
        let shift = |line: &mut usize| *line = (*line).max(1) + first_line - 1;
        shift(&mut self.line);
        match &mut self.content {
            Content::Scalar(_) => {}
            Content::List(items) => {
                for item in items {
                    item.settle(first_line, depth + 1)?;
                }
            }
            Content::Map(members) => {
                for (_, line, node) in members {
                    shift(line);
                    node.settle(first_line, depth + 1)?;
                }
            }
        }
        Ok(())
    }
}

fn line_of<T>(spanned: &Spanned<T>) -> usize {
    usize::try_from(spanned.referenced.line()).unwrap_or(1)
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Content>::deserialize(deserializer)?;
        Ok(Self {
            line: line_of(&spanned),
            content: spanned.value,
        })
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a mapping, a list or a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Content, E> {
        Ok(Content::Scalar(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Content, E> {
        Ok(Content::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Content, E> {
        Ok(Content::Scalar(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Content, E> {
        Number::from_f64(value)
            .map(|number| Content::Scalar(Value::Number(number)))
            .ok_or_else(|| E::custom("infinity and NaN have no place in an object"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Content, E> {
        Ok(Content::Scalar(value.into()))
    }

    fn visit_unit<E>(self) -> Result<Content, E> {
        Ok(Content::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Content, E> {
        Ok(Content::Scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Content, D::Error> {
        Content::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Content, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Content::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Content, A::Error> {
        let mut members = Vec::new();
        while let Some((key, node)) = access.next_entry::<Spanned<String>, Node>()? {
            members.push((key.value.clone(), line_of(&key), node));
        }
        Ok(Content::Map(members))
    }
}
