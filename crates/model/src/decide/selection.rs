//! Which proxies a policy is for: by namespace, labels or the Kubernetes Gateway that they serve.

use crate::matching::labels_match;
use crate::mesh::{Role, Scope};
use crate::security::Selection;
use lateen_base::Str;

/// Label of pods that serve a Gateway of the Gateway API: its name.
const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";

/// As [`GATEWAY_NAME`]: the name of its class.
const GATEWAY_CLASS: &str = "gateway.networking.k8s.io/gateway-class-name";

/// Whether a policy of `namespace` is for the proxy in `scope`. Policies of the root namespace are for every namespace
/// (Istio). `Service` and `ServiceEntry` targets are for waypoints: never for a sidecar or a gateway.
pub(super) fn selects(namespace: &Str, selection: &Selection, scope: &Scope, root: &Str) -> bool {
    if selection.targets.is_empty() {
        let near = *namespace == scope.namespace || namespace == root;
        return near && labels_match(&selection.labels, &scope.labels);
    }
    let serves = |label: &str, name: &Str| scope.labels.get(label) == Some(name);
    scope.role == Role::Gateway
        && selection.targets.iter().any(|target| match &*target.kind {
            "Gateway" => *namespace == scope.namespace && serves(GATEWAY_NAME, &target.name),
            "GatewayClass" => namespace == root && serves(GATEWAY_CLASS, &target.name),
            _ => false,
        })
}
