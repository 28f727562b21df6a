//! JSON Web Key Sets (RFC 7517) as texts: which of their keys can verify tokens. No token is verified here.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

/// Most keys in a set: as many as proxies try a token with.
pub const MOST_KEYS: usize = 100;

/// Longest text of a set, in bytes.
pub const MOST_BYTES: usize = 1 << 20;

/// What a set holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeySet {
    /// How many keys can verify tokens; at least one.
    pub usable: usize,
    /// A sentence for each key that cannot.
    pub passed_over: Vec<String>,
    /// Whether a key is symmetric: a secret that everybody who verifies tokens could forge them with.
    pub has_symmetric: bool,
}

/// Reads a set. Keys that cannot verify tokens are passed over (RFC 7517 §5); members that are not known too.
///
/// # Errors
/// The text is not a key set, is too large, or no key in it can be used: a sentence that begins with a verb.
pub fn read(text: &str) -> Result<KeySet, String> {
    if text.len() > MOST_BYTES {
        let length = text.len();
        return Err(format!(
            "is {length} bytes long; at most {MOST_BYTES} are read"
        ));
    }
    let value: Value = serde_json::from_str(text).map_err(|e| format!("is not JSON: {e}"))?;
    let Some(keys) = value["keys"].as_array() else {
        return Err("is not a key set: it needs a list \"keys\"".to_owned());
    };
    if keys.len() > MOST_KEYS {
        let count = keys.len();
        return Err(format!("has {count} keys; at most {MOST_KEYS} are read"));
    }
    let mut set = KeySet::default();
    for (at, key) in keys.iter().enumerate() {
        set.has_symmetric |= is_symmetric(key);
        match usable(key) {
            Ok(()) => set.usable += 1,
            Err(reason) => {
                let name = key["kid"].as_str().map_or_else(
                    || format!("keys[{at}]"),
                    |kid| format!("key {:?}", kid.chars().take(64).collect::<String>()),
                );
                set.passed_over.push(format!("{name} {reason}"));
            }
        }
    }
    if set.usable == 0 {
        let reasons = match set.passed_over.is_empty() {
            true => "the list \"keys\" is empty".to_owned(),
            false => set.passed_over.join(", "),
        };
        return Err(format!("has no key that can verify a token: {reasons}"));
    }
    Ok(set)
}

fn is_symmetric(key: &Value) -> bool {
    let algorithm = key["alg"].as_str().unwrap_or_default();
    key["kty"] == "oct" || algorithm.starts_with("HS")
}

/// Whether a key can verify tokens; if not, why.
fn usable(key: &Value) -> Result<(), String> {
    if is_symmetric(key) {
        return Err(
            "is symmetric: whoever verifies with it could forge tokens; use RSA, EC or OKP"
                .to_owned(),
        );
    }
    if key["use"].as_str().is_some_and(|purpose| purpose != "sig") {
        return Err("is not for signatures (use)".to_owned());
    }
    let part = |name: &str| -> Result<Vec<u8>, String> {
        let text = key[name].as_str().unwrap_or_default();
        let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('='));
        bytes
            .ok()
            .filter(|bytes| !bytes.is_empty())
            .ok_or_else(|| format!("has no {name:?} in base64url"))
    };
    let sized = |name: &str, size: usize| match part(name)?.len() {
        length if length == size => Ok(()),
        length => Err(format!("has {length} bytes in {name:?} instead of {size}")),
    };
    match (key["kty"].as_str(), key["crv"].as_str()) {
        (Some("RSA"), _) => {
            part("e")?;
            let modulus = part("n")?;
            let zeros = modulus.iter().take_while(|byte| **byte == 0).count();
            match (modulus.len() - zeros) * 8 {
                2041..=8192 => Ok(()),
                bits => Err(format!("has {bits} bits; RSA keys have 2048 to 8192")),
            }
        }
        (Some("EC"), Some("P-256")) => sized("x", 32).and(sized("y", 32)),
        (Some("EC"), Some("P-384")) => sized("x", 48).and(sized("y", 48)),
        (Some("EC"), Some("P-521")) => sized("x", 66).and(sized("y", 66)),
        (Some("OKP"), Some("Ed25519")) => sized("x", 32),
        (Some("EC" | "OKP"), curve) => Err(format!(
            "is on curve {:?}, which is not known; use P-256, P-384, P-521 or Ed25519",
            curve.unwrap_or_default()
        )),
        (kind, _) => Err(format!(
            "is of kind {:?}, which is not known; use RSA, EC or OKP",
            kind.unwrap_or_default()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, want: Result<usize, &str>) {
        match (read(text), want) {
            (Ok(set), Ok(usable)) => assert_eq!(set.usable, usable, "{text}"),
            (Err(reason), Err(want)) => assert!(reason.contains(want), "{text}: {reason}"),
            (found, want) => panic!("{text}: {found:?}, not {want:?}"),
        }
    }

    #[test]
    fn keys_that_verify_and_keys_that_do_not() {
        let x = URL_SAFE_NO_PAD.encode([7; 32]);
        let ed = format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}"}}"#);
        let ec = format!(r#"{{"kty":"EC","crv":"P-256","x":"{x}","y":"{x}"}}"#);
        let set = |keys: &[&str]| format!(r#"{{"keys":[{}]}}"#, keys.join(","));
        check(&set(&[&ed, &ec]), Ok(2));
        check(&set(&[&ed, r#"{"kty":"EC","crv":"secp256k1"}"#]), Ok(1));
        check(&set(&[]), Err("is empty"));
        let many = vec![ed.as_str(); MOST_KEYS + 1];
        check(&set(&many[..MOST_KEYS]), Ok(MOST_KEYS));
        check(&set(&many), Err("at most 100"));
        check(&set(&[r#"{"kty":"oct","k":"AAAA"}"#]), Err("symmetric"));
        check(
            &set(&[r#"{"kty":"RSA","n":"AQAB","e":"AQAB"}"#]),
            Err("24 bits"),
        );
        check(&set(&[r#"{"kty":"RSA","n":"!","e":"AQAB"}"#]), Err("\"n\""));
        check("{", Err("is not JSON"));
        check("[]", Err("needs a list"));
        let mixed = read(&set(&[&ed, r#"{"kty":"oct","k":"AAAA"}"#])).expect("one is good");
        assert!(mixed.has_symmetric);
    }
}
