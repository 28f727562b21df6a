//! Tests through the router, as a client sees the server; TLS and HTTP framing are left out, except with kubectl.

mod apply;
mod definitions;
mod deletion;
mod kubectl;
mod reads;
mod writes;

use crate::api::Api;
use crate::auth::User;
use crate::pods::{
    ExecOptions, Execution, LogOptions, PodAccess, PodError, Reader, Target, Writer,
};
use crate::wire::Body;
use crate::{Options, Server, router};
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use std::sync::Arc;

/// No pod runs here.
pub(crate) struct NoPods;

impl PodAccess for NoPods {
    fn logs(&self, target: Target, _: LogOptions) -> BoxFuture<'static, Result<Reader, PodError>> {
        Box::pin(async move {
            Ok(Box::new(std::io::Cursor::new(format!("hello from {}\n", target.pod))) as Reader)
        })
    }

    fn exec(&self, _: Target, _: ExecOptions) -> BoxFuture<'static, Result<Execution, PodError>> {
        Box::pin(async { Err(PodError::NotFound("nothing runs".to_owned())) })
    }

    fn connect(&self, _: Target, _: u16) -> BoxFuture<'static, Result<(Reader, Writer), PodError>> {
        Box::pin(async { Err(PodError::NotFound("nothing runs".to_owned())) })
    }
}

pub(crate) fn options() -> Options {
    Options {
        listeners: Vec::new(),
        dir: None,
        names: Vec::new(),
        pods: Arc::new(NoPods),
        service_cidr: "10.96.0.0/16".to_owned(),
    }
}

/// A server without sockets, and a client that may do everything.
struct Cluster {
    server: Server,
}

const JSON: &str = "application/json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

impl Cluster {
    async fn new() -> Self {
        Self {
            server: Server::start(options()).await.expect("start"),
        }
    }

    fn api(&self) -> &Arc<Api> {
        &self.server.api
    }

    async fn raw(
        &self,
        method: &str,
        path: &str,
        (media, body): (&str, String),
        accept: &str,
    ) -> Response<Body> {
        let user = User {
            name: "admin".into(),
            groups: vec!["system:masters".into()],
            ..User::default()
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", media)
            .header("accept", accept)
            .header("user-agent", "test/1")
            .body(Full::new(Bytes::from(body)))
            .expect("request");
        router::serve(self.api(), user, request).await
    }

    async fn call(&self, method: &str, path: &str, media: &str, body: Value) -> (u16, Value) {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let response = self.raw(method, path, (media, body), JSON).await;
        let code = response.status().as_u16();
        let bytes = response
            .into_body()
            .collect()
            .await
            .expect("body")
            .to_bytes();
        (code, serde_json::from_slice(&bytes).unwrap_or_default())
    }

    /// A request that has to succeed.
    #[track_caller]
    fn ok<'a>(
        &'a self,
        method: &'a str,
        path: &'a str,
        body: Value,
    ) -> impl Future<Output = Value> + 'a {
        let place = std::panic::Location::caller();
        async move {
            let (code, value) = self
                .call(
                    method,
                    path,
                    if method == "PATCH" { MERGE } else { JSON },
                    body,
                )
                .await;
            assert!(code < 300, "{place}: {method} {path}: {code} {value}");
            value
        }
    }

    async fn get(&self, path: &str) -> Value {
        self.ok("GET", path, Value::Null).await
    }

    async fn code(&self, method: &str, path: &str, body: Value) -> u16 {
        self.call(
            method,
            path,
            if method == "PATCH" { MERGE } else { JSON },
            body,
        )
        .await
        .0
    }

    /// Waits until an object is gone.
    async fn gone(&self, path: &str) {
        let wait = async {
            while self.code("GET", path, Value::Null).await != 404 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(10), wait)
            .await
            .expect("gone in time");
    }
}

const CONFIGMAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

fn configmap(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "a", "image": "curl"}]}})
}

fn deployment(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {
        "selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "a", "image": "curl"}]}},
    }})
}
