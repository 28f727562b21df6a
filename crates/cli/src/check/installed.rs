//! Checks of an installed mesh.

use super::certificates::{self, Life};
use super::{Report, State};
use crate::cluster::{Cluster, text};
use crate::sandbox::pod_name;
use crate::{ca, forward};
use anyhow::{Context as _, Result};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::time::Duration;

/// The control plane's namespace.
const NAMESPACE: &str = "istio-system";
/// ConfigMap with the mesh's roots, in every namespace.
const ROOTS: &str = "istio-ca-root-cert";
/// Namespaces of Kubernetes itself, which have no pods of the mesh.
const SYSTEM: [&str; 3] = ["kube-system", "kube-public", "kube-node-lease"];
/// Proxies that answer late are looked at once more after this time.
const ONCE_MORE: Duration = Duration::from_secs(2);
/// Proxies whose certificates are looked at; in larger meshes their metrics tell.
const MOST_PROXIES: usize = 200;

/// Everything that can be told from outside.
pub(super) async fn check(cluster: &Cluster, threshold: Duration, report: &mut Report) {
    control_plane(cluster, report).await;
    webhooks(cluster, report).await;
    authority(cluster, threshold, report).await;
    roots(cluster, report).await;
    proxies(cluster, report).await;
    configuration(cluster, report).await;
}

async fn control_plane(cluster: &Cluster, report: &mut Report) {
    let ready = async {
        let path = format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments/istiod");
        let deployment = cluster.read(&path).await?;
        let count = |of: &Value| of.as_i64().unwrap_or_default();
        let (wanted, there) = (
            deployment["spec"]["replicas"].as_i64().unwrap_or(1),
            count(&deployment["status"]["availableReplicas"]),
        );
        anyhow::ensure!(
            there >= wanted,
            "{there} of {wanted} replicas are available; `kubectl -n {NAMESPACE} get pods` shows why"
        );
        let (namespace, istiod) = istiod(cluster).await?;
        forward::fetch(cluster, &namespace, &istiod, 8080, "/ready").await?;
        Ok::<_, anyhow::Error>(there)
    };
    match ready.await {
        Ok(count) => report.add("control plane", State::Ok, format!("{count} ready")),
        Err(error) => report.add("control plane", State::Failure, format!("{error:#}")),
    }
}

async fn istiod(cluster: &Cluster) -> Result<(String, String)> {
    pod_name(cluster, &format!("deploy/istiod.{NAMESPACE}")).await
}

/// Whether the API server trusts the webhooks with the certificate that they show.
async fn webhooks(cluster: &Cluster, report: &mut Report) {
    let check = "webhooks";
    let secret = format!("/api/v1/namespaces/{NAMESPACE}/secrets/istiod-webhook-certs");
    let root = match cluster.read(&secret).await {
        Ok(secret) => text(&secret["data"]["ca.crt"]),
        Err(error) => {
            return report.add(
                check,
                State::Warning,
                format!("cannot be compared: {error:#}"),
            );
        }
    };
    let mut bad = Vec::new();
    let mut seen = 0;
    for plural in [
        "mutatingwebhookconfigurations",
        "validatingwebhookconfigurations",
    ] {
        let path = format!("/apis/admissionregistration.k8s.io/v1/{plural}");
        let list = cluster.read(&path).await.unwrap_or_default();
        for configuration in list["items"].as_array().into_iter().flatten() {
            for hook in configuration["webhooks"].as_array().into_iter().flatten() {
                let client = &hook["clientConfig"];
                let service = &client["service"];
                if service["namespace"] != NAMESPACE || service["name"] != "istiod" {
                    continue;
                }
                seen += 1;
                if client["caBundle"].as_str() != Some(root.as_str()) {
                    bad.push(format!(
                        "{} of {}: its caBundle is not the root of istiod's certificate; istiod mends that while it \
                         runs with the right to patch {plural}",
                        text(&hook["name"]),
                        text(&configuration["metadata"]["name"]),
                    ));
                }
            }
        }
    }
    if seen == 0 {
        bad.push("none leads to istiod: pods are not injected, objects not validated".to_owned());
    }
    report.add_all(check, &bad, format!("{seen} trust istiod's certificate"));
}

async fn authority(cluster: &Cluster, threshold: Duration, report: &mut Report) {
    let check = "certificate authority";
    let page = match ca::page(cluster).await {
        Ok(page) => page,
        Err(error) => return report.add(check, State::Failure, format!("{error:#}")),
    };
    let secret = page["secret"].as_str();
    let mut bad: Vec<String> = page["error"]
        .as_str()
        .map(str::to_owned)
        .into_iter()
        .collect();
    if secret.is_none() {
        bad.push("there is no CA: nothing signs certificates".to_owned());
    }
    bad.extend(certificates::ends_soon(
        "the CA's certificate",
        &page["expires"],
        threshold,
    ));
    for root in page["roots"].as_array().into_iter().flatten() {
        // One that is going ends with its certificates; it is no loss.
        if root["state"] != "going" {
            let what = format!("the {} root", text(&root["state"]));
            bad.extend(certificates::ends_soon(&what, &root["expires"], threshold));
        }
    }
    let until = page["expires"].as_str().unwrap_or("?");
    let good = format!("{} signs until {until}", secret.unwrap_or_default());
    report.add_all(check, &bad, good);
}

/// Whether every namespace has the roots that pods mount: those that the CA trusts now.
async fn roots(cluster: &Cluster, report: &mut Report) {
    let read = async {
        let maps = format!("/api/v1/configmaps?fieldSelector=metadata.name%3D{ROOTS}");
        Ok::<_, anyhow::Error>((
            cluster.read("/api/v1/namespaces").await?,
            cluster.read(&maps).await?,
        ))
    };
    let (namespaces, maps) = match read.await {
        Ok(both) => both,
        Err(error) => return report.add("mesh roots", State::Warning, format!("{error:#}")),
    };
    let trusted = match ca::page(cluster).await {
        Ok(page) => trusted(&page),
        Err(error) => return report.add("mesh roots", State::Failure, format!("{error:#}")),
    };
    let maps = maps["items"].as_array().cloned().unwrap_or_default();
    let of = |namespace: &str| {
        let mut all = maps.iter().filter(|map| map["metadata"]["name"] == ROOTS);
        let found = all.find(|map| map["metadata"]["namespace"] == namespace)?;
        found["data"]["root-cert.pem"].as_str()
    };
    let mut bad = Vec::new();
    let mut good = 0;
    for namespace in namespaces["items"].as_array().into_iter().flatten() {
        let name = text(&namespace["metadata"]["name"]);
        if SYSTEM.contains(&name.as_str()) || namespace["status"]["phase"] == "Terminating" {
            continue;
        }
        match of(&name) {
            None => bad.push(format!(
                "namespace {name} has no ConfigMap {ROOTS}: its pods do not start"
            )),
            Some(roots) if hashes(roots) != trusted => {
                bad.push(format!(
                    "ConfigMap {name}/{ROOTS} has other roots than the CA trusts: the control plane mends that while \
                     it runs with the right to write ConfigMaps there"
                ));
            }
            Some(_) => good += 1,
        }
    }
    report.add_all(
        "mesh roots",
        &bad,
        format!("those of the CA in {good} namespaces"),
    );
}

/// SHA-256 of every root on the CA's page.
fn trusted(page: &Value) -> BTreeSet<String> {
    let roots = page["roots"].as_array().into_iter().flatten();
    roots.map(|root| text(&root["sha256"])).collect()
}

/// SHA-256 of every certificate of a PEM text; what is no certificate counts as itself, so that it differs.
fn hashes(pem: &str) -> BTreeSet<String> {
    let all = CertificateDer::pem_slice_iter(pem.as_bytes());
    all.map(|der| match der {
        Ok(der) => {
            let hash = Sha256::digest(&der);
            hash.iter().map(|byte| format!("{byte:02x}")).collect()
        }
        Err(error) => error.to_string(),
    })
    .collect()
}

/// Whether connected proxies have what they were sent, and certificates that will be renewed in time.
async fn proxies(cluster: &Cluster, report: &mut Report) {
    let mut list = match page(cluster, "/debug/syncz").await {
        Ok(list) => list,
        Err(error) => return report.add("proxies", State::Failure, format!("{error:#}")),
    };
    if !behind(&list).is_empty() {
        tokio::time::sleep(ONCE_MORE).await;
        list = page(cluster, "/debug/syncz").await.unwrap_or(list);
    }
    let all = list.as_array().map(Vec::as_slice).unwrap_or_default();
    report.add_all("proxies", &behind(&list), format!("{} in step", all.len()));
    let mut bad = Vec::new();
    for proxy in all.iter().take(MOST_PROXIES) {
        let name = text(&proxy["proxy"]);
        match life(cluster, &name).await {
            Ok(Life::Good) => {}
            Ok(life) => bad.push(format!("{name}: {life}")),
            Err(error) => bad.push(format!("{name}: {error:#}")),
        }
    }
    let good = format!(
        "those of {} proxies are renewed in time",
        all.len().min(MOST_PROXIES)
    );
    report.add_all("proxies' certificates", &bad, good);
}

fn behind(list: &Value) -> Vec<String> {
    let all = list.as_array().into_iter().flatten();
    let late = all.filter(|proxy| proxy["state"] != "SYNCED");
    late.map(|proxy| format!("{} is {}", text(&proxy["proxy"]), text(&proxy["state"])))
        .collect()
}

/// The certificate of one proxy, `pod.namespace`.
async fn life(cluster: &Cluster, proxy: &str) -> Result<Life> {
    let (pod, namespace) = proxy
        .rsplit_once('.')
        .context("a name without a namespace")?;
    let body = forward::fetch(cluster, namespace, pod, 15000, "/certs").await?;
    let page: Value = serde_json::from_slice(&body)?;
    Ok(certificates::life(&page))
}

/// Objects that are not in force as written.
async fn configuration(cluster: &Cluster, report: &mut Report) {
    let objects = match page(cluster, "/debug/configz").await {
        Ok(objects) => objects,
        Err(error) => return report.add("configuration", State::Failure, format!("{error:#}")),
    };
    let (mut bad, mut warnings, mut count) = (Vec::new(), Vec::new(), 0);
    for object in objects.as_array().into_iter().flatten() {
        count += 1;
        for notice in object["notices"].as_array().into_iter().flatten() {
            let line = format!(
                "{} {}/{}: {}",
                text(&object["kind"]),
                text(&object["namespace"]),
                text(&object["name"]),
                text(&notice["message"])
            );
            match notice["severity"]
                .as_str()
                .map(str::to_lowercase)
                .as_deref()
            {
                Some("error") => bad.push(line),
                Some("warning") => warnings.push(line),
                _ => {}
            }
        }
    }
    report.add_all(
        "configuration",
        &bad,
        format!("{count} objects in force as written"),
    );
    for warning in warnings {
        report.add("configuration", State::Warning, warning);
    }
}

async fn page(cluster: &Cluster, path: &str) -> Result<Value> {
    let (namespace, istiod) = istiod(cluster).await.context("the control plane")?;
    let body = forward::fetch(cluster, &namespace, &istiod, 8080, path).await?;
    Ok(serde_json::from_slice(&body)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn roots_are_compared_with_those_of_the_ca() {
        let pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let hash = "709e80c88487a2411e1ee4dfb9f22a861492d20c4765150c0c794abd70f8147c";
        let page = json!({ "roots": [{ "state": "signing", "sha256": hash }] });
        assert_eq!(hashes(pem), trusted(&page));
        assert_eq!(hashes(&format!("# again\n{pem}{pem}")), trusted(&page));
        assert_ne!(hashes(""), trusted(&page));
        assert_ne!(
            hashes(&format!("{pem}-----BEGIN CERTIFICATE-----\n!")),
            trusted(&page)
        );
    }
}
