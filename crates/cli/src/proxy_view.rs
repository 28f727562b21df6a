//! `lateen proxy-config`: reads a proxy's configuration from its admin port and prints the part asked for.

use crate::args::{ProxyConfig, ProxyPart};
use crate::cluster::{Cluster, text};
use crate::forward;
use crate::sandbox::pod_name;
use crate::table::aligned;
use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// Port of the proxy's admin server, on the pod's loopback.
pub const ADMIN_PORT: u16 = 15000;

/// Prints routes, clusters, endpoints, listeners or certificates of a proxy.
///
/// # Errors
/// The pod is not there, has no proxy, or the output format is not known.
pub async fn config(verb: &ProxyConfig) -> Result<()> {
    let (ProxyConfig::Routes(part)
    | ProxyConfig::Clusters(part)
    | ProxyConfig::Endpoints(part)
    | ProxyConfig::Listeners(part)
    | ProxyConfig::Secrets(part)) = verb;
    let connection = &part.connection;
    let cluster = Cluster::connect(
        connection.kubeconfig.as_deref(),
        connection.namespace.clone(),
    )
    .await?;
    let (namespace, pod) = pod_name(&cluster, &part.pod).await?;
    let page = match verb {
        ProxyConfig::Secrets(_) => "/certs",
        _ => "/config_dump",
    };
    let body = forward::fetch(&cluster, &namespace, &pod, ADMIN_PORT, page)
        .await
        .with_context(|| {
            format!("pod {namespace}/{pod} shows no proxy: does it have the container istio-proxy?")
        })?;
    let dump: Value =
        serde_json::from_slice(&body).context("the proxy's configuration is not JSON")?;
    let (json, rows) = match verb {
        ProxyConfig::Routes(_) => (&dump["routes"], routes(&dump, part)),
        ProxyConfig::Clusters(_) => (&dump["clusters"], clusters(&dump, part)),
        ProxyConfig::Endpoints(_) => (&dump["clusters"], endpoints(&dump, part)),
        ProxyConfig::Listeners(_) => (&dump["listeners"], listeners(&dump, part)),
        ProxyConfig::Secrets(_) => (&dump, secrets(&dump)),
    };
    match part.output.as_str() {
        "json" => println!("{json:#}"),
        "short" => print!("{}", aligned(&rows)),
        other => bail!("-o {other} is not known: use short or json"),
    }
    Ok(())
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn header<const N: usize>(names: [&str; N]) -> Vec<String> {
    names.map(str::to_owned).to_vec()
}

fn number(value: &Value) -> String {
    value
        .as_u64()
        .map(|n| n.to_string())
        .unwrap_or_else(|| "-".to_owned())
}

fn or_dash(value: &Value) -> String {
    value.as_str().unwrap_or("-").to_owned()
}

/// Whether a row about `host` and `port` was asked for.
fn wanted(part: &ProxyPart, host: &str, port: &Value) -> bool {
    part.fqdn.as_deref().is_none_or(|fqdn| host.contains(fqdn))
        && part
            .port
            .is_none_or(|want| port.as_u64() == Some(u64::from(want)))
}

fn routes(dump: &Value, part: &ProxyPart) -> Vec<Vec<String>> {
    let mut rows = vec![header(["NAME", "DOMAIN", "RULES", "VIRTUAL SERVICE"])];
    for route in list(&dump["routes"]) {
        let host = text(&route["host"]);
        if wanted(part, &host, &route["port"]) {
            rows.push(vec![
                number(&route["port"]),
                host,
                number(&route["rules"]),
                or_dash(&route["origin"]),
            ]);
        }
    }
    rows
}

/// Rows by Istio's names: `default` is the workload's certificate, `ROOTCA` whom it believes.
fn secrets(page: &Value) -> Vec<Vec<String>> {
    let mut rows = vec![header([
        "RESOURCE NAME",
        "TYPE",
        "STATUS",
        "IDENTITY",
        "SERIAL NUMBER",
        "NOT AFTER",
        "NOT BEFORE",
    ])];
    let now = jiff::Timestamp::now();
    let mut row = |name: &str, kind: &str, certificate: &Value| {
        let until = or_dash(&certificate["expiration_time"]);
        let is_over = until.parse().is_ok_and(|end: jiff::Timestamp| end < now);
        rows.push(vec![
            name.to_owned(),
            kind.to_owned(),
            if is_over { "EXPIRED" } else { "ACTIVE" }.to_owned(),
            or_dash(&certificate["subject_alt_names"][0]["uri"]),
            or_dash(&certificate["serial_number"]),
            until,
            or_dash(&certificate["valid_from"]),
        ]);
    };
    for pair in list(&page["certificates"]) {
        for chain in list(&pair["cert_chain"]) {
            row("default", "Cert Chain", chain);
        }
        for root in list(&pair["ca_cert"]) {
            row("ROOTCA", "CA", root);
        }
    }
    rows
}

fn clusters(dump: &Value, part: &ProxyPart) -> Vec<Vec<String>> {
    let mut rows = vec![header([
        "SERVICE FQDN",
        "PORT",
        "SUBSET",
        "DIRECTION",
        "TYPE",
        "DESTINATION RULE",
    ])];
    for cluster in list(&dump["clusters"]) {
        let name = text(&cluster["name"]);
        let host = cluster["host"].as_str().unwrap_or(&name).to_owned();
        if !wanted(part, &host, &cluster["port"]) {
            continue;
        }
        let direction = match name.split_once('|') {
            Some((direction, _)) => direction.to_owned(),
            None => "-".to_owned(),
        };
        rows.push(vec![
            host,
            number(&cluster["port"]),
            or_dash(&cluster["subset"]),
            direction,
            text(&cluster["discovery"]),
            or_dash(&cluster["policy"]),
        ]);
    }
    rows
}

fn endpoints(dump: &Value, part: &ProxyPart) -> Vec<Vec<String>> {
    let mut rows = vec![header(["ENDPOINT", "STATUS", "WORKLOAD", "CLUSTER"])];
    for cluster in list(&dump["clusters"]) {
        let name = text(&cluster["name"]);
        if !wanted(
            part,
            cluster["host"].as_str().unwrap_or(&name),
            &cluster["port"],
        ) {
            continue;
        }
        for endpoint in list(&cluster["endpoints"]) {
            let status = match endpoint["health"].as_str() {
                Some("Draining") => "DRAINING",
                _ => "HEALTHY",
            };
            let workload = endpoint["workload"]
                .as_str()
                .map_or("-".to_owned(), |workload| {
                    format!("{workload}.{}", text(&endpoint["namespace"]))
                });
            rows.push(vec![
                text(&endpoint["address"]),
                status.to_owned(),
                workload,
                name.clone(),
            ]);
        }
    }
    rows
}

fn listeners(dump: &Value, part: &ProxyPart) -> Vec<Vec<String>> {
    let mut rows = vec![header(["ADDRESSES", "PORT", "MATCH", "DESTINATION"])];
    for listener in list(&dump["listeners"]) {
        let address = listener["address"]
            .as_str()
            .or(listener["error"].as_str())
            .unwrap_or_default();
        let (ip, port) = address.rsplit_once(':').unwrap_or((address, "-"));
        if part.fqdn.is_none() && part.port.is_none_or(|want| port == want.to_string()) {
            rows.push(vec![
                ip.to_owned(),
                port.to_owned(),
                "ALL".to_owned(),
                text(&listener["name"]),
            ]);
        }
    }
    for destination in list(&dump["destinations"]) {
        let host = text(&destination["host"]);
        if wanted(part, &host, &destination["port"]) {
            let address = destination["address"].as_str().unwrap_or("by host");
            let address = address.trim_end_matches("/32").trim_end_matches("/128");
            rows.push(vec![
                address.to_owned(),
                number(&destination["port"]),
                text(&destination["protocol"]),
                host,
            ]);
        }
    }
    rows
}
