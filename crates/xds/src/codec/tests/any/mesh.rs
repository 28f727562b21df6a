//! Settings of the mesh.

use super::{duration, mode, name, port, text, tls, traffic};
use lateen_model::mesh::*;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

pub fn settings() -> impl Strategy<Value = MeshSettings> {
    let paths = select(vec![
        PathNormalization::None,
        PathNormalization::Base,
        PathNormalization::MergeSlashes,
        PathNormalization::DecodeAndMergeSlashes,
    ]);
    let forward = select(vec![
        ForwardClientCert::Sanitize,
        ForwardClientCert::ForwardOnly,
        ForwardClientCert::AppendForward,
        ForwardClientCert::SanitizeSet,
        ForwardClientCert::AlwaysForwardOnly,
    ]);
    (
        (mode(), any::<bool>(), option::of(text()), name(), name()),
        (name(), vec(name(), 0..3), any::<bool>(), tls::version()),
        (paths, any::<u32>(), forward, vec(provider(), 0..3)),
        defaults(),
    )
        .prop_map(|(a, b, c, traffic)| MeshSettings {
            outbound: a.0,
            access_log: a.1,
            access_log_format: a.2,
            domain: a.3,
            root_namespace: a.4,
            trust_domain: b.0,
            trust_domain_aliases: b.1,
            auto_mtls: b.2,
            mesh_tls_min: b.3,
            path_normalization: c.0,
            trusted_proxies: c.1,
            proxy_protocol: c.1 % 2 == 1,
            forward_client_cert: c.2,
            authz_providers: c.3,
            traffic,
        })
}

fn defaults() -> impl Strategy<Value = TrafficDefaults> {
    (
        (traffic::locality(), duration(), any::<bool>()),
        option::of(traffic::keepalive()),
        option::of(traffic::pool()),
        option::of(traffic::outlier()),
    )
        .prop_map(|(a, keepalive, pool, outlier)| TrafficDefaults {
            locality: a.0,
            connect_timeout: a.1.unwrap_or_default(),
            keepalive,
            h2_upgrade: a.2,
            pool,
            outlier,
        })
}

fn provider() -> impl Strategy<Value = AuthzProvider> {
    let body = (any::<u32>(), any::<bool>(), any::<bool>()).prop_map(
        |(max_bytes, allow_partial, as_bytes)| AuthzBody {
            max_bytes,
            allow_partial,
            as_bytes,
        },
    );
    (
        (name(), name(), port(), duration(), any::<bool>()),
        (100..=599u16, option::of(body), any::<bool>(), protocol()),
    )
        .prop_map(|(a, b)| AuthzProvider {
            name: a.0,
            host: a.1,
            port: a.2,
            timeout: a.3.unwrap_or_default(),
            fail_open: a.4,
            status_on_error: b.0,
            body: b.1,
            clear_route_cache: b.2,
            protocol: b.3,
        })
}

fn protocol() -> impl Strategy<Value = AuthzProtocol> {
    let names = || vec(text(), 0..3);
    let http = (
        (text(), names(), vec((name(), text()), 0..3)),
        (names(), names(), names()),
    )
        .prop_map(|(a, b)| AuthzProtocol::Http {
            path_prefix: a.0,
            request_headers: a.1,
            additional_headers: a.2,
            upstream_on_allow: b.0,
            downstream_on_deny: b.1,
            downstream_on_allow: b.2,
        });
    prop_oneof![Just(AuthzProtocol::Grpc), http]
}
