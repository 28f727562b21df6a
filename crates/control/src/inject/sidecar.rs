//! The sidecar: a container that writes the capture rules, and the proxy beside the application.

use super::{Facts, INIT, InjectError, PROXY, Parts, containers, volumes};
use k8s_openapi::api::core::v1::Container;

/// Builds both containers.
pub(super) fn parts(facts: &Facts<'_>) -> Result<Parts, InjectError> {
    // As an init container that stays, the proxy starts before the application's own init containers and
    // ends after the application: Jobs complete, and init containers reach the network.
    let native = facts
        .annotations
        .flag("sidecar.istio.io/nativeSidecar", true)?;
    let image = containers::image(facts)?;
    let mut proxy = Container {
        name: PROXY.to_owned(),
        image: Some(image.clone()),
        args: Some(containers::proxy_args(facts, "sidecar")),
        env: Some(containers::proxy_env(facts)),
        ports: Some(containers::ports()),
        startup_probe: Some(containers::startup_probe()),
        readiness_probe: containers::readiness_probe(facts)?,
        resources: Some(containers::resources(facts)?),
        security_context: Some(containers::proxy_security()),
        volume_mounts: Some(volumes::mounts(facts.spire)),
        ..Container::default()
    };
    if native {
        proxy.restart_policy = Some("Always".to_owned());
    }
    Ok(Parts {
        init: init(facts, image)?,
        proxy,
        native,
        volumes: volumes::volumes(facts.spire),
        sidecar: true,
    })
}

/// The container that redirects the pod's traffic; none with `interceptionMode: NONE`.
fn init(facts: &Facts<'_>, image: String) -> Result<Option<Container>, InjectError> {
    let key = "sidecar.istio.io/interceptionMode";
    match facts.annotations.text(key) {
        None | Some("REDIRECT") => {}
        Some("NONE") => return Ok(None),
        Some(other) => {
            return Err(super::annotations::bad(key, other, "REDIRECT or NONE"));
        }
    }
    let mut args = vec!["capture".to_owned()];
    args.extend(facts.annotations.capture_options()?);
    // Istio: ISTIO_META_DNS_CAPTURE.
    let metadata = &facts.proxy_config.proxy_metadata;
    let captures = |name: &str| {
        metadata
            .get(name)
            .is_some_and(|v| v.eq_ignore_ascii_case("true"))
    };
    if captures("ISTIO_META_DNS_CAPTURE") {
        args.push("--redirect-dns".to_owned());
    }
    Ok(Some(Container {
        name: INIT.to_owned(),
        image: Some(image),
        args: Some(args),
        resources: Some(containers::init_resources()),
        security_context: Some(containers::init_security()),
        ..Container::default()
    }))
}
