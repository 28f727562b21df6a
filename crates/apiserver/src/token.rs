//! Service-account tokens: signing, checking, and the TokenRequest and TokenReview APIs.
//!
//! Tokens are ES256 JWTs with Kubernetes' claims, so that whoever verifies them against the published key set
//! (`/openid/v1/jwks`) needs nothing special. A token dies with its service account and with the pod it is bound
//! to. Legacy tokens kept in Secrets are not made.

mod request;

use crate::auth::{AUTHENTICATED, User};
use crate::error::ApiError;
use crate::lookup::Lookup;
use crate::tls::{TlsError, fresh_key, kept_key};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _,
    UnparsedPublicKey,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use request::{Bound, Spec};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::path::Path;

/// Issuer and default audience of every token (Kubernetes: `--service-account-issuer` of most clusters).
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// Longest token looked at. Ours are about 1 KiB.
const MOST_BYTES: usize = 16 * 1024;

/// Signs and verifies the tokens of one server.
pub struct Tokens {
    key: EcdsaKeyPair,
    key_id: String,
}

/// A token that was found good.
#[derive(Debug, Clone)]
pub struct Verified {
    /// The service account, without the group `system:authenticated`.
    pub user: User,
    /// The audiences that were asked for and that the token has.
    pub audiences: Vec<String>,
}

/// Why a token is no good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not a token of this server: malformed, of another issuer, or with a wrong signature.
    #[error("the token is not one of this server: {0}")]
    Foreign(&'static str),
    /// Too late or too early.
    #[error("the token has expired or is not yet valid; request a new one")]
    Expired,
    /// For somebody else.
    #[error("the token is for audiences {have:?} and none of {wanted:?}")]
    Audience {
        /// Audiences in the token.
        have: Vec<String>,
        /// Audiences accepted.
        wanted: Vec<String>,
    },
    /// Its service account, or the object it is bound to, is gone or was made anew.
    #[error("the token's {0} no longer exists")]
    Gone(String),
}

// === impl Tokens ===

impl Tokens {
    /// The signing key kept in a directory (`sa.key`), or made there; without a directory it lives in memory.
    pub fn open(dir: Option<&Path>) -> Result<Self, TlsError> {
        let path = dir.map(|dir| dir.join("sa.key"));
        let pair = match &path {
            Some(path) => kept_key(path)?.0,
            None => fresh_key()?,
        };
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pair.serialized_der())
            .map_err(|error| TlsError::Content {
                path: path.unwrap_or_default(),
                why: error.to_string(),
            })?;
        let key_id = URL_SAFE_NO_PAD.encode(Sha256::digest(key.public_key().as_ref()));
        Ok(Self { key, key_id })
    }

    /// `/openid/v1/jwks`: the public key (RFC 7517, RFC 7518 §6.2).
    pub fn jwks(&self) -> Value {
        // An uncompressed point: 0x04, then x and y of 32 bytes each.
        let point = self.key.public_key().as_ref();
        let (x, y) = point[1..].split_at(32);
        json!({"keys": [{
            "use": "sig", "kty": "EC", "kid": self.key_id, "crv": "P-256", "alg": "ES256",
            "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
        }]})
    }

    /// `/.well-known/openid-configuration`.
    pub fn openid_configuration(&self) -> Value {
        json!({
            "issuer": ISSUER,
            "jwks_uri": format!("{ISSUER}/openid/v1/jwks"),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        })
    }

    /// TokenRequest for `serviceaccounts/{name}/token`: the same object with its `status` (HTTP 201).
    pub fn request(
        &self,
        lookup: &dyn Lookup,
        namespace: &str,
        name: &str,
        mut body: Value,
    ) -> Result<Value, ApiError> {
        crate::auth::review::expect_kind(&mut body, "authentication.k8s.io", "TokenRequest")?;
        let account = lookup
            .find("", "serviceaccounts", Some(namespace), name)
            .ok_or_else(|| ApiError::not_found("", "serviceaccounts", name))?;
        let spec = Spec::read(&body["spec"], name)?;
        let bound = Bound::find(lookup, namespace, name, &body["spec"]["boundObjectRef"])?;

        let now = Timestamp::now().as_second();
        let mut private = json!({
            "namespace": namespace,
            "serviceaccount": {"name": name, "uid": account["metadata"]["uid"]},
        });
        bound.describe(lookup, &mut private);
        let claims = json!({
            "aud": spec.audiences, "iss": ISSUER, "iat": now, "nbf": now, "exp": now + spec.seconds,
            "jti": uuid::Uuid::new_v4().to_string(),
            "sub": format!("system:serviceaccount:{namespace}:{name}"),
            "kubernetes.io": private,
        });
        let expires = Timestamp::from_second(now + spec.seconds).unwrap_or(Timestamp::MAX);
        body["metadata"]["name"] = name.into();
        body["metadata"]["namespace"] = namespace.into();
        body["metadata"]["creationTimestamp"] = Timestamp::from_second(now)
            .unwrap_or_default()
            .to_string()
            .into();
        body["spec"]["audiences"] = json!(spec.audiences);
        body["spec"]["expirationSeconds"] = spec.seconds.into();
        body["status"] =
            json!({"token": self.sign(&claims)?, "expirationTimestamp": expires.to_string()});
        Ok(body)
    }

    /// TokenReview: is this a good token, and whose? A bad token is an answer, not an error.
    pub fn review(&self, lookup: &dyn Lookup, mut body: Value) -> Result<Value, ApiError> {
        crate::auth::review::expect_kind(&mut body, "authentication.k8s.io", "TokenReview")?;
        let Some(token) = body["spec"]["token"]
            .as_str()
            .filter(|token| !token.is_empty())
        else {
            return Err(ApiError::bad_request("TokenReview requires spec.token"));
        };
        let wanted = strings(&body["spec"]["audiences"]);
        body["status"] = match self.verify(lookup, token, &wanted) {
            Ok(mut verified) => {
                verified.user.groups.push(AUTHENTICATED.into());
                json!({"authenticated": true, "user": verified.user.info(), "audiences": verified.audiences})
            }
            Err(error) => json!({"authenticated": false, "user": {}, "error": error.to_string()}),
        };
        Ok(body)
    }

    /// Checks a token. No audiences wanted means the API server's own.
    pub fn verify(
        &self,
        lookup: &dyn Lookup,
        token: &str,
        audiences: &[String],
    ) -> Result<Verified, TokenError> {
        let claims = self.claims(token)?;
        if claims["iss"] != ISSUER {
            return Err(TokenError::Foreign("issued by another"));
        }
        let now = Timestamp::now().as_second();
        // Clocks of one machine agree, but `nbf` is in whole seconds of another process's reading.
        let (from, to) = (
            claims["nbf"].as_i64().unwrap_or(i64::MAX),
            claims["exp"].as_i64().unwrap_or(0),
        );
        if now + 10 < from || now >= to {
            return Err(TokenError::Expired);
        }
        let own = [ISSUER.to_owned()];
        let wanted = if audiences.is_empty() {
            &own[..]
        } else {
            audiences
        };
        let have = strings(&claims["aud"]);
        let shared: Vec<String> = wanted
            .iter()
            .filter(|one| have.contains(one))
            .cloned()
            .collect();
        if shared.is_empty() {
            return Err(TokenError::Audience {
                have,
                wanted: wanted.to_vec(),
            });
        }
        let user = living_account(lookup, &claims)?;
        Ok(Verified {
            user,
            audiences: shared,
        })
    }

    fn sign(&self, claims: &Value) -> Result<String, ApiError> {
        let header = json!({"alg": "ES256", "kid": self.key_id});
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(&header), encode(claims));
        let signature = self
            .key
            .sign(&SystemRandom::new(), signed.as_bytes())
            .map_err(|_| ApiError::internal("cannot sign a service-account token"))?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// The claims of a token whose signature is ours.
    fn claims(&self, token: &str) -> Result<Value, TokenError> {
        let malformed = TokenError::Foreign("malformed");
        if token.len() > MOST_BYTES {
            return Err(malformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(malformed.clone())?;
        let (header, claims) = signed.split_once('.').ok_or(malformed.clone())?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| malformed.clone());
        let parse = |part: &str| {
            serde_json::from_slice::<Value>(&decode(part)?).map_err(|_| malformed.clone())
        };
        let header = parse(header)?;
        if header["alg"] != "ES256" || header["kid"] != self.key_id.as_str() {
            return Err(TokenError::Foreign("signed with another key"));
        }
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.key.public_key().as_ref())
            .verify(signed.as_bytes(), &decode(signature)?)
            .map_err(|_| TokenError::Foreign("wrong signature"))?;
        parse(claims)
    }
}

/// The account in the claims, if it and what the token is bound to still exist with the same uids.
fn living_account(lookup: &dyn Lookup, claims: &Value) -> Result<User, TokenError> {
    let private = &claims["kubernetes.io"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let namespace = text(&private["namespace"]);
    let exists = |resource: &str, kind: &str, reference: &Value| {
        let name = text(&reference["name"]);
        match lookup.find("", resource, Some(&namespace), &name) {
            Some(object) if object["metadata"]["uid"] == reference["uid"] => Ok(()),
            _ => Err(TokenError::Gone(format!("{kind} {namespace}/{name}"))),
        }
    };
    exists(
        "serviceaccounts",
        "service account",
        &private["serviceaccount"],
    )?;
    let account = &private["serviceaccount"];
    let mut user =
        User::service_account(&namespace, &text(&account["name"]), &text(&account["uid"]));
    let mut note = |key: &str, value: String| {
        if !value.is_empty() {
            user.extra
                .insert(format!("authentication.kubernetes.io/{key}"), vec![value]);
        }
    };
    let jti = text(&claims["jti"]);
    note(
        "credential-id",
        if jti.is_empty() {
            jti
        } else {
            format!("JTI={jti}")
        },
    );
    if private["pod"].is_object() {
        exists("pods", "pod", &private["pod"])?;
        note("pod-name", text(&private["pod"]["name"]));
        note("pod-uid", text(&private["pod"]["uid"]));
        note("node-name", text(&private["node"]["name"]));
        note("node-uid", text(&private["node"]["uid"]));
    }
    if private["secret"].is_object() {
        exists("secrets", "secret", &private["secret"])?;
    }
    Ok(user)
}

fn strings(value: &Value) -> Vec<String> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests;
