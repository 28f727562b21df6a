//! The ratings service: stars given by each reviewer, changeable by POST.

use crate::http::{json, read, serve};
use anyhow::Result;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// Most books whose ratings are remembered.
const BOOKS: usize = 1000;

type Ratings = Rc<RefCell<HashMap<u32, Value>>>;

/// Serves `/ratings/<id>` (GET and POST) and `/health`.
///
/// # Errors
/// The port cannot be bound.
pub async fn run(port: u16) -> Result<()> {
    let ratings = Ratings::default();
    serve(port, move |request| answer(ratings.clone(), request)).await
}

async fn answer(ratings: Ratings, request: Request<Incoming>) -> Response<Full<bytes::Bytes>> {
    let path = request.uri().path();
    if path == "/health" {
        return json(StatusCode::OK, &json!({"status": "Ratings is healthy"}));
    }
    let Some(id) = path
        .strip_prefix("/ratings/")
        .and_then(|id| id.parse::<u32>().ok())
    else {
        return json(
            StatusCode::BAD_REQUEST,
            &json!({"error": "please provide a numeric product id"}),
        );
    };
    if request.method() == Method::POST {
        let Ok(body) = read(request.into_body()).await else {
            return json(
                StatusCode::BAD_REQUEST,
                &json!({"error": "the body breaks off"}),
            );
        };
        let Ok(given @ Value::Object(_)) = serde_json::from_slice(&body) else {
            return json(
                StatusCode::BAD_REQUEST,
                &json!({"error": "the body must be a JSON object of reviewer to stars"}),
            );
        };
        if ratings.borrow().len() >= BOOKS {
            return json(
                StatusCode::INSUFFICIENT_STORAGE,
                &json!({"error": "too many books"}),
            );
        }
        ratings.borrow_mut().insert(id, given);
    }
    let given = ratings.borrow().get(&id).cloned();
    let given = given.unwrap_or_else(|| json!({"Reviewer1": 5, "Reviewer2": 4}));
    json(StatusCode::OK, &json!({"id": id, "ratings": given}))
}
