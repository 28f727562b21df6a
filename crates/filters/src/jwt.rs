//! Tokens of requests: found, verified, taken off, told onward (Istio: RequestAuthentication). Whether a request may
//! pass without a token is decided by policies, not here.

mod keys;
mod parse;
mod place;
mod problem;
mod verified;

pub use problem::JwtError;

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderName, HeaderValue, request};
use keys::KeySet;
use lateen_model::decide::authz::Token;
use lateen_model::security::{JwtKeys, JwtRule};
use parse::Parsed;
use place::Place;
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::cell::RefCell;
use std::sync::Arc;
use verified::{Kept, Verified};

/// Seconds by which clocks may differ (Envoy's default).
const SKEW: u64 = 60;

/// Tokens of one request; each costs a signature.
const MOST_TOKENS: usize = 8;

/// Claims that are lists separated by spaces, whatever the rule says (Istio).
const SPACED: [&str; 2] = ["scope", "permission"];

/// Headers that frame or address a message: no claim goes there.
const FRAMING: [HeaderName; 7] = [
    CONNECTION,
    CONTENT_LENGTH,
    HOST,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// A token that is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rejected {
    /// Why.
    pub why: JwtError,
    /// Position of the rule that looked at it last; absent: none did.
    pub rule: Option<usize>,
}

impl From<JwtError> for Rejected {
    fn from(why: JwtError) -> Self {
        Self { why, rule: None }
    }
}

/// The rules of one proxy, compiled; one per worker and set of rules.
#[derive(Debug)]
pub struct Authenticator {
    rules: Vec<Compiled>,
    /// Where to look, and the rules that look there.
    places: Vec<(Place, Vec<usize>)>,
    /// Headers that only we may write.
    ours: Vec<HeaderName>,
}

#[derive(Debug)]
struct Compiled {
    issuer: Option<String>,
    audiences: Vec<String>,
    keys: Result<KeySet, JwtError>,
    forward: bool,
    payload_header: Option<HeaderName>,
    claim_headers: Vec<(HeaderName, Vec<String>)>,
    spaced: Vec<String>,
    kept: RefCell<Kept>,
}

impl Authenticator {
    /// Compiles rules. Keys that cannot be used make every token of their rule refused.
    pub fn new<'r>(rules: impl IntoIterator<Item = &'r JwtRule>) -> Self {
        let mut places: Vec<(Place, Vec<usize>)> = Vec::new();
        let mut compiled = Vec::new();
        for (at, rule) in rules.into_iter().enumerate() {
            for place in place::of_rule(rule) {
                match places.iter_mut().find(|(p, _)| *p == place) {
                    Some((_, rules)) => rules.push(at),
                    None => places.push((place, vec![at])),
                }
            }
            compiled.push(Compiled::new(rule));
        }
        let headers = compiled.iter().flat_map(|rule: &Compiled| {
            let claims = rule.claim_headers.iter().map(|(name, _)| name);
            claims.chain(&rule.payload_header).cloned()
        });
        let ours: Vec<HeaderName> = headers.collect();
        Self {
            rules: compiled,
            places,
            ours,
        }
    }

    /// Whether there is nothing to do for any request.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// A path with query as logs may show it: parameters that may carry a token have `redacted` for their value.
    pub fn redacted<'t>(&self, target: &'t str) -> Cow<'t, str> {
        let names = self.places.iter().filter_map(|(place, _)| match place {
            Place::Param(name) => Some(name.as_str()),
            Place::Header { .. } | Place::Cookie(_) => None,
        });
        place::redacted(target, &names.collect::<Vec<_>>())
    }

    /// Verifies every token of a request and returns the one of the first rule that takes one; none when the request
    /// has no token. Tokens that shall not travel on are removed, and what rules tell the upstream is added.
    /// `now` is in seconds since 1970.
    ///
    /// # Errors
    /// A token is there that none of the rules for its place takes: one good token does not let a bad one pass
    /// beside it. The request may then be half changed.
    pub fn authenticate(
        &self,
        head: &mut request::Parts,
        now: u64,
    ) -> Result<Option<Arc<Token>>, Rejected> {
        let mut taken: Vec<(usize, Arc<Verified>)> = Vec::new();
        let mut clear: Vec<usize> = Vec::new();
        let mut count = 0;
        for (at, (place, rules)) in self.places.iter().enumerate() {
            for token in place.tokens(head) {
                count += 1;
                if count > MOST_TOKENS {
                    return Err(JwtError::TooMany.into());
                }
                let (rule, verified) = self.verify(&token, rules, now)?;
                taken.push((rule, verified));
                if !self.rules[rule].forward && !clear.contains(&at) {
                    clear.push(at);
                }
            }
        }
        for at in clear {
            self.places[at].0.clear(head);
        }
        for name in &self.ours {
            head.headers.remove(name);
        }
        taken.sort_by_key(|(rule, _)| *rule);
        for (_, verified) in &taken {
            for (name, value) in &verified.headers {
                head.headers.append(name, value.clone());
            }
        }
        let first = taken.first();
        Ok(first.map(|(_, verified)| Arc::clone(&verified.token)))
    }

    /// The first of `rules` that takes the token. The last reason is told when none does.
    fn verify(
        &self,
        token: &str,
        rules: &[usize],
        now: u64,
    ) -> Result<(usize, Arc<Verified>), Rejected> {
        for at in rules {
            let found = self.rules[*at].kept.borrow_mut().find(token);
            if let Some(verified) = found {
                let rule = Some(*at);
                in_time(verified.not_before, verified.expires, now)
                    .map_err(|why| Rejected { why, rule })?;
                return Ok((*at, verified));
            }
        }
        let parsed = Parsed::parse(token)?;
        let mut rejected = JwtError::Issuer.into();
        for at in rules {
            let rule = &self.rules[*at];
            if rule.issuer.is_some() && rule.issuer != parsed.issuer {
                continue;
            }
            match rule.check(&parsed, now) {
                Ok(()) => {
                    let verified = Arc::new(rule.accept(parsed));
                    rule.kept.borrow_mut().insert(token, Arc::clone(&verified));
                    return Ok((*at, verified));
                }
                Err(why) => {
                    let rule = Some(*at);
                    rejected = Rejected { why, rule };
                }
            }
        }
        Err(rejected)
    }
}

fn in_time(not_before: Option<u64>, expires: Option<u64>, now: u64) -> Result<(), JwtError> {
    if not_before.is_some_and(|t| t > now.saturating_add(SKEW)) {
        return Err(JwtError::NotYet);
    }
    if expires.is_some_and(|t| now > t.saturating_add(SKEW)) {
        return Err(JwtError::Expired);
    }
    Ok(())
}

impl Compiled {
    fn new(rule: &JwtRule) -> Self {
        let header = |name: &str| {
            let name = HeaderName::try_from(name).ok()?;
            (!FRAMING.contains(&name)).then_some(name)
        };
        let claims = rule.claim_headers.iter().filter_map(|c| {
            let path = c.claim.split('.').map(str::to_owned).collect();
            Some((header(&c.header)?, path))
        });
        let spaced = rule.space_delimited.iter().map(ToString::to_string);
        Self {
            issuer: rule.issuer.as_ref().map(ToString::to_string),
            audiences: rule.audiences.iter().map(|a| plain(a).to_owned()).collect(),
            keys: match &rule.keys {
                JwtKeys::Inline(text) => KeySet::parse(text),
                JwtKeys::Unavailable { .. } => Err(JwtError::KeysUnavailable),
            },
            forward: rule.forward_original,
            payload_header: rule.payload_header.as_deref().and_then(header),
            claim_headers: claims.collect(),
            spaced: SPACED
                .map(str::to_owned)
                .into_iter()
                .chain(spaced)
                .collect(),
            kept: RefCell::default(),
        }
    }

    fn check(&self, parsed: &Parsed<'_>, now: u64) -> Result<(), JwtError> {
        in_time(parsed.not_before, parsed.expires, now)?;
        let wanted = |audience: &String| self.audiences.iter().any(|a| a == plain(audience));
        if !self.audiences.is_empty() && !parsed.audiences.iter().any(wanted) {
            return Err(JwtError::Audience);
        }
        let keys = self.keys.as_ref().map_err(|why| *why)?;
        let kid = parsed.kid.as_deref();
        keys.verify(parsed.algorithm, kid, parsed.signed, &parsed.signature)
    }

    fn accept(&self, parsed: Parsed<'_>) -> Verified {
        let headers = self.headers(&parsed);
        let mut claims = parsed.claims;
        let text = |claims: &Map<String, Value>, name: &str| {
            claims.get(name).and_then(Value::as_str).map(str::to_owned)
        };
        let subject = text(&claims, "sub");
        let presenter = text(&claims, "azp");
        for name in &self.spaced {
            if let Some(Value::String(list)) = claims.get(name) {
                let items: Vec<Value> = list.split_whitespace().map(Value::from).collect();
                claims.insert(name.clone(), Value::Array(items));
            }
        }
        Verified {
            token: Arc::new(Token {
                issuer: parsed.issuer,
                subject,
                audiences: parsed.audiences,
                presenter,
                claims,
            }),
            headers,
            not_before: parsed.not_before,
            expires: parsed.expires,
        }
    }

    fn headers(&self, parsed: &Parsed<'_>) -> Vec<(HeaderName, HeaderValue)> {
        let mut headers = Vec::new();
        if let Some(name) = &self.payload_header
            && let Ok(value) = HeaderValue::from_str(parsed.payload)
        {
            headers.push((name.clone(), value));
        }
        for (name, path) in &self.claim_headers {
            if let Some(text) = claim(&parsed.claims, path)
                && let Ok(value) = HeaderValue::from_str(&text)
            {
                headers.push((name.clone(), value));
            }
        }
        headers
    }
}

/// A claim as a header says it: text, numbers and truth values; others, and empty text, are left out (Istio).
fn claim<'c>(claims: &'c Map<String, Value>, path: &[String]) -> Option<Cow<'c, str>> {
    let (first, rest) = path.split_first()?;
    let whole = || claims.get(&path.join("."));
    let nested = || {
        rest.iter()
            .try_fold(claims.get(first)?, |value, name| value.get(name))
    };
    match nested().or_else(whole)? {
        Value::String(text) if text.is_empty() => None,
        Value::String(text) => Some(Cow::Borrowed(text)),
        Value::Number(number) => Some(Cow::Owned(number.to_string())),
        Value::Bool(truth) => Some(Cow::Borrowed(if *truth { "true" } else { "false" })),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// An audience without scheme and trailing slash: both forms are in use for one service (Envoy).
fn plain(audience: &str) -> &str {
    let bare = audience
        .strip_prefix("https://")
        .or_else(|| audience.strip_prefix("http://"));
    let bare = bare.unwrap_or(audience);
    bare.strip_suffix('/').unwrap_or(bare)
}

#[cfg(test)]
mod tests;
