//! Volumes of the proxy. Their names are known to Istio's users and tools.

use super::containers::mount;
use k8s_openapi::api::core::v1::{
    CSIVolumeSource, ConfigMapVolumeSource, DownwardAPIVolumeFile, DownwardAPIVolumeSource,
    EmptyDirVolumeSource, ObjectFieldSelector, ProjectedVolumeSource,
    ServiceAccountTokenProjection, Volume, VolumeMount, VolumeProjection,
};

/// Audience of the token that proves a proxy's identity (Istio: `istio-ca`).
const AUDIENCE: &str = "istio-ca";
/// Lifetime of that token in seconds (Istio: 12 h).
const LIFETIME: i64 = 43_200;
/// ConfigMap with the mesh's root certificates, in every namespace (Istio: `istio-ca-root-cert`).
const ROOTS: &str = "istio-ca-root-cert";
/// Volume of the SPIFFE Workload API's socket; a pod that brings one of this name has it mounted.
pub(super) const SPIRE: &str = "workload-socket";

/// The volumes; `spire` adds the socket of the node's SPIRE agent.
pub(super) fn volumes(spire: bool) -> Vec<Volume> {
    let mut list = vec![
        empty("istio-envoy", Some("Memory")),
        empty("istio-data", None),
        Volume {
            name: "istio-podinfo".to_owned(),
            downward_api: Some(DownwardAPIVolumeSource {
                items: Some(vec![downward("labels"), downward("annotations")]),
                ..DownwardAPIVolumeSource::default()
            }),
            ..Volume::default()
        },
        Volume {
            name: "istio-token".to_owned(),
            projected: Some(ProjectedVolumeSource {
                sources: Some(vec![VolumeProjection {
                    service_account_token: Some(ServiceAccountTokenProjection {
                        audience: Some(AUDIENCE.to_owned()),
                        expiration_seconds: Some(LIFETIME),
                        path: "istio-token".to_owned(),
                    }),
                    ..VolumeProjection::default()
                }]),
                ..ProjectedVolumeSource::default()
            }),
            ..Volume::default()
        },
        Volume {
            name: "istiod-ca-cert".to_owned(),
            config_map: Some(ConfigMapVolumeSource {
                name: ROOTS.to_owned(),
                ..ConfigMapVolumeSource::default()
            }),
            ..Volume::default()
        },
    ];
    if spire {
        list.push(Volume {
            name: SPIRE.to_owned(),
            csi: Some(CSIVolumeSource {
                driver: "csi.spiffe.io".to_owned(),
                read_only: Some(true),
                ..CSIVolumeSource::default()
            }),
            ..Volume::default()
        });
    }
    list
}

/// Where the proxy finds them. `istio-envoy` holds the last good configuration.
pub(super) fn mounts(spire: bool) -> Vec<VolumeMount> {
    let mut list = vec![
        mount("istio-envoy", "/etc/istio/proxy"),
        mount("istio-data", "/var/lib/istio/data"),
        mount("istio-podinfo", "/etc/istio/pod"),
        mount("istio-token", "/var/run/secrets/tokens"),
        mount("istiod-ca-cert", "/var/run/secrets/istio"),
    ];
    if spire {
        list.push(VolumeMount {
            read_only: Some(true),
            ..mount(SPIRE, "/var/run/secrets/workload-spiffe-uds")
        });
    }
    list
}

fn empty(name: &str, medium: Option<&str>) -> Volume {
    Volume {
        name: name.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource {
            medium: medium.map(str::to_owned),
            ..EmptyDirVolumeSource::default()
        }),
        ..Volume::default()
    }
}

fn downward(what: &str) -> DownwardAPIVolumeFile {
    DownwardAPIVolumeFile {
        path: what.to_owned(),
        field_ref: Some(ObjectFieldSelector {
            field_path: format!("metadata.{what}"),
            ..ObjectFieldSelector::default()
        }),
        ..DownwardAPIVolumeFile::default()
    }
}
