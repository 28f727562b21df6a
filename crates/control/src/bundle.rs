//! Keeps the root of the webhook certificate in every webhook configuration that calls this control plane.
//!
//! The installer writes the configurations without it. They are watched, so that a configuration that is
//! applied again, or a new revision's, gets it within milliseconds.

use futures::StreamExt;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration, WebhookClientConfig,
};
use kube::api::{Patch, PatchParams};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, ResourceExt};
use lateen_base::backoff::Backoff;
use serde::de::DeserializeOwned;
use serde_json::json;
use std::fmt::Debug;
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

/// Which webhooks are ours: those that call this Service.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// The Service's namespace.
    pub(crate) namespace: String,
    /// The Service's name.
    pub(crate) service: String,
}

/// A webhook configuration of either kind.
pub(crate) trait Configuration:
    kube::Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static
{
    /// How each of its webhooks is called.
    fn clients(&self) -> Vec<&WebhookClientConfig>;
}

impl Configuration for MutatingWebhookConfiguration {
    fn clients(&self) -> Vec<&WebhookClientConfig> {
        let webhooks = self.webhooks.iter().flatten();
        webhooks.map(|webhook| &webhook.client_config).collect()
    }
}

impl Configuration for ValidatingWebhookConfiguration {
    fn clients(&self) -> Vec<&WebhookClientConfig> {
        let webhooks = self.webhooks.iter().flatten();
        webhooks.map(|webhook| &webhook.client_config).collect()
    }
}

/// Watches configurations of one kind and patches what lacks the root, until `shutdown`. `passed` is told once
/// everything that was there at the start has the root.
pub(crate) async fn keep<C: Configuration>(
    client: Client,
    target: Target,
    mut root: watch::Receiver<String>,
    passed: oneshot::Sender<()>,
    shutdown: CancellationToken,
) {
    let mut passed = Some(passed);
    let api: Api<C> = Api::all(client);
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
    loop {
        let mut events = watcher::watcher(api.clone(), watcher::Config::default()).boxed();
        let mut found = false;
        loop {
            let event = tokio::select! {
                () = shutdown.cancelled() => return,
                // A new root concerns everything: start over.
                changed = root.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return,
                },
                event = events.next() => event,
            };
            let failed = match event {
                Some(Ok(Event::Apply(c) | Event::InitApply(c))) => {
                    let bundle = root.borrow().clone();
                    found |= !ours(&c, &target).is_empty();
                    patch(&api, &c, &target, &bundle).await.err()
                }
                Some(Ok(Event::InitDone)) => {
                    backoff.reset();
                    if let Some(passed) = passed.take() {
                        let _ = passed.send(());
                    }
                    if !found {
                        tracing::warn!(
                            "no {} calls {}.{} yet: install one, else nothing is injected or validated",
                            C::kind(&()),
                            target.service,
                            target.namespace
                        );
                    }
                    None
                }
                Some(Ok(_)) => None,
                Some(Err(e)) => Some(e.to_string()),
                None => break,
            };
            if let Some(e) = failed {
                tracing::warn!("keeping the root in {}s: {e}; trying again", C::kind(&()));
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = tokio::time::sleep(backoff.next_delay()) => break,
                }
            }
        }
    }
}

/// Positions of the webhooks that call the target.
fn ours<C: Configuration>(configuration: &C, target: &Target) -> Vec<usize> {
    let clients = configuration.clients().into_iter().enumerate();
    clients
        .filter(|(_, client)| {
            client.service.as_ref().is_some_and(|service| {
                service.name == target.service && service.namespace == target.namespace
            })
        })
        .map(|(at, _)| at)
        .collect()
}

/// The changes that bring `bundle` into a configuration; empty when it is there.
fn changes<C: Configuration>(
    configuration: &C,
    target: &Target,
    bundle: &str,
) -> Vec<serde_json::Value> {
    let want = ByteString(bundle.as_bytes().to_vec());
    let clients = configuration.clients();
    let stale = ours(configuration, target).into_iter();
    stale
        .filter(|&at| clients[at].ca_bundle.as_ref() != Some(&want))
        .map(|at| {
            let path = format!("/webhooks/{at}/clientConfig/caBundle");
            json!({ "op": "add", "path": path, "value": want })
        })
        .collect()
}

async fn patch<C: Configuration>(
    api: &Api<C>,
    configuration: &C,
    target: &Target,
    bundle: &str,
) -> Result<(), String> {
    let mut operations = changes(configuration, target, bundle);
    if operations.is_empty() {
        return Ok(());
    }
    // Positions are those of this version only.
    let version = configuration.resource_version();
    operations.insert(
        0,
        json!({ "op": "test", "path": "/metadata/resourceVersion", "value": version }),
    );
    let operations: json_patch::Patch =
        serde_json::from_value(json!(operations)).map_err(|e| e.to_string())?;
    let name = configuration.name_any();
    let patch = Patch::<()>::Json(operations);
    match api.patch(&name, &PatchParams::default(), &patch).await {
        Ok(_) => {
            tracing::info!(
                "{} {name} trusts this control plane's certificate",
                C::kind(&())
            );
            Ok(())
        }
        // Somebody was faster: the watch brings the newer version. A failed `test` is 422 in Kubernetes.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409 | 422) => Ok(()),
        Err(e) => Err(format!("{name}: {e}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_webhooks_without_the_root_change() {
        let service =
            |name: &str| json!({ "service": { "name": name, "namespace": "istio-system" } });
        let with = |mut client: serde_json::Value, bundle: &str| {
            client["caBundle"] = json!(ByteString(bundle.as_bytes().to_vec()));
            client
        };
        let webhook = |client: serde_json::Value| {
            json!({
                "name": "x", "clientConfig": client, "admissionReviewVersions": ["v1"], "sideEffects": "None",
            })
        };
        let configuration: MutatingWebhookConfiguration = serde_json::from_value(json!({
            "metadata": { "name": "istio-sidecar-injector" },
            "webhooks": [
                webhook(service("istiod")),
                webhook(service("other")),
                webhook(with(service("istiod"), "new")),
                webhook(with(service("istiod"), "old")),
                webhook(json!({ "url": "https://elsewhere" })),
            ],
        }))
        .expect("valid");
        let target = Target {
            namespace: "istio-system".to_owned(),
            service: "istiod".to_owned(),
        };
        let paths: Vec<String> = changes(&configuration, &target, "new")
            .iter()
            .map(|change| change["path"].as_str().unwrap_or_default().to_owned())
            .collect();
        assert_eq!(
            paths,
            [
                "/webhooks/0/clientConfig/caBundle",
                "/webhooks/3/clientConfig/caBundle"
            ]
        );
    }
}
