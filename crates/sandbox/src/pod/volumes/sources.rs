//! What goes into a volume's files: ConfigMaps, Secrets, the Downward API, tokens, and all of them together.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Component, Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{
    DownwardAPIVolumeFile, HostPathVolumeSource, KeyToPath, Pod, ServiceAccount,
    ServiceAccountTokenProjection, Volume, VolumeProjection,
};
use kube::Api;
use kube::api::PostParams;

use super::super::cache::Cache;
use super::super::fields;
use super::atomic::Files;

/// A volume's files, and when they are due for renewal.
#[derive(Debug, Default)]
pub(super) struct Content {
    pub files: Files,
    pub renew_at: Option<Timestamp>,
}

/// Whose volume it is.
#[derive(Clone, Copy)]
pub(super) struct About<'a> {
    pub cache: &'a Cache,
    pub pod: &'a Pod,
    pub address: Ipv4Addr,
}

/// Tokens in use by volume and path, each with the time when the next is due.
pub(super) type Tokens = BTreeMap<(String, String), (String, Timestamp)>;

const DEFAULT_MODE: i32 = 0o644;

/// The files of a volume.
pub(super) async fn content(
    about: About<'_>,
    volume: &Volume,
    tokens: &mut Tokens,
) -> Result<Content, String> {
    let About {
        cache,
        pod,
        address,
    } = about;
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let mut content = Content::default();
    if let Some(source) = &volume.config_map {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        let entries = config_map(cache, namespace, &source.name, source.optional).await?;
        let what = format!("configmap \"{}\"", source.name);
        pick(
            entries,
            source.items.as_deref(),
            mode,
            (&what, source.optional),
            &mut content.files,
        )?;
    } else if let Some(source) = &volume.secret {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        let name = source.secret_name.as_deref().unwrap_or_default();
        let entries = secret(cache, namespace, name, source.optional).await?;
        let what = format!("secret \"{name}\"");
        pick(
            entries,
            source.items.as_deref(),
            mode,
            (&what, source.optional),
            &mut content.files,
        )?;
    } else if let Some(source) = &volume.downward_api {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        downward(
            pod,
            address,
            source.items.as_deref(),
            mode,
            &mut content.files,
        )?;
    } else if let Some(source) = &volume.projected {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        for projection in source.sources.iter().flatten() {
            project(about, projection, mode, &mut content).await?;
            if let Some(source) = &projection.service_account_token {
                let key = (volume.name.clone(), source.path.clone());
                let known = tokens.get(&key).filter(|(_, due)| *due > Timestamp::now());
                let (token, due) = match known {
                    Some(known) => known.clone(),
                    None => token(cache, pod, source).await?,
                };
                tokens.insert(key, (token.clone(), due));
                let file = (token.into_bytes(), u32::try_from(mode).unwrap_or(0o644));
                content.files.insert(relative(&source.path)?, file);
                content.renew_at = content.renew_at.into_iter().chain([due]).min();
            }
        }
    } else {
        return Err("its kind is not supported here; use emptyDir, configMap, secret, downwardAPI, projected, hostPath or persistentVolumeClaim".into());
    }
    Ok(content)
}

async fn project(
    about: About<'_>,
    projection: &VolumeProjection,
    mode: i32,
    content: &mut Content,
) -> Result<(), String> {
    let About {
        cache,
        pod,
        address,
    } = about;
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    if let Some(source) = &projection.config_map {
        let entries = config_map(cache, namespace, &source.name, source.optional).await?;
        let what = format!("configmap \"{}\"", source.name);
        pick(
            entries,
            source.items.as_deref(),
            mode,
            (&what, source.optional),
            &mut content.files,
        )?;
    }
    if let Some(source) = &projection.secret {
        let entries = secret(cache, namespace, &source.name, source.optional).await?;
        let what = format!("secret \"{}\"", source.name);
        pick(
            entries,
            source.items.as_deref(),
            mode,
            (&what, source.optional),
            &mut content.files,
        )?;
    }
    if let Some(source) = &projection.downward_api {
        downward(
            pod,
            address,
            source.items.as_deref(),
            mode,
            &mut content.files,
        )?;
    }
    Ok(())
}

type Entries = Option<BTreeMap<String, Vec<u8>>>;

async fn config_map(
    cache: &Cache,
    namespace: &str,
    name: &str,
    optional: Option<bool>,
) -> Result<Entries, String> {
    match cache.config_map(namespace, name).await? {
        Some(map) => {
            let text = map.data.iter().flatten();
            let binary = map.binary_data.iter().flatten();
            Ok(Some(
                text.map(|(k, v)| (k.clone(), v.clone().into_bytes()))
                    .chain(binary.map(|(k, v)| (k.clone(), v.0.clone())))
                    .collect(),
            ))
        }
        None if optional == Some(true) => Ok(None),
        None => Err(format!("configmap \"{name}\" not found")),
    }
}

async fn secret(
    cache: &Cache,
    namespace: &str,
    name: &str,
    optional: Option<bool>,
) -> Result<Entries, String> {
    match cache.secret(namespace, name).await? {
        Some(secret) => Ok(Some(
            secret
                .data
                .iter()
                .flatten()
                .map(|(k, v)| (k.clone(), v.0.clone()))
                .collect(),
        )),
        None if optional == Some(true) => Ok(None),
        None => Err(format!("secret \"{name}\" not found")),
    }
}

/// Chooses entries by `items`, or takes all.
fn pick(
    entries: Entries,
    items: Option<&[KeyToPath]>,
    mode: i32,
    (what, optional): (&str, Option<bool>),
    files: &mut Files,
) -> Result<(), String> {
    let Some(mut entries) = entries else {
        return Ok(());
    };
    let as_mode = |mode: i32| u32::try_from(mode).unwrap_or(0o644) & 0o777;
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        for (key, bytes) in entries {
            files.insert(relative(&key)?, (bytes, as_mode(mode)));
        }
        return Ok(());
    };
    for item in items {
        match entries.remove(&item.key) {
            Some(bytes) => {
                let mode = as_mode(item.mode.unwrap_or(mode));
                files.insert(relative(&item.path)?, (bytes, mode));
            }
            None if optional == Some(true) => {}
            None => return Err(format!("{what} references non-existent key: {}", item.key)),
        }
    }
    Ok(())
}

fn downward(
    pod: &Pod,
    address: Ipv4Addr,
    items: Option<&[DownwardAPIVolumeFile]>,
    mode: i32,
    files: &mut Files,
) -> Result<(), String> {
    for item in items.into_iter().flatten() {
        let text = if let Some(reference) = &item.field_ref {
            fields::field(pod, address, &reference.field_path)?
        } else if let Some(reference) = &item.resource_field_ref {
            let name = reference.container_name.as_deref().unwrap_or_default();
            let spec = pod.spec.as_ref().ok_or("the pod has no spec")?;
            let container = spec
                .containers
                .iter()
                .chain(spec.init_containers.iter().flatten())
                .find(|c| c.name == name)
                .ok_or_else(|| format!("container \"{name}\" is not in the pod"))?;
            fields::resource(container, reference)?
        } else {
            continue;
        };
        let mode = u32::try_from(item.mode.unwrap_or(mode)).unwrap_or(0o644) & 0o777;
        files.insert(relative(&item.path)?, (text.into_bytes(), mode));
    }
    Ok(())
}

/// A token of the pod's service account, and when to get the next: after 80% of its life, as kubelets do.
async fn token(
    cache: &Cache,
    pod: &Pod,
    source: &ServiceAccountTokenProjection,
) -> Result<(String, Timestamp), String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let account = pod
        .spec
        .as_ref()
        .and_then(|s| s.service_account_name.as_deref())
        .filter(|name| !name.is_empty())
        .unwrap_or("default");
    let seconds = source.expiration_seconds.unwrap_or(3600).max(600);
    let request = TokenRequest {
        spec: TokenRequestSpec {
            audiences: source.audience.iter().cloned().collect(),
            expiration_seconds: Some(seconds),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Pod".into()),
                name: pod.metadata.name.clone(),
                uid: pod.metadata.uid.clone(),
            }),
        },
        ..TokenRequest::default()
    };
    let api: Api<ServiceAccount> = Api::namespaced(cache.client().clone(), namespace);
    let answer = api
        .create_token_request(account, &PostParams::default(), &request)
        .await
        .map_err(|e| format!("failed to fetch token for service account \"{account}\": {e}"))?;
    let status = answer
        .status
        .ok_or("the API server answered without a token")?;
    let life = SignedDuration::from_secs(seconds * 4 / 5);
    let renew_at = Timestamp::now().checked_add(life).unwrap_or(Timestamp::MAX);
    Ok((status.token, renew_at))
}

/// A path that stays inside the volume.
fn relative(path: &str) -> Result<String, String> {
    let plain = Path::new(path)
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    if path.is_empty() || !plain {
        return Err(format!(
            "path \"{path}\" must be relative and stay inside the volume"
        ));
    }
    Ok(path.to_owned())
}

/// A host path as one below the sandbox's own directory.
pub(super) fn inside(path: &str) -> PathBuf {
    Path::new(path)
        .components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name),
            _ => None,
        })
        .collect()
}

/// Makes a directory (or an empty file) that outlives pods.
pub(super) fn shared(path: &Path, host: Option<&HostPathVolumeSource>) -> Result<(), String> {
    let fail = |e: std::io::Error| format!("cannot create {}: {e}", path.display());
    let kind = host.and_then(|h| h.type_.as_deref()).unwrap_or_default();
    match kind {
        "" | "DirectoryOrCreate" => std::fs::create_dir_all(path).map_err(fail),
        "FileOrCreate" if !path.exists() => {
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent).map_err(fail)?;
            }
            std::fs::write(path, "").map_err(fail)
        }
        _ if path.exists() => Ok(()),
        _ => Err(format!(
            "hostPath type check failed: the sandbox has no {kind} there; host paths are the sandbox's own, use type DirectoryOrCreate"
        )),
    }
}
