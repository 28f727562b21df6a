//! From an HTTP request to the verb that answers it: authentication, authorisation, dispatch.

use crate::api::{Api, Call, Strictness};
use crate::auth::{self, Attributes, User};
use crate::error::ApiError;
use crate::kinds::Kind;
use crate::negotiate::{self, Format};
use crate::target::{Query, Target};
use crate::verbs::delete::{self, Options};
use crate::verbs::write::{self, Outcome, Part};
use crate::verbs::{read, subresource, watch};
use crate::wire::{self, Body};
use crate::{discovery, openapi, patch, protobuf, stream};
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response};
use hyper::body::Incoming;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Answers one request. `peer` is the client's certificate, verified by TLS.
pub async fn answer(
    api: Arc<Api>,
    request: Request<Incoming>,
    peer: Option<Arc<[u8]>>,
) -> Response<Body> {
    api.requests.fetch_add(1, Ordering::Relaxed);
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let user = authenticate(&api, request.headers(), peer.as_deref());
    let response = match user {
        Ok(user) => serve(&api, user, request).await,
        Err(error) => wire::error(&error),
    };
    tracing::debug!(%method, path, code = response.status().as_u16(), "answered");
    response
}

fn authenticate(api: &Api, headers: &HeaderMap, peer: Option<&[u8]>) -> Result<User, ApiError> {
    let user = api
        .authenticator
        .authenticate(peer, auth::bearer(headers))?;
    auth::impersonate(api.store.as_ref(), user, headers)
}

/// Answers the request of a known user.
pub async fn serve<B>(api: &Arc<Api>, user: User, request: Request<B>) -> Response<Body>
where
    B: http_body::Body<Data = bytes::Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    match route(api, user, request).await {
        Ok(response) => response,
        Err(error) => wire::error(&error),
    }
}

async fn route<B>(
    api: &Arc<Api>,
    user: User,
    request: Request<B>,
) -> Result<Response<Body>, ApiError>
where
    B: http_body::Body<Data = bytes::Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let headers = request.headers();
    let query = Query::parse(request.uri().query());
    let target = Target::parse(request.method(), request.uri().path(), &query);
    authorize(api, &user, &target, &query, request.method())?;
    if !target.is_resource() {
        return plain(api, &request);
    }
    let kind = api
        .registry
        .find(&target.group, &target.version, &target.resource)
        .ok_or_else(ApiError::not_served)?;
    if kind.namespaced && target.namespace.is_none() && !matches!(target.verb, "list" | "watch") {
        return Err(ApiError::method_not_allowed());
    }
    if !kind.namespaced && target.namespace.is_some() && kind.plural != "namespaces" {
        return Err(ApiError::not_served());
    }
    if !target.subresource.is_empty()
        && !kind.serves(target.subresource.split('/').next().unwrap_or_default())
    {
        return Err(ApiError::not_served());
    }
    let call = call(user, (target, query, kind), headers)?;
    if matches!(
        call.target.subresource.as_str(),
        "log" | "exec" | "attach" | "portforward"
    ) {
        return streams(api, call, request).await;
    }
    let (parts, body) = request.into_parts();
    let body = match call.target.verb {
        "get" | "list" | "watch" => bytes::Bytes::new(),
        _ => wire::read(body).await?,
    };
    let body = match negotiate::content_type(&parts.headers) {
        protobuf::MEDIA_TYPE if !body.is_empty() => {
            protobuf::decode(&api.registry, &body)?.to_string().into()
        }
        _ => body,
    };
    dispatch(api, call, &parts, &body).await
}

fn authorize(
    api: &Api,
    user: &User,
    target: &Target,
    query: &Query,
    method: &Method,
) -> Result<(), ApiError> {
    // Kubernetes: a list of one name by field selector is authorised like that name.
    let selected = query
        .text("fieldSelector")
        .and_then(|text| text.strip_prefix("metadata.name="));
    let selected = selected.filter(|name| !name.contains(','));
    let lower = method.as_str().to_lowercase();
    let attributes = Attributes {
        verb: if target.is_resource() {
            target.verb
        } else {
            lower.as_str()
        },
        group: &target.group,
        version: &target.version,
        resource: &target.resource,
        subresource: &target.subresource,
        namespace: target.namespace.as_deref(),
        name: target.name.as_deref().or(selected),
        path: &target.path,
    };
    auth::authorize(api.store.as_ref(), user, &attributes)
}

fn call(
    user: User,
    (target, query, kind): (Target, Query, Arc<Kind>),
    headers: &HeaderMap,
) -> Result<Call, ApiError> {
    let agent = headers
        .get(http::header::USER_AGENT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("unknown");
    let first = agent.split('/').next().unwrap_or_default();
    let manager = query
        .text("fieldManager")
        .unwrap_or(first)
        .chars()
        .take(128)
        .collect();
    let dry_run = match query.all("dryRun").find(|text| !text.is_empty()) {
        None => false,
        Some("All") => true,
        Some(other) => {
            return Err(ApiError::bad_request(format!(
                "invalid dryRun {other:?}; only All is supported"
            )));
        }
    };
    let strictness = match query.text("fieldValidation") {
        None | Some("Warn") => Strictness::Warn,
        Some("Strict") => Strictness::Strict,
        Some("Ignore") => Strictness::Ignore,
        Some(other) => {
            return Err(ApiError::bad_request(format!(
                "invalid fieldValidation {other:?}; use Ignore, Warn or Strict"
            )));
        }
    };
    let streams = matches!(
        target.subresource.as_str(),
        "log" | "exec" | "attach" | "portforward"
    );
    let format = if streams {
        Format::Plain
    } else {
        negotiate::format(headers)?
    };
    Ok(Call {
        user,
        target,
        query,
        kind,
        format,
        manager,
        dry_run,
        strictness,
    })
}

/// Paths that are no resource.
fn plain<B>(api: &Api, request: &Request<B>) -> Result<Response<Body>, ApiError> {
    let path = request.uri().path();
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return Err(ApiError::method_not_allowed());
    }
    match path.trim_end_matches('/') {
        "/healthz" | "/livez" | "/readyz" => Ok(wire::text(200, "text/plain; charset=utf-8", "ok")),
        "/metrics" => Ok(wire::text(200, "text/plain; version=0.0.4", metrics(api))),
        "/.well-known/openid-configuration" => {
            Ok(wire::json(200, &api.tokens.openid_configuration()))
        }
        "/openid/v1/jwks" => Ok(wire::json(200, &api.tokens.jwks())),
        "" => Ok(wire::json(
            200,
            &json!({"paths": ["/api", "/api/v1", "/apis", "/healthz", "/livez", "/metrics", "/openapi/v3", "/readyz", "/version"]}),
        )),
        trimmed => openapi::answer(&api.registry, trimmed, request.headers())
            .or_else(|| discovery::answer(&api.registry, trimmed, request.headers()))
            .ok_or_else(ApiError::not_served),
    }
}

fn metrics(api: &Api) -> String {
    let mut text = format!(
        "# HELP apiserver_request_total Requests answered since the start.\n# TYPE apiserver_request_total counter\n\
         apiserver_request_total {}\n# HELP apiserver_storage_objects Stored objects by resource.\n\
         # TYPE apiserver_storage_objects gauge\n",
        api.requests.load(Ordering::Relaxed)
    );
    for kind in api.registry.resources() {
        let (objects, _) = api.store.all(&kind.resource, None);
        let group = if kind.group.is_empty() {
            String::new()
        } else {
            format!(".{}", kind.group)
        };
        text.push_str(&format!(
            "apiserver_storage_objects{{resource=\"{}{group}\"}} {}\n",
            kind.plural,
            objects.len()
        ));
    }
    text
}

async fn dispatch(
    api: &Arc<Api>,
    mut call: Call,
    parts: &Parts,
    body: &[u8],
) -> Result<Response<Body>, ApiError> {
    if call.kind.review {
        return review(api, &call, body);
    }
    let verb = call.target.verb;
    let sub = call.target.subresource.clone();
    if matches!(verb, "create" | "update") {
        json_body(&parts.headers)?;
    }
    match (verb, sub.as_str()) {
        ("watch", "") => watch::start(api, call),
        ("list", "") => read::list(api, &call),
        ("get", "" | "status" | "ephemeralcontainers") => read::get(api, &call),
        ("create", "") => finish(
            &call,
            write::create(api, &call, patch::document(body)?).await?,
        ),
        ("update", "") => finish(
            &call,
            write::update(api, &call, patch::document(body)?, Part::Main).await?,
        ),
        ("update", "status") => finish(
            &call,
            write::update(api, &call, patch::document(body)?, Part::Status).await?,
        ),
        ("update", "ephemeralcontainers") => finish(
            &call,
            write::update(api, &call, patch::document(body)?, Part::Main).await?,
        ),
        ("patch", "") | ("patch", "ephemeralcontainers") => finish(
            &call,
            write::patch(api, &call, (&parts.headers, body), Part::Main).await?,
        ),
        ("patch", "status") => finish(
            &call,
            write::patch(api, &call, (&parts.headers, body), Part::Status).await?,
        ),
        ("delete", "") => {
            let options = Options::parse(&mut call, body)?;
            let (deleted, warnings) = delete::delete(api, &call, &options).await?;
            let mut response = wire::json(200, &deleted.answer(&call.kind));
            wire::warn(&mut response, &warnings);
            Ok(response)
        }
        ("deletecollection", "") => {
            let options = Options::parse(&mut call, body)?;
            Ok(wire::json(
                200,
                &delete::delete_collection(api, &call, &options).await?,
            ))
        }
        ("get", "scale") => Ok(wire::json(200, &subresource::get_scale(api, &call)?)),
        ("update", "scale") => Ok(wire::json(
            200,
            &subresource::put_scale(api, &call, body, None).await?,
        )),
        ("patch", "scale") => Ok(wire::json(
            200,
            &subresource::put_scale(api, &call, body, Some(&parts.headers)).await?,
        )),
        ("create", "eviction") => Ok(wire::json(
            201,
            &subresource::evict(api, &mut call, body).await?,
        )),
        ("create", "binding") => Ok(wire::json(201, &subresource::bind(api, &call, body).await?)),
        ("create", "token") => {
            let object = patch::document(body)?;
            Ok(wire::json(
                201,
                &api.tokens
                    .request(api.store.as_ref(), call.namespace(), call.name()?, object)?,
            ))
        }
        ("update", "finalize") => finish(&call, subresource::finalize(api, &call, body).await?),
        _ => Err(ApiError::method_not_allowed()),
    }
}

fn json_body(headers: &HeaderMap) -> Result<(), ApiError> {
    match negotiate::content_type(headers) {
        "application/json"
        | "application/yaml"
        | "text/plain"
        | "application/x-www-form-urlencoded"
        | "*/*"
        | "" => Ok(()),
        // Already turned into JSON.
        protobuf::MEDIA_TYPE => Ok(()),
        _ => Err(ApiError::unsupported_media_type(&[
            "application/json",
            "application/yaml",
        ])),
    }
}

fn finish(call: &Call, outcome: Outcome) -> Result<Response<Body>, ApiError> {
    let mut response = wire::json(outcome.code, &read::render(call, &outcome.object));
    wire::warn(&mut response, &outcome.warnings);
    Ok(response)
}

/// Reviews are answered, not stored.
fn review(api: &Api, call: &Call, body: &[u8]) -> Result<Response<Body>, ApiError> {
    if call.target.verb != "create" {
        return Err(ApiError::method_not_allowed());
    }
    let body = patch::document(body)?;
    let (lookup, user) = (api.store.as_ref(), &call.user);
    let answer: Value = match call.kind.plural.as_str() {
        "tokenreviews" => api.tokens.review(lookup, body)?,
        "subjectaccessreviews" => auth::review::subject_access_review(lookup, body)?,
        "localsubjectaccessreviews" => {
            auth::review::local_subject_access_review(lookup, call.namespace(), body)?
        }
        "selfsubjectaccessreviews" => auth::review::self_subject_access_review(lookup, user, body)?,
        "selfsubjectreviews" => auth::review::self_subject_review(user, body)?,
        "selfsubjectrulesreviews" => auth::review::self_subject_rules_review(lookup, user, body)?,
        _ => return Err(ApiError::not_served()),
    };
    Ok(wire::json(201, &answer))
}

async fn streams<B>(
    api: &Arc<Api>,
    call: Call,
    request: Request<B>,
) -> Result<Response<Body>, ApiError> {
    let name = call.name()?;
    let pod = api
        .store
        .object(&call.key(name))
        .ok_or_else(|| call.not_found(name))?;
    let pods = api.pods.clone();
    match call.target.subresource.as_str() {
        "log" => stream::logs(request, pods, &pod).await,
        "exec" => stream::exec(request, pods, &pod).await,
        "attach" => stream::attach(request, pods, &pod).await,
        _ => stream::port_forward(request, pods, &pod).await,
    }
}
