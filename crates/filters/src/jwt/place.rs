//! Where tokens are in a request, and how they are taken out of it.

use http::header::{AUTHORIZATION, COOKIE};
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Uri, request};
use lateen_model::security::JwtRule;
use percent_encoding::percent_decode_str;
use std::borrow::Cow;

/// One place to look in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// A header, with what the token follows in it.
    Header { name: HeaderName, prefix: String },
    /// A query parameter.
    Param(String),
    /// A cookie.
    Cookie(String),
}

/// The places of a rule; a name that no header can have is no place.
pub(super) fn of_rule(rule: &JwtRule) -> Vec<Place> {
    let headers = rule.from_headers.iter().filter_map(|header| {
        let name = HeaderName::try_from(&*header.name).ok()?;
        let prefix = header.prefix.to_string();
        Some(Place::Header { name, prefix })
    });
    let params = rule.from_params.iter().map(|p| Place::Param(p.to_string()));
    let cookies = rule
        .from_cookies
        .iter()
        .map(|c| Place::Cookie(c.to_string()));
    let places: Vec<Place> = headers.chain(params).chain(cookies).collect();
    let none_given = [rule.from_params.len(), rule.from_cookies.len()] == [0, 0];
    if none_given && rule.from_headers.is_empty() {
        let bearer = Place::Header {
            name: AUTHORIZATION,
            prefix: "Bearer ".to_owned(),
        };
        return vec![bearer, Place::Param("access_token".to_owned())];
    }
    places
}

impl Place {
    /// The tokens that are here. A value that is no text is a token that no parser takes.
    pub(super) fn tokens<'r>(&self, head: &'r request::Parts) -> Vec<Cow<'r, str>> {
        match self {
            Self::Header { name, prefix } => {
                let values = head.headers.get_all(name).iter();
                values.filter_map(|v| after(v, prefix)).collect()
            }
            Self::Param(name) => {
                let Some(query) = head.uri.query() else {
                    return Vec::new();
                };
                let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
                pairs
                    .filter(|(key, _)| decoded(key) == *name)
                    .map(|(_, value)| decoded(value))
                    .collect()
            }
            Self::Cookie(name) => {
                let lines = head.headers.get_all(COOKIE).iter();
                let pairs = lines.flat_map(|line| line.as_bytes().split(|b| *b == b';'));
                let values = pairs.filter_map(|pair| cookie(pair, name)?);
                values.map(String::from_utf8_lossy).collect()
            }
        }
    }

    /// Takes the tokens out of the request.
    pub(super) fn clear(&self, head: &mut request::Parts) {
        match self {
            Self::Header { name, prefix } => {
                let values = head.headers.get_all(name).iter();
                let others = values.filter(|value| after(value, prefix).is_none());
                let others: Vec<HeaderValue> = others.cloned().collect();
                head.headers.remove(name);
                for value in others {
                    head.headers.append(name, value);
                }
            }
            Self::Param(name) => clear_param(head, name),
            Self::Cookie(name) => clear_cookie(head, name),
        }
    }
}

// Schemes are case-insensitive (RFC 9110 §11.1): what an application may take for a token is verified.
fn after<'v>(value: &'v HeaderValue, prefix: &str) -> Option<Cow<'v, str>> {
    let bytes = value.as_bytes();
    let (start, rest) = bytes.split_at_checked(prefix.len())?;
    if !start.eq_ignore_ascii_case(prefix.as_bytes()) {
        return None;
    }
    let text = String::from_utf8_lossy(rest);
    Some(match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.trim()),
        Cow::Owned(text) => Cow::Owned(text),
    })
}

fn decoded(text: &str) -> Cow<'_, str> {
    percent_decode_str(text).decode_utf8_lossy()
}

/// The value of a cookie of this name; absent outside: the pair is of another name, inside: it has no value.
fn cookie<'p>(pair: &'p [u8], name: &str) -> Option<Option<&'p [u8]>> {
    let mut sides = pair.splitn(2, |b| *b == b'=');
    let key = sides.next().unwrap_or_default().trim_ascii();
    (key == name.as_bytes()).then_some(())?;
    let value = sides.next().map(|value| {
        let value = value.trim_ascii();
        let quoted = value
            .strip_prefix(b"\"")
            .and_then(|v| v.strip_suffix(b"\""));
        quoted.unwrap_or(value)
    });
    Some(value)
}

/// A path with query whose parameters of these names have no value that is worth anything.
pub(super) fn redacted<'t>(target: &'t str, names: &[&str]) -> Cow<'t, str> {
    let Some((path, query)) = target.split_once('?') else {
        return Cow::Borrowed(target);
    };
    let key = |pair: &'t str| pair.split('=').next().unwrap_or_default();
    let is_secret = |pair: &str| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        !value.is_empty() && names.contains(&&*decoded(key))
    };
    if !query.split('&').any(is_secret) {
        return Cow::Borrowed(target);
    }
    let pairs = query.split('&').map(|pair| match is_secret(pair) {
        true => format!("{}=redacted", key(pair)),
        false => pair.to_owned(),
    });
    let pairs: Vec<String> = pairs.collect();
    Cow::Owned(format!("{path}?{}", pairs.join("&")))
}

fn clear_param(head: &mut request::Parts, name: &str) {
    let (path, Some(query)) = (head.uri.path(), head.uri.query()) else {
        return;
    };
    let left: Vec<&str> = query
        .split('&')
        .filter(|pair| decoded(pair.split('=').next().unwrap_or_default()) != name)
        .collect();
    let target = if left.is_empty() {
        path.to_owned()
    } else {
        format!("{path}?{}", left.join("&"))
    };
    let Ok(target) = target.parse::<PathAndQuery>() else {
        return;
    };
    let mut parts = head.uri.clone().into_parts();
    parts.path_and_query = Some(target);
    if let Ok(uri) = Uri::from_parts(parts) {
        head.uri = uri;
    }
}

fn clear_cookie(head: &mut request::Parts, name: &str) {
    let lines: Vec<HeaderValue> = head.headers.get_all(COOKIE).iter().cloned().collect();
    head.headers.remove(COOKIE);
    for line in lines {
        let pairs = line.as_bytes().split(|b| *b == b';');
        let left: Vec<&[u8]> = pairs
            .map(<[u8]>::trim_ascii)
            .filter(|pair| cookie(pair, name).is_none())
            .collect();
        if let Ok(value) = HeaderValue::from_bytes(&left.join(&b"; "[..]))
            && !left.is_empty()
        {
            head.headers.append(COOKIE, value);
        }
    }
}
