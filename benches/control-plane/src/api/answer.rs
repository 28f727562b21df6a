//! Answers one request of the made-up API server.

use super::path::{Target, parameter};
use super::{Api, Object, Wanted, Watch};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::ops::Bound;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::UnboundedReceiverStream;

type Body = BoxBody<Bytes, Infallible>;
type Answer = Result<Response<Body>, Infallible>;

/// Reads, writes or watches, as the request says.
pub(super) async fn answer(api: Api, request: Request<Incoming>) -> Answer {
    let (parts, body) = request.into_parts();
    let query = parts.uri.query().unwrap_or_default().to_owned();
    let Some(target) = Target::of(parts.uri.path()) else {
        return failed(StatusCode::NOT_FOUND);
    };
    if parts.method == Method::GET {
        return match (target.name.is_empty(), query.contains("watch=true")) {
            (true, true) => watch(&api, &target, &query),
            (true, false) => list(&api, &target, &query),
            (false, _) => match api.find(&target.plural, &target.key()) {
                Some(object) => done(object),
                None => failed(StatusCode::NOT_FOUND),
            },
        };
    }
    let body = body.collect().await.map(|body| body.to_bytes());
    let body: Value = serde_json::from_slice(&body.unwrap_or_default()).unwrap_or_default();
    write(&api, &parts.method, &target, body)
}

fn write(api: &Api, method: &Method, target: &Target, mut body: Value) -> Answer {
    let named = |value: &Value| {
        value["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    let key = target.key();
    match *method {
        Method::POST if target.plural == "tokenreviews" => {
            let account = body["spec"]["token"].as_str().unwrap_or_default();
            let account = account.replace('/', ":");
            body["status"] = json!({
                "authenticated": true, "audiences": ["istio-ca"],
                "user": { "username": format!("system:serviceaccount:{account}") },
            });
            done(Bytes::from(body.to_string()))
        }
        Method::POST => {
            let name = named(&body);
            let key = format!("{}/{name}", target.namespace);
            if api.find(&target.plural, &key).is_some() {
                return failed(StatusCode::CONFLICT);
            }
            done(api.put(Object::new(&target.plural, &target.namespace, &name, body)))
        }
        Method::DELETE => {
            api.remove(&target.plural, &key);
            done(Bytes::from_static(b"{}"))
        }
        _ => {
            let old = api.find(&target.plural, &key);
            let mut value: Value = match (old, method == Method::PATCH) {
                (Some(old), true) => serde_json::from_slice(&old).unwrap_or_default(),
                _ => json!({}),
            };
            merge(&mut value, body);
            done(api.put(Object::new(
                &target.plural,
                &target.namespace,
                &target.name,
                value,
            )))
        }
    }
}

/// A JSON merge patch.
fn merge(into: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *into = patch;
        return;
    };
    for (key, value) in patch {
        merge(&mut into[key], value);
    }
}

fn list(api: &Api, target: &Target, query: &str) -> Answer {
    let limit = parameter(query, "limit").and_then(|limit| limit.parse().ok());
    let limit: usize = limit.unwrap_or(usize::MAX);
    let after = parameter(query, "continue").unwrap_or_default();
    let wanted = wanted(target, query);
    let mut state = api.0.lock();
    let version = state.version;
    let collection = state.collections.entry(target.plural.clone()).or_default();
    collection.is_read = true;
    let after = (Bound::Excluded(after), Bound::<String>::Unbounded);
    let all = collection.objects.range(after);
    let mut found = all.filter(|(key, _)| wanted.has(key));
    let (mut items, mut last, mut count) = (Vec::new(), None, 0);
    for (key, object) in found.by_ref().take(limit) {
        if count > 0 {
            items.push(b',');
        }
        items.extend_from_slice(object);
        (last, count) = (Some(key.clone()), count + 1);
    }
    let more = found.next().is_some();
    let next = last.filter(|_| more).unwrap_or_default();
    let head = format!(
        "{{\"kind\":\"List\",\"apiVersion\":\"v1\",\"metadata\":{{\"resourceVersion\":\"{version}\",\"continue\":\"{next}\"}},\"items\":["
    );
    let mut all = head.into_bytes();
    all.append(&mut items);
    all.extend_from_slice(b"]}");
    done(Bytes::from(all))
}

fn wanted(target: &Target, query: &str) -> Wanted {
    let selector = parameter(query, "fieldSelector");
    let name = selector.and_then(|s| s.strip_prefix("metadata.name=").map(str::to_owned));
    Wanted {
        namespace: target.namespace.clone(),
        name,
    }
}

fn watch(api: &Api, target: &Target, query: &str) -> Answer {
    let from = parameter(query, "resourceVersion").and_then(|version| version.parse().ok());
    let from: u64 = from.unwrap_or_default();
    let (sender, receiver) = mpsc::unbounded_channel();
    let mut state = api.0.lock();
    let collection = state.collections.entry(target.plural.clone()).or_default();
    collection.is_read = true;
    let wanted = wanted(target, query);
    for (version, key, line) in &collection.log {
        if *version > from && wanted.has(key) {
            let _ = sender.send(line.clone());
        }
    }
    let lines = sender;
    collection.watches.push(Watch { wanted, lines });
    let lines = UnboundedReceiverStream::new(receiver);
    let frames = lines.map(|line| Ok(Frame::data(line)));
    respond(StatusCode::OK, BodyExt::boxed(StreamBody::new(frames)))
}

fn done(body: Bytes) -> Answer {
    respond(StatusCode::OK, Full::new(body).boxed())
}

fn failed(status: StatusCode) -> Answer {
    let reason = match status {
        StatusCode::CONFLICT => "AlreadyExists",
        _ => "NotFound",
    };
    let body = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason,
        "message": reason, "code": status.as_u16() });
    respond(status, Full::new(Bytes::from(body.to_string())).boxed())
}

fn respond(status: StatusCode, body: Body) -> Answer {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let json = hyper::header::HeaderValue::from_static("application/json");
    response
        .headers_mut()
        .insert(hyper::header::CONTENT_TYPE, json);
    Ok(response)
}
