//! HTTP bodies and responses as every handler makes them. It knows JSON and `Status`, not resources.

use crate::error::ApiError;
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use serde_json::Value;

/// Body of every response. An error aborts the connection, as nothing else can be said by then.
pub type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// Largest request body; Kubernetes' own limit.
pub const MAX_BODY: usize = 3 * 1024 * 1024;

/// A body that is already whole.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// A response of any content type.
pub fn text(code: u16, content_type: &'static str, bytes: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(full(bytes));
    *response.status_mut() =
        StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A JSON response.
pub fn json(code: u16, value: &Value) -> Response<Body> {
    text(code, "application/json", value.to_string())
}

/// The `Status` of a failure.
pub fn error(error: &ApiError) -> Response<Body> {
    let mut response = json(error.code, &error.status());
    let after = error
        .details
        .as_ref()
        .map_or(0, |details| details.retry_after_seconds);
    if after > 0 {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from(after));
    }
    if error.details.as_ref().is_some_and(|details| details.aloud) {
        warn(&mut response, std::slice::from_ref(&error.message));
    }
    response
}

/// Adds `Warning` headers, which kubectl prints as `Warning: …`.
pub fn warn(response: &mut Response<Body>, warnings: &[String]) {
    for warning in warnings.iter().take(32) {
        let clean: String = warning
            .chars()
            .filter(|c| !c.is_control())
            .take(1024)
            .collect::<String>()
            .replace('\\', "\\\\")
            .replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{clean}\"").as_bytes()) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
}

/// Reads a whole request body.
///
/// # Errors
/// 413 above [`MAX_BODY`]; 400 when the client breaks off.
pub async fn read<B>(body: B) -> Result<Bytes, ApiError>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    match Limited::new(body, MAX_BODY).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            Err(ApiError::too_large(MAX_BODY))
        }
        Err(error) => Err(ApiError::bad_request(format!(
            "the request body could not be read: {error}"
        ))),
    }
}
