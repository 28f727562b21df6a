//! Cases of `mesh`: text in, observable result out.

use super::*;
use lateen_model::mesh::{AuthzBody, AuthzProtocol, AuthzProvider};

fn check(text: &str, want: MeshSettings, said: &[&str]) {
    let (config, notices) = lateen_api::mesh_config::parse(text);
    assert_eq!(notices, [], "{text}");
    let mesh = Mesh {
        config: config.expect("good"),
        ..Mesh::default()
    };
    let (resources, notices) = settings(&mesh);
    assert_eq!(resources, [Resource::MeshSettings(want)], "{text}");
    let notices = notices.iter().map(|n| &*n.field).collect::<Vec<_>>();
    assert_eq!(notices, said, "{text}");
}

#[test]
fn defaults_are_istios() {
    let defaults = MeshSettings {
        access_log: false,
        ..MeshSettings::default()
    };
    check("", defaults.clone(), &[]);
    check(
        "accessLogFile: /dev/stdout\nconnectTimeout: 10s\n",
        MeshSettings {
            access_log: true,
            ..defaults.clone()
        },
        &[],
    );
    check(
        "outboundTrafficPolicy: {mode: REGISTRY_ONLY}\nrootNamespace: x\naccessLogFormat: a\n",
        MeshSettings {
            outbound: OutboundMode::RegistryOnly,
            root_namespace: "x".into(),
            access_log_format: Some("a".into()),
            ..defaults.clone()
        },
        &[],
    );
    check(
        "accessLogEncoding: JSON\naccessLogFile: /tmp/x\n",
        defaults.clone(),
        &["accessLogEncoding", "accessLogFile"],
    );
    check(
        "enableAutoMtls: true\ntlsDefaults: {minProtocolVersion: TLSV1_3}\ndefaultConfig: {statusPort: 15020, proxyAdminPort: 1, drainDuration: 5s}\n",
        defaults,
        &[
            "tlsDefaults",
            "defaultConfig.drainDuration",
            "defaultConfig.proxyAdminPort",
        ],
    );
}

#[test]
fn traffic_defaults() {
    let text = "connectTimeout: 1s\ntcpKeepalive: {time: 5s}\nh2UpgradePolicy: UPGRADE\n\
        localityLbSetting: {enabled: false}\n\
        defaultTrafficPolicy: {connectionPool: {http: {maxRetries: 3}}, outlierDetection: {}}\n";
    let (config, notices) = lateen_api::mesh_config::parse(text);
    assert_eq!(notices, []);
    let traffic = traffic(&config.expect("good"));
    assert_eq!(traffic.connect_timeout, Duration::from_secs(1));
    let alive = traffic.keepalive.expect("keep-alive");
    assert_eq!(alive.time, Some(Duration::from_secs(5)));
    assert!(traffic.h2_upgrade && !traffic.locality.enabled);
    assert_eq!(traffic.pool.expect("a pool").max_retries, Some(3));
    assert!(traffic.outlier.is_some());
}

#[test]
fn security_settings() {
    let http = AuthzProvider {
        name: "a".into(),
        host: "ask.foo.svc.cluster.local".into(),
        port: 8000,
        timeout: Duration::from_secs(600),
        fail_open: false,
        status_on_error: 403,
        body: None,
        clear_route_cache: false,
        protocol: AuthzProtocol::Http {
            path_prefix: "".into(),
            request_headers: vec!["x-a".into()],
            additional_headers: vec![("x-b".into(), "c".into())],
            upstream_on_allow: Vec::new(),
            downstream_on_deny: vec!["x-d*".into()],
            downstream_on_allow: Vec::new(),
        },
    };
    let grpc = AuthzProvider {
        name: "b".into(),
        host: "ask.istio-system.svc.cluster.local".into(),
        port: 9000,
        timeout: Duration::from_secs(1),
        fail_open: true,
        status_on_error: 503,
        body: Some(AuthzBody {
            max_bytes: 8,
            allow_partial: true,
            as_bytes: false,
        }),
        protocol: AuthzProtocol::Grpc,
        ..http.clone()
    };
    check(
        "trustDomain: a.b\ntrustDomainAliases: [c, a.b, c]\nenableAutoMtls: false\nmeshMTLS: {minProtocolVersion: TLSV1_3}\npathNormalization: {normalization: MERGE_SLASHES}\ndefaultConfig: {gatewayTopology: {numTrustedProxies: 1, forwardClientCertDetails: ALWAYS_FORWARD_ONLY}}\nextensionProviders:\n- name: a\n  envoyExtAuthzHttp: {service: foo/Ask.foo.svc, port: 8000, includeRequestHeadersInCheck: [X-A], includeAdditionalHeadersInCheck: {X-B: c}, headersToDownstreamOnDeny: ['x-d*']}\n- name: b\n  envoyExtAuthzGrpc: {service: ask, port: 9000, timeout: 1s, failOpen: true, statusOnError: '503', includeRequestBodyInCheck: {maxRequestBytes: 8, allowPartialMessage: true}}\n",
        MeshSettings {
            access_log: false,
            trust_domain: "a.b".into(),
            trust_domain_aliases: vec!["c".into()],
            auto_mtls: false,
            mesh_tls_min: TlsVersion::V1_3,
            path_normalization: PathNormalization::MergeSlashes,
            trusted_proxies: 1,
            proxy_protocol: false,
            forward_client_cert: ForwardClientCert::AlwaysForwardOnly,
            authz_providers: vec![http, grpc],
            ..MeshSettings::default()
        },
        &[],
    );
}
