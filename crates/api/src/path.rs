//! Field paths such as `spec.http[0].headers["end-user.id"]`: written by checks, read to find a line.

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// A key of a mapping.
    Key(String),
    /// A position in a list.
    Index(usize),
}

/// `path` extended by a key; keys that are not plain words are quoted.
pub fn key(path: &str, key: &str) -> String {
    let plain = !key.is_empty()
        && key
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    match (plain, path.is_empty()) {
        (true, true) => key.to_owned(),
        (true, false) => format!("{path}.{key}"),
        (false, _) => format!("{path}[{}]", serde_json::Value::from(key)),
    }
}

/// `path` extended by a position.
pub fn index(path: &str, index: usize) -> String {
    format!("{path}[{index}]")
}

/// The steps of a path; stops at the first part that cannot be read.
pub(crate) fn steps(path: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        rest = rest.strip_prefix('.').unwrap_or(rest);
        if let Some(inside) = rest.strip_prefix('[') {
            let Some((step, after)) = bracket(inside) else {
                break;
            };
            steps.push(step);
            rest = after;
        } else {
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            if word.is_empty() {
                break;
            }
            steps.push(Step::Key(word.to_owned()));
            rest = after;
        }
    }
    steps
}

/// The step that begins after `[`, and the text after its `]`.
fn bracket(inside: &str) -> Option<(Step, &str)> {
    if inside.starts_with('"') {
        let mut stream = serde_json::Deserializer::from_str(inside).into_iter::<String>();
        let key = stream.next()?.ok()?;
        let after = inside.get(stream.byte_offset()..)?.strip_prefix(']')?;
        return Some((Step::Key(key), after));
    }
    let (number, after) = inside.split_once(']')?;
    Some((Step::Index(number.parse().ok()?), after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let path = key(&index(&key("spec", "http"), 2), "a.b/\"c\"]");
        assert_eq!(path, r#"spec.http[2]["a.b/\"c\"]"]"#);
        let want = [
            Step::Key("spec".into()),
            Step::Key("http".into()),
            Step::Index(2),
            Step::Key("a.b/\"c\"]".into()),
        ];
        assert_eq!(steps(&path), want);
        assert_eq!(steps("a[x].b"), [Step::Key("a".into())]);
    }
}
