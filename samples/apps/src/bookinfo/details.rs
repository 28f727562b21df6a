//! The details service: facts about a book.

use crate::http::{json, serve};
use anyhow::Result;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::json;

/// Serves `/details/<id>` and `/health`.
///
/// # Errors
/// The port cannot be bound.
pub async fn run(port: u16) -> Result<()> {
    serve(port, |request| async move { answer(&request) }).await
}

fn answer(request: &Request<Incoming>) -> Response<http_body_util::Full<bytes::Bytes>> {
    let path = request.uri().path();
    if request.method() != Method::GET {
        return json(
            StatusCode::METHOD_NOT_ALLOWED,
            &json!({"error": "only GET is served"}),
        );
    }
    if path == "/health" {
        return json(StatusCode::OK, &json!({"status": "Details is healthy"}));
    }
    match path
        .strip_prefix("/details/")
        .and_then(|id| id.parse::<u32>().ok())
    {
        Some(id) => json(
            StatusCode::OK,
            &json!({
                "id": id,
                "author": "William Shakespeare",
                "year": 1595,
                "type": "paperback",
                "pages": 200,
                "publisher": "PublisherA",
                "language": "English",
                "ISBN-10": "1234567890",
                "ISBN-13": "123-1234567890",
            }),
        ),
        None => json(
            StatusCode::BAD_REQUEST,
            &json!({"error": "please provide a numeric product id"}),
        ),
    }
}
