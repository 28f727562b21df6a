//! Envoy's configuration: `envoy.yaml` with the cases' routes and the services' clusters put in.

use crate::case::{Case, Cases, Service};
use crate::upstream::Upstreams;
use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use std::path::Path;

/// Writes the file for `envoy -c`.
pub fn write(
    file: &Path,
    template: &Path,
    (cases, upstreams): (&Cases, &Upstreams),
    port: u16,
) -> Result<()> {
    let text = std::fs::read_to_string(template)?;
    let mut config: Value =
        serde_saphyr::from_str(&text).with_context(|| format!("{}", template.display()))?;
    let resources = &mut config["static_resources"];
    let listener = &mut resources["listeners"][0];
    listener["address"] = address(port);
    let routes = &mut listener["filter_chains"][0]["filters"][0]["typed_config"]["route_config"];
    let shared = routes["virtual_hosts"][0].take();
    routes["virtual_hosts"] = cases
        .all
        .iter()
        .map(|case| virtual_host(case, &shared))
        .collect();
    let shared = resources["clusters"][0].take();
    resources["clusters"] = cases
        .services
        .iter()
        .map(|(name, service)| cluster(name, service, (&shared, upstreams)))
        .collect();
    std::fs::write(file, serde_json::to_vec_pretty(&config)?)?;
    Ok(())
}

fn virtual_host(case: &Case, shared: &Value) -> Value {
    let mut host = shared.clone();
    host["name"] = json!(case.name);
    host["domains"] = json!(case.hosts());
    let mut routes = case.envoy.clone();
    for route in routes.as_array_mut().into_iter().flatten() {
        // Istio says so in every route without a timeout; Envoy's own default is 15 s.
        if route["route"].is_object() && route["route"]["timeout"].is_null() {
            route["route"]["timeout"] = json!("0s");
        }
    }
    host["routes"] = routes;
    for (field, value) in &case.envoy_host {
        host[field] = value.clone();
    }
    host
}

fn cluster(name: &str, service: &Service, (shared, upstreams): (&Value, &Upstreams)) -> Value {
    let mut cluster = shared.clone();
    cluster["name"] = json!(name);
    let endpoints: Vec<Value> = upstreams
        .of(name)
        .iter()
        .map(|endpoint| json!({"endpoint": {"address": address(endpoint.port)}}))
        .collect();
    cluster["load_assignment"] =
        json!({"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]});
    if service.protocol == "HTTP2" {
        cluster["typed_extension_protocol_options"] = json!({
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        });
    }
    for (field, value) in &service.cluster {
        cluster[field] = value.clone();
    }
    cluster
}

fn address(port: u16) -> Value {
    json!({"socket_address": {"address": "127.0.0.1", "port_value": port}})
}
