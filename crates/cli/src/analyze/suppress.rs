//! `--suppress CODE=KIND NAME.NAMESPACE`: what is not to be told. `*` stands for any text in the name.

use anyhow::{Result, bail};
use lateen_api::notice::Notice;

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Suppressions(Vec<(String, String)>);

impl Suppressions {
    /// Reads what the user gave.
    pub fn parse(texts: &[String]) -> Result<Self> {
        let mut all = Vec::new();
        for text in texts {
            let Some((code, name)) = text.split_once('=') else {
                bail!(
                    "--suppress {text:?} is not CODE=KIND NAME.NAMESPACE, such as \"IST0102=Namespace test\""
                );
            };
            all.push((code.trim().to_owned(), name.trim().to_owned()));
        }
        Ok(Self(all))
    }

    /// Whether a notice is not to be told.
    pub fn cover(&self, notice: &Notice) -> bool {
        let subject = &notice.subject;
        let name = match &*subject.namespace {
            "" => format!("{} {}", subject.kind, subject.name),
            namespace => format!("{} {}.{namespace}", subject.kind, subject.name),
        };
        let fits = |(code, pattern): &(String, String)| {
            notice.code == Some(code) && is_like(pattern, &name)
        };
        self.0.iter().any(fits)
    }
}

/// Whether `text` is what `pattern` says.
fn is_like(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(tail) = text.strip_prefix(start) else {
        return false;
    };
    let cuts = tail.char_indices().map(|(at, _)| at).chain([tail.len()]);
    cuts.into_iter().any(|at| is_like(rest, &tail[at..]))
}

#[cfg(test)]
mod tests {
    use super::is_like;

    #[test]
    fn patterns() {
        for (pattern, text, want) in [
            ("Pod a.b", "Pod a.b", true),
            ("Pod a.b", "Pod a.c", false),
            ("Pod *.b", "Pod a.b", true),
            ("*", "anything", true),
            ("Pod a-*.b", "Pod a-1-2.b", true),
            ("Pod a-*.b", "Pod a.b", false),
            ("*x*x", "xx", true),
        ] {
            assert_eq!(is_like(pattern, text), want, "{pattern} {text}");
        }
    }
}
