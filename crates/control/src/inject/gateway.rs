//! The gateway: a pod whose only work is the proxy. Nothing is captured.

use super::{Facts, InjectError, PROXY, Parts, containers, volumes};
use k8s_openapi::api::core::v1::Container;

/// Builds the proxy; the pod's own `istio-proxy` container (image `auto`) is laid over it.
pub(super) fn parts(facts: &Facts<'_>) -> Result<Parts, InjectError> {
    let proxy = Container {
        name: PROXY.to_owned(),
        image: Some(containers::image(facts)?),
        args: Some(containers::proxy_args(facts, "router")),
        env: Some(containers::proxy_env(facts)),
        ports: Some(containers::ports()),
        startup_probe: Some(containers::startup_probe()),
        readiness_probe: containers::readiness_probe(facts)?,
        resources: Some(containers::resources(facts)?),
        security_context: Some(containers::proxy_security()),
        volume_mounts: Some(volumes::mounts(facts.spire)),
        ..Container::default()
    };
    Ok(Parts {
        init: None,
        proxy,
        native: false,
        volumes: volumes::volumes(facts.spire),
        sidecar: false,
    })
}
