//! Read access to stored objects for the parts that decide by them: authentication, RBAC, admission.
//! Writing goes through the verbs only, so that validation and admission cannot be bypassed.

use serde_json::Value;
use std::sync::Arc;

/// A consistent-enough view of the stored objects: each call sees the newest committed state.
pub trait Lookup: Send + Sync {
    /// All objects of a resource (plural, such as `pods`) in a namespace, or in all of them when absent.
    /// Ordered by namespace and name; empty when the resource is not served.
    fn list(&self, group: &str, resource: &str, namespace: Option<&str>) -> Vec<Arc<Value>>;
    /// One object; the namespace is absent for cluster-scoped resources.
    fn find(
        &self,
        group: &str,
        resource: &str,
        namespace: Option<&str>,
        name: &str,
    ) -> Option<Arc<Value>>;
}
