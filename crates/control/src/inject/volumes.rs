//! Volumes of the proxy. Their names are known to Istio's users and tools.

use super::containers::mount;
use k8s_openapi::api::core::v1::{
    DownwardAPIVolumeFile, DownwardAPIVolumeSource, EmptyDirVolumeSource, ObjectFieldSelector,
    ProjectedVolumeSource, ServiceAccountTokenProjection, Volume, VolumeMount, VolumeProjection,
};

/// Audience of the token that proves a proxy's identity (Istio: `istio-ca`).
const AUDIENCE: &str = "istio-ca";
/// Lifetime of that token in seconds (Istio: 12 h).
const LIFETIME: i64 = 43_200;

/// The volumes.
pub(super) fn volumes() -> Vec<Volume> {
    vec![
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
    ]
}

/// Where the proxy finds them. `istio-envoy` holds the last good configuration.
pub(super) fn mounts() -> Vec<VolumeMount> {
    vec![
        mount("istio-envoy", "/etc/istio/proxy"),
        mount("istio-data", "/var/lib/istio/data"),
        mount("istio-podinfo", "/etc/istio/pod"),
        mount("istio-token", "/var/run/secrets/tokens"),
    ]
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
