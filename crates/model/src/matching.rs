//! Matching of strings, hosts and label selectors as Istio defines it. Pure functions and their data.

use lateen_base::Str;
use regex::Regex;
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;

/// How a string is matched (Istio: `StringMatch`). Exact and prefix are case-sensitive unless said otherwise.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub enum StringMatch {
    /// Equal.
    Exact(Str),
    /// Starts with.
    Prefix(Str),
    /// The whole string matches an RE2-style expression.
    Regex(Pattern),
    /// Any value: the thing only has to be there.
    Present,
}

impl StringMatch {
    /// Whether `value` matches; `ignore_case` concerns exact and prefix only (Istio: `ignoreUriCase`).
    pub fn matches(&self, value: &str, ignore_case: bool) -> bool {
        match self {
            Self::Exact(want) if ignore_case => value.eq_ignore_ascii_case(want),
            Self::Exact(want) => value == &**want,
            Self::Prefix(want) if ignore_case => value
                .get(..want.len())
                .is_some_and(|head| head.eq_ignore_ascii_case(want)),
            Self::Prefix(want) => value.starts_with(&**want),
            Self::Regex(pattern) => pattern.matches(value),
            Self::Present => true,
        }
    }
}

/// A compiled expression that must match the whole value. Equality is that of the source text.
#[derive(Debug, Clone)]
pub struct Pattern {
    source: Str,
    compiled: Regex,
}

/// The expression cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("regex {source_text:?} is not valid RE2 syntax or is too large: {reason}")]
pub struct BadPattern {
    /// The expression as written.
    pub source_text: String,
    /// Why the compiler refused it.
    pub reason: String,
}

impl Pattern {
    /// Compiles `source` for full matches, with a bound on its compiled size (1 MiB) that stands for RE2's program limit.
    ///
    /// # Errors
    /// The expression has a syntax error or compiles to more than the bound.
    pub fn new(source: &str) -> Result<Self, BadPattern> {
        Ok(Self {
            source: source.into(),
            compiled: compile(source, &format!("^(?:{source})$"))?,
        })
    }

    /// Whether the whole of `value` matches.
    pub fn matches(&self, value: &str) -> bool {
        self.compiled.is_match(value)
    }

    /// The expression as the user wrote it.
    pub fn source(&self) -> &str {
        &self.source
    }
}

fn compile(source: &str, whole: &str) -> Result<Regex, BadPattern> {
    regex::RegexBuilder::new(whole)
        .size_limit(1 << 20)
        .build()
        .map_err(|e| BadPattern {
            source_text: source.to_owned(),
            reason: e.to_string(),
        })
}

/// A replacement of every place that an expression finds (RE2: `GlobalReplace`). Equality is that of the source texts.
#[derive(Debug, Clone)]
pub struct Replacement {
    pattern: Str,
    substitution: Str,
    compiled: Regex,
    /// The substitution in the words of the library.
    template: String,
}

/// A substitution that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadReplacement {
    /// Its expression.
    #[error(transparent)]
    Pattern(#[from] BadPattern),
    /// It names a group that the expression does not have.
    #[error(
        "\\{group} is not a group of the expression, which has {groups}: number its groups from 1"
    )]
    Group {
        /// The number after the backslash.
        group: usize,
        /// How many groups there are.
        groups: usize,
    },
    /// A backslash before something that is neither a digit nor a backslash.
    #[error("a backslash stands before {found:?}: write \\1 for a group or \\\\ for a backslash")]
    Escape {
        /// What follows the backslash; empty at the end.
        found: String,
    },
}

impl Replacement {
    /// Compiles an expression, bounded as by [`Pattern::new`], and its substitution: `\1` stands for the first group,
    /// `\0` for all that was found, `\\` for a backslash.
    ///
    /// # Errors
    /// The expression or the substitution cannot be used.
    pub fn new(pattern: &str, substitution: &str) -> Result<Self, BadReplacement> {
        let compiled = compile(pattern, pattern)?;
        let groups = compiled.captures_len() - 1;
        let mut template = String::new();
        let mut rest = substitution.chars();
        while let Some(c) = rest.next() {
            match c {
                '$' => template.push_str("$$"),
                '\\' => match rest.next() {
                    Some('\\') => template.push('\\'),
                    Some(digit) if digit.is_ascii_digit() => {
                        let group = digit as usize - '0' as usize;
                        if group > groups {
                            return Err(BadReplacement::Group { group, groups });
                        }
                        template.push_str(&format!("${{{group}}}"));
                    }
                    other => {
                        let found = other.map(String::from).unwrap_or_default();
                        return Err(BadReplacement::Escape { found });
                    }
                },
                c => template.push(c),
            }
        }
        Ok(Self {
            pattern: pattern.into(),
            substitution: substitution.into(),
            compiled,
            template,
        })
    }

    /// `value` with every place replaced.
    pub fn apply(&self, value: &str) -> String {
        let template = self.template.as_str();
        self.compiled.replace_all(value, template).into_owned()
    }

    /// The expression as the user wrote it.
    pub fn pattern(&self) -> &str {
        &self.pattern
    }

    /// The substitution as the user wrote it.
    pub fn substitution(&self) -> &str {
        &self.substitution
    }
}

impl PartialEq for Replacement {
    fn eq(&self, other: &Self) -> bool {
        (&self.pattern, &self.substitution) == (&other.pattern, &other.substitution)
    }
}

impl Serialize for Replacement {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{} -> {}", self.pattern, self.substitution))
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.source)
    }
}

/// Whether host pattern `pattern` (exact, `*.suffix` or `*`) covers `host`. Both are lower case.
/// `*.example.com` covers `a.example.com` and `*.a.example.com`, not `example.com`.
pub fn host_covers(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some("") => true,
        Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
        None => pattern == host,
    }
}

/// Whether every pair in `selector` is in `labels`. An empty selector selects everything.
pub fn labels_match(selector: &BTreeMap<Str, Str>, labels: &BTreeMap<Str, Str>) -> bool {
    selector
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for (pattern, host, want) in [
            ("*", "a.b", true),
            ("*.example.com", "a.example.com", true),
            ("*.example.com", "example.com", false),
            ("*.example.com", "*.a.example.com", true),
            ("a.b", "a.b", true),
            ("a.b", "x.a.b", false),
        ] {
            assert_eq!(host_covers(pattern, host), want, "{pattern} covers {host}");
        }
    }

    #[test]
    fn regex_matches_the_whole_value() {
        let pattern = Pattern::new("a|ab").expect("valid");
        assert!(pattern.matches("ab") && pattern.matches("a") && !pattern.matches("abc"));
        assert!(Pattern::new("(").is_err());
        assert!(
            Pattern::new("((a{100}){100}){100}").is_err(),
            "a bomb is refused"
        );
    }

    #[test]
    fn replacements() {
        for (pattern, substitution, value, want) in [
            ("/v[0-9]+/", "/", "/v1/v22/x", "/v22/x"),
            ("^/a/([^/]+)/(.*)$", "/\\2/$\\1\\\\", "/a/b/c", "/c/$b\\"),
            ("b", "[\\0]", "abba", "a[b][b]a"),
        ] {
            let replacement = Replacement::new(pattern, substitution).expect("valid");
            assert_eq!(
                replacement.apply(value),
                want,
                "{pattern} -> {substitution}"
            );
        }
        for (pattern, substitution, want) in [
            (
                "(a)",
                "\\2",
                "\\2 is not a group of the expression, which has 1",
            ),
            ("a", "x\\", "a backslash stands before \"\""),
            ("a", "\\q", "a backslash stands before \"q\""),
            ("(", "", "is not valid RE2 syntax"),
        ] {
            let error = Replacement::new(pattern, substitution).expect_err(want);
            assert!(error.to_string().contains(want), "{error}");
        }
    }

    #[test]
    fn case_counts_unless_told() {
        let prefix = StringMatch::Prefix("/Foo".into());
        assert!(!prefix.matches("/foo/bar", false) && prefix.matches("/foo/bar", true));
        assert!(
            !StringMatch::Prefix("/é".into()).matches("/", true),
            "no panic inside a character"
        );
    }
}
