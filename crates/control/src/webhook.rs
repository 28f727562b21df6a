//! The webhooks that the API server calls over HTTPS: `/inject` and `/validate`.
//!
//! Reviews in, reviews out; what is decided is decided in [`crate::inject`] and in `api`. A skip that rests on
//! a namespace's labels is decided on fresh labels: the API server's view may be newer than the watch.

mod review;
#[cfg(test)]
mod tests;
mod validate;

use crate::http::{Answer, body, json, text};
use crate::inject::{Decision, InjectError, Input, Settings, Skip, inject};
use crate::metrics::Metrics;
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client};
use parking_lot::RwLock;
use review::{Review, Verdict};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Time for asking the API server about a namespace, well within a webhook's usual 10 s.
const LOOKUP_TIME: Duration = Duration::from_secs(3);

/// Labels of namespaces as last seen by the watch.
pub(crate) type NamespaceLabels = Arc<RwLock<BTreeMap<String, BTreeMap<String, String>>>>;

/// What the webhooks need.
#[derive(Clone)]
pub(crate) struct Webhooks {
    pub(crate) client: Client,
    pub(crate) namespaces: NamespaceLabels,
    pub(crate) settings: watch::Receiver<Settings>,
    pub(crate) metrics: Arc<Metrics>,
}

impl Webhooks {
    /// Answers one request.
    pub(crate) async fn handle(self, request: Request<Incoming>) -> Answer {
        // The path may go on with pairs such as /cluster/X/net/Y (Istio), which mean nothing here yet.
        let path = request.uri().path().to_owned();
        let first = path.split('/').nth(1).unwrap_or_default();
        match (first, request.method()) {
            ("inject" | "validate", &Method::POST) => {}
            ("inject" | "validate", _) => {
                return text(
                    StatusCode::METHOD_NOT_ALLOWED,
                    "send an AdmissionReview with POST\n",
                );
            }
            ("httpsReady" | "ready", _) => return text(StatusCode::OK, "ok\n"),
            _ => {
                return text(
                    StatusCode::NOT_FOUND,
                    "the webhooks are /inject and /validate\n",
                );
            }
        }
        let inject = first == "inject";
        let body = match body(request).await {
            Ok(body) => body,
            Err(answer) => return answer,
        };
        let review: Review = match serde_json::from_slice(&body) {
            Ok(review) => review,
            Err(e) => {
                return text(
                    StatusCode::BAD_REQUEST,
                    format!("the body is not an AdmissionReview v1: {e}\n"),
                );
            }
        };
        drop(body);
        let verdict = match inject {
            true => self.inject(&review).await,
            false => validate::validate(&review, &self.metrics),
        };
        json(&verdict.response(&review))
    }

    async fn inject(&self, review: &Review) -> Verdict {
        let start = Instant::now();
        self.metrics.injections.add(1);
        let decision = self.decide(review).await;
        self.metrics.injection_time.record(start.elapsed());
        let namespace = &review.request.namespace;
        let pod = review.object_name();
        match decision {
            Ok(Decision::Patch(patch)) => {
                self.metrics.injected.add(1);
                tracing::debug!("injected pod {namespace}/{pod}");
                Verdict::Patch(patch)
            }
            Ok(Decision::Skip(skip)) => {
                self.metrics.injections_skipped.add(1);
                tracing::debug!("pod {namespace}/{pod} is not injected: {skip}");
                Verdict::Allow(Vec::new())
            }
            Err(message) => {
                self.metrics.injections_failed.add(1);
                tracing::warn!("pod {namespace}/{pod} cannot be injected: {message}");
                Verdict::Deny(format!("sidecar injection: {message}"))
            }
        }
    }

    async fn decide(&self, review: &Review) -> Result<Decision, String> {
        if review.request.kind.kind != "Pod" {
            return Err(format!(
                "only pods are injected, not {}",
                review.request.kind.kind
            ));
        }
        let namespace = &review.request.namespace;
        let known = self.namespaces.read().get(namespace).cloned();
        if let Some(labels) = &known {
            let decision = self
                .decide_with(review, labels)
                .map_err(|e| e.to_string())?;
            let by_namespace = matches!(
                decision,
                Decision::Skip(Skip::NotAsked | Skip::NamespaceSaysNo | Skip::OtherRevision)
            );
            if !by_namespace {
                return Ok(decision);
            }
        }
        let labels = self.fresh_labels(namespace).await?;
        self.decide_with(review, &labels).map_err(|e| e.to_string())
    }

    fn decide_with(
        &self,
        review: &Review,
        namespace_labels: &BTreeMap<String, String>,
    ) -> Result<Decision, InjectError> {
        inject(Input {
            pod: &review.request.object,
            namespace: &review.request.namespace,
            namespace_labels,
            settings: &self.settings.borrow(),
        })
    }

    async fn fresh_labels(&self, name: &str) -> Result<BTreeMap<String, String>, String> {
        let api: Api<Namespace> = Api::all(self.client.clone());
        match tokio::time::timeout(LOOKUP_TIME, api.get(name)).await {
            Ok(Ok(namespace)) => Ok(namespace.metadata.labels.unwrap_or_default()),
            Ok(Err(e)) => Err(format!(
                "the labels of namespace {name} cannot be read: {e}"
            )),
            Err(_) => Err(format!(
                "the labels of namespace {name} cannot be read: the API server did not answer; try again"
            )),
        }
    }
}
