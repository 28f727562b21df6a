//! `lateen ca`: the mesh's certificate authority as the control plane tells it, and the start of a rotation.

use crate::args::{Authority, AuthorityArgs};
use crate::cluster::{Cluster, text};
use crate::forward;
use crate::sandbox::pod_name;
use crate::table::aligned;
use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::Instant;

/// Where a self-signed CA lives (Istio's name).
const SELF_SIGNED: &str = "istio-ca-secret";
/// Where an operator puts a CA of their own (Istio's name).
const PLUGGED: &str = "cacerts";
/// The control plane's namespace.
const NAMESPACE: &str = "istio-system";
/// How often a rotation is looked at.
const LOOK: Duration = Duration::from_millis(300);

/// Runs one of the CA's commands.
///
/// # Errors
/// The control plane is not there, or the rotation does not come about.
pub async fn run(command: &Authority) -> Result<()> {
    match command {
        Authority::Status(args) => status(args).await,
        Authority::Rotate { args, wait } => rotate(args, *wait).await,
    }
}

/// The CA's page of the control plane.
///
/// # Errors
/// The control plane does not answer.
pub async fn page(cluster: &Cluster) -> Result<Value> {
    let (namespace, istiod) = pod_name(cluster, &format!("deploy/istiod.{NAMESPACE}"))
        .await
        .context("the control plane")?;
    let body = forward::fetch(cluster, &namespace, &istiod, 8080, "/debug/ca").await?;
    Ok(serde_json::from_slice(&body)?)
}

async fn status(args: &AuthorityArgs) -> Result<()> {
    let cluster = Cluster::connect(args.connection.kubeconfig.as_deref(), None).await?;
    let page = page(&cluster).await?;
    if args.output.as_deref() == Some("json") {
        println!("{page:#}");
        return Ok(());
    }
    print!("{}", shown(&page));
    Ok(())
}

/// The page as people read it.
fn shown(page: &Value) -> String {
    let or = |value: &Value, other: &str| value.as_str().unwrap_or(other).to_owned();
    let mut out = format!(
        "trust domain   {}\nsecret         {}\nCA expires     {}\nrevocations    {}\n",
        text(&page["trustDomain"]),
        or(&page["secret"], "none: nothing signs"),
        or(&page["expires"], "-"),
        if page["crl"] == json!(true) {
            "yes"
        } else {
            "none"
        },
    );
    if let Some(error) = page["error"].as_str() {
        out.push_str(&format!("problem        {error}\n"));
    }
    let mut rows = vec![
        ["ROOT", "EXPIRES", "TRUSTED UNTIL"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for root in page["roots"].as_array().into_iter().flatten() {
        rows.push(vec![
            text(&root["state"]),
            or(&root["expires"], "-"),
            or(&root["until"], "replaced"),
        ]);
    }
    out.push('\n');
    out.push_str(&aligned(&rows));
    out
}

async fn rotate(args: &AuthorityArgs, wait: Duration) -> Result<()> {
    let cluster = Cluster::connect(args.connection.kubeconfig.as_deref(), None).await?;
    let before = page(&cluster).await?;
    match before["secret"].as_str() {
        Some(secret) if secret.ends_with(PLUGGED) => bail!(
            "the CA is plugged in: replace the content of secret {NAMESPACE}/{PLUGGED} with that of the new one, and \
             the control plane rotates to it"
        ),
        Some(_) => {}
        None => bail!("the control plane has no CA: `lateen ca status` says why"),
    }
    if coming(&before) {
        bail!("a rotation is under way already; `lateen ca status` shows it");
    }
    let secret = json!({ "apiVersion": "v1", "kind": "Secret",
        "metadata": { "name": SELF_SIGNED, "namespace": NAMESPACE } });
    if !cluster.delete(&secret).await? {
        bail!("secret {NAMESPACE}/{SELF_SIGNED} is gone: a rotation may be under way");
    }
    println!("the control plane makes a new root and has every proxy trust it first");
    let start = Instant::now();
    loop {
        tokio::time::sleep(LOOK).await;
        let page = page(&cluster).await?;
        if !coming(&page) && signing(&page) != signing(&before) {
            println!(
                "✔ the new CA signs ({:.1} s)",
                start.elapsed().as_secs_f32()
            );
            print!("\n{}", shown(&page));
            return Ok(());
        }
        if start.elapsed() > wait {
            bail!(
                "the new CA does not sign after {} s; `lateen ca status` shows how far it is",
                wait.as_secs()
            );
        }
    }
}

/// Whether a root is being distributed.
fn coming(page: &Value) -> bool {
    let mut roots = page["roots"].as_array().into_iter().flatten();
    roots.any(|root| root["state"] == "coming")
}

/// What tells the signing CA from others.
fn signing(page: &Value) -> (Option<&str>, usize) {
    let roots = page["roots"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let first = roots.iter().find(|root| root["state"] == "signing");
    let going = roots.iter().filter(|root| root["state"] == "going").count();
    (first.and_then(|root| root["expires"].as_str()), going)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_shown_as_a_table() {
        let page = json!({ "trustDomain": "cluster.local", "secret": "istio-system/istio-ca-secret",
            "expires": "2036-01-01T00:00:00Z", "crl": false, "error": null, "roots": [
                { "state": "signing", "expires": "2036-01-01T00:00:00Z", "until": null },
                { "state": "going", "expires": "2030-01-01T00:00:00Z", "until": "2026-01-02T00:00:00Z" }] });
        let text = shown(&page);
        assert!(text.contains("trust domain   cluster.local\n"), "{text}");
        assert!(
            text.contains("signing   2036-01-01T00:00:00Z   replaced\n"),
            "{text}"
        );
        assert!(
            text.contains("going     2030-01-01T00:00:00Z   2026-01-02T00:00:00Z\n"),
            "{text}"
        );
        assert!(!coming(&page));
    }
}
