//! What was fetched, read with suspicion: key sets (RFC 7517) reduced to public keys, and discovery documents. Pure.

use lateen_api::jwks::MOST_KEYS;
use serde_json::{Map, Value, json};

/// Members of a key that verify signatures; anything else, private parts above all, goes no further.
const PUBLIC: [&str; 11] = [
    "kty", "kid", "use", "key_ops", "alg", "crv", "x", "y", "n", "e", "x5t#S256",
];

/// The public keys of a set, in a form that does not change with spacing or order of members.
///
/// # Errors
/// The sentence for the policy's author.
pub(super) fn public(body: &[u8]) -> Result<String, String> {
    let set: Value = serde_json::from_slice(body)
        .map_err(|e| format!("the answer is not a JSON Web Key Set: {e}"))?;
    let keys = set["keys"]
        .as_array()
        .ok_or("the answer is not a JSON Web Key Set: it has no list \"keys\"")?;
    if keys.len() > MOST_KEYS {
        return Err(format!(
            "the key set has {} keys; at most {MOST_KEYS} are taken",
            keys.len()
        ));
    }
    let asymmetric = |key: &&Value| ["RSA", "EC", "OKP"].iter().any(|kind| key["kty"] == *kind);
    let kept: Vec<Value> = keys
        .iter()
        .filter(asymmetric)
        .filter_map(Value::as_object)
        .map(|key| {
            let members = key
                .iter()
                .filter(|(name, _)| PUBLIC.contains(&name.as_str()));
            let members: Map<String, Value> = members
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect();
            Value::Object(members)
        })
        .collect();
    let set = json!({ "keys": kept }).to_string();
    // A set without keys is the issuer's way to withdraw them all; one with none that can be used is a mistake.
    if !keys.is_empty() {
        let reduced = match kept.is_empty() {
            true => std::str::from_utf8(body).unwrap_or_default(),
            false => &set,
        };
        lateen_api::jwks::read(reduced).map_err(|why| format!("the key set {why}"))?;
    }
    Ok(set)
}

/// The `jwks_uri` of a discovery document.
///
/// # Errors
/// The sentence for the policy's author.
pub(super) fn discovered(body: &[u8], issuer: &str) -> Result<String, String> {
    let document: Value = serde_json::from_slice(body)
        .map_err(|e| format!("the issuer's discovery document is not JSON: {e}"))?;
    // OpenID Connect Discovery 1.0 §4.3: it must be about the issuer that it was asked of.
    let named = document["issuer"].as_str().unwrap_or_default();
    if named.trim_end_matches('/') != issuer.trim_end_matches('/') {
        return Err(format!(
            "the discovery document is of issuer {named:?}, not of {issuer:?}"
        ));
    }
    document["jwks_uri"]
        .as_str()
        .map(str::to_owned)
        .ok_or_else(|| "the issuer's discovery document has no jwks_uri".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_parts_of_asymmetric_keys_stay() {
        let check =
            |body: &str, expected: Result<&str, &str>| match (public(body.as_bytes()), expected) {
                (Ok(set), Ok(expected)) => assert_eq!(set, expected, "{body}"),
                (Err(error), Err(part)) => assert!(error.contains(part), "{body}: {error}"),
                (got, _) => panic!("{body}: {got:?}"),
            };
        let n = "r".repeat(341) + "A";
        check(
            &format!(
                r#"{{"keys": [{{"kty": "RSA", "n": "{n}", "e": "AQAB", "d": "secret"}}, {{"kty": "oct", "k": "s"}}]}}"#
            ),
            Ok(&format!(
                r#"{{"keys":[{{"e":"AQAB","kty":"RSA","n":"{n}"}}]}}"#
            )),
        );
        let short = "r".repeat(170) + "A";
        check(
            &format!(r#"{{"keys": [{{"kty": "RSA", "n": "{short}", "e": "AQAB"}}]}}"#),
            Err("has no key that can verify a token"),
        );
        check(
            r#"{"keys": [{"kty": "quantum", "k": "s"}]}"#,
            Err("has no key that can verify a token"),
        );
        check(r#"{"keys": []}"#, Ok(r#"{"keys":[]}"#));
        check(r#"{"keys": [{"kty": "oct", "k": "s"}]}"#, Err("symmetric"));
        check("<html>", Err("not a JSON Web Key Set"));
        check(r#"{"keys": {}}"#, Err("no list \"keys\""));
        let many = format!(
            r#"{{"keys": [{}]}}"#,
            vec![r#"{"kty":"EC"}"#; 101].join(",")
        );
        check(&many, Err("at most 100"));
    }

    #[test]
    fn a_discovery_document_is_of_its_issuer() {
        let document = br#"{"issuer": "https://a/", "jwks_uri": "https://a/keys"}"#;
        assert_eq!(
            discovered(document, "https://a").as_deref(),
            Ok("https://a/keys")
        );
        assert!(discovered(document, "https://b").is_err());
        assert!(discovered(br#"{"issuer": "https://a"}"#, "https://a").is_err());
    }
}
