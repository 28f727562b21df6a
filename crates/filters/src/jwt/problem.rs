//! Why a token is refused, in Envoy's words: users search for them.

/// Why a token is refused. The text is the body of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "every variant is its sentence")]
pub enum JwtError {
    #[error("Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections")]
    Form,
    #[error("Jwt is longer than 65536 bytes")]
    TooLong,
    #[error("Found multiple Jwt tokens")]
    TooMany,
    #[error("Jwt header is an invalid Base64url encoded")]
    HeaderBase64,
    #[error("Jwt header is an invalid JSON")]
    HeaderJson,
    #[error("Jwt header [alg] field is required and must be a string")]
    AlgMissing,
    #[error("Jwt header [alg] is not supported")]
    AlgUnknown,
    #[error("Jwt header [kid] field is not a string")]
    KidNoText,
    #[error("Jwt header [crit] field names an extension that is not supported")]
    Critical,
    #[error("Jwt payload is an invalid Base64url encoded")]
    PayloadBase64,
    #[error("Jwt payload is an invalid JSON")]
    PayloadJson,
    #[error("Jwt payload [iss] field is not a string")]
    IssNoText,
    #[error("Jwt payload [sub] field is not a string")]
    SubNoText,
    #[error("Jwt payload [iss] or [sub] field has control characters")]
    Control,
    #[error("Jwt payload [aud] field is not a string or string list")]
    AudNoText,
    #[error("Jwt payload [nbf] field is not an integer")]
    NbfNoNumber,
    #[error("Jwt payload [nbf] field is not a positive 64 bit integer")]
    NbfRange,
    #[error("Jwt payload [exp] field is not an integer")]
    ExpNoNumber,
    #[error("Jwt payload [exp] field is not a positive 64 bit integer")]
    ExpRange,
    #[error("Jwt signature is an invalid Base64url encoded")]
    SignatureBase64,
    #[error("Jwt issuer is not configured")]
    Issuer,
    #[error("Jwt not yet valid")]
    NotYet,
    #[error("Jwt is expired")]
    Expired,
    #[error("Audiences in Jwt are not allowed")]
    Audience,
    #[error("Jwt verification fails")]
    Signature,
    #[error("Jwks doesn't have key to match kid or alg from Jwt")]
    NoKey,
    #[error("Jwks remote fetch is failed")]
    KeysUnavailable,
    #[error("Jwks is an invalid JSON")]
    KeysJson,
    #[error("Jwks does not have [keys] field")]
    KeysMissing,
    #[error("[keys] in Jwks is not an array")]
    KeysNoList,
    #[error("Jwks doesn't have any valid public key")]
    KeysInvalid,
}

impl JwtError {
    /// The HTTP status of the answer (Envoy: 403 for a wrong audience, 401 for everything else).
    pub fn status(self) -> u16 {
        match self {
            Self::Audience => 403,
            _ => 401,
        }
    }
}
