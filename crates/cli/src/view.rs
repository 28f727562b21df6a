//! What the control plane would send to a proxy: asked for as that proxy, with a token of its service account.

use crate::cluster::Cluster;
use crate::forward;
use crate::sandbox::pod_name;
use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use kube::Api;
use lateen_identity::istiod::{Connector, RootsSource};
use lateen_model::decide::resources::ResourceSet;
use lateen_model::mesh::Scope;
use lateen_xds::client::{self, Io, Update};
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Audience that the control plane wants in tokens (Istio).
const AUDIENCE: &str = "istio-ca";

/// Everything that the control plane sends to a proxy of this scope, and nothing that it would not be sent.
///
/// # Errors
/// The control plane is not there, or the caller may not make tokens for the service account.
pub async fn resources_for(cluster: &Cluster, scope: &Scope) -> Result<ResourceSet> {
    let (namespace, istiod) = pod_name(cluster, "deploy/istiod.istio-system")
        .await
        .context("the control plane")?;
    let address = forward::listen(cluster, &namespace, &istiod, 15012).await?;
    let token = token_file(cluster, scope).await?;
    let connector = Connector {
        address: address.to_string(),
        names: vec![format!("istiod.{namespace}.svc")],
        roots: roots(cluster, &namespace).await?,
        client: None,
        prepare: |_| Ok(()),
    };
    let (sender, mut updates) = mpsc::channel(16);
    let options = client::Options {
        address: address.to_string(),
        connect: Arc::new(move || {
            let connector = connector.clone();
            Box::pin(async move { Ok(Box::new(connector.connect().await?) as Box<dyn Io>) })
        }),
        token: Some(token.path().to_owned()),
        scope: scope.clone(),
        node_id: client::node_id(scope),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        cache: None,
    };
    tokio::spawn(client::run(options, mpsc::channel(1).1, sender));
    let mut set = ResourceSet::default();
    let whole = async {
        while let Some(update) = updates.recv().await {
            match update {
                Update::Changed { changed, removed } => {
                    set.apply(changed, removed);
                }
                Update::Found(_) | Update::Forgotten(_) => {}
                Update::Synced => return Ok(()),
            }
        }
        bail!("the control plane closed the stream")
    };
    tokio::time::timeout(Duration::from_secs(10), whole)
        .await
        .context("the control plane does not answer")??;
    Ok(set)
}

/// A token of the proxy's service account, in a file that only we can read and that goes with its handle.
async fn token_file(cluster: &Cluster, scope: &Scope) -> Result<tempfile::NamedTempFile> {
    let accounts: Api<ServiceAccount> = Api::namespaced(cluster.client().clone(), &scope.namespace);
    let account = match &*scope.service_account {
        "" => "default",
        name => name,
    };
    let request = TokenRequest {
        spec: TokenRequestSpec {
            audiences: vec![AUDIENCE.to_owned()],
            expiration_seconds: Some(600),
            bound_object_ref: None,
        },
        ..TokenRequest::default()
    };
    let made = accounts
        .create_token_request(account, &Default::default(), &request)
        .await
        .with_context(|| {
            format!(
                "no token for service account {}/{account}: the control plane shows a proxy's configuration only to \
                 that proxy (the right \"create serviceaccounts/token\" is needed)",
                scope.namespace
            )
        })?;
    let token = made.status.context("the API server made no token")?.token;
    let mut file = tempfile::NamedTempFile::new()?;
    file.write_all(token.as_bytes())?;
    Ok(file)
}

async fn roots(cluster: &Cluster, namespace: &str) -> Result<RootsSource> {
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client().clone(), namespace);
    let map = maps.get("istio-ca-root-cert").await.with_context(|| {
        format!("ConfigMap {namespace}/istio-ca-root-cert with the mesh's root")
    })?;
    let pem = map
        .data
        .and_then(|mut data| data.remove("root-cert.pem"))
        .context("ConfigMap istio-ca-root-cert has no root-cert.pem")?;
    Ok(RootsSource {
        file: None,
        known: Some(Arc::new(move || pem.clone())),
    })
}
