//! The product page: an HTML page made from details and reviews, and their JSON under `/api/v1`.

use super::{authority_of, page, passed_on};
use crate::http::{answer, fetch, json, read, serve};
use anyhow::Result;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use serde_json::{Value, json};
use std::time::Duration;

/// Serves the page and its API.
///
/// # Errors
/// The port cannot be bound.
pub async fn run(port: u16) -> Result<()> {
    serve(port, route).await
}

async fn route(request: Request<Incoming>) -> Response<Full<Bytes>> {
    let path = request.uri().path().to_owned();
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    match (request.method().clone(), parts.as_slice()) {
        (Method::GET, [""] | ["index.html"]) => html(StatusCode::OK, page::index()),
        (Method::GET, ["health"]) => {
            answer(StatusCode::OK, "text/plain", "Product page is healthy")
        }
        (Method::GET, ["productpage"]) => product_page(&request).await,
        (Method::POST, ["login"]) => login(request).await,
        (Method::GET, ["logout"]) => back_to_page("session=; Path=/; Max-Age=0"),
        (Method::GET, ["api", "v1", "products"]) => json(StatusCode::OK, &json!([product()])),
        (Method::GET, ["api", "v1", "products", id]) => part("details", id, &request).await,
        (Method::GET, ["api", "v1", "products", id, "reviews"]) => {
            part("reviews", id, &request).await
        }
        (Method::GET, ["api", "v1", "products", id, "ratings"]) => {
            part("ratings", id, &request).await
        }
        _ => answer(StatusCode::NOT_FOUND, "text/plain", "no such page\n"),
    }
}

fn product() -> Value {
    json!({
        "id": 0,
        "title": "The Comedy of Errors",
        "descriptionHtml": "Two pairs of twins, parted at birth, meet in Ephesus, and nobody can tell who is who.",
    })
}

fn html(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    answer(status, "text/html; charset=utf-8", body)
}

/// The user named by the session cookie, if the value is a plain word.
fn user_of(headers: &HeaderMap) -> Option<String> {
    let cookies = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok());
    cookies
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().strip_prefix("session="))
        .map(str::to_owned)
        .find(|user| is_user(user))
}

fn is_user(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 64
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

/// Headers for calls to the other services: passed on, with the logged-in user as `end-user`.
fn forward(headers: &HeaderMap) -> HeaderMap {
    let mut out = passed_on(headers);
    if let Some(value) = user_of(headers).and_then(|user| HeaderValue::from_str(&user).ok()) {
        out.insert("end-user", value);
    }
    out
}

async fn product_page(request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let headers = forward(request.headers());
    let (details, reviews) = tokio::join!(
        call("details", "0", &headers),
        call("reviews", "0", &headers)
    );
    let user = user_of(request.headers());
    html(
        StatusCode::OK,
        page::product(&product(), &details, &reviews, user.as_deref()),
    )
}

/// Calls another service; an error becomes a JSON object with `error`.
async fn call(service: &str, id: &str, headers: &HeaderMap) -> (StatusCode, Value) {
    let path = format!("/{service}/{id}");
    let failed = |status| {
        (
            status,
            json!({"error": format!("Sorry, product {service} are currently unavailable for this book.")}),
        )
    };
    match fetch(
        &authority_of(service),
        &path,
        headers,
        Duration::from_secs(3),
    )
    .await
    {
        Ok((StatusCode::OK, body)) => match serde_json::from_slice(&body) {
            Ok(value) => (StatusCode::OK, value),
            Err(_) => failed(StatusCode::BAD_GATEWAY),
        },
        Ok((status, _)) => failed(status),
        Err(error) => {
            eprintln!("{error:#}");
            failed(StatusCode::SERVICE_UNAVAILABLE)
        }
    }
}

async fn part(service: &str, id: &str, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if id.parse::<u32>().is_err() {
        return json(
            StatusCode::BAD_REQUEST,
            &json!({"error": "please provide a numeric product id"}),
        );
    }
    let (status, value) = call(service, id, &forward(request.headers())).await;
    json(status, &value)
}

async fn login(request: Request<Incoming>) -> Response<Full<Bytes>> {
    let Ok(body) = read(request.into_body()).await else {
        return answer(
            StatusCode::BAD_REQUEST,
            "text/plain",
            "the form breaks off\n",
        );
    };
    let form = String::from_utf8_lossy(&body).into_owned();
    match form
        .split('&')
        .find_map(|pair| pair.strip_prefix("username="))
    {
        Some(user) if is_user(user) => {
            back_to_page(&format!("session={user}; Path=/; HttpOnly; SameSite=Lax"))
        }
        _ => answer(
            StatusCode::BAD_REQUEST,
            "text/plain",
            "the user name must be letters, digits, '-', '_' or '.'\n",
        ),
    }
}

fn back_to_page(cookie: &str) -> Response<Full<Bytes>> {
    let mut response = answer(StatusCode::FOUND, "text/plain", "");
    response
        .headers_mut()
        .insert(header::LOCATION, HeaderValue::from_static("/productpage"));
    if let Ok(value) = HeaderValue::from_str(cookie) {
        response.headers_mut().insert(header::SET_COOKIE, value);
    }
    response
}
