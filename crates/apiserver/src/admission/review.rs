//! AdmissionReview v1: the request that goes out and the answer that comes back.

use super::AdmissionInput;
use crate::error::ApiError;
use base64::Engine;
use serde_json::{Map, Value, json};

const API_VERSION: &str = "admission.k8s.io/v1";
/// Kubernetes cuts warnings, too.
const MOST_WARNINGS: usize = 16;
const MOST_WARNING_BYTES: usize = 512;

/// The `request` part of a review.
pub(super) fn request(input: &AdmissionInput) -> Value {
    let (kind, resource) = (&input.kind, &input.resource);
    let kind = json!({"group": kind.group, "version": kind.version, "kind": kind.kind});
    let resource = json!({"group": resource.group, "version": resource.version, "resource": resource.resource});
    let mut request = Map::new();
    let mut set = |key: &str, value: Value| request.insert(key.to_owned(), value);
    set("uid", uuid::Uuid::new_v4().to_string().into());
    set("kind", kind.clone());
    set("resource", resource.clone());
    set("requestKind", kind);
    set("requestResource", resource);
    if !input.subresource.is_empty() {
        set("subResource", input.subresource.as_str().into());
        set("requestSubResource", input.subresource.as_str().into());
    }
    if !input.name.is_empty() {
        set("name", input.name.as_str().into());
    }
    if let Some(namespace) = &input.namespace {
        set("namespace", namespace.as_str().into());
    }
    set("operation", input.operation.name().into());
    set("userInfo", input.user.info());
    set("object", input.object.clone().unwrap_or_default());
    set("oldObject", input.old_object.clone().unwrap_or_default());
    set("dryRun", input.dry_run.into());
    let options = input
        .operation
        .options()
        .map(|kind| json!({"kind": kind, "apiVersion": "meta.k8s.io/v1"}));
    set("options", options.unwrap_or_default());
    Value::Object(request)
}

/// The whole review with a request in it, as bytes.
pub(super) fn envelope(request: &Value) -> Vec<u8> {
    json!({"kind": "AdmissionReview", "apiVersion": API_VERSION, "request": request})
        .to_string()
        .into_bytes()
}

/// What a webhook said.
pub(super) struct Answer {
    allowed: bool,
    status: Value,
    patch: Option<json_patch::Patch>,
    warnings: Vec<String>,
}

impl Answer {
    /// Reads an answer; the error is that of a webhook that answers nonsense.
    pub(super) fn read(webhook: &str, bytes: &[u8], request: &Value) -> Result<Self, ApiError> {
        let nonsense = |why: String| {
            ApiError::internal(format!(
                "failed calling webhook \"{webhook}\": received invalid webhook response: {why}"
            ))
        };
        let review: Value = serde_json::from_slice(bytes)
            .map_err(|error| nonsense(format!("not JSON: {error}")))?;
        if review["apiVersion"] != API_VERSION || review["kind"] != "AdmissionReview" {
            let got = format!(
                "{}, Kind={}",
                plain(&review["apiVersion"]),
                plain(&review["kind"])
            );
            let wanted =
                format!("expected webhook response of {API_VERSION}, Kind=AdmissionReview");
            return Err(nonsense(format!("{wanted}, got {got}")));
        }
        let response = &review["response"];
        if response["uid"] != request["uid"] {
            let (wanted, got) = (plain(&request["uid"]), plain(&response["uid"]));
            return Err(nonsense(format!(
                "expected response.uid=\"{wanted}\", got \"{got}\""
            )));
        }
        let Some(allowed) = response["allowed"].as_bool() else {
            return Err(nonsense("response.allowed is missing".into()));
        };
        let patch = match response["patch"].as_str().filter(|patch| !patch.is_empty()) {
            None => None,
            Some(_) if response["patchType"] != "JSONPatch" => {
                return Err(nonsense(
                    "response.patchType must be JSONPatch when there is a patch".into(),
                ));
            }
            Some(patch) => {
                let bytes = base64::engine::general_purpose::STANDARD
                    .decode(patch)
                    .map_err(|error| nonsense(format!("response.patch is not base64: {error}")))?;
                let patch = serde_json::from_slice(&bytes).map_err(|error| {
                    nonsense(format!("response.patch is no JSON patch: {error}"))
                })?;
                Some(patch)
            }
        };
        let warnings = response["warnings"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str);
        let warnings = warnings
            .take(MOST_WARNINGS)
            .map(|text| text.chars().take(MOST_WARNING_BYTES).collect());
        Ok(Self {
            allowed,
            status: response["status"].clone(),
            patch,
            warnings: warnings.collect(),
        })
    }

    /// Warnings, or the refusal.
    pub(super) fn verdict(self, webhook: &str) -> Result<Vec<String>, ApiError> {
        if self.allowed {
            return Ok(self.warnings);
        }
        let text = |key: &str| self.status[key].as_str().unwrap_or_default();
        let message = if text("message").is_empty() {
            text("reason")
        } else {
            text("message")
        };
        let code = self.status["code"]
            .as_u64()
            .and_then(|code| u16::try_from(code).ok());
        Err(ApiError::webhook_denied(webhook, code, message))
    }

    /// Applies the patch to the object. Warnings, or the refusal.
    pub(super) fn admit(
        mut self,
        webhook: &str,
        input: &mut AdmissionInput,
    ) -> Result<Vec<String>, ApiError> {
        let patch = self.patch.take();
        let warnings = self.verdict(webhook)?;
        let Some(patch) = patch.filter(|patch| !patch.0.is_empty()) else {
            return Ok(warnings);
        };
        let Some(object) = &mut input.object else {
            let why = "attempted to modify the object, which is not supported for this operation";
            return Err(ApiError::internal(format!(
                "admission webhook \"{webhook}\" {why}"
            )));
        };
        json_patch::patch(object, &patch).map_err(|error| {
            ApiError::internal(format!(
                "the patch of admission webhook \"{webhook}\" does not apply: {error}"
            ))
        })?;
        Ok(warnings)
    }
}

fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}
