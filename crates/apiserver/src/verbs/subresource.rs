//! Subresources that are no plain part of the object: scale, eviction, binding, finalize, token.

use crate::api::{Api, Call};
use crate::error::ApiError;
use crate::meta;
use crate::patch;
use crate::select;
use crate::store::{Resource, revision_of};
use crate::verbs::delete::{self, Options};
use crate::verbs::write::{self, Outcome, Ownership, Part};
use http::HeaderMap;
use serde_json::{Value, json};
use std::sync::Arc;

/// Where a kind keeps what `scale` shows.
struct ScalePaths {
    replicas: String,
    observed: String,
    selector: Option<String>,
}

impl ScalePaths {
    fn of(call: &Call) -> Self {
        let pointer = |path: &Value| path.as_str().map(|path| path.replace('.', "/"));
        let custom = call
            .kind
            .custom
            .as_ref()
            .and_then(|custom| custom.scale.as_ref());
        match custom {
            Some(scale) => Self {
                replicas: pointer(&scale["specReplicasPath"])
                    .unwrap_or_else(|| "/spec/replicas".to_owned()),
                observed: pointer(&scale["statusReplicasPath"])
                    .unwrap_or_else(|| "/status/replicas".to_owned()),
                selector: pointer(&scale["labelSelectorPath"]),
            },
            None => Self {
                replicas: "/spec/replicas".to_owned(),
                observed: "/status/replicas".to_owned(),
                selector: Some("/spec/selector".to_owned()),
            },
        }
    }
}

fn scale_of(paths: &ScalePaths, object: &Value) -> Value {
    let metadata = &object["metadata"];
    let mut scale = json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {
            "name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"], "creationTimestamp": metadata["creationTimestamp"],
        },
        "spec": {"replicas": object.pointer(&paths.replicas).cloned().unwrap_or(json!(0))},
        "status": {"replicas": object.pointer(&paths.observed).cloned().unwrap_or(json!(0))},
    });
    let selector = paths
        .selector
        .as_ref()
        .and_then(|path| object.pointer(path));
    match selector {
        Some(Value::String(text)) => scale["status"]["selector"] = json!(text),
        Some(selector) => scale["status"]["selector"] = json!(select::write(selector)),
        None => {}
    }
    scale
}

/// Answers `get` of `scale`.
///
/// # Errors
/// 404.
pub fn get_scale(api: &Api, call: &Call) -> Result<Value, ApiError> {
    let name = call.name()?;
    let object = api
        .store
        .object(&call.key(name))
        .ok_or_else(|| call.not_found(name))?;
    Ok(scale_of(&ScalePaths::of(call), &object))
}

/// Answers `update` and `patch` of `scale`: a patch applies to the `Scale` object.
///
/// # Errors
/// As for updates; 422 for a negative count.
pub async fn put_scale(
    api: &Api,
    call: &Call,
    body: &[u8],
    patched: Option<&HeaderMap>,
) -> Result<Value, ApiError> {
    let paths = ScalePaths::of(call);
    let name = call.name()?.to_owned();
    let outcome = write::modify(api, call, Part::Main, |old| {
        let scale = match patched {
            Some(headers) => match patch::Patch::parse(call, headers, body)? {
                patch::Patch::Apply(applied) => applied,
                other => other.change(call, &scale_of(&paths, old))?,
            },
            None => patch::document(body)?,
        };
        let given = meta::text(&scale, "resourceVersion");
        if !given.is_empty() && given != revision_of(old).to_string() {
            return Err(ApiError::modified(
                &call.kind.group,
                &call.kind.plural,
                &name,
            ));
        }
        let wanted = scale["spec"]["replicas"].as_i64().unwrap_or(0);
        if wanted < 0 {
            let cause = meta::invalid(
                "spec.replicas",
                &wanted.to_string(),
                "must be greater than or equal to 0",
            );
            return Err(ApiError::invalid(
                "autoscaling",
                "Scale",
                &name,
                vec![cause],
            ));
        }
        let mut object = (**old).clone();
        match object.pointer_mut(&paths.replicas) {
            Some(found) => *found = json!(wanted),
            None => object["spec"]["replicas"] = json!(wanted),
        }
        Ok((object, Ownership::Changes))
    })
    .await?;
    Ok(scale_of(&paths, &outcome.object))
}

/// Answers `create` of `eviction`: a deletion that pod disruption budgets may forbid for now.
///
/// # Errors
/// 404; 429 when a budget has no disruption left.
pub async fn evict(api: &Api, call: &mut Call, body: &[u8]) -> Result<Value, ApiError> {
    let body = patch::document(body)?;
    let options = Options::parse(call, body["deleteOptions"].to_string().as_bytes())?;
    let name = call.name()?.to_owned();
    let pod = api
        .store
        .object(&call.key(&name))
        .ok_or_else(|| call.not_found(&name))?;
    let (budgets, _) = api.store.all(
        &Resource::new("policy", "poddisruptionbudgets"),
        call.scope(),
    );
    for budget in budgets
        .iter()
        .filter(|budget| select::fits(&budget["spec"]["selector"], &pod["metadata"]["labels"]))
    {
        if budget["status"]["disruptionsAllowed"]
            .as_i64()
            .is_some_and(|allowed| allowed <= 0)
        {
            return Err(ApiError::too_many_requests(
                "Cannot evict pod as it would violate the pod's disruption budget.",
                10,
            ));
        }
    }
    Box::pin(delete::delete(api, call, &options)).await?;
    Ok(
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}),
    )
}

/// Answers `create` of `binding`: gives a pod its node.
///
/// # Errors
/// 404; 409 when it has one.
pub async fn bind(api: &Api, call: &Call, body: &[u8]) -> Result<Value, ApiError> {
    let binding = patch::document(body)?;
    let node = binding["target"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let name = call.name()?.to_owned();
    write::modify(api, call, Part::Whole, |old| {
        if let Some(bound) = old["spec"]["nodeName"]
            .as_str()
            .filter(|bound| !bound.is_empty())
        {
            let why = format!("pod {name} is already assigned to node \"{bound}\"");
            return Err(ApiError::conflict("", "pods/binding", &name, &why));
        }
        let mut pod = (**old).clone();
        pod["spec"]["nodeName"] = json!(node);
        Ok((pod, Ownership::Changes))
    })
    .await?;
    Ok(
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}),
    )
}

/// Answers `update` of `namespaces/finalize`: sets the spec's finalizers; the last one gone, the namespace goes.
///
/// # Errors
/// As for updates.
pub async fn finalize(api: &Api, call: &Call, body: &[u8]) -> Result<Outcome, ApiError> {
    let wanted = patch::document(body)?;
    write::modify(api, call, Part::Whole, |old: &Arc<Value>| {
        let mut namespace = (**old).clone();
        namespace["spec"]["finalizers"] = wanted["spec"]["finalizers"].clone();
        if namespace["spec"]["finalizers"].is_null() {
            namespace["spec"] = json!({});
        }
        Ok((namespace, Ownership::Changes))
    })
    .await
}
