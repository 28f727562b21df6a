//! Key sets (RFC 7517) and signatures (RFC 7518 §3, RFC 8037). The algorithm comes from the key, never from the token
//! alone: a public RSA key cannot be taken for a shared secret, and there are no shared secrets.

use super::parse::base64url;
use super::problem::JwtError;
use aws_lc_rs::signature::{self as sign, ParsedPublicKey, VerificationAlgorithm};
use serde_json::{Map, Value};

/// Keys of a set that are used: a token without `kid` is tried with each. The control plane refuses larger sets.
const MOST_KEYS: usize = 100;

/// How a token is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    Es512,
    EdDsa,
    /// Signed with a shared secret. No key ever fits.
    Shared,
}

impl Algorithm {
    /// Reads `alg`; absent: nobody knows it, or it is `none`.
    pub(super) fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "RS256" => Self::Rs256,
            "RS384" => Self::Rs384,
            "RS512" => Self::Rs512,
            "PS256" => Self::Ps256,
            "PS384" => Self::Ps384,
            "PS512" => Self::Ps512,
            "ES256" => Self::Es256,
            "ES384" => Self::Es384,
            "ES512" => Self::Es512,
            "EdDSA" => Self::EdDsa,
            "HS256" | "HS384" | "HS512" => Self::Shared,
            _ => return None,
        })
    }

    fn verifier(self) -> Option<&'static dyn VerificationAlgorithm> {
        Some(match self {
            Self::Rs256 => &sign::RSA_PKCS1_2048_8192_SHA256,
            Self::Rs384 => &sign::RSA_PKCS1_2048_8192_SHA384,
            Self::Rs512 => &sign::RSA_PKCS1_2048_8192_SHA512,
            Self::Ps256 => &sign::RSA_PSS_2048_8192_SHA256,
            Self::Ps384 => &sign::RSA_PSS_2048_8192_SHA384,
            Self::Ps512 => &sign::RSA_PSS_2048_8192_SHA512,
            Self::Es256 => &sign::ECDSA_P256_SHA256_FIXED,
            Self::Es384 => &sign::ECDSA_P384_SHA384_FIXED,
            Self::Es512 => &sign::ECDSA_P521_SHA512_FIXED,
            Self::EdDsa => &sign::ED25519,
            Self::Shared => return None,
        })
    }
}

const RSA: [Algorithm; 6] = [
    Algorithm::Rs256,
    Algorithm::Rs384,
    Algorithm::Rs512,
    Algorithm::Ps256,
    Algorithm::Ps384,
    Algorithm::Ps512,
];

/// The usable keys of a set.
#[derive(Debug)]
pub(super) struct KeySet(Vec<Key>);

#[derive(Debug)]
struct Key {
    kid: Option<String>,
    /// One per algorithm that it may be used with.
    verifiers: Vec<(Algorithm, ParsedPublicKey)>,
}

impl KeySet {
    /// Reads a key set. Keys that cannot be used are left out; a set of none but those is an error.
    pub(super) fn parse(text: &str) -> Result<Self, JwtError> {
        let set: Value = serde_json::from_str(text).map_err(|_| JwtError::KeysJson)?;
        let keys = set.get("keys").ok_or(JwtError::KeysMissing)?;
        let keys = keys.as_array().ok_or(JwtError::KeysNoList)?;
        let usable = keys.iter().filter_map(|key| Key::parse(key.as_object()?));
        let usable: Vec<Key> = usable.take(MOST_KEYS).collect();
        if usable.is_empty() {
            return Err(JwtError::KeysInvalid);
        }
        Ok(Self(usable))
    }

    /// Whether a key of the set made `signature`. With `kid` only keys of that name, or without a name, are tried.
    pub(super) fn verify(
        &self,
        algorithm: Algorithm,
        kid: Option<&str>,
        signed: &[u8],
        signature: &[u8],
    ) -> Result<(), JwtError> {
        let mut verdict = Err(JwtError::NoKey);
        for key in &self.0 {
            if let (Some(wanted), Some(name)) = (kid, &key.kid)
                && wanted != name
            {
                continue;
            }
            let fitting = key.verifiers.iter().find(|(a, _)| *a == algorithm);
            if let Some((_, verifier)) = fitting {
                if verifier.verify_sig(signed, signature).is_ok() {
                    return Ok(());
                }
                verdict = Err(JwtError::Signature);
            }
        }
        verdict
    }
}

impl Key {
    fn parse(key: &Map<String, Value>) -> Option<Self> {
        let text = |name: &str| key.get(name).and_then(Value::as_str);
        // A key for encryption verifies nothing (RFC 7517 §4.2, §4.3).
        if text("use").is_some_and(|usage| usage != "sig") {
            return None;
        }
        if let Some(operations) = key.get("key_ops").and_then(Value::as_array)
            && !operations.iter().any(|o| o == "verify")
        {
            return None;
        }
        let (fitting, bytes): (&[Algorithm], Vec<u8>) = match (text("kty")?, text("crv")) {
            ("RSA", _) => (
                &RSA,
                rsa_der(&base64url(text("n")?)?, &base64url(text("e")?)?),
            ),
            ("EC", Some("P-256")) => (&[Algorithm::Es256], point(key, 32)?),
            ("EC", Some("P-384")) => (&[Algorithm::Es384], point(key, 48)?),
            ("EC", Some("P-521")) => (&[Algorithm::Es512], point(key, 66)?),
            ("OKP", Some("Ed25519")) => (&[Algorithm::EdDsa], base64url(text("x")?)?),
            _ => return None,
        };
        let only = text("alg").map(Algorithm::parse);
        let verifiers: Vec<_> = fitting
            .iter()
            .filter(|a| only.is_none_or(|only| only == Some(**a)))
            .filter_map(|a| Some((*a, ParsedPublicKey::new(a.verifier()?, &bytes).ok()?)))
            .collect();
        (!verifiers.is_empty()).then(|| Self {
            kid: text("kid").map(str::to_owned),
            verifiers,
        })
    }
}

/// A point in uncompressed form (SEC 1 §2.3.3).
fn point(key: &Map<String, Value>, size: usize) -> Option<Vec<u8>> {
    let mut point = vec![4];
    for name in ["x", "y"] {
        let coordinate = base64url(key.get(name)?.as_str()?)?;
        // Some issuers drop leading zeros.
        point.resize(point.len() + size.checked_sub(coordinate.len())?, 0);
        point.extend(coordinate);
    }
    Some(point)
}

/// `RSAPublicKey` in DER (RFC 8017 §A.1.1).
fn rsa_der(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    let mut body = Vec::with_capacity(modulus.len() + exponent.len() + 16);
    for number in [modulus, exponent] {
        let zeros = number.iter().take_while(|b| **b == 0).count();
        let number = &number[zeros..];
        let sign = number.first().is_none_or(|b| *b >= 0x80);
        tag(&mut body, 0x02, number.len() + usize::from(sign));
        if sign {
            body.push(0);
        }
        body.extend_from_slice(number);
    }
    let mut der = Vec::with_capacity(body.len() + 8);
    tag(&mut der, 0x30, body.len());
    der.extend(body);
    der
}

fn tag(out: &mut Vec<u8>, tag: u8, length: usize) {
    out.push(tag);
    match length {
        0..0x80 => out.push(length as u8),
        _ => {
            let bytes = length.to_be_bytes();
            let zeros = bytes.iter().take_while(|b| **b == 0).count();
            out.push(0x80 | (bytes.len() - zeros) as u8);
            out.extend_from_slice(&bytes[zeros..]);
        }
    }
}
