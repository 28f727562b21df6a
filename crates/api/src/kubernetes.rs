//! Schemas of the Kubernetes kinds that Lateen uses, for checks of files. The API server checks for itself.

use crate::kinds::Kind;
use crate::schema::structural;
use k8s_openapi::api::{
    admissionregistration::v1 as admission, apps::v1 as apps, batch::v1 as batch,
    coordination::v1 as coordination, core::v1 as core, discovery::v1 as discovery,
    rbac::v1 as rbac,
};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

/// Schemas that were asked for: a pod's alone is large, and most programs never ask.
static KNOWN: LazyLock<Mutex<HashMap<&'static str, Arc<Value>>>> = LazyLock::new(Mutex::default);

/// The schema of a whole object of `kind`. Absent for kinds whose schema is not used here.
pub fn schema(kind: &Kind) -> Option<Arc<Value>> {
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(schema) = known.get(kind.kind) {
        return Some(Arc::clone(schema));
    }
    let mut schema = generate(kind)?;
    strip_descriptions(&mut schema);
    let schema = Arc::new(schema);
    known.insert(kind.kind, Arc::clone(&schema));
    Some(schema)
}

fn generate(kind: &Kind) -> Option<Value> {
    Some(match (kind.group, kind.kind) {
        ("", "Pod") => structural::<core::Pod>(),
        ("", "Service") => structural::<core::Service>(),
        ("", "Namespace") => structural::<core::Namespace>(),
        ("", "Node") => structural::<core::Node>(),
        ("", "ServiceAccount") => structural::<core::ServiceAccount>(),
        ("", "ConfigMap") => structural::<core::ConfigMap>(),
        ("", "Secret") => structural::<core::Secret>(),
        ("apps", "Deployment") => structural::<apps::Deployment>(),
        ("apps", "ReplicaSet") => structural::<apps::ReplicaSet>(),
        ("batch", "Job") => structural::<batch::Job>(),
        ("discovery.k8s.io", "EndpointSlice") => structural::<discovery::EndpointSlice>(),
        ("rbac.authorization.k8s.io", "Role") => structural::<rbac::Role>(),
        ("rbac.authorization.k8s.io", "RoleBinding") => structural::<rbac::RoleBinding>(),
        ("rbac.authorization.k8s.io", "ClusterRole") => structural::<rbac::ClusterRole>(),
        ("rbac.authorization.k8s.io", "ClusterRoleBinding") => {
            structural::<rbac::ClusterRoleBinding>()
        }
        ("coordination.k8s.io", "Lease") => structural::<coordination::Lease>(),
        ("admissionregistration.k8s.io", "MutatingWebhookConfiguration") => {
            structural::<admission::MutatingWebhookConfiguration>()
        }
        ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration") => {
            structural::<admission::ValidatingWebhookConfiguration>()
        }
        _ => return None,
    })
}

/// Removes documentation, which is most of a schema's size.
fn strip_descriptions(schema: &mut Value) {
    let Some(map) = schema.as_object_mut() else {
        return;
    };
    map.remove("description");
    if let Some(Value::Object(properties)) = map.get_mut("properties") {
        properties.values_mut().for_each(strip_descriptions);
    }
    for key in ["items", "additionalProperties"] {
        if let Some(below) = map.get_mut(key) {
            strip_descriptions(below);
        }
    }
}
