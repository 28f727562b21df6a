//! Tokens signed here, looked at by rules.

use super::*;
use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{self as sign, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Request;
use lateen_model::security::{ClaimHeader, TokenHeader};
use serde_json::json;
use std::sync::LazyLock;

mod places;

const NOW: u64 = 1_800_000_000;

static RSA: LazyLock<RsaKeyPair> =
    LazyLock::new(|| RsaKeyPair::generate(KeySize::Rsa2048).unwrap());
static OTHER: LazyLock<RsaKeyPair> =
    LazyLock::new(|| RsaKeyPair::generate(KeySize::Rsa2048).unwrap());
static EC: LazyLock<EcdsaKeyPair> =
    LazyLock::new(|| EcdsaKeyPair::generate(&sign::ECDSA_P256_SHA256_FIXED_SIGNING).unwrap());
static ED: LazyLock<Ed25519KeyPair> = LazyLock::new(|| Ed25519KeyPair::generate().unwrap());

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Modulus and exponent of `RSAPublicKey`: two integers in a sequence.
fn rsa_numbers(key: &RsaKeyPair) -> (String, String) {
    fn value(der: &[u8]) -> (&[u8], &[u8]) {
        let (length, start) = match der[1] {
            n @ 0..0x80 => (usize::from(n), 2),
            n => {
                let end = 2 + usize::from(n & 0x7f);
                let length = der[2..end]
                    .iter()
                    .fold(0, |all, b| all << 8 | usize::from(*b));
                (length, end)
            }
        };
        der[start..].split_at(length)
    }
    let public = key.public_key().as_ref().to_vec();
    let (body, _) = value(&public);
    let (n, rest) = value(body);
    let (e, _) = value(rest);
    let bare = |number: &[u8]| b64(&number[usize::from(number[0] == 0)..]);
    (bare(n), bare(e))
}

fn rsa_key(kid: &str, key: &RsaKeyPair) -> Value {
    let (n, e) = rsa_numbers(key);
    json!({"kty": "RSA", "kid": kid, "n": n, "e": e})
}

fn keys() -> String {
    let point = EC.public_key().as_ref();
    json!({"keys": [
        rsa_key("r", &RSA),
        {"kty": "EC", "crv": "P-256", "kid": "e", "x": b64(&point[1..33]), "y": b64(&point[33..])},
        {"kty": "OKP", "crv": "Ed25519", "kid": "d", "x": b64(ED.public_key().as_ref())},
        {"kty": "oct", "kid": "s", "k": "c2VjcmV0"},
        {"kty": "RSA", "kid": "enc", "use": "enc", "n": rsa_numbers(&OTHER).0, "e": "AQAB"},
    ]})
    .to_string()
}

fn rsa_sign(key: &RsaKeyPair, padding: &'static dyn sign::RsaEncoding, signed: &str) -> Vec<u8> {
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(
        padding,
        &SystemRandom::new(),
        signed.as_bytes(),
        &mut signature,
    )
    .unwrap();
    signature
}

fn signed_by(header: &Value, claims: &Value, sign: impl Fn(&str) -> Vec<u8>) -> String {
    let signed = format!("{}.{}", b64(header.to_string()), b64(claims.to_string()));
    let signature = b64(sign(&signed));
    format!("{signed}.{signature}")
}

/// RS256 by the known key.
fn token(claims: &Value) -> String {
    signed_by(&json!({"alg": "RS256", "kid": "r"}), claims, |s| {
        rsa_sign(&RSA, &sign::RSA_PKCS1_SHA256, s)
    })
}

fn claims() -> Value {
    json!({"iss": "me", "sub": "ann", "exp": NOW + 3600})
}

fn with(extra: Value) -> Value {
    let mut claims = claims();
    for (name, value) in extra.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

fn rule() -> JwtRule {
    JwtRule {
        issuer: Some("me".into()),
        audiences: Vec::new(),
        keys: JwtKeys::Inline(keys().into()),
        from_headers: Vec::new(),
        from_params: Vec::new(),
        from_cookies: Vec::new(),
        forward_original: false,
        payload_header: None,
        claim_headers: Vec::new(),
        space_delimited: Vec::new(),
    }
}

fn ask(rules: &[JwtRule], request: &mut request::Parts) -> Result<Option<Arc<Token>>, JwtError> {
    let authenticator = Authenticator::new(rules);
    let first = authenticator.authenticate(&mut request.clone(), NOW);
    let again = authenticator.authenticate(request, NOW);
    assert_eq!(first, again, "kept tokens are judged as new ones");
    again.map_err(|rejected| rejected.why)
}

fn request(target: &str, headers: &[(&str, &str)]) -> request::Parts {
    let mut builder = Request::get(target);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(()).unwrap().into_parts().0
}

/// A bearer token under one rule: the principal, or the words of the refusal.
fn check(rule: &JwtRule, token: &str, want: &str) {
    let mut request = request("/", &[("authorization", &format!("Bearer {token}"))]);
    let got = match ask(std::slice::from_ref(rule), &mut request) {
        Ok(Some(token)) => token.principal().unwrap_or_default(),
        Ok(None) => "no token".to_owned(),
        Err(why) => why.to_string(),
    };
    assert_eq!(got, want, "{token}");
}

#[test]
fn every_algorithm_is_verified_by_the_key_of_its_kind() {
    let rule = rule();
    let rsa: [(&str, &'static dyn sign::RsaEncoding); 6] = [
        ("RS256", &sign::RSA_PKCS1_SHA256),
        ("RS384", &sign::RSA_PKCS1_SHA384),
        ("RS512", &sign::RSA_PKCS1_SHA512),
        ("PS256", &sign::RSA_PSS_SHA256),
        ("PS384", &sign::RSA_PSS_SHA384),
        ("PS512", &sign::RSA_PSS_SHA512),
    ];
    for (alg, padding) in rsa {
        for header in [json!({"alg": alg, "kid": "r"}), json!({"alg": alg})] {
            let token = signed_by(&header, &claims(), |s| rsa_sign(&RSA, padding, s));
            check(&rule, &token, "me/ann");
        }
    }
    let ec = |s: &str| {
        let signature = EC.sign(&SystemRandom::new(), s.as_bytes()).unwrap();
        signature.as_ref().to_vec()
    };
    check(
        &rule,
        &signed_by(&json!({"alg": "ES256"}), &claims(), ec),
        "me/ann",
    );
    let ed = |s: &str| ED.sign(s.as_bytes()).as_ref().to_vec();
    check(
        &rule,
        &signed_by(&json!({"alg": "EdDSA", "kid": "d"}), &claims(), ed),
        "me/ann",
    );
}

#[test]
fn forged_tokens_are_refused() {
    let rule = rule();
    let unsigned = |header: Value| signed_by(&header, &claims(), |_| Vec::new());
    let none = "Jwt header [alg] is not supported";
    for alg in ["none", "None", "nOnE", "RS1", "ES256K", ""] {
        check(&rule, &unsigned(json!({ "alg": alg })), none);
    }
    // The public key taken for a shared secret.
    let der = AsDer::<aws_lc_rs::encoding::PublicKeyX509Der<'_>>::as_der(RSA.public_key()).unwrap();
    let confused = signed_by(&json!({"alg": "HS256", "kid": "r"}), &claims(), |s| {
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, der.as_ref());
        aws_lc_rs::hmac::sign(&key, s.as_bytes()).as_ref().to_vec()
    });
    let no_key = "Jwks doesn't have key to match kid or alg from Jwt";
    check(&rule, &confused, no_key);
    let shared = signed_by(&json!({"alg": "HS256", "kid": "s"}), &claims(), |s| {
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, b"secret");
        aws_lc_rs::hmac::sign(&key, s.as_bytes()).as_ref().to_vec()
    });
    check(&rule, &shared, no_key);
    let other = |header: Value| {
        signed_by(&header, &claims(), |s| {
            rsa_sign(&OTHER, &sign::RSA_PKCS1_SHA256, s)
        })
    };
    let bad = "Jwt verification fails";
    check(&rule, &other(json!({"alg": "RS256", "kid": "r"})), bad);
    check(&rule, &other(json!({"alg": "RS256", "kid": "?"})), no_key);
    check(&rule, &other(json!({"alg": "RS256", "kid": "enc"})), no_key);
    check(&rule, &other(json!({"alg": "RS256", "kid": "e"})), no_key);
    let jwk = rsa_key("r", &OTHER);
    check(
        &rule,
        &other(json!({"alg": "RS256", "kid": "r", "jwk": jwk})),
        bad,
    );
    check(
        &rule,
        &other(json!({"alg": "RS256", "crit": ["b64"], "b64": false})),
        "Jwt header [crit] field names an extension that is not supported",
    );
    let good = token(&claims());
    let (body, signature) = good.rsplit_once('.').unwrap();
    let header = body.split('.').next().unwrap();
    let swapped = format!(
        "{header}.{}.{signature}",
        b64(with(json!({"sub": "bob"})).to_string())
    );
    check(&rule, &swapped, bad);
    check(&rule, &format!("{body}."), bad);
}

#[test]
fn claims_are_looked_at() {
    let mut rule = rule();
    for (extra, want) in [
        (json!({"exp": NOW - 59}), "me/ann"),
        (json!({"exp": NOW - 61}), "Jwt is expired"),
        (json!({"exp": 1.5}), "Jwt is expired"),
        (
            json!({"exp": "soon"}),
            "Jwt payload [exp] field is not an integer",
        ),
        (
            json!({"exp": -1}),
            "Jwt payload [exp] field is not a positive 64 bit integer",
        ),
        (json!({"nbf": NOW + 59}), "me/ann"),
        (json!({"nbf": NOW + 61}), "Jwt not yet valid"),
        (
            json!({"nbf": true}),
            "Jwt payload [nbf] field is not an integer",
        ),
        (json!({"iss": "you"}), "Jwt issuer is not configured"),
        (json!({"iss": 7}), "Jwt payload [iss] field is not a string"),
        (
            json!({"sub": []}),
            "Jwt payload [sub] field is not a string",
        ),
        (
            json!({"aud": 7}),
            "Jwt payload [aud] field is not a string or string list",
        ),
        (json!({"aud": "anybody"}), "me/ann"),
    ] {
        check(&rule, &token(&with(extra)), want);
    }
    rule.audiences = vec!["https://shop/".into(), "api".into()];
    let wrong = "Audiences in Jwt are not allowed";
    for (aud, want) in [
        (json!("api"), "me/ann"),
        (json!(["x", "shop"]), "me/ann"),
        (json!("API"), wrong),
        (json!([]), wrong),
    ] {
        check(&rule, &token(&with(json!({ "aud": aud }))), want);
    }
    check(&rule, &token(&claims()), wrong);
    assert_eq!(
        (JwtError::Audience.status(), JwtError::Expired.status()),
        (403, 401)
    );
}

#[test]
fn garbage_has_its_words() {
    let rule = rule();
    let form = "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections";
    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    let whole = token(&claims());
    let long = format!("{whole}{}", "A".repeat(1 << 20));
    for (text, want) in [
        ("", form),
        ("x", form),
        ("a.b", form),
        ("a.b.c.d", form),
        ("..", form),
        ("%%.e30.", "Jwt header is an invalid Base64url encoded"),
        ("e30=.e30.", "Jwt header is an invalid Base64url encoded"),
        ("W10.e30.", "Jwt header is an invalid JSON"),
        (
            "e30.e30.",
            "Jwt header [alg] field is required and must be a string",
        ),
        (
            &format!("{}.e30.", b64(r#"{"alg":7}"#)),
            "Jwt header [alg] field is required and must be a string",
        ),
        (
            &format!("{}.e30.", b64(r#"{"alg":"RS256","kid":7}"#)),
            "Jwt header [kid] field is not a string",
        ),
        (
            &format!("{}.!.", b64(r#"{"alg":"RS256"}"#)),
            "Jwt payload is an invalid Base64url encoded",
        ),
        (
            &format!("{}.{}.", b64(r#"{"alg":"RS256"}"#), b64(deep)),
            "Jwt payload is an invalid JSON",
        ),
        (
            &format!("{}.e30.!", b64(r#"{"alg":"RS256"}"#)),
            "Jwt signature is an invalid Base64url encoded",
        ),
        (&long, "Jwt is longer than 65536 bytes"),
        (&format!("{whole}, Bearer {whole}"), form_of_two()),
    ] {
        check(&rule, text, want);
    }
}

// The second token's dots make it more than three sections.
fn form_of_two() -> &'static str {
    "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections"
}

#[test]
fn keys_that_are_not_there_let_nobody_in() {
    let mut rule = rule();
    for (text, want) in [
        ("no", "Jwks is an invalid JSON"),
        ("{}", "Jwks does not have [keys] field"),
        (r#"{"keys":{}}"#, "[keys] in Jwks is not an array"),
        (r#"{"keys":[]}"#, "Jwks doesn't have any valid public key"),
        (
            r#"{"keys":[7,{"kty":"RSA"}]}"#,
            "Jwks doesn't have any valid public key",
        ),
    ] {
        rule.keys = JwtKeys::Inline(text.into());
        check(&rule, &token(&claims()), want);
    }
    rule.keys = JwtKeys::Unavailable {
        uri: "https://issuer/keys".into(),
        reason: "connection refused".into(),
    };
    check(&rule, &token(&claims()), "Jwks remote fetch is failed");
    // A key that says its algorithm is used with no other.
    let mut key = rsa_key("r", &RSA);
    key["alg"] = "PS256".into();
    rule.keys = JwtKeys::Inline(json!({ "keys": [key] }).to_string().into());
    check(
        &rule,
        &token(&claims()),
        "Jwks doesn't have key to match kid or alg from Jwt",
    );
}

#[test]
fn keys_rotate() {
    let by = |key: &'static RsaKeyPair, kid: &str| {
        signed_by(&json!({"alg": "RS256", "kid": kid}), &claims(), |s| {
            rsa_sign(key, &sign::RSA_PKCS1_SHA256, s)
        })
    };
    let set = |keys: &[Value]| JwtKeys::Inline(json!({ "keys": keys }).to_string().into());
    let mut rule = rule();
    let (old, new) = (rsa_key("1", &RSA), rsa_key("2", &OTHER));
    rule.keys = set(std::slice::from_ref(&old));
    check(&rule, &by(&RSA, "1"), "me/ann");
    check(
        &rule,
        &by(&OTHER, "2"),
        "Jwks doesn't have key to match kid or alg from Jwt",
    );
    rule.keys = set(&[old, new.clone()]);
    check(&rule, &by(&RSA, "1"), "me/ann");
    check(&rule, &by(&OTHER, "2"), "me/ann");
    rule.keys = set(&[new]);
    check(
        &rule,
        &by(&RSA, "1"),
        "Jwks doesn't have key to match kid or alg from Jwt",
    );
    check(&rule, &by(&OTHER, "2"), "me/ann");
}

#[test]
fn the_upstream_is_told_what_rules_say_and_nothing_else() {
    let mut rule = rule();
    rule.payload_header = Some("x-payload".into());
    rule.claim_headers = [
        ("x-sub", "sub"),
        ("x-deep", "a.b"),
        ("x-number", "n"),
        ("x-truth", "t"),
        ("x-list", "l"),
        ("x-absent", "none"),
        ("content-length", "n"),
    ]
    .map(|(header, claim)| ClaimHeader {
        header: header.into(),
        claim: claim.into(),
    })
    .to_vec();
    let claims = with(json!({"a": {"b": "c"}, "n": 7, "t": true, "l": [1], "scope": "r w"}));
    let mine = token(&claims);
    let lies = [
        ("x-sub", "root"),
        ("x-absent", "root"),
        ("x-payload", "root"),
        ("x-other", "1"),
    ];
    let mut with_token = lies.to_vec();
    let bearer = format!("Bearer {mine}");
    with_token.push(("authorization", &bearer));
    let mut told = request("/", &with_token);
    let got = ask(&[rule.clone()], &mut told).unwrap().unwrap();
    assert_eq!(got.claims["scope"], json!(["r", "w"]));
    let header = |request: &request::Parts, name: &str| {
        let values = request.headers.get_all(name).iter();
        let values: Vec<_> = values.map(|v| v.to_str().unwrap().to_owned()).collect();
        values.join("|")
    };
    for (name, want) in [
        ("x-sub", "ann"),
        ("x-deep", "c"),
        ("x-number", "7"),
        ("x-truth", "true"),
        ("x-list", ""),
        ("x-absent", ""),
        ("x-payload", mine.split('.').nth(1).unwrap()),
        ("x-other", "1"),
        ("authorization", ""),
        ("content-length", ""),
    ] {
        assert_eq!(header(&told, name), want, "{name}");
    }
    let mut untold = request("/", &lies);
    assert_eq!(ask(&[rule.clone()], &mut untold), Ok(None));
    for name in ["x-sub", "x-absent", "x-payload"] {
        assert_eq!(header(&untold, name), "", "{name}");
    }
    rule.forward_original = true;
    let mut kept = request("/", &[("authorization", &bearer)]);
    ask(&[rule], &mut kept).unwrap();
    assert_eq!(header(&kept, "authorization"), bearer);
}

#[test]
fn several_rules_each_take_their_own() {
    let (mut mine, mut yours) = (rule(), rule());
    yours.issuer = Some("you".into());
    yours.from_headers = vec![
        TokenHeader {
            name: "authorization".into(),
            prefix: "Bearer ".into(),
        },
        TokenHeader {
            name: "x-second".into(),
            prefix: "".into(),
        },
    ];
    mine.audiences = vec!["api".into()];
    let a = format!("Bearer {}", token(&with(json!({"aud": "api"}))));
    let b = token(&with(json!({"iss": "you"})));
    let bearer_b = format!("Bearer {b}");
    let expired = token(&with(json!({"iss": "you", "exp": 1})));
    let rules = [mine, yours];
    for (headers, want) in [
        (vec![("authorization", a.as_str())], Ok("me/ann")),
        (vec![("authorization", &bearer_b)], Ok("you/ann")),
        (vec![("authorization", &a), ("x-second", &b)], Ok("me/ann")),
        // A good token does not carry a bad one past.
        (
            vec![("authorization", &a), ("x-second", &expired)],
            Err(JwtError::Expired),
        ),
        (
            vec![("authorization", &a), ("x-second", "junk")],
            Err(JwtError::Form),
        ),
        (vec![("x-second", &a[7..])], Err(JwtError::Issuer)),
    ] {
        let got = ask(&rules, &mut request("/", &headers));
        let got = got.map(|t| t.unwrap().principal().unwrap());
        assert_eq!(got, want.map(str::to_owned), "{headers:?}");
    }
    let many: Vec<_> = (0..20).map(|_| ("x-second", b.as_str())).collect();
    assert_eq!(
        ask(&rules, &mut request("/", &many)),
        Err(JwtError::TooMany)
    );
}

#[test]
fn issuer_and_subject_are_told_apart_and_are_one_line_each() {
    let mut rule = rule();
    rule.issuer = None;
    let nested = token(&with(json!({"iss": "https://a/b", "sub": "c/d"})));
    let bearer = format!("Bearer {nested}");
    let mut request = request("/", &[("authorization", &bearer)]);
    let got = ask(&[rule.clone()], &mut request).unwrap().unwrap();
    assert_eq!(got.issuer.as_deref(), Some("https://a/b"));
    assert_eq!(got.subject.as_deref(), Some("c/d"));
    for claims in [json!({"iss": "a\u{0}b"}), json!({"sub": "a\nb"})] {
        let words = "Jwt payload [iss] or [sub] field has control characters";
        check(&rule, &token(&with(claims)), words);
    }
}
