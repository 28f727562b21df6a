//! The reviews service: v1 without stars, v2 with black and v3 with red ones asked of the ratings service.

use super::{authority_of, passed_on};
use crate::http::{fetch, json, serve};
use anyhow::Result;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use serde_json::{Value, json};
use std::rc::Rc;
use std::time::Duration;

/// Serves `/reviews/<id>` and `/health`. `version` is `v1`, `v2` or `v3`.
///
/// # Errors
/// The port cannot be bound.
pub async fn run(port: u16, version: &str) -> Result<()> {
    let stars = match version {
        "v1" => None,
        "v2" => Some("black"),
        "v3" => Some("red"),
        other => anyhow::bail!("there is no reviews {other:?}: use v1, v2 or v3"),
    };
    let (pod, version) = (
        std::env::var("HOSTNAME").unwrap_or_default(),
        version.to_owned(),
    );
    let facts = Rc::new((pod, version, stars));
    serve(port, move |request| answer(facts.clone(), request)).await
}

async fn answer(
    facts: Rc<(String, String, Option<&'static str>)>,
    request: Request<Incoming>,
) -> Response<Full<bytes::Bytes>> {
    let path = request.uri().path();
    if path == "/health" {
        return json(StatusCode::OK, &json!({"status": "Reviews is healthy"}));
    }
    let Some(id) = path
        .strip_prefix("/reviews/")
        .and_then(|id| id.parse::<u32>().ok())
    else {
        return json(
            StatusCode::BAD_REQUEST,
            &json!({"error": "please provide a numeric product id"}),
        );
    };
    let (pod, version, stars) = &*facts;
    let mut reviews = [
        json!({
            "reviewer": "Reviewer1",
            "text": "A comedy of crossed letters and twins; I laughed at every page.",
        }),
        json!({
            "reviewer": "Reviewer2",
            "text": "Well told, though the second act could be shorter.",
        }),
    ];
    if let Some(color) = stars {
        let rated = ratings(id, request.headers()).await;
        for review in &mut reviews {
            let reviewer = review["reviewer"].as_str().unwrap_or_default().to_owned();
            review["rating"] = match &rated {
                Ok(given) => json!({"stars": given[&reviewer], "color": color}),
                Err(_) => json!({"error": "Ratings service is currently unavailable"}),
            };
        }
    }
    json(
        StatusCode::OK,
        &json!({"id": id, "podname": pod, "clustername": "null", "version": version, "reviews": reviews}),
    )
}

async fn ratings(id: u32, headers: &HeaderMap) -> Result<Value> {
    let headers = passed_on(headers);
    let (status, body) = fetch(
        &authority_of("ratings"),
        &format!("/ratings/{id}"),
        &headers,
        Duration::from_secs(10),
    )
    .await?;
    anyhow::ensure!(status == StatusCode::OK, "ratings answered {status}");
    Ok(serde_json::from_slice::<Value>(&body)?["ratings"].take())
}
