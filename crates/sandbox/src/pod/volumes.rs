//! A pod's volumes as directories of the node: made before its containers start, kept current while they
//! run. Files of ConfigMaps, Secrets, the Downward API and tokens change all at once, as with Kubernetes.

mod atomic;
mod sources;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, EmptyDirVolumeSource, Pod, Volume, VolumeMount};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::cache::Cache;
use super::environment::{Environment, expand};
use super::fields;
use super::stage::Mount;
use atomic::Files;
use sources::Tokens;

/// The volumes of one pod.
#[derive(Debug)]
pub(crate) struct Volumes {
    base: PathBuf,
    /// Directories that outlive pods: host paths and claims of the sandbox.
    shared: PathBuf,
    written: BTreeMap<String, Files>,
    memory: Vec<PathBuf>,
    tokens: Tokens,
    /// When the first token is due for renewal.
    renew_at: Option<Timestamp>,
}

impl Volumes {
    /// Volumes below a pod's directory; nothing is made yet.
    pub(crate) fn new(pod_directory: &Path, shared: &Path) -> Self {
        Self {
            base: pod_directory.join("volumes"),
            shared: shared.to_owned(),
            written: BTreeMap::new(),
            memory: Vec::new(),
            tokens: Tokens::default(),
            renew_at: None,
        }
    }

    /// Makes every volume, or brings it up to date. One that cannot be keeps its old content.
    ///
    /// # Errors
    /// About the first that failed: the sentence that Kubernetes shows in a `FailedMount` event.
    pub(crate) async fn refresh(
        &mut self,
        cache: &Cache,
        pod: &Pod,
        address: Ipv4Addr,
    ) -> Result<(), String> {
        let spec = pod.spec.as_ref().ok_or("the pod has no spec")?;
        self.renew_at = None;
        let mut outcome = Ok(());
        for volume in spec.volumes.iter().flatten() {
            let refreshed = self.refresh_one(cache, pod, address, volume).await;
            // The others go on: a token is renewed although some ConfigMap was deleted.
            if let Err(e) = refreshed
                && outcome.is_ok()
            {
                let name = &volume.name;
                outcome = Err(format!(
                    "MountVolume.SetUp failed for volume \"{name}\" : {e}"
                ));
            }
        }
        outcome
    }

    /// When [`Volumes::refresh`] is due although nothing changed.
    pub(crate) fn renew_at(&self) -> Option<Timestamp> {
        self.renew_at
    }

    async fn refresh_one(
        &mut self,
        cache: &Cache,
        pod: &Pod,
        address: Ipv4Addr,
        volume: &Volume,
    ) -> Result<(), String> {
        let directory = self.base.join(&volume.name);
        if let Some(empty) = &volume.empty_dir {
            return self.empty(&directory, empty);
        }
        if let Some(path) = self.shared_path(pod, volume) {
            return sources::shared(&path, volume.host_path.as_ref());
        }
        let about = sources::About {
            cache,
            pod,
            address,
        };
        let content = sources::content(about, volume, &mut self.tokens).await?;
        let soonest = self.renew_at.into_iter().chain(content.renew_at).min();
        self.renew_at = soonest;
        if self.written.get(&volume.name) != Some(&content.files) {
            let group = pod_group(pod);
            atomic::write(&directory, &content.files, group)
                .map_err(|e| format!("cannot write {}: {e}", directory.display()))?;
            self.written.insert(volume.name.clone(), content.files);
        }
        Ok(())
    }

    fn empty(&mut self, directory: &Path, source: &EmptyDirVolumeSource) -> Result<(), String> {
        if directory.exists() {
            return Ok(());
        }
        let fail = |e: std::io::Error| format!("cannot create {}: {e}", directory.display());
        std::fs::create_dir_all(directory).map_err(fail)?;
        if source.medium.as_deref() == Some("Memory") {
            let size = match &source.size_limit {
                Some(limit) => format!(",size={:.0}", fields::parse(limit)?),
                None => String::new(),
            };
            mount(
                Some("tmpfs"),
                directory,
                Some("tmpfs"),
                MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
                Some(format!("mode=0777{size}").as_str()),
            )
            .map_err(|e| format!("cannot mount memory for it: {e}"))?;
            self.memory.push(directory.to_owned());
        }
        let all = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(directory, all).map_err(fail)
    }

    /// Where a volume that outlives the pod lies; host paths are the sandbox's own, never the host's.
    fn shared_path(&self, pod: &Pod, volume: &Volume) -> Option<PathBuf> {
        if let Some(host) = &volume.host_path {
            let below = sources::inside(&host.path);
            return Some(self.shared.join("host").join(below));
        }
        let claim = volume.persistent_volume_claim.as_ref()?;
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let claims = self.shared.join("claims").join(namespace);
        Some(claims.join(&claim.claim_name))
    }

    /// The mounts of a container.
    ///
    /// # Errors
    /// A mount names no volume, or a path in a volume that does not exist or leaves it.
    pub(crate) fn mounts(
        &self,
        pod: &Pod,
        container: &Container,
        environment: &Environment,
    ) -> Result<Vec<Mount>, String> {
        let volumes = pod.spec.as_ref().and_then(|s| s.volumes.as_ref());
        let mut all = Vec::new();
        for wanted in container.volume_mounts.iter().flatten() {
            let volume = volumes
                .into_iter()
                .flatten()
                .find(|v| v.name == wanted.name)
                .ok_or_else(|| format!("volume \"{}\" is not defined", wanted.name))?;
            let directory = self
                .shared_path(pod, volume)
                .unwrap_or_else(|| self.base.join(&volume.name));
            let files = volume.empty_dir.is_none()
                && volume.host_path.is_none()
                && volume.persistent_volume_claim.is_none();
            all.push(Mount {
                source: source(&directory, wanted, environment, !files)?,
                target: wanted.mount_path.clone(),
                read_only: files || wanted.read_only == Some(true),
            });
        }
        // Outer mounts first, or they would hide inner ones.
        all.sort_by_key(|mount| mount.target.matches('/').count());
        Ok(all)
    }

    /// Unmounts what was mounted in the node. The directories go with the pod's.
    pub(crate) fn remove(&self) {
        for directory in &self.memory {
            let _ = umount2(directory, MntFlags::MNT_DETACH);
        }
    }
}

fn source(
    directory: &Path,
    wanted: &VolumeMount,
    environment: &Environment,
    writable: bool,
) -> Result<String, String> {
    let below = match (&wanted.sub_path, &wanted.sub_path_expr) {
        (Some(path), _) if !path.is_empty() => path.clone(),
        (_, Some(expression)) if !expression.is_empty() => expand(expression, environment),
        _ => return Ok(directory.display().to_string()),
    };
    if Path::new(&below).is_absolute() || below.split('/').any(|part| part == "..") {
        return Err(format!("subPath \"{below}\" must stay inside the volume"));
    }
    let path = directory.join(&below);
    if !path.exists() {
        if !writable {
            return Err(format!(
                "subPath \"{below}\" does not exist in volume \"{}\"",
                wanted.name
            ));
        }
        std::fs::create_dir_all(&path)
            .map_err(|e| format!("cannot create subPath \"{below}\": {e}"))?;
    }
    Ok(path.display().to_string())
}

/// The group that owns volume files (`fsGroup`), where the node may set one at all.
fn pod_group(pod: &Pod) -> Option<u32> {
    let group = pod.spec.as_ref()?.security_context.as_ref()?.fs_group?;
    u32::try_from(group).ok()
}

#[cfg(test)]
mod tests;
