//! The administration pages, under Envoy's paths.

use super::scrape::resident_bytes;
use super::{Admin, json, text};
use crate::worker::Entry;
use http::{Response, StatusCode};
use lateen_model::decide::cluster::{Cluster, Discovery};
use lateen_net::http::Body;
use serde_json::{Value, json as value};
use std::fmt::Write;

const HELP: &str = "\
/ready             whether it is ready
/config_dump       the configuration in force (JSON)
/certs             certificates in force (JSON)
/clusters          clusters and their endpoints (?format=json)
/listeners         ports it listens on (?format=json)
/stats             a few gauges (?format=prometheus)
/stats/prometheus  metrics
/server_info       version, state, uptime (JSON)
/memory            memory in use (JSON)
/logging           the log's level; POST ?level=debug changes it
/drain_listeners   POST: not ready any more, clients are sent elsewhere
/quitquitquit      POST: ends once nothing is under way
";

impl Admin {
    /// One page.
    pub(super) fn page(&self, path: &str, query: &str, post: bool) -> Response<Body> {
        let as_json = parameter(query, "format") == Some("json");
        match path {
            "/" | "/help" => text(StatusCode::OK, HELP),
            "/config_dump" => json(&self.dump()),
            "/certs" => json(&self.certificates()),
            "/clusters" if as_json => json(&self.clusters_json()),
            "/clusters" => text(StatusCode::OK, &self.clusters_text()),
            "/listeners" if as_json => json(&Value::Array(self.listeners())),
            "/listeners" => text(StatusCode::OK, &self.listeners_text()),
            "/stats" if parameter(query, "format") == Some("prometheus") => {
                text(StatusCode::OK, &self.own_metrics())
            }
            "/stats" => text(StatusCode::OK, &self.stats()),
            "/server_info" => json(&self.info()),
            "/memory" => json(&value!({ "allocated": resident_bytes().to_string() })),
            "/logging" => self.logging(parameter(query, "level"), post),
            _ => text(StatusCode::NOT_FOUND, HELP),
        }
    }

    fn logging(&self, level: Option<&str>, post: bool) -> Response<Body> {
        let Some(log) = &self.log_level else {
            return text(
                StatusCode::NOT_IMPLEMENTED,
                "this process's log level is fixed\n",
            );
        };
        match level {
            Some(_) if !post => return text(StatusCode::METHOD_NOT_ALLOWED, "use POST\n"),
            Some(level) => {
                if let Err(error) = log.set(level) {
                    return text(StatusCode::BAD_REQUEST, &format!("{error}\n"));
                }
            }
            None => {}
        }
        text(StatusCode::OK, &format!("level: {}\n", log.current()))
    }

    fn info(&self) -> Value {
        value!({
            "version": self.version,
            "state": self.state(),
            "uptime_current_epoch": format!("{}s", self.started.elapsed().as_secs()),
            "command_line_options": { "concurrency": self.concurrency },
            "node": { "id": &*self.shared.scope.pod, "cluster": &*self.shared.scope.canonical_name },
        })
    }

    fn stats(&self) -> String {
        let live = self.shared.live.load();
        let mut out = String::new();
        for (name, value) in [
            ("server.live", u64::from(self.is_ready())),
            ("server.uptime", self.started.elapsed().as_secs()),
            ("server.memory_allocated", resident_bytes()),
            ("config.generation", live.generation),
            ("config.resources", live.resources.len() as u64),
            ("requests.active", self.shared.drain.active() as u64),
            ("access_log.dropped", self.shared.log.dropped()),
        ] {
            // Writing to a string cannot fail.
            let _ = writeln!(out, "{name}: {value}");
        }
        out
    }

    fn clusters_text(&self) -> String {
        let live = self.shared.live.load();
        let mut out = String::new();
        for cluster in live.snapshot.clusters() {
            let name = &cluster.name;
            let _ = writeln!(out, "{name}::discovery::{}", discovery(cluster));
            if let Discovery::Endpoints(endpoints) = &cluster.discovery {
                for endpoint in endpoints.iter() {
                    let address = endpoint.address;
                    let _ = writeln!(out, "{name}::{address}::health_flags::healthy");
                    let _ = writeln!(out, "{name}::{address}::weight::{}", endpoint.weight);
                    let _ = writeln!(
                        out,
                        "{name}::{address}::hostname::{}",
                        endpoint.workload.name
                    );
                }
            }
        }
        out
    }

    fn clusters_json(&self) -> Value {
        let live = self.shared.live.load();
        let clusters = live.snapshot.clusters().map(|cluster| {
            let hosts: Vec<Value> = match &cluster.discovery {
                Discovery::Endpoints(endpoints) => endpoints
                    .iter()
                    .map(|e| {
                        value!({
                            "address": { "socket_address": {
                                "address": e.address.ip().to_string(), "port_value": e.address.port(),
                            } },
                            "weight": e.weight,
                            "hostname": &*e.workload.name,
                            "health_status": { "eds_health_status": "HEALTHY" },
                        })
                    })
                    .collect(),
                _ => Vec::new(),
            };
            value!({ "name": &*cluster.name, "host_statuses": hosts })
        });
        value!({ "cluster_statuses": clusters.collect::<Vec<_>>() })
    }

    /// Ports that are open, with what comes in by them.
    pub(super) fn listeners(&self) -> Vec<Value> {
        let fixed = [
            ("virtualOutbound", "outbound", self.addresses.outbound),
            ("virtualInbound", "inbound", self.addresses.inbound),
            ("admin", "admin", Some(self.addresses.admin)),
            ("merged", "admin", Some(self.addresses.merged)),
            ("ready", "admin", Some(self.addresses.ready)),
            ("metrics", "admin", Some(self.addresses.metrics)),
        ];
        let mut all: Vec<Value> = fixed
            .into_iter()
            .filter_map(|(name, kind, address)| {
                Some(value!({ "name": name, "kind": kind, "address": address?.to_string() }))
            })
            .collect();
        for (entry, result) in self.gateway.lock().iter() {
            let Entry::Gateway { bind, .. } = entry else {
                continue;
            };
            let (address, error) = match result {
                Ok(address) => (Some(address.to_string()), None),
                Err(error) => (None, Some(error)),
            };
            all.push(value!({
                "name": format!("gateway_{bind}"), "kind": "gateway", "port": bind,
                "address": address, "error": error,
            }));
        }
        all
    }

    fn listeners_text(&self) -> String {
        self.listeners()
            .iter()
            .map(|l| {
                let address = l["address"]
                    .as_str()
                    .or(l["error"].as_str())
                    .unwrap_or_default();
                format!("{}::{address}\n", l["name"].as_str().unwrap_or_default())
            })
            .collect()
    }
}

/// How a cluster finds its endpoints, in Envoy's words.
pub(super) fn discovery(cluster: &Cluster) -> &'static str {
    match cluster.discovery {
        Discovery::Endpoints(_) => "EDS",
        Discovery::OriginalDestination => "ORIGINAL_DST",
        Discovery::Dns(_) => "STRICT_DNS",
        Discovery::DnsFirst(_) => "LOGICAL_DNS",
        Discovery::DynamicDns(_) => "DYNAMIC_FORWARD_PROXY",
        Discovery::Fixed(_) => "STATIC",
    }
}

fn parameter<'q>(query: &'q str, name: &str) -> Option<&'q str> {
    query
        .split('&')
        .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}
