//! A token taken apart (RFC 7519, RFC 7515 §7.1). Nothing is believed yet.

use super::keys::Algorithm;
use super::problem::JwtError;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

/// Longest token that is looked at, in bytes.
const LONGEST: usize = 64 * 1024;

/// A token's parts.
#[derive(Debug)]
pub(super) struct Parsed<'t> {
    pub(super) algorithm: Algorithm,
    pub(super) kid: Option<String>,
    /// What the signature is over.
    pub(super) signed: &'t [u8],
    pub(super) signature: Vec<u8>,
    /// The payload as it stands in the token.
    pub(super) payload: &'t str,
    pub(super) claims: Map<String, Value>,
    pub(super) issuer: Option<String>,
    pub(super) audiences: Vec<String>,
    /// Seconds since 1970.
    pub(super) not_before: Option<u64>,
    /// Seconds since 1970; absent: never.
    pub(super) expires: Option<u64>,
}

/// Decodes base64url without padding (RFC 7515 §2).
pub(super) fn base64url(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

impl<'t> Parsed<'t> {
    pub(super) fn parse(token: &'t str) -> Result<Self, JwtError> {
        if token.len() > LONGEST {
            return Err(JwtError::TooLong);
        }
        let mut sections = token.split('.');
        let (Some(header), Some(payload), Some(signature), None) = (
            sections.next(),
            sections.next(),
            sections.next(),
            sections.next(),
        ) else {
            return Err(JwtError::Form);
        };
        if header.is_empty() || payload.is_empty() {
            return Err(JwtError::Form);
        }
        let head = base64url(header).ok_or(JwtError::HeaderBase64)?;
        let head: Map<String, Value> =
            serde_json::from_slice(&head).map_err(|_| JwtError::HeaderJson)?;
        let (algorithm, kid) = header_fields(&head)?;
        let body = base64url(payload).ok_or(JwtError::PayloadBase64)?;
        let claims: Map<String, Value> =
            serde_json::from_slice(&body).map_err(|_| JwtError::PayloadJson)?;
        let subject = text(&claims, "sub").map_err(|()| JwtError::SubNoText)?;
        let issuer = text(&claims, "iss").map_err(|()| JwtError::IssNoText)?;
        // Policies compare both as one line of text.
        let control = |claim: &Option<String>| {
            let text = claim.as_deref().unwrap_or_default();
            text.contains(|c: char| c.is_control())
        };
        if control(&subject) || control(&issuer) {
            return Err(JwtError::Control);
        }
        let (nbf, exp) = (claims.get("nbf"), claims.get("exp"));
        let not_before = time(nbf, (JwtError::NbfNoNumber, JwtError::NbfRange))?;
        let expires = time(exp, (JwtError::ExpNoNumber, JwtError::ExpRange))?;
        Ok(Self {
            algorithm,
            kid,
            signed: &token.as_bytes()[..header.len() + 1 + payload.len()],
            signature: base64url(signature).ok_or(JwtError::SignatureBase64)?,
            payload,
            issuer,
            audiences: audiences(&claims)?,
            not_before,
            expires,
            claims,
        })
    }
}

fn header_fields(head: &Map<String, Value>) -> Result<(Algorithm, Option<String>), JwtError> {
    let name = head.get("alg").and_then(Value::as_str);
    let algorithm = Algorithm::parse(name.ok_or(JwtError::AlgMissing)?);
    let algorithm = algorithm.ok_or(JwtError::AlgUnknown)?;
    // Whoever does not know a critical extension must refuse (RFC 7515 §4.1.11).
    if head.contains_key("crit") {
        return Err(JwtError::Critical);
    }
    let kid = text(head, "kid").map_err(|()| JwtError::KidNoText)?;
    Ok((algorithm, kid.filter(|k| !k.is_empty())))
}

fn text(object: &Map<String, Value>, name: &str) -> Result<Option<String>, ()> {
    match object.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(()),
    }
}

// A number with a fraction is a NumericDate, too (RFC 7519 §2).
fn time(
    value: Option<&Value>,
    (no_number, range): (JwtError, JwtError),
) -> Result<Option<u64>, JwtError> {
    let Some(value) = value else { return Ok(None) };
    if let Some(seconds) = value.as_u64() {
        return Ok(Some(seconds));
    }
    let seconds = value.as_f64().ok_or(no_number)?;
    if (0.0..u64::MAX as f64).contains(&seconds) {
        Ok(Some(seconds as u64))
    } else {
        Err(range)
    }
}

fn audiences(claims: &Map<String, Value>) -> Result<Vec<String>, JwtError> {
    match claims.get("aud") {
        None => Ok(Vec::new()),
        Some(Value::String(one)) => Ok(vec![one.clone()]),
        Some(Value::Array(all)) => {
            let texts = all.iter().map(|a| a.as_str().map(str::to_owned));
            texts.collect::<Option<_>>().ok_or(JwtError::AudNoText)
        }
        Some(_) => Err(JwtError::AudNoText),
    }
}
