//! Cases of `mesh`: text in, observable result out.

use super::*;

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
        "accessLogEncoding: JSON\nconnectTimeout: 1s\naccessLogFile: /tmp/x\n",
        defaults.clone(),
        &["accessLogEncoding", "connectTimeout", "accessLogFile"],
    );
    check(
        "enableAutoMtls: true\ndefaultConfig: {statusPort: 15020, proxyAdminPort: 1, drainDuration: 5s}\n",
        defaults,
        &[
            "enableAutoMtls",
            "defaultConfig.drainDuration",
            "defaultConfig.proxyAdminPort",
        ],
    );
}
