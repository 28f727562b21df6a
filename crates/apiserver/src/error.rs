//! The one error of the API server: a Kubernetes `Status` object with its HTTP code.
//! Constructors are named after the reasons of Kubernetes' `metav1.StatusReason`; it does not know HTTP responses.

use serde_json::{Map, Value, json};

/// A failed request, as clients see it: HTTP code, machine-readable reason, sentence and details.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// HTTP status code.
    pub code: u16,
    /// `metav1.StatusReason`, such as `NotFound`; empty when Kubernetes gives none.
    pub reason: &'static str,
    /// One sentence for a person.
    pub message: String,
    /// What the failure is about; absent when there is nothing to say.
    pub details: Option<Box<Details>>,
}

/// `metav1.StatusDetails`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Details {
    /// Name of the object.
    pub name: String,
    /// API group of the object.
    pub group: String,
    /// Resource (plural) or kind of the object.
    pub kind: String,
    /// Uid of the object.
    pub uid: String,
    /// Every single cause.
    pub causes: Vec<Cause>,
    /// Seconds after which trying again makes sense; 0: not said.
    pub retry_after_seconds: u32,
    /// The sentence goes into a `Warning` header, too.
    pub aloud: bool,
}

/// `metav1.StatusCause`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cause {
    /// Machine-readable cause, such as `FieldValueRequired`.
    pub reason: String,
    /// Sentence for a person.
    pub message: String,
    /// Path of the field, such as `spec.containers[0].name`.
    pub field: String,
}

impl Cause {
    /// A cause from its three parts.
    pub fn new(
        reason: impl Into<String>,
        field: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            reason: reason.into(),
            message: message.into(),
            field: field.into(),
        }
    }
}

impl ApiError {
    /// Any code and reason, without details.
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            details: None,
        }
    }

    /// Says the sentence in a `Warning` header, too: for failures after which kubectl tries another version of the
    /// kind and then shows only how that failed (`kubectl autoscale`).
    pub fn aloud(mut self) -> Self {
        self.details.get_or_insert_default().aloud = true;
        self
    }

    fn about(mut self, group: &str, resource: &str, name: &str) -> Self {
        self.details = Some(Box::new(Details {
            name: name.into(),
            group: group.into(),
            kind: resource.into(),
            ..Details::default()
        }));
        self
    }

    /// 404 for an object: `pods "x" not found`.
    pub fn not_found(group: &str, resource: &str, name: &str) -> Self {
        Self::new(
            404,
            "NotFound",
            format!("{} \"{name}\" not found", qualified(group, resource)),
        )
        .about(group, resource, name)
    }

    /// 404 for a path or resource that is not served; kubectl says "the server doesn't have a resource type".
    pub fn not_served() -> Self {
        let mut error = Self::new(
            404,
            "NotFound",
            "the server could not find the requested resource",
        );
        error.details = Some(Box::default());
        error
    }

    /// 409 on create: `pods "x" already exists`.
    pub fn already_exists(group: &str, resource: &str, name: &str) -> Self {
        Self::new(
            409,
            "AlreadyExists",
            format!("{} \"{name}\" already exists", qualified(group, resource)),
        )
        .about(group, resource, name)
    }

    /// 409 on update with an old resourceVersion or another precondition; `why` ends the sentence.
    pub fn conflict(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} \"{name}\": {why}",
            qualified(group, resource)
        );
        Self::new(409, "Conflict", message).about(group, resource, name)
    }

    /// 409 with Kubernetes' sentence for an outdated resourceVersion.
    pub fn modified(group: &str, resource: &str, name: &str) -> Self {
        Self::conflict(
            group,
            resource,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// 422: the object broke field rules. `kind` is the kind (`Deployment`), not the resource.
    pub fn invalid(group: &str, kind: &str, name: &str, causes: Vec<Cause>) -> Self {
        let all: Vec<String> = causes
            .iter()
            .map(|cause| format!("{}: {}", cause.field, cause.message))
            .collect();
        let list = match all.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let message = format!("{} \"{name}\" is invalid: {list}", qualified(group, kind));
        let mut error = Self::new(422, "Invalid", message).about(group, kind, name);
        if let Some(details) = &mut error.details {
            details.causes = causes;
        }
        error
    }

    /// 403 about an object or a list (empty name): `pods "x" is forbidden: why`.
    pub fn forbidden(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let subject = match name {
            "" => qualified(group, resource),
            name => format!("{} \"{name}\"", qualified(group, resource)),
        };
        Self::new(403, "Forbidden", format!("{subject} is forbidden: {why}"))
            .about(group, resource, name)
    }

    /// 403 for a path that is no resource: `forbidden: why`.
    pub fn forbidden_path(why: &str) -> Self {
        Self::new(403, "Forbidden", format!("forbidden: {why}")).about("", "", "")
    }

    /// 401: credentials were given and are no good.
    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 405.
    pub fn method_not_allowed() -> Self {
        Self::new(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        )
    }

    /// 406: no accepted representation; only JSON is served.
    pub fn not_acceptable() -> Self {
        let message = "only the following media types are accepted: application/json";
        Self::new(406, "NotAcceptable", message)
    }

    /// 415 with the media types that would do.
    pub fn unsupported_media_type(accepted: &[&str]) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            accepted.join(", ")
        );
        Self::new(415, "UnsupportedMediaType", message)
    }

    /// 413; `limit` in bytes.
    pub fn too_large(limit: usize) -> Self {
        Self::new(413, "RequestEntityTooLarge", format!("limit is {limit}"))
    }

    /// 410 `Expired`: the resourceVersion or continue token is too old; clients list anew.
    pub fn gone(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// 429: try again later, such as an eviction that a disruption budget forbids now.
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        let mut error = Self::new(429, "TooManyRequests", message);
        error.details = Some(Box::new(Details {
            retry_after_seconds,
            ..Details::default()
        }));
        error
    }

    /// 500.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(
            500,
            "InternalError",
            format!("Internal error occurred: {}", message.into()),
        )
    }

    /// 503.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "ServiceUnavailable", message)
    }

    /// 504: something behind the server did not answer in time.
    pub fn timeout(message: impl Into<String>) -> Self {
        Self::new(504, "Timeout", message)
    }

    /// 500 as Kubernetes says it when a webhook with `failurePolicy: Fail` cannot be called.
    pub fn webhook_failed(webhook: &str, why: &str) -> Self {
        Self::internal(format!(
            "failed calling webhook \"{webhook}\": failed to call webhook: {why}"
        ))
    }

    /// A webhook's refusal: code of its status (400 when it gave none or no error code), its message and reason.
    pub fn webhook_denied(webhook: &str, code: Option<u16>, message: &str) -> Self {
        let text = match message {
            "" => format!("admission webhook \"{webhook}\" denied the request without explanation"),
            message => format!("admission webhook \"{webhook}\" denied the request: {message}"),
        };
        let code = code.filter(|code| (400..600).contains(code)).unwrap_or(400);
        let reason = match code {
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "NotFound",
            409 => "Conflict",
            422 => "Invalid",
            429 => "TooManyRequests",
            500 => "InternalError",
            _ => "BadRequest",
        };
        Self::new(code, reason, text)
    }

    /// The `Status` object that goes over the wire.
    pub fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "code": self.code,
        });
        if !self.reason.is_empty() {
            status["reason"] = json!(self.reason);
        }
        if let Some(details) = &self.details {
            status["details"] = details.value();
        }
        status
    }
}

impl Details {
    fn value(&self) -> Value {
        let mut map = Map::new();
        for (key, text) in [
            ("name", &self.name),
            ("group", &self.group),
            ("kind", &self.kind),
            ("uid", &self.uid),
        ] {
            if !text.is_empty() {
                map.insert(key.into(), json!(text));
            }
        }
        if !self.causes.is_empty() {
            let causes = self
                .causes
                .iter()
                .map(|c| json!({"reason": c.reason, "message": c.message, "field": c.field}));
            map.insert("causes".into(), causes.collect());
        }
        if self.retry_after_seconds > 0 {
            map.insert("retryAfterSeconds".into(), json!(self.retry_after_seconds));
        }
        Value::Object(map)
    }
}

/// `deployments.apps`, or `pods` for the core group.
fn qualified(group: &str, resource: &str) -> String {
    if group.is_empty() {
        resource.to_owned()
    } else {
        format!("{resource}.{group}")
    }
}
