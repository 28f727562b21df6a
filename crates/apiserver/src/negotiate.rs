//! Which representation a client accepts. Only JSON is served: protobuf and the like get 406 or 415,
//! upon which clients fall back.

use crate::error::ApiError;
use http::{HeaderMap, header};

/// How objects are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// As they are.
    #[default]
    Plain,
    /// `meta.k8s.io/v1 Table`.
    Table,
    /// `meta.k8s.io/v1 PartialObjectMetadata`.
    Partial,
}

/// One entry of an `Accept` header.
#[derive(Debug)]
pub struct Accepted<'a> {
    /// Media type.
    pub media: &'a str,
    /// Parameter `as`.
    pub wanted: Option<&'a str>,
    /// Parameter `v`.
    pub version: Option<&'a str>,
}

/// Entries of the `Accept` header in order of preference; `*/*` when there is none.
pub fn accepted(headers: &HeaderMap) -> Vec<Accepted<'_>> {
    let text = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("*/*");
    let mut entries: Vec<(Accepted<'_>, f32)> = text
        .split(',')
        .take(32)
        .map(|entry| {
            let mut parts = entry.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default();
            let mut accepted = Accepted {
                media,
                wanted: None,
                version: None,
            };
            let mut weight = 1.0;
            for part in parts {
                match part.split_once('=') {
                    Some(("as", value)) => accepted.wanted = Some(value),
                    Some(("v", value)) => accepted.version = Some(value),
                    Some(("q", value)) => weight = value.parse().unwrap_or(1.0),
                    _ => {}
                }
            }
            (accepted, weight)
        })
        .collect();
    // Stable: among equals the client's order counts.
    entries.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    entries.into_iter().map(|(accepted, _)| accepted).collect()
}

/// Whether a media type may be answered with JSON.
pub fn is_json(media: &str) -> bool {
    matches!(media, "application/json" | "application/*" | "*/*")
}

/// The first acceptable format.
///
/// # Errors
/// 406 when no entry can be served.
pub fn format(headers: &HeaderMap) -> Result<Format, ApiError> {
    for accepted in accepted(headers) {
        if !is_json(accepted.media) {
            continue;
        }
        match (accepted.wanted, accepted.version) {
            (None, _) => return Ok(Format::Plain),
            (Some("Table"), Some("v1")) => return Ok(Format::Table),
            (Some("PartialObjectMetadata" | "PartialObjectMetadataList"), Some("v1")) => {
                return Ok(Format::Partial);
            }
            _ => {}
        }
    }
    Err(ApiError::not_acceptable())
}

/// The media type of the body, without parameters; JSON when there is none.
pub fn content_type(headers: &HeaderMap) -> &str {
    let value = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    value
        .and_then(|text| text.split(';').next())
        .map_or("application/json", str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(accept: &str, expected: Option<Format>) {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, accept.parse().expect("header"));
        assert_eq!(format(&headers).ok(), expected, "{accept}");
    }

    #[test]
    fn clients_get_the_first_format_that_is_served() {
        check("application/json", Some(Format::Plain));
        check(
            "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
            Some(Format::Table),
        );
        check(
            "application/vnd.kubernetes.protobuf, application/json",
            Some(Format::Plain),
        );
        check("application/vnd.kubernetes.protobuf", None);
        check(
            "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
            Some(Format::Partial),
        );
        check("*/*", Some(Format::Plain));
        check(
            "application/json;q=0.5, application/json;as=Table;v=v1;q=0.9",
            Some(Format::Table),
        );
    }
}
