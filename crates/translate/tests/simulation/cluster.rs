//! Clusters as text: name, endpoints, and what a DestinationRule says about them.

use lateen_model::decide::cluster::{Cluster, ClusterTls, Discovery, Endpoint};
use lateen_model::tls::{CertificateFiles, ClientTls};
use lateen_model::traffic::Balancer;
use std::time::Duration;

/// `outbound|9080|v1|reviews.default -> reviews-v1:9080`.
pub fn target(cluster: &Cluster) -> String {
    let secured = matches!(cluster.tls, ClusterTls::Mesh { required: false, .. });
    let endpoints = match &cluster.discovery {
        Discovery::Endpoints(list) => {
            let list: Vec<_> = list.iter().map(|e| endpoint(e, secured)).collect();
            list.join(", ")
        }
        Discovery::OriginalDestination => "the address that was called".to_owned(),
        Discovery::Dns(names) => {
            let names: Vec<_> = names.iter().map(|n| format!("{}:{}", n.host, n.port)).collect();
            format!("{} by DNS", names.join(", "))
        }
        Discovery::DnsFirst(n) => format!("{}:{} by DNS, first address", n.host, n.port),
        Discovery::DynamicDns(Some(port)) => format!("the name that was called, by DNS, port {port}"),
        Discovery::DynamicDns(None) => "the name that was called, by DNS".to_owned(),
        Discovery::Fixed(address) => address.to_string(),
    };
    format!("{} -> {endpoints}", cluster.name)
}

/// A pod by its name, anything else by its address; what differs from an ordinary endpoint in brackets.
fn endpoint(endpoint: &Endpoint, secured: bool) -> String {
    let workload = &endpoint.workload;
    let mut text = match workload.uid.starts_with("Pod/") {
        true => format!("{}:{}", workload.name, endpoint.address.port()),
        false => endpoint.address.to_string(),
    };
    let mut notes = Vec::new();
    if endpoint.weight != 1 {
        notes.push(format!("weight {}", endpoint.weight));
    }
    if secured && !endpoint.mutual {
        notes.push("plain text".to_owned());
    }
    if !notes.is_empty() {
        text += &format!(" [{}]", notes.join(", "));
    }
    text
}

/// What differs from the default, one line each.
pub fn details(cluster: &Cluster) -> Vec<String> {
    let mut lines = Vec::new();
    if matches!(cluster.discovery, Discovery::Fixed(_)) || cluster.service.is_none() {
        return lines;
    }
    lines.extend(balancer(&cluster.balancer).map(|text| format!("balancer {text}")));
    lines.extend(tls(&cluster.tls));
    if cluster.connect_timeout != Duration::from_secs(10) {
        lines.push(format!("connect timeout {:?}", cluster.connect_timeout));
    }
    lines
}

fn balancer(balancer: &Balancer) -> Option<String> {
    Some(match balancer {
        Balancer::LeastRequest => return None,
        Balancer::RoundRobin => "round robin".to_owned(),
        Balancer::Random => "random".to_owned(),
        Balancer::Passthrough => return None,
    })
}

fn tls(tls: &ClusterTls) -> Option<String> {
    match tls {
        ClusterTls::Plain => Some("tls off".to_owned()),
        ClusterTls::Origin(tls) => Some(client_tls(tls)),
        ClusterTls::Mesh { required: false, .. } => None,
        ClusterTls::Mesh { server_name, sans, .. } => {
            let sans = if sans.is_empty() { String::new() } else { format!("; names {}", sans.join(",")) };
            let sni = if server_name.starts_with("outbound_.") { String::new() } else { format!("; sni {server_name}") };
            Some(format!("tls IstioMutual{sni}{sans}"))
        }
    }
}

fn client_tls(tls: &ClientTls) -> String {
    let mut text = format!("tls {:?}", tls.mode);
    let one = |name: &str, value: Option<&lateen_base::Str>| {
        value.map_or(String::new(), |v| format!("; {name} {v}"))
    };
    text += &one("sni", tls.sni.as_ref());
    text += &one("secret", tls.credential.as_ref());
    if !tls.sans.is_empty() {
        text += &format!("; names {}", tls.sans.join(","));
    }
    let files = files(&tls.files);
    if !files.is_empty() {
        text += &format!("; files {}", files.join(","));
    }
    if tls.skip_verify {
        text += "; not verified";
    }
    text
}

/// Files that are given, as `name=path`.
pub fn files(files: &CertificateFiles) -> Vec<String> {
    let all = [("chain", &files.chain), ("key", &files.key), ("ca", &files.ca), ("crl", &files.crl)];
    let given = all.into_iter().filter_map(|(name, path)| Some((name, path.as_ref()?)));
    given.map(|(name, path)| format!("{name}={path}")).collect()
}
