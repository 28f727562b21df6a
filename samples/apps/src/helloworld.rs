//! Helloworld: says its version and the name of its pod.

use crate::http::{answer, serve};
use anyhow::Result;
use http::StatusCode;
use std::rc::Rc;

/// Serves `/hello` and `/health`.
///
/// # Errors
/// The port cannot be bound.
pub async fn run(port: u16, version: &str) -> Result<()> {
    let pod = std::env::var("HOSTNAME").unwrap_or_default();
    let greeting: Rc<str> = format!("Hello version: {version}, instance: {pod}\n").into();
    serve(port, move |request| {
        let greeting = greeting.clone();
        async move {
            match request.uri().path() {
                "/hello" => answer(StatusCode::OK, "text/plain", greeting.to_string()),
                "/health" => answer(StatusCode::OK, "text/plain", "Helloworld is healthy\n"),
                _ => answer(
                    StatusCode::NOT_FOUND,
                    "text/plain",
                    "no such page: try /hello\n",
                ),
            }
        }
    })
    .await
}
