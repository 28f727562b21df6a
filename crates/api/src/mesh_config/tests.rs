//! Cases of `mesh_config`: text in, observable result out.

use super::*;
use crate::sidecar::OutboundMode;

fn check_text(text: &str, good: bool, want: &[&str]) -> Option<MeshConfig> {
    let (config, notices) = parse(text);
    let said = notices.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(said, want, "{text}");
    assert_eq!(config.is_some(), good, "{text}");
    config
}

#[test]
fn what_is_used_is_read() {
    let config = check_text(
        "accessLogFile: /dev/stdout\noutboundTrafficPolicy:\n  mode: REGISTRY_ONLY\ndefaultConfig:\n  discoveryAddress: istiod.istio-system.svc:15012\n  proxyMetadata:\n    A: b\nrootNamespace: mesh\n",
        true,
        &[],
    )
    .expect("good");
    assert_eq!(config.root_namespace.as_deref(), Some("mesh"));
    assert_eq!(
        config.outbound_traffic_policy.and_then(|p| p.mode),
        Some(OutboundMode::RegistryOnly)
    );
    assert_eq!(check_text("", true, &[]), Some(MeshConfig::default()));
}

#[test]
fn the_rest_is_named() {
    check_text(
        "enableTracing: true\naccesLogFile: x\n",
        true,
        &[
            "mesh:1: Info: MeshConfig istio: enableTracing: is not in force yet: it has no effect",
            "mesh:2: Warning: MeshConfig istio: accesLogFile: unknown field, it has no effect; did you mean \"accessLogFile\"?",
        ],
    );
    check_text(
        "a: 1\naccessLogFile: [x]\n",
        false,
        &[
            "mesh:1: Warning: MeshConfig istio: a: unknown field, it has no effect; remove it or look it up with kubectl explain",
            "mesh:2: Error: MeshConfig istio: accessLogFile: expected a string, found a list",
        ],
    );
    check_text(
        "a: [",
        false,
        &["mesh:1: Error: MeshConfig istio: is not valid YAML: unclosed bracket '['"],
    );
}
