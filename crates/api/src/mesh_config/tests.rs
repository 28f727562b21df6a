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

#[test]
fn security_settings() {
    let config = check_text(
        "trustDomainAliases: [old.example]\nmeshMTLS: {minProtocolVersion: TLSV1_3}\npathNormalization: {normalization: DECODE_AND_MERGE_SLASHES}\ndefaultConfig: {gatewayTopology: {numTrustedProxies: 2, forwardClientCertDetails: APPEND_FORWARD}}\nextensionProviders:\n- name: a\n  envoyExtAuthzHttp: {service: a.b.svc.cluster.local, port: 80, statusOnError: '503', headersToUpstreamOnAllow: [x-a, 'x-b*']}\n- name: z\n  zipkin: {service: z, port: 1}\n",
        true,
        &[
            "mesh:9: Info: MeshConfig istio: extensionProviders[1].zipkin: is not in force yet: it has no effect",
        ],
    )
    .expect("good");
    assert_eq!(config.extension_providers.len(), 2);
    check_text(
        "trustDomain: A_B/c\nextensionProviders:\n- name: a\n  envoyExtAuthzGrpc: {service: '', port: 0, timeout: 0s, statusOnError: '99'}\n- name: a\n  envoyExtAuthzHttp: {service: a, port: 1, pathPrefix: x, includeAdditionalHeadersInCheck: {'a b': c}, includeRequestBodyInCheck: {}}\n",
        false,
        &[
            "mesh:1: Error: MeshConfig istio: trustDomain: \"A_B/c\" is not a trust domain: use lower-case letters, digits, dots, - and _",
            "mesh:4: Error: MeshConfig istio: extensionProviders[0].envoyExtAuthzGrpc.service: is empty: name a host",
            "mesh:4: Error: MeshConfig istio: extensionProviders[0].envoyExtAuthzGrpc.port: 0 is not a port; use 1 to 65535",
            "mesh:4: Error: MeshConfig istio: extensionProviders[0].envoyExtAuthzGrpc.timeout: must be more than 0",
            "mesh:4: Error: MeshConfig istio: extensionProviders[0].envoyExtAuthzGrpc.statusOnError: \"99\" is not a status; use 200 to 599",
            "mesh:5: Error: MeshConfig istio: extensionProviders[1].name: \"a\" names another provider already: rename one",
            "mesh:6: Error: MeshConfig istio: extensionProviders[1].envoyExtAuthzHttp.includeRequestBodyInCheck.maxRequestBytes: is missing: say how many bytes are sent",
            "mesh:6: Error: MeshConfig istio: extensionProviders[1].envoyExtAuthzHttp.pathPrefix: \"x\" does not begin with a slash",
            "mesh:6: Error: MeshConfig istio: extensionProviders[1].envoyExtAuthzHttp.includeAdditionalHeadersInCheck[\"a b\"]: \"a b\" is not a header",
        ],
    );
}
