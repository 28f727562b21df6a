//! New paths for rewritten requests.

use super::matcher::split_path;
use crate::matching::{Replacement, StringMatch};
use crate::route::HttpMatch;

/// The path with every place replaced that an expression finds in it; the query stays.
pub(super) fn by_regex(regex: &Replacement, target: &str) -> String {
    let (path, query) = split_path(target);
    let mut new = regex.apply(path);
    if let Some(query) = query {
        new.push('?');
        new.push_str(query);
    }
    new
}

/// The path with query after a rewrite to `uri`. A matched prefix is replaced; a rule without path
/// match counts as prefix `/`; after an exact or regex match the whole path is replaced.
pub(super) fn path(uri: &str, matched: Option<&HttpMatch>, target: &str) -> String {
    let (path, query) = split_path(target);
    let prefix = match matched.and_then(|m| m.uri.as_ref()) {
        None | Some(StringMatch::Present) => Some("/"),
        Some(StringMatch::Prefix(prefix)) => Some(&**prefix),
        Some(StringMatch::Exact(_) | StringMatch::Regex(_)) => None,
    };
    let mut new = uri.to_owned();
    if let Some(rest) = prefix.and_then(|p| path.get(p.len()..)) {
        // `/api` to `/` must make `/x` of `/api/x`, not `//x`.
        let rest = match rest.strip_prefix('/') {
            Some(tail) if uri.ends_with('/') => tail,
            _ => rest,
        };
        new.push_str(rest);
    }
    if let Some(query) = query.filter(|_| !uri.contains('?')) {
        new.push('?');
        new.push_str(query);
    }
    new
}
