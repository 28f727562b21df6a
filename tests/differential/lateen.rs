//! Lateen's configuration: Istio's objects, one file per case.

use crate::case::{Case, Cases, Service};
use crate::upstream::Upstreams;
use anyhow::Result;
use serde_json::{Value, json};
use std::path::Path;

/// Writes the folder for `lateen proxy --config`.
pub fn write(folder: &Path, cases: &Cases, upstreams: &Upstreams, port: u16) -> Result<()> {
    let gateway = object(
        "Gateway",
        "gateway",
        json!({
            "selector": {"app": "differential"},
            "servers": [{"port": {"number": port, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}],
        }),
    );
    save(&folder.join("gateway.yaml"), &[gateway])?;
    for (name, service) in &cases.services {
        save(
            &folder.join(format!("service-{name}.yaml")),
            &of_service(name, service, upstreams),
        )?;
    }
    for case in cases.all.iter().filter(|case| case.not_yet.is_none()) {
        save(
            &folder.join(format!("case-{}.yaml", case.name)),
            &[of_case(case)],
        )?;
    }
    Ok(())
}

fn of_case(case: &Case) -> Value {
    let spec = json!({"hosts": case.hosts(), "gateways": ["gateway"], "http": case.istio});
    object("VirtualService", &case.name, spec)
}

fn of_service(name: &str, service: &Service, upstreams: &Upstreams) -> Vec<Value> {
    let host = format!("{name}.up");
    let endpoints: Vec<Value> = upstreams
        .of(name)
        .iter()
        .map(|endpoint| json!({"address": "127.0.0.1", "ports": {"main": endpoint.port}}))
        .collect();
    let mut entry = json!({
        "hosts": [host],
        "location": "MESH_INTERNAL",
        "resolution": "STATIC",
        "ports": [{"number": 80, "name": "main", "protocol": service.protocol}],
        "endpoints": endpoints,
    });
    if endpoints.is_empty() {
        entry["workloadSelector"] = json!({"labels": {"app": "nobody"}});
    }
    let mut objects = vec![object("ServiceEntry", name, entry)];
    if let Some(rule) = service
        .destination_rule
        .clone()
        .filter(|_| service.not_yet.is_none())
    {
        let mut spec = Value::Object(rule);
        spec["host"] = json!(host);
        objects.push(object("DestinationRule", name, spec));
    }
    objects
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": "default"},
        "spec": spec,
    })
}

fn save(path: &Path, objects: &[Value]) -> Result<()> {
    let documents = objects
        .iter()
        .map(serde_json::to_string_pretty)
        .collect::<Result<Vec<_>, _>>()?;
    std::fs::write(path, documents.join("\n---\n"))?;
    Ok(())
}
