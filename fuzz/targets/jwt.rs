//! Any text as a token, as the parts of a token that we sign, or as a key set.
//!
//! The first byte chooses. A token that came as text is taken only when it is, to the letter, one of those that we signed;
//! of what we sign, what a simple reading says; and by a key set, what it has our key for.
#![no_main]

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{AUTHORIZATION, COOKIE};
use http::{HeaderValue, Request, request};
use lateen_filters::jwt::Authenticator;
use lateen_model::decide::authz::Token;
use lateen_model::security::{ClaimHeader, JwtKeys, JwtRule, TokenHeader};
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value};
use std::sync::{Arc, LazyLock};

const NOW: u64 = 1_800_000_000;

/// Seconds by which clocks may differ.
const SKEW: u128 = 60;

/// Keys of a set that are looked at; what becomes of more is not compared.
const MOST_KEYS: usize = 100;

static KEY: LazyLock<Ed25519KeyPair> = LazyLock::new(|| {
    let seed = [7; 32];
    Ed25519KeyPair::from_seed_unchecked(&seed).expect("a seed has 32 bytes")
});

/// Tokens that both rules of [`rules`] take; those that may come as text.
static GOOD: LazyLock<[String; 3]> = LazyLock::new(|| {
    [
        (r#"{"alg":"EdDSA"}"#, r#"{"iss":"me","aud":"api"}"#),
        (
            r#"{"alg":"EdDSA","kid":"k"}"#,
            r#"{"iss":"me","sub":"ann","aud":["api"],"exp":1900000000}"#,
        ),
        (
            r#"{"typ":"JWT","alg":"EdDSA","kid":"k"}"#,
            r#"{"iss":"me","sub":"bob","aud":["x","https://api/"],"nbf":1700000000,"scope":"a b"}"#,
        ),
    ]
    .map(|(header, claims)| sign(header.as_bytes(), claims.as_bytes()))
});

fuzz_target!(|data: &[u8]| {
    let Some((mode, text)) = data.split_first() else {
        return;
    };
    match mode & 7 {
        0 => header(text),
        1 => query(text),
        2 => cookie(text),
        3 | 4 => signed(text),
        5 => keys(text),
        _ => {}
    }
});

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn sign(header: &[u8], claims: &[u8]) -> String {
    let text = format!("{}.{}", b64(header), b64(claims));
    let signature = b64(KEY.sign(text.as_bytes()));
    format!("{text}.{signature}")
}

fn our_key() -> String {
    b64(KEY.public_key())
}

fn rule(keys: String) -> JwtRule {
    JwtRule {
        issuer: Some("me".into()),
        audiences: vec!["http://api".into()],
        keys: JwtKeys::Inline(keys.into()),
        from_headers: Vec::new(),
        from_params: Vec::new(),
        from_cookies: Vec::new(),
        forward_original: false,
        payload_header: None,
        claim_headers: Vec::new(),
        space_delimited: Vec::new(),
    }
}

/// A key set with our key, with a name or without.
fn our_keys(kid: &str) -> String {
    let x = our_key();
    format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","x":"{x}"{kid}}}]}}"#)
}

/// A rule for the usual places, and one for others.
fn rules() -> [JwtRule; 2] {
    let usual = rule(our_keys(r#","kid":"k""#));
    let other = JwtRule {
        issuer: None,
        audiences: Vec::new(),
        from_headers: vec![TokenHeader {
            name: "x-token".into(),
            prefix: "".into(),
        }],
        from_params: vec!["t".into()],
        from_cookies: vec!["c".into()],
        forward_original: true,
        payload_header: Some("x-payload".into()),
        claim_headers: vec![ClaimHeader {
            header: "x-sub".into(),
            claim: "sub".into(),
        }],
        ..rule(our_keys(""))
    };
    [usual, other]
}

/// Looks at a request twice, the second time with what was kept from the first.
fn ask(head: &mut request::Parts) -> Option<Arc<Token>> {
    let authenticator = Authenticator::new(&rules());
    let first = authenticator.authenticate(&mut head.clone(), NOW);
    let again = authenticator.authenticate(head, NOW);
    assert_eq!(first, again, "what is kept is judged as what is new");
    again.ok().flatten()
}

/// A token was taken from where `text` is: it is one of ours.
fn check_taken(token: &Token, text: &[u8]) {
    let has = |good: &&String| text.windows(good.len()).any(|part| part == good.as_bytes());
    let mut found = GOOD.iter().filter(has);
    let signed = found.any(|good| token.claims == claims(good));
    assert!(signed, "{token:?} was never signed");
}

/// The claims of a token, the list in `scope` taken apart.
fn claims(token: &str) -> Map<String, Value> {
    let payload = token.split('.').nth(1).expect("three parts");
    let bytes = URL_SAFE_NO_PAD.decode(payload).expect("base64");
    let mut claims: Map<String, Value> = serde_json::from_slice(&bytes).expect("JSON");
    if let Some(Value::String(scope)) = claims.get("scope") {
        let parts: Vec<Value> = scope.split(' ').map(Value::from).collect();
        claims.insert("scope".to_owned(), parts.into());
    }
    claims
}

/// Text behind `Bearer ` and in a header of its own.
fn header(text: &[u8]) {
    let (Ok(bearer), Ok(own)) = (
        HeaderValue::from_bytes(&[b"Bearer ", text].concat()),
        HeaderValue::from_bytes(text),
    ) else {
        return;
    };
    for (name, value) in [("authorization", bearer), ("x-token", own)] {
        let request = Request::get("/").header(name, value).body(());
        let mut head = request.expect("a request").into_parts().0;
        if let Some(token) = ask(&mut head) {
            check_taken(&token, text);
            assert!(
                !head.headers.contains_key(AUTHORIZATION),
                "the token travels on"
            );
        }
    }
}

/// Text as parameters.
fn query(text: &[u8]) {
    let target = [b"/p?access_token=", text].concat();
    let Ok(request) = Request::get(&target[..]).body(()) else {
        return;
    };
    let mut head = request.into_parts().0;
    if let Some(token) = ask(&mut head) {
        check_taken(&token, &decoded(&target));
        let query = head.uri.query().unwrap_or_default();
        let left = query.split('&').map(|pair| pair.split('=').next());
        let is = |key: Option<&str>| key.is_some_and(|k| decoded(k.as_bytes()) == b"access_token");
        let mut left = left.filter(|key| is(*key));
        assert!(left.next().is_none(), "the token travels on: {query}");
    }
}

/// Percent-decoded, a byte at a time.
fn decoded(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some((byte, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|d| std::str::from_utf8(d).ok());
        let value = digits.filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
        match value.and_then(|d| u8::from_str_radix(d, 16).ok()) {
            Some(value) if *byte == b'%' => {
                out.push(value);
                rest = &after[2..];
            }
            _ => {
                out.push(*byte);
                rest = after;
            }
        }
    }
    out
}

/// Text as cookies.
fn cookie(text: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(&[b"a=b; c=", text].concat()) else {
        return;
    };
    let request = Request::get("/").header(COOKIE, value).body(());
    let mut head = request.expect("a request").into_parts().0;
    if let Some(token) = ask(&mut head) {
        check_taken(&token, text);
    }
}

/// A token by itself under one rule.
fn taken(authenticator: &Authenticator, token: &str, now: u64) -> Option<Arc<Token>> {
    let bearer = format!("Bearer {token}");
    let request = Request::get("/").header(AUTHORIZATION, bearer).body(());
    let mut head = request.expect("a request").into_parts().0;
    authenticator.authenticate(&mut head, now).ok().flatten()
}

/// Options, the header, a line's end, the claims: signed by us, and taken exactly when [`reading`] says so, at two times.
fn signed(data: &[u8]) {
    let Some((options, text)) = data.split_first() else {
        return;
    };
    let Some(end) = text.iter().position(|b| *b == b'\n') else {
        return;
    };
    let (header, claims) = (&text[..end], &text[end + 1..]);
    let named = options & 1 == 0;
    let rule = JwtRule {
        issuer: (options & 2 == 0).then(|| "me".into()),
        audiences: match options & 4 {
            0 => Vec::new(),
            _ => vec!["api".into(), "https://b/".into()],
        },
        ..rule(our_keys(if named { r#","kid":"k""# } else { "" }))
    };
    let times = match options & 8 {
        0 => [NOW, NOW + 3600],
        _ => [NOW, u64::MAX],
    };
    let token = sign(header, claims);
    let authenticator = Authenticator::new([&rule]);
    for now in times {
        let found = taken(&authenticator, &token, now);
        let want = reading(&rule, named, (header, claims), now);
        assert_eq!(
            found.map(|token| token.principal()),
            want,
            "{} {} at {now}",
            String::from_utf8_lossy(header),
            String::from_utf8_lossy(claims),
        );
    }
}

/// The principal that a token gives, read simply; absent outside: the token is refused.
fn reading(
    rule: &JwtRule,
    named: bool,
    (header, claims): (&[u8], &[u8]),
    now: u64,
) -> Option<Option<String>> {
    let header: Value = serde_json::from_slice(header).ok()?;
    let claims: Value = serde_json::from_slice(claims).ok()?;
    let (header, claims) = (header.as_object()?, claims.as_object()?);
    let kid = match header.get("kid") {
        None => "",
        Some(kid) => kid.as_str()?,
    };
    let fits = !named || ["", "k"].contains(&kid);
    if header.get("alg")? != "EdDSA" || header.contains_key("crit") || !fits {
        return None;
    }
    let text = |name: &str| match claims.get(name) {
        None => Some(None),
        Some(value) => value.as_str().map(Some),
    };
    let (issuer, subject) = (text("iss")?, text("sub")?);
    let all = issuer.into_iter().chain(subject);
    if all.flat_map(str::chars).any(char::is_control) {
        return None;
    }
    if rule.issuer.is_some() && issuer != rule.issuer.as_deref() {
        return None;
    }
    let audiences: Vec<&str> = match claims.get("aud") {
        None => Vec::new(),
        Some(Value::Array(all)) => all.iter().map(Value::as_str).collect::<Option<_>>()?,
        Some(one) => vec![one.as_str()?],
    };
    let wanted = |audience: &&str| ["api", "b"].iter().any(|name| names(audience, name));
    if !rule.audiences.is_empty() && !audiences.iter().any(wanted) {
        return None;
    }
    let (from, until) = (time(claims, "nbf")?, time(claims, "exp")?);
    let now = u128::from(now);
    if from.is_some_and(|t| t > now + SKEW) || until.is_some_and(|t| now > t + SKEW) {
        return None;
    }
    let both = issuer.zip(subject);
    let both = both.filter(|(issuer, subject)| !issuer.is_empty() && !subject.is_empty());
    Some(both.map(|(issuer, subject)| format!("{issuer}/{subject}")))
}

/// Whether an audience is a name, or an address of it.
fn names(audience: &str, name: &str) -> bool {
    let bare = audience.strip_suffix('/').unwrap_or(audience);
    ["", "http://", "https://"]
        .iter()
        .any(|scheme| bare == format!("{scheme}{name}"))
}

/// Whole seconds of a claim; absent inside: there is no such claim; absent outside: it is no time.
fn time(claims: &Map<String, Value>, name: &str) -> Option<Option<u128>> {
    let Some(value) = claims.get(name) else {
        return Some(None);
    };
    if let Some(seconds) = value.as_u64() {
        return Some(Some(seconds.into()));
    }
    let seconds = value.as_f64()?;
    let good = (0.0..2f64.powi(64)).contains(&seconds);
    good.then_some(Some(seconds as u128))
}

/// Text as a key set: it takes what is signed by a key of it, and nothing else.
fn keys(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else {
        return;
    };
    let authenticator = Authenticator::new([&JwtRule {
        audiences: Vec::new(),
        ..rule(text.to_owned())
    }]);
    let claims = br#"{"iss":"me"}"#;
    let set: Option<Value> = serde_json::from_str(text).ok();
    let keys = set
        .as_ref()
        .and_then(|set| set.get("keys")?.as_array())
        .map_or(&[][..], |keys| keys);
    for kid in [None, Some("k")] {
        let header = match kid {
            None => r#"{"alg":"EdDSA"}"#,
            Some(_) => r#"{"alg":"EdDSA","kid":"k"}"#,
        };
        let found = taken(&authenticator, &sign(header.as_bytes(), claims), NOW).is_some();
        let want = keys.iter().any(|key| verifies(key, kid));
        assert!(want || !found, "{text} has no key for {header}");
        assert!(found || !want || keys.len() > MOST_KEYS, "{text}: {header}");
    }
    for algorithm in ["none", "HS256", "RS256", "PS512", "ES256", "ES512", "EdDSA"] {
        let header = b64(format!(r#"{{"alg":"{algorithm}"}}"#));
        for signature in ["", &b64([0; 64]), &b64([1; 256]), &b64(text)] {
            let forged = format!("{header}.{}.{signature}", b64(claims));
            let found = taken(&authenticator, &forged, NOW);
            // Whoever writes key sets may write one that signs for everybody; we do not.
            assert!(found.is_none() || is_weak(keys), "{text} takes {forged}");
        }
    }
}

/// Whether a key of a set is ours, and for such a token.
fn verifies(key: &Value, kid: Option<&str>) -> bool {
    let text = |name: &str| key.get(name).and_then(Value::as_str);
    let operations = key.get("key_ops").and_then(Value::as_array);
    key.is_object()
        && text("kty") == Some("OKP")
        && text("crv") == Some("Ed25519")
        && text("x") == Some(&our_key())
        && text("use").is_none_or(|usage| usage == "sig")
        && text("alg").is_none_or(|algorithm| algorithm == "EdDSA")
        && operations.is_none_or(|all| all.iter().any(|o| o == "verify"))
        && (kid.is_none() || text("kid").is_none_or(|name| Some(name) == kid))
}

/// Whether a set has an Ed25519 key other than ours: some points of the curve accept what nobody signed.
fn is_weak(keys: &[Value]) -> bool {
    let is = |key: &Value| key["crv"] == "Ed25519" && key["x"] != our_key().as_str();
    keys.iter().any(is)
}
