//! Httpbin: answers that describe the request, for looking at what arrives through a mesh.

use crate::http::{answer, json, read, serve};
use anyhow::Result;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::Full;
use hyper::body::Incoming;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// Longest delay of `/delay/<seconds>`.
const DELAY_LIMIT: f64 = 10.0;
/// Largest answer of `/bytes/<n>`.
const BYTES_LIMIT: usize = 100 << 10;

/// Serves the usual httpbin paths.
///
/// # Errors
/// The port cannot be bound.
pub async fn run(port: u16) -> Result<()> {
    serve(port, route).await
}

async fn route(request: Request<Incoming>) -> Response<Full<Bytes>> {
    let path = request.uri().path().to_owned();
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    match parts.as_slice() {
        [""] => answer(
            StatusCode::OK,
            "text/html; charset=utf-8",
            "<!DOCTYPE html><title>httpbin</title><h1>httpbin</h1>\n",
        ),
        ["get" | "post" | "put" | "patch" | "delete" | "anything", ..] => described(request).await,
        ["headers"] => json(
            StatusCode::OK,
            &json!({"headers": headers_json(request.headers())}),
        ),
        ["user-agent"] => {
            let agent = text(request.headers().get(header::USER_AGENT));
            json(StatusCode::OK, &json!({"user-agent": agent}))
        }
        ["ip"] => {
            let origin = text(request.headers().get("x-forwarded-for"));
            json(StatusCode::OK, &json!({"origin": origin}))
        }
        ["status", code] => status(code),
        ["delay", seconds] => match seconds.parse::<f64>() {
            Ok(seconds) if (0.0..=DELAY_LIMIT).contains(&seconds) => {
                tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
                described(request).await
            }
            _ => bad("the delay must be a number of seconds from 0 to 10"),
        },
        ["bytes", count] => match count.parse::<usize>() {
            Ok(count) if count <= BYTES_LIMIT => answer(
                StatusCode::OK,
                "application/octet-stream",
                vec![b'x'; count],
            ),
            _ => bad("the count must be a number up to 102400"),
        },
        ["stream", lines] => stream(lines, &request),
        ["redirect-to"] => redirect(query_value(request.uri(), "url")),
        ["redirect", count] => match count.parse::<u8>() {
            Ok(0 | 1) => redirect(Some("/get".to_owned())),
            Ok(count) => redirect(Some(format!("/redirect/{}", count - 1))),
            Err(_) => bad("the count must be a number"),
        },
        ["response-headers"] => response_headers(request.uri()),
        ["json"] => json(
            StatusCode::OK,
            &json!({"slideshow": {"title": "Sample Slide Show", "slides": []}}),
        ),
        ["html"] => answer(
            StatusCode::OK,
            "text/html; charset=utf-8",
            "<!DOCTYPE html><html><body><h1>A page</h1></body></html>\n",
        ),
        _ => answer(StatusCode::NOT_FOUND, "text/plain", "no such path\n"),
    }
}

fn bad(sentence: &str) -> Response<Full<Bytes>> {
    json(StatusCode::BAD_REQUEST, &json!({"error": sentence}))
}

fn text(value: Option<&HeaderValue>) -> String {
    value
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        .unwrap_or_default()
}

/// Headers by canonical name; several values of one name are joined by commas.
fn headers_json(headers: &HeaderMap) -> Value {
    let mut out = Map::new();
    for name in headers.keys() {
        let values: Vec<String> = headers
            .get_all(name)
            .iter()
            .map(|value| text(Some(value)))
            .collect();
        out.insert(canonical(name.as_str()), Value::String(values.join(",")));
    }
    Value::Object(out)
}

/// `x-request-id` as `X-Request-Id`.
fn canonical(name: &str) -> String {
    let capital = |word: &str| {
        let mut letters = word.chars();
        letters
            .next()
            .map(|first| first.to_ascii_uppercase().to_string() + letters.as_str())
            .unwrap_or_default()
    };
    name.split('-').map(capital).collect::<Vec<_>>().join("-")
}

fn query_value(uri: &Uri, name: &str) -> Option<String> {
    pairs(uri)
        .into_iter()
        .find(|(key, _)| key == name)
        .map(|(_, value)| value)
}

fn pairs(uri: &Uri) -> Vec<(String, String)> {
    let query = uri.query().unwrap_or_default();
    let split = |pair: &str| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (unescape(key), unescape(value))
    };
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(split)
        .collect()
}

fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let digits = [bytes.next().unwrap_or(b'0'), bytes.next().unwrap_or(b'0')];
                let hex = std::str::from_utf8(&digits)
                    .ok()
                    .and_then(|hex| u8::from_str_radix(hex, 16).ok());
                out.push(hex.unwrap_or(b'?'));
            }
            other => out.push(other),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

async fn described(request: Request<Incoming>) -> Response<Full<Bytes>> {
    let args: Map<String, Value> = pairs(request.uri())
        .into_iter()
        .map(|(key, value)| (key, Value::String(value)))
        .collect();
    let mut out = json!({
        "args": args,
        "headers": headers_json(request.headers()),
        "method": request.method().as_str(),
        "origin": text(request.headers().get("x-forwarded-for")),
        "url": format!("http://{}{}", text(request.headers().get(header::HOST)), request.uri()),
    });
    match read(request.into_body()).await {
        Ok(body) => {
            out["json"] = serde_json::from_slice(&body).unwrap_or(Value::Null);
            out["data"] = Value::String(String::from_utf8_lossy(&body).into_owned());
            json(StatusCode::OK, &out)
        }
        Err(error) => bad(&error.to_string()),
    }
}

fn status(code: &str) -> Response<Full<Bytes>> {
    match code
        .parse::<u16>()
        .ok()
        .and_then(|code| StatusCode::from_u16(code).ok())
    {
        Some(code) if code.as_u16() >= 200 => {
            let body = if code == StatusCode::IM_A_TEAPOT {
                "I'm a teapot!\n"
            } else {
                ""
            };
            answer(code, "text/plain", body)
        }
        _ => bad("the status must be a number from 200 to 599"),
    }
}

fn stream(lines: &str, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let Some(count) = lines.parse::<u32>().ok().filter(|count| *count <= 100) else {
        return bad("the count must be a number up to 100");
    };
    let headers = headers_json(request.headers());
    let body: String = (0..count)
        .map(|id| format!("{}\n", json!({"id": id, "headers": headers})))
        .collect();
    answer(StatusCode::OK, "application/json", body)
}

fn redirect(target: Option<String>) -> Response<Full<Bytes>> {
    let Some(value) = target.and_then(|target| HeaderValue::from_str(&target).ok()) else {
        return bad("the query needs url=…");
    };
    let mut response = answer(StatusCode::FOUND, "text/plain", "");
    response.headers_mut().insert(header::LOCATION, value);
    response
}

fn response_headers(uri: &Uri) -> Response<Full<Bytes>> {
    let given = pairs(uri);
    let shown: Map<String, Value> = given
        .iter()
        .map(|(name, value)| (name.clone(), Value::String(value.clone())))
        .collect();
    let mut response = json(StatusCode::OK, &Value::Object(shown));
    for (name, value) in given {
        match (
            HeaderName::try_from(name.as_str()),
            HeaderValue::from_str(&value),
        ) {
            (Ok(name), Ok(value)) => {
                response.headers_mut().append(name, value);
            }
            _ => return bad(&format!("{name:?} is not a valid header")),
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shown_canonically_and_queries_unescaped() {
        assert_eq!(canonical("x-request-id"), "X-Request-Id");
        let uri: Uri = "/get?a=1%202&b=x+y&c".parse().expect("valid");
        let want = [("a", "1 2"), ("b", "x y"), ("c", "")];
        assert!(
            pairs(&uri)
                .iter()
                .zip(want)
                .all(|((k, v), (wk, wv))| k == wk && v == wv)
        );
    }
}
