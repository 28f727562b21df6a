//! Tokens on real requests: who is let in, in which words others are turned away, what the application gets.

use super::guarded::*;
use super::mesh::origin;
use super::*;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lateen_model::name::Visibility;
use lateen_model::security::{
    Action, ClaimHeader, JwtKeys, JwtRule, RequestAuthentication, Rule, Selection, Source,
};
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

/// An issuer of tokens.
struct Issuer(EcdsaKeyPair);

impl Issuer {
    fn new() -> Self {
        Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    fn keys(&self) -> JwtKeys {
        let point = self.0.public_key().as_ref();
        let encode = |bytes| URL_SAFE_NO_PAD.encode(bytes);
        let key = json!({"kty": "EC", "crv": "P-256", "x": encode(&point[1..33]), "y": encode(&point[33..])});
        JwtKeys::Inline(json!({ "keys": [key] }).to_string().into())
    }

    fn token(&self, claims: &Value) -> String {
        let encode = |text: String| URL_SAFE_NO_PAD.encode(text);
        let head = encode(json!({"alg": "ES256"}).to_string());
        let signed = format!("{head}.{}", encode(claims.to_string()));
        let signature = self
            .0
            .sign(&SystemRandom::new(), signed.as_bytes())
            .unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

fn rule(issuer: &Issuer) -> JwtRule {
    JwtRule {
        issuer: Some("me".into()),
        audiences: strs(&["shop"]),
        keys: issuer.keys(),
        from_headers: Vec::new(),
        from_params: Vec::new(),
        from_cookies: Vec::new(),
        forward_original: false,
        payload_header: None,
        claim_headers: vec![ClaimHeader {
            header: "x-user".into(),
            claim: "sub".into(),
        }],
        space_delimited: Vec::new(),
    }
}

fn tokens(rules: Vec<JwtRule>) -> Resource {
    Resource::RequestAuthentication(RequestAuthentication {
        origin: origin("RequestAuthentication", "tokens"),
        selection: Selection::default(),
        visibility: Visibility::Public,
        rules,
    })
}

/// Nobody comes in without a token.
fn required() -> Resource {
    let anybody = Rule {
        from: vec![Source {
            not_request_principals: strs(&["*"]),
            ..Source::default()
        }],
        ..Rule::default()
    };
    Resource::AuthorizationPolicy(policy("required", Action::Deny, vec![anybody]))
}

fn bearer(token: &str) -> String {
    format!("GET /p?x=1 HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\n\r\n")
}

fn claims() -> Value {
    json!({"iss": "me", "sub": "ann", "aud": "shop", "exp": now() + 600})
}

#[test]
fn every_case_has_its_status_and_words() {
    run(async {
        let (issuer, stranger) = (Issuer::new(), Issuer::new());
        let app = mirror("127.1.0.1").await;
        let bench = sidecar(app, vec![tokens(vec![rule(&issuer)]), required()]).await;
        let with = |name: &str, value: Value| {
            let mut claims = claims();
            claims[name] = value;
            issuer.token(&claims)
        };
        let none = format!("{}.{}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#), "e30");
        for (token, status, words) in [
            (issuer.token(&claims()), "200", ""),
            (with("exp", json!(now() - 120)), "401", "Jwt is expired"),
            (with("nbf", json!(now() + 120)), "401", "Jwt not yet valid"),
            (
                with("iss", json!("you")),
                "401",
                "Jwt issuer is not configured",
            ),
            (
                with("aud", json!("bank")),
                "403",
                "Audiences in Jwt are not allowed",
            ),
            (stranger.token(&claims()), "401", "Jwt verification fails"),
            (none, "401", "Jwt header [alg] is not supported"),
            (
                "garbage".to_owned(),
                "401",
                "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections",
            ),
        ] {
            let answer = call(&bench, &bearer(&token)).await;
            let (got, body) = outcome(&answer);
            assert_eq!(got, status, "{answer}");
            if status == "200" {
                assert!(
                    body.contains("x-user: ann\r\n") && !body.contains("authorization"),
                    "{body}"
                );
                continue;
            }
            assert_eq!(body, words);
            let challenge =
                "www-authenticate: Bearer realm=\"http://a/p\", error=\"invalid_token\"\r\n";
            assert!(answer.contains(challenge), "{answer}");
        }
        let answer = call(&bench, "GET / HTTP/1.1\r\nhost: a\r\nx-user: root\r\n\r\n").await;
        assert_eq!(outcome(&answer), ("403", "RBAC: access denied"));
        let lines = bench.log.lines(9).await;
        assert!(
            lines[1].contains(" 401 - jwt_authn_access_denied{Jwt_is_expired} "),
            "{}",
            lines[1]
        );
    });
}

#[test]
fn without_a_token_nobody_is_somebody() {
    run(async {
        let issuer = Issuer::new();
        let app = mirror("127.1.0.1").await;
        let bench = sidecar(app, vec![tokens(vec![rule(&issuer)])]).await;
        let answer = call(&bench, "GET / HTTP/1.1\r\nhost: a\r\nx-user: root\r\n\r\n").await;
        let (status, seen) = outcome(&answer);
        assert!(status == "200" && !seen.contains("x-user"), "{answer}");
    });
}

#[test]
fn tokens_in_the_query_reach_neither_application_nor_log() {
    run(async {
        let issuer = Issuer::new();
        let app = mirror("127.1.0.1").await;
        let bench = sidecar(app, vec![tokens(vec![rule(&issuer)]), required()]).await;
        let token = issuer.token(&claims());
        let request = format!("GET /p?a=1&access_token={token}&b=2 HTTP/1.1\r\nhost: a\r\n\r\n");
        let answer = call(&bench, &request).await;
        let (status, seen) = outcome(&answer);
        assert!(
            status == "200" && seen.starts_with("GET /p?a=1&b=2 HTTP/1.1\r\n"),
            "{answer}"
        );
        let line = bench.log.lines(1).await.remove(0);
        assert!(line.contains("\"GET /p?a=1&b=2 HTTP/1.1\" 200"), "{line}");
    });
}

#[test]
fn refusals_log_no_token_of_the_query() {
    run(async {
        let issuer = Issuer::new();
        let app = mirror("127.1.0.1").await;
        let deny =
            Resource::AuthorizationPolicy(policy("no", Action::Deny, vec![paths(&["/denied"])]));
        let custom = Action::Custom {
            provider: "nobody".into(),
        };
        let custom = Resource::AuthorizationPolicy(policy("ask", custom, vec![paths(&["/asked"])]));
        let mut away = rule(&issuer);
        away.issuer = Some("away".into());
        away.keys = JwtKeys::Unavailable {
            uri: "https://away/keys".into(),
            reason: "connection refused".into(),
        };
        let mut kept = rule(&issuer);
        kept.issuer = Some("kept".into());
        kept.forward_original = true;
        let rules = tokens(vec![rule(&issuer), away, kept]);
        let bench = sidecar(app, vec![rules, deny, custom]).await;
        let with = |name: &str, value: Value| {
            let mut claims = claims();
            claims[name] = value;
            issuer.token(&claims)
        };
        let cases = [
            ("/p", with("exp", json!(1)), "401"),
            ("/p", with("aud", json!("bank")), "403"),
            ("/p", with("iss", json!("away")), "401"),
            ("/p", with("iss", json!("kept")), "200"),
            ("/denied", issuer.token(&claims()), "403"),
            ("/asked", issuer.token(&claims()), "403"),
        ];
        for (path, token, status) in &cases {
            let request =
                format!("GET {path}?a=1&access_token={token} HTTP/1.1\r\nhost: a\r\n\r\n");
            let answer = call(&bench, &request).await;
            assert_eq!(outcome(&answer).0, *status, "{path}: {answer}");
        }
        let lines = bench.log.lines(cases.len()).await;
        for (line, (path, token, _)) in lines.iter().zip(&cases) {
            let signature = token.rsplit('.').next().unwrap();
            assert!(!line.contains(signature), "{line}");
            assert!(line.contains(&format!("GET {path}?a=1")), "{line}");
        }
        assert!(
            lines[0].contains("/p?a=1&access_token=redacted HTTP"),
            "{}",
            lines[0]
        );
    });
}

#[test]
fn keys_are_replaced_under_a_connection_that_stays() {
    run(async {
        let (old, new) = (Issuer::new(), Issuer::new());
        let app = mirror("127.1.0.1").await;
        let bench = sidecar(app, vec![tokens(vec![rule(&old)]), required()]).await;
        let mut stream = bench.inbound("127.1.0.9").await;
        let (before, after) = (bearer(&old.token(&claims())), bearer(&new.token(&claims())));
        for (request, status) in [(&before, "200"), (&before, "200"), (&after, "401")] {
            assert_eq!(outcome(&exchange(&mut stream, request).await).0, status);
        }
        let changed = vec![tokens(vec![rule(&new)])];
        let removed = Vec::new();
        let update = lateen_xds::client::Update::Changed { changed, removed };
        bench.proxy.feed.send(update).await.unwrap();
        // Tokens that were verified with the old keys are not kept beyond them.
        while outcome(&exchange(&mut stream, &before).await).0 != "401" {}
        assert_eq!(outcome(&exchange(&mut stream, &after).await).0, "200");
    });
}

#[test]
fn cookies_are_read_and_tokens_forwarded_where_rules_say() {
    run(async {
        let issuer = Issuer::new();
        let app = mirror("127.1.0.1").await;
        let mut rule = rule(&issuer);
        rule.from_cookies = strs(&["id"]);
        let token = issuer.token(&claims());
        let request = format!("GET / HTTP/1.1\r\nhost: a\r\ncookie: a=1; id={token}; b=2\r\n\r\n");
        for (forward, cookie) in [
            (false, "cookie: a=1; b=2\r\n".to_owned()),
            (true, format!("cookie: a=1; id={token}; b=2\r\n")),
        ] {
            rule.forward_original = forward;
            let bench = sidecar(app, vec![tokens(vec![rule.clone()]), required()]).await;
            let answer = call(&bench, &request).await;
            let (status, seen) = outcome(&answer);
            assert!(status == "200" && seen.contains(&cookie), "{answer}");
            assert!(seen.contains("x-user: ann\r\n"), "{seen}");
            let bad = "GET / HTTP/1.1\r\nhost: a\r\ncookie: id=junk\r\n\r\n";
            assert_eq!(outcome(&call(&bench, bad).await).0, "401");
        }
    });
}

#[test]
fn an_issuer_below_another_is_another() {
    run(async {
        let issuer = Issuer::new();
        let app = mirror("127.1.0.1").await;
        let mut below = rule(&issuer);
        below.issuer = Some("https://me/below".into());
        let mut above = rule(&issuer);
        above.issuer = Some("https://me".into());
        let people = Rule {
            from: vec![Source {
                request_principals: strs(&["https://me/*"]),
                ..Source::default()
            }],
            ..Rule::default()
        };
        let allow = Resource::AuthorizationPolicy(policy("people", Action::Allow, vec![people]));
        let bench = sidecar(app, vec![tokens(vec![above, below]), allow]).await;
        for (issued_by, status) in [("https://me", "200"), ("https://me/below", "403")] {
            let mut claims = claims();
            claims["iss"] = json!(issued_by);
            let answer = call(&bench, &bearer(&issuer.token(&claims))).await;
            assert_eq!(outcome(&answer).0, status, "{issued_by}: {answer}");
        }
    });
}

#[test]
fn keys_that_cannot_be_fetched_let_nobody_in() {
    run(async {
        let issuer = Issuer::new();
        let app = mirror("127.1.0.1").await;
        let mut rule = rule(&issuer);
        rule.keys = JwtKeys::Unavailable {
            uri: "https://me/keys".into(),
            reason: "connection refused".into(),
        };
        let bench = sidecar(app, vec![tokens(vec![rule])]).await;
        let answer = call(&bench, &bearer(&issuer.token(&claims()))).await;
        assert_eq!(outcome(&answer), ("401", "Jwks remote fetch is failed"));
    });
}

#[test]
fn a_token_of_a_megabyte_is_refused_and_others_are_served() {
    run(async {
        let issuer = Issuer::new();
        let app = mirror("127.1.0.1").await;
        let bench = sidecar(app, vec![tokens(vec![rule(&issuer)]), required()]).await;
        let mut stream = bench.inbound("127.1.0.9").await;
        let (mut read, mut write) = stream.split();
        let huge = bearer(&"A".repeat(1 << 20));
        let mut got = Vec::new();
        // The answer comes before the head has ended.
        let (_, _) = tokio::join!(write.write_all(huge.as_bytes()), read.read_to_end(&mut got));
        let got = String::from_utf8(got).unwrap();
        assert!(got.is_empty() || got.starts_with("HTTP/1.1 431"), "{got}");
        let answer = call(&bench, &bearer(&issuer.token(&claims()))).await;
        assert_eq!(outcome(&answer).0, "200", "{answer}");
    });
}
