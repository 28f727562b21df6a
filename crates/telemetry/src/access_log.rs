//! Access-log formats: Envoy's command-operator language, compiled once, and the lines it makes.
//!
//! Known operators are those of Istio's default format and the common ones around it; an unknown operator is
//! refused with its name, so that a typing error does not become a column of dashes.

mod operator;
mod render;

use crate::record::Record;
use http::{HeaderMap, HeaderName, HeaderValue};
use operator::Operator;
use std::collections::BTreeMap;

/// Istio's default text format.
pub const DEFAULT: &str = concat!(
    "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% ",
    "%RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% ",
    "\"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% ",
    "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" ",
    "\"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% ",
    "%UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% ",
    "%REQUESTED_SERVER_NAME% %ROUTE_NAME%\n",
);

/// Istio's default JSON format: keys and their operators.
pub const DEFAULT_JSON: &str = r#"{
"authority":"%REQ(:AUTHORITY)%","bytes_received":"%BYTES_RECEIVED%","bytes_sent":"%BYTES_SENT%",
"connection_termination_details":"%CONNECTION_TERMINATION_DETAILS%",
"downstream_local_address":"%DOWNSTREAM_LOCAL_ADDRESS%","downstream_remote_address":"%DOWNSTREAM_REMOTE_ADDRESS%",
"duration":"%DURATION%","method":"%REQ(:METHOD)%","path":"%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
"protocol":"%PROTOCOL%","request_id":"%REQ(X-REQUEST-ID)%","requested_server_name":"%REQUESTED_SERVER_NAME%",
"response_code":"%RESPONSE_CODE%","response_code_details":"%RESPONSE_CODE_DETAILS%",
"response_flags":"%RESPONSE_FLAGS%","route_name":"%ROUTE_NAME%","start_time":"%START_TIME%",
"upstream_cluster":"%UPSTREAM_CLUSTER_RAW%","upstream_host":"%UPSTREAM_HOST%",
"upstream_local_address":"%UPSTREAM_LOCAL_ADDRESS%",
"upstream_service_time":"%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%",
"upstream_transport_failure_reason":"%UPSTREAM_TRANSPORT_FAILURE_REASON%",
"user_agent":"%REQ(USER-AGENT)%","x_forwarded_for":"%REQ(X-FORWARDED-FOR)%"}"#;

/// A format cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// An operator does not exist.
    #[error("access-log operator %{0}% is not known: see the list of supported operators")]
    Unknown(String),
    /// A `%` has no partner.
    #[error("access-log format has a % without its partner (write %% for a percent sign): {0:?}")]
    Open(String),
    /// An operator needs an argument, or the argument is wrong.
    #[error("access-log operator %{0}% has a wrong argument")]
    Argument(String),
    /// A format that begins with `{` is not a flat JSON object of strings.
    #[error("access-log format begins with {{ and is no JSON object of strings: {0}")]
    Json(String),
}

/// A compiled format.
#[derive(Debug, Clone, PartialEq)]
pub struct Format {
    shape: Shape,
    request: Vec<HeaderName>,
    response: Vec<HeaderName>,
}

#[derive(Debug, Clone, PartialEq)]
enum Shape {
    Text(Vec<Part>),
    Json(Vec<(String, Vec<Part>)>),
}

#[derive(Debug, Clone, PartialEq)]
enum Part {
    Literal(String),
    Value {
        operator: Operator,
        most: Option<usize>,
    },
}

impl Format {
    /// Compiles a format: text, or a JSON object of keys and formats when it begins with `{`.
    ///
    /// # Errors
    /// An operator is unknown or wrongly written.
    pub fn parse(text: &str) -> Result<Self, FormatError> {
        let shape = if text.trim_start().starts_with('{') {
            let keys: BTreeMap<String, String> =
                serde_json::from_str(text).map_err(|e| FormatError::Json(e.to_string()))?;
            let parts = keys
                .into_iter()
                .map(|(key, format)| Ok((key, parts(&format)?)));
            Shape::Json(parts.collect::<Result<_, FormatError>>()?)
        } else {
            Shape::Text(parts(text)?)
        };
        let (mut request, mut response) = (Vec::new(), Vec::new());
        let all: Vec<&Part> = match &shape {
            Shape::Text(parts) => parts.iter().collect(),
            Shape::Json(keys) => keys.iter().flat_map(|(_, parts)| parts).collect(),
        };
        for part in all {
            if let Part::Value { operator, .. } = part {
                operator.headers(&mut request, &mut response);
            }
        }
        Ok(Self {
            shape,
            request,
            response,
        })
    }

    /// The request headers that the format shows, to be put into [`Record::request_headers`].
    pub fn capture_request(&self, headers: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
        capture(&self.request, headers)
    }

    /// The response headers that the format shows, to be put into [`Record::response_headers`].
    pub fn capture_response(&self, headers: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
        capture(&self.response, headers)
    }

    /// Appends one line. Text formats end the line as they say; JSON lines end with a newline.
    pub fn write(&self, record: &Record, out: &mut Vec<u8>) {
        match &self.shape {
            Shape::Text(parts) => render::text(parts, record, out),
            Shape::Json(keys) => render::json(keys, record, out),
        }
    }
}

impl Format {
    /// Appends the value of a header with this text; nothing where an operator has no value, unlike in a line. JSON
    /// formats append nothing.
    pub fn write_header(&self, record: &Record, out: &mut Vec<u8>) {
        if let Shape::Text(parts) = &self.shape {
            render::header_value(parts, record, out);
        }
    }
}

impl Default for Format {
    /// Istio's default text format.
    fn default() -> Self {
        Self::parse(DEFAULT).expect("the default format is tested")
    }
}

fn capture(names: &[HeaderName], headers: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
    names
        .iter()
        .filter_map(|n| Some((n.clone(), headers.get(n)?.clone())))
        .collect()
}

fn parts(text: &str) -> Result<Vec<Part>, FormatError> {
    let mut found: Vec<Part> = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        push_literal(&mut found, before);
        if let Some(next) = after.strip_prefix('%') {
            push_literal(&mut found, "%");
            rest = next;
            continue;
        }
        let end = end_of_operator(after).ok_or_else(|| FormatError::Open(format!("%{after}")))?;
        let (operator, most) = Operator::parse(&after[..end])?;
        found.push(Part::Value { operator, most });
        rest = &after[end + 1..];
    }
    push_literal(&mut found, rest);
    Ok(found)
}

fn push_literal(parts: &mut Vec<Part>, text: &str) {
    match parts.last_mut() {
        _ if text.is_empty() => {}
        Some(Part::Literal(last)) => last.push_str(text),
        _ => parts.push(Part::Literal(text.to_owned())),
    }
}

// The closing `%`; one inside parentheses belongs to the argument (a time format).
fn end_of_operator(text: &str) -> Option<usize> {
    let mut depth = 0usize;
    text.bytes().position(|byte| {
        match byte {
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            b'%' => return depth == 0,
            _ => {}
        }
        false
    })
}

#[cfg(test)]
mod tests;
