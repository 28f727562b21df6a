//! RequestAuthentication as users write it (Istio: security.istio.io, `RequestAuthentication`).

use crate::fields::{DurationText, MatchLabels, TargetReference};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which tokens (JWT) workloads take. A request with a bad token is refused; one without a token passes, without
/// an identity: an AuthorizationPolicy with requestPrincipals requires one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
    { "rule": "(has(self.selector) ? 1 : 0) + (has(self.targetRef) ? 1 : 0) + (has(self.targetRefs) ? 1 : 0) <= 1",
      "message": "selector, targetRef and targetRefs exclude each other: keep one of them" }
]))]
pub struct RequestAuthentication {
    /// Workloads of this namespace; all of them when absent, and all of the mesh in the root namespace.
    pub selector: Option<MatchLabels>,
    /// Old form of targetRefs with one entry.
    pub target_ref: Option<TargetReference>,
    /// Objects that the rules are attached to; excludes a selector.
    #[schemars(length(max = 16))]
    pub target_refs: Vec<TargetReference>,
    /// One rule for each issuer. A token is checked by the rule of its issuer.
    #[schemars(length(max = 4096))]
    pub jwt_rules: Vec<JwtRule>,
}

/// Tokens of one issuer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct JwtRule {
    /// Value of the claim "iss".
    #[schemars(length(max = 2048))]
    pub issuer: Option<String>,
    /// Values of which the claim "aud" must hold one; any when empty.
    #[schemars(length(max = 256), inner(length(min = 1, max = 2048)))]
    pub audiences: Vec<String>,
    /// Address of the issuer's key set; found by OpenID discovery at the issuer when absent.
    #[schemars(length(max = 2048))]
    pub jwks_uri: Option<String>,
    /// The same as jwksUri.
    #[serde(rename = "jwks_uri")]
    #[schemars(length(max = 2048))]
    pub jwks_uri_old: Option<String>,
    /// The key set itself, as JSON (RFC 7517); excludes jwksUri.
    #[schemars(length(max = 262_144))]
    pub jwks: Option<String>,
    /// Headers that may carry the token. With no place given: Authorization with "Bearer ", and the query parameter
    /// access_token.
    #[schemars(length(max = 64))]
    pub from_headers: Vec<JwtHeader>,
    /// Query parameters that may carry the token.
    #[schemars(length(max = 64), inner(length(min = 1, max = 256)))]
    pub from_params: Vec<String>,
    /// Cookies that may carry the token.
    #[schemars(length(max = 64), inner(length(min = 1, max = 256)))]
    pub from_cookies: Vec<String>,
    /// Header that gets the token's payload, in base64url.
    #[schemars(length(max = 256))]
    pub output_payload_to_header: Option<String>,
    /// Whether the token is kept in the request; false when absent.
    pub forward_original_token: Option<bool>,
    /// Headers that get single claims.
    #[schemars(length(max = 64))]
    pub output_claim_to_headers: Vec<ClaimToHeader>,
    /// Bound on fetching the key set; 5s when absent.
    pub timeout: Option<DurationText>,
    /// Claims whose text is a list separated by spaces, beside "scope" and "permission".
    #[schemars(length(max = 64), inner(length(min = 1, max = 256)))]
    pub space_delimited_claims: Vec<String>,
    /// Whether a request must carry a token of this rule; OPTIONAL when absent.
    pub presence: Option<Presence>,
}

impl JwtRule {
    /// The key set as written in the object; an empty one counts as absent.
    pub fn inline_keys(&self) -> Option<&str> {
        self.jwks.as_deref().filter(|text| !text.is_empty())
    }

    /// Address of the key set as written, in either spelling; empty ones count as absent.
    pub fn key_address(&self) -> Option<&str> {
        let addresses = [&self.jwks_uri, &self.jwks_uri_old];
        let mut given = addresses.into_iter().flatten();
        given.find(|uri| !uri.is_empty()).map(String::as_str)
    }
}

/// Whether a request must carry a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Presence {
    /// It may go without.
    Optional,
    /// It must.
    Required,
}

/// A header that may carry a token.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["name"]))]
pub struct JwtHeader {
    /// Its name.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// What stands before the token, such as "Bearer "; nothing when absent.
    #[schemars(length(max = 256))]
    pub prefix: Option<String>,
}

/// A header that gets a claim.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["header", "claim"]))]
pub struct ClaimToHeader {
    /// The header: letters, digits, - and _.
    #[schemars(length(min = 1, max = 256))]
    pub header: String,
    /// The claim; nested ones are separated by dots.
    #[schemars(length(min = 1, max = 256))]
    pub claim: String,
}
