//! AdmissionReview v1 as the API server sends and expects it (Kubernetes: `admission.k8s.io/v1`).

use base64::Engine;
use serde::Deserialize;
use serde_json::{Value, json};

/// What the API server asks.
#[derive(Debug, Deserialize)]
pub(super) struct Review {
    /// The request.
    pub(super) request: Request,
}

/// The part of a request that is looked at.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Request {
    /// Repeated in the answer.
    pub(super) uid: String,
    /// Kind of the object.
    pub(super) kind: Kind,
    /// Its namespace; empty for cluster-scoped objects.
    #[serde(default)]
    pub(super) namespace: String,
    /// The object; null when it is deleted.
    #[serde(default)]
    pub(super) object: Value,
}

/// Group, version and kind.
#[derive(Debug, Deserialize)]
pub(super) struct Kind {
    /// Kind.
    pub(super) kind: String,
}

impl Review {
    /// The object's name, or its prefix when the name is still to be made.
    pub(super) fn object_name(&self) -> &str {
        let meta = &self.request.object["metadata"];
        let name = meta["name"].as_str().filter(|name| !name.is_empty());
        name.or(meta["generateName"].as_str()).unwrap_or("?")
    }
}

/// What the answer is.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Let pass, with warnings for the user.
    Allow(Vec<String>),
    /// Let pass with changes.
    Patch(json_patch::Patch),
    /// Refused, with the reason.
    Deny(String),
}

impl Verdict {
    /// The review to send back.
    pub(super) fn response(&self, review: &Review) -> Value {
        let uid = &review.request.uid;
        let response = match self {
            Self::Allow(warnings) if warnings.is_empty() => json!({ "uid": uid, "allowed": true }),
            Self::Allow(warnings) => json!({ "uid": uid, "allowed": true, "warnings": warnings }),
            Self::Patch(patch) if patch.0.is_empty() => json!({ "uid": uid, "allowed": true }),
            Self::Patch(patch) => {
                let text = serde_json::to_vec(patch).expect("a JSON patch is JSON");
                json!({
                    "uid": uid,
                    "allowed": true,
                    "patchType": "JSONPatch",
                    "patch": base64::engine::general_purpose::STANDARD.encode(text),
                })
            }
            Self::Deny(message) => json!({
                "uid": uid,
                "allowed": false,
                "status": { "code": 400, "reason": "BadRequest", "message": message },
            }),
        };
        json!({
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "response": response,
        })
    }
}
