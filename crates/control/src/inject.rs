//! Sidecar injection: from a pod as the API server sent it to the patch that adds the proxy. Pure.
//!
//! ```text
//! pod + namespace labels + settings -> selection -> restore -> template -> overlay -> metadata -> JSON patch
//! ```
//! Pods are changed as JSON, so that nothing of a newer Kubernetes is lost on the way; what is added is built
//! from typed values. Injecting an injected pod changes nothing. It does not talk HTTP: that is the webhook.

mod annotations;
mod containers;
mod gateway;
mod metadata;
mod overlay;
mod probes;
mod prometheus;
mod proxy_config;
mod restore;
mod selection;
mod sidecar;
#[cfg(test)]
mod tests;
mod volumes;

pub use selection::Skip;

use annotations::Annotations;
use k8s_openapi::api::core::v1::{Container, Pod, Volume};
use lateen_api::mesh_config::ProxyConfig;
use metadata::Owner;
use serde_json::Value;
use std::collections::BTreeMap;

/// Name of the proxy's container.
const PROXY: &str = "istio-proxy";
/// Name of the container that writes the capture rules.
const INIT: &str = "istio-init";

/// What injection needs to know of the mesh.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Root namespace, such as `istio-system`.
    pub root_namespace: String,
    /// Cluster domain, such as `cluster.local`.
    pub domain: String,
    /// SPIFFE trust domain, such as `cluster.local`.
    pub trust_domain: String,
    /// Cluster id, such as `Kubernetes`.
    pub cluster: String,
    /// Mesh id: metric label and node metadata.
    pub mesh: String,
    /// Revision of this control plane; pods and namespaces choose it with `istio.io/rev`.
    pub revision: String,
    /// Where proxies find the control plane, as `host:port`; absent: `istiod.<root namespace>.svc:15012`.
    pub discovery: Option<String>,
    /// Defaults for proxies (Istio: `meshConfig.defaultConfig`).
    pub proxy_defaults: ProxyConfig,
    /// Image of proxy and init container.
    pub image: String,
    /// Whether pods are injected in namespaces that say nothing (Istio: `enableNamespacesByDefault`).
    pub by_default: bool,
    /// Whether the application's metrics are merged into the proxy's (Istio: `enablePrometheusMerge`).
    pub prometheus_merge: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            root_namespace: "istio-system".to_owned(),
            domain: "cluster.local".to_owned(),
            trust_domain: "cluster.local".to_owned(),
            cluster: "Kubernetes".to_owned(),
            mesh: "cluster.local".to_owned(),
            revision: "default".to_owned(),
            discovery: None,
            proxy_defaults: ProxyConfig::default(),
            image: "lateen/proxyv2".to_owned(),
            by_default: false,
            prometheus_merge: true,
        }
    }
}

impl Settings {
    /// Where proxies find the control plane unless their ProxyConfig says otherwise.
    fn discovery(&self) -> String {
        let default = || format!("istiod.{}.svc:15012", self.root_namespace);
        self.discovery.clone().unwrap_or_else(default)
    }
}

/// One pod to decide on.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// The pod as the API server sent it.
    pub pod: &'a Value,
    /// The namespace of the request; the pod itself may not name it yet.
    pub namespace: &'a str,
    /// Labels of that namespace.
    pub namespace_labels: &'a BTreeMap<String, String>,
    /// The mesh.
    pub settings: &'a Settings,
}

/// What happens to a pod.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// It stays as it is.
    Skip(Skip),
    /// It gets a proxy. The patch is empty when it already has this very one.
    Patch(json_patch::Patch),
}

/// A pod that asks for injection but cannot have it. The sentence goes to who creates the pod.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum InjectError {
    /// The object is not a pod as this Kubernetes version knows it.
    #[error("the pod cannot be read: {0}; check its fields against the Kubernetes API")]
    NotAPod(String),
    /// An annotation has a value that cannot be used.
    #[error("annotation {key}: {value:?} is not {expected}; correct or remove it")]
    BadAnnotation {
        /// The annotation's key.
        key: String,
        /// Its value.
        value: String,
        /// What would be right.
        expected: &'static str,
    },
    /// An annotation that would change capture in a way that is not possible here.
    #[error("annotation {0} is not supported; remove it")]
    Unsupported(String),
    /// An injection template that does not exist here.
    #[error(
        "annotation inject.istio.io/templates names {0:?}; templates are built in: use sidecar or gateway, with or without spire, as in sidecar,spire"
    )]
    UnknownTemplate(String),
    /// The pod already has a container with a reserved name that injection did not make.
    #[error("container {0:?} of the pod cannot be merged with the injected one: {1}")]
    BadOverride(&'static str, String),
}

/// Decides on one pod.
///
/// # Errors
/// The pod asks for injection and cannot have it; the error's sentence is for its author.
pub fn inject(input: Input<'_>) -> Result<Decision, InjectError> {
    let pod: Pod = serde_json::from_value(input.pod.clone())
        .map_err(|e| InjectError::NotAPod(e.to_string()))?;
    if let Err(skip) = selection::check(&pod, input) {
        return Ok(Decision::Skip(skip));
    }
    let injected = injected(input)?;
    Ok(Decision::Patch(json_patch::diff(input.pod, &injected)))
}

/// The pod with its proxy, whether or not it asks for one.
///
/// # Errors
/// As [`inject`].
pub fn injected(input: Input<'_>) -> Result<Value, InjectError> {
    let (mut bare, prometheus) = restore::undo(input.pod)?;
    let pod: Pod =
        serde_json::from_value(bare.clone()).map_err(|e| InjectError::NotAPod(e.to_string()))?;
    let annotations = Annotations::of(&pod);
    let template = Template::of(&annotations)?;
    let own = pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref());
    let has = |name: &str| own.is_some_and(|own| own.iter().any(|v| v.name == name));
    let probes = match template.shape {
        Shape::Sidecar => probes::rewrite(&mut bare, &annotations)?,
        Shape::Gateway => None,
    };
    let facts = Facts {
        spire: template.spire || has(volumes::SPIRE),
        probes,
        proxy_config: proxy_config::merged(&annotations, input.settings)?,
        owner: Owner::of(&pod, input.namespace),
        prometheus: prometheus::merge(&annotations, prometheus, input.settings),
        annotations,
        pod: &pod,
        settings: input.settings,
    };
    let mut parts = match template.shape {
        Shape::Sidecar => sidecar::parts(&facts)?,
        Shape::Gateway => gateway::parts(&facts)?,
    };
    // A volume of the same name is the user's replacement of ours.
    parts.volumes.retain(|volume| !has(&volume.name));
    overlay::apply(&mut bare, &parts)?;
    metadata::apply(&mut bare, &facts, &parts);
    Ok(bare)
}

/// What is asked for by annotation `inject.istio.io/templates`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Template {
    shape: Shape,
    /// Whether the identity comes from a SPIRE agent on the node, by way of its CSI driver.
    spire: bool,
}

/// The pod's shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Sidecar,
    Gateway,
}

impl Template {
    fn of(annotations: &Annotations) -> Result<Self, InjectError> {
        let mut template = Self {
            shape: Shape::Sidecar,
            spire: false,
        };
        let names = annotations.text("inject.istio.io/templates");
        for name in names.unwrap_or_default().split(',').map(str::trim) {
            match name {
                "" | "sidecar" => {}
                "gateway" => template.shape = Shape::Gateway,
                "spire" => template.spire = true,
                other => return Err(InjectError::UnknownTemplate(other.to_owned())),
            }
        }
        Ok(template)
    }
}

/// Everything the templates look at.
struct Facts<'a> {
    pod: &'a Pod,
    settings: &'a Settings,
    annotations: Annotations,
    owner: Owner,
    prometheus: prometheus::Merge,
    proxy_config: ProxyConfig,
    /// Whether the pod is given the socket of a SPIRE agent.
    spire: bool,
    /// The application's own probes as JSON, when the proxy makes them on the kubelet's behalf.
    probes: Option<String>,
}

/// What a template adds to the pod.
struct Parts {
    /// The container that writes the capture rules; gateways have none.
    init: Option<Container>,
    /// The proxy.
    proxy: Container,
    /// Whether the proxy is an init container that stays (Kubernetes: native sidecar).
    native: bool,
    /// Volumes that the containers mount.
    volumes: Vec<Volume>,
    /// Whether the pod becomes part of the mesh as a workload with a sidecar.
    sidecar: bool,
}
