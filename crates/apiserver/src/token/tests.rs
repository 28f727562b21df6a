//! Tokens from request to review, and every way to be refused.

use super::*;
use crate::auth::tests::Objects;
use crate::auth::{Authenticator, User};
use std::sync::Arc;

const OBJECTS: &str = r#"
{apiVersion: v1, kind: ServiceAccount, metadata: {name: bot, namespace: a, uid: u1}}
---
{apiVersion: v1, kind: Node, metadata: {name: lateen, uid: n1}}
---
{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: a, uid: p1},
  spec: {serviceAccountName: bot, nodeName: lateen}}
---
{apiVersion: v1, kind: Pod, metadata: {name: other, namespace: a, uid: p2}, spec: {serviceAccountName: default}}
"#;

fn request(tokens: &Tokens, spec: Value) -> Result<Value, ApiError> {
    tokens.request(&Objects::new(OBJECTS), "a", "bot", json!({"spec": spec}))
}

fn token(tokens: &Tokens, spec: Value) -> String {
    request(tokens, spec).unwrap()["status"]["token"]
        .as_str()
        .unwrap()
        .to_owned()
}

fn pod(name: &str) -> Value {
    json!({"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": name}})
}

#[test]
fn request_verify_review() {
    let (tokens, objects) = (Tokens::open(None).unwrap(), Objects::new(OBJECTS));
    let plain = token(&tokens, json!({}));
    let user = tokens.verify(&objects, &plain, &[]).unwrap().user;
    assert_eq!(user.name, "system:serviceaccount:a:bot");
    assert_eq!(
        user.groups,
        ["system:serviceaccounts", "system:serviceaccounts:a"]
    );
    assert!(user.extra["authentication.kubernetes.io/credential-id"][0].starts_with("JTI="));

    let bound = token(&tokens, pod("p"));
    let user = tokens.verify(&objects, &bound, &[]).unwrap().user;
    assert_eq!(user.extra["authentication.kubernetes.io/pod-name"], ["p"]);
    assert_eq!(user.extra["authentication.kubernetes.io/node-uid"], ["n1"]);

    let mine = token(
        &tokens,
        json!({"audiences": ["istio-ca"], "expirationSeconds": 600}),
    );
    let review = |audiences: Value| {
        tokens
            .review(
                &objects,
                json!({"spec": {"token": mine, "audiences": audiences}}),
            )
            .unwrap()["status"]
            .clone()
    };
    let status = review(json!(["istio-ca", "x"]));
    assert_eq!(
        (&status["authenticated"], &status["audiences"]),
        (&json!(true), &json!(["istio-ca"]))
    );
    assert_eq!(status["user"]["username"], "system:serviceaccount:a:bot");
    assert_eq!(status["user"]["groups"][2], "system:authenticated");
    let status = review(json!([]));
    assert_eq!(status["authenticated"], false);
    assert!(status["error"].as_str().unwrap().contains("audiences"));
}

#[test]
fn refused_requests() {
    let tokens = Tokens::open(None).unwrap();
    let check = |spec: Value, code: u16, part: &str| {
        let error = request(&tokens, spec).unwrap_err();
        assert!(
            error.code == code && error.message.contains(part),
            "{error:?}"
        );
    };
    check(
        json!({"expirationSeconds": 30}),
        422,
        "less than 10 minutes",
    );
    check(pod("other"), 400, "different serviceaccount");
    check(pod("absent"), 404, "pods \"absent\" not found");
    check(
        json!({"boundObjectRef": {"kind": "Node", "name": "lateen"}}),
        400,
        "kind \"Node\"",
    );
    check(
        json!({"boundObjectRef": {"kind": "Pod", "name": "p", "uid": "old"}}),
        409,
        "does not match the UID",
    );
    let error = tokens
        .request(&Objects::new(OBJECTS), "a", "nobody", json!({}))
        .unwrap_err();
    assert_eq!(error.code, 404);
}

#[test]
fn refused_tokens() {
    let tokens = Tokens::open(None).unwrap();
    let good = token(&tokens, pod("p"));
    let check = |objects: &str, token: &str| {
        tokens
            .verify(&Objects::new(objects), token, &[])
            .map(|_| ())
            .unwrap_err()
    };
    assert!(tokens.verify(&Objects::new(OBJECTS), &good, &[]).is_ok());

    let gone = |what: &str| TokenError::Gone(what.into());
    assert_eq!(
        check(&OBJECTS.replace("u1", "u9"), &good),
        gone("service account a/bot")
    );
    assert_eq!(check(&OBJECTS.replace("p1", "p9"), &good), gone("pod a/p"));
    for odd in [
        "",
        "a.b",
        "a.b.c",
        &good[..good.len() - 4],
        &format!("{good}.x"),
        &"a".repeat(MOST_BYTES + 1),
    ] {
        assert!(
            matches!(check(OBJECTS, odd), TokenError::Foreign(_)),
            "{odd}"
        );
    }
    let foreign = token(&Tokens::open(None).unwrap(), json!({}));
    assert_eq!(
        check(OBJECTS, &foreign),
        TokenError::Foreign("signed with another key")
    );

    let (head, rest) = good.split_once('.').unwrap();
    let (claims, signature) = rest.split_once('.').unwrap();
    let mut claims: Value =
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
    claims["exp"] = json!(i64::MAX);
    let forged = format!(
        "{head}.{}.{signature}",
        URL_SAFE_NO_PAD.encode(claims.to_string())
    );
    assert_eq!(
        check(OBJECTS, &forged),
        TokenError::Foreign("wrong signature")
    );
    claims["exp"] = json!(Timestamp::now().as_second() - 1);
    assert_eq!(
        check(OBJECTS, &tokens.sign(&claims).unwrap()),
        TokenError::Expired
    );
}

#[test]
fn the_key_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Tokens::open(Some(dir.path())).unwrap();
    let kept = token(&open(), json!({}));
    assert!(open().verify(&Objects::new(OBJECTS), &kept, &[]).is_ok());
    assert_eq!(open().jwks(), open().jwks());
    assert_eq!(open().jwks()["keys"][0]["x"].as_str().unwrap().len(), 43);
    assert_eq!(open().openid_configuration()["issuer"], ISSUER);
}

#[test]
fn authenticator_knows_tokens_and_nobody() {
    let tokens = Arc::new(Tokens::open(None).unwrap());
    let good = token(&tokens, json!({}));
    let authenticator = Authenticator::new(Arc::new(Objects::new(OBJECTS)), tokens);
    let user = authenticator.authenticate(None, Some(&good)).unwrap();
    assert!(user.has_group("system:authenticated"));
    assert_eq!(
        authenticator.authenticate(None, None).unwrap(),
        User::anonymous()
    );
    assert_eq!(
        authenticator
            .authenticate(None, Some("junk"))
            .unwrap_err()
            .code,
        401
    );
    let admin = crate::tls::Authority::open(None).unwrap().admin().unwrap();
    let (chain, _) = admin.parts().unwrap();
    let user = authenticator
        .authenticate(Some(&chain[0]), Some("junk"))
        .unwrap();
    assert_eq!(user.name, "kubernetes-admin");
}
