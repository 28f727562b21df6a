//! ServiceEntries and WorkloadEntries: hosts, addresses, ports, endpoints that fit the resolution.

use super::{Findings, is_subnet};
use crate::meta::Config;
use crate::notice::{Notice, Subject};
use crate::path;
use crate::service_entry::{Resolution, ServiceEntry};
use crate::workload_entry::WorkloadEntry;
use std::net::IpAddr;

/// Validates a ServiceEntry.
pub fn service_entry(config: &Config<ServiceEntry>) -> Vec<Notice> {
    let spec = &config.spec;
    let mut findings = Findings::new(Subject::new("ServiceEntry", &config.meta));
    let f = &mut findings;
    let resolution = spec.resolution.unwrap_or(Resolution::None);
    f.export_to(&spec.export_to);
    hosts(f, spec, resolution);
    addresses(f, spec, resolution);
    ports(f, spec);
    endpoints(f, spec, resolution);
    findings.notices
}

fn hosts(f: &mut Findings, spec: &ServiceEntry, resolution: Resolution) {
    if spec.hosts.is_empty() {
        f.error("spec.hosts", "is empty: name a host");
    }
    for (i, host) in spec.hosts.iter().enumerate() {
        let field = path::index("spec.hosts", i);
        if host == "*" {
            f.error(
                &field,
                "\"*\" would take every host: use *.suffix or full names",
            );
        }
        f.host(&field, host);
        let by_name = matches!(resolution, Resolution::Dns | Resolution::DnsRoundRobin);
        if by_name && host.starts_with("*.") && spec.endpoints.is_empty() {
            f.error(
                field,
                "a wildcard cannot be resolved: give endpoints, or use resolution NONE",
            );
        }
    }
}

fn addresses(f: &mut Findings, spec: &ServiceEntry, resolution: Resolution) {
    for (i, address) in spec.addresses.iter().enumerate() {
        let field = path::index("spec.addresses", i);
        f.subnet(&field, address);
        let takes_ranges = matches!(resolution, Resolution::None | Resolution::Static);
        if is_subnet(address) && address.contains('/') && !takes_ranges {
            f.error(
                field,
                "address ranges are for resolution NONE and STATIC only",
            );
        }
    }
}

fn ports(f: &mut Findings, spec: &ServiceEntry) {
    for (i, port) in spec.ports.iter().enumerate() {
        let field = path::index("spec.ports", i);
        f.port(&format!("{field}.number"), port.number);
        if port.target_port.is_some() {
            f.port(&format!("{field}.targetPort"), port.target_port);
        }
        if port.name.as_deref().unwrap_or_default().is_empty() {
            f.error(format!("{field}.name"), "is missing: give the port a name");
        }
        if spec.ports.iter().position(|p| p.number == port.number) != Some(i) {
            f.error(
                format!("{field}.number"),
                "is used by another port: numbers must differ",
            );
        }
        if spec.ports.iter().position(|p| p.name == port.name) != Some(i) {
            f.error(
                format!("{field}.name"),
                "is used by another port: names must differ",
            );
        }
    }
}

fn endpoints(f: &mut Findings, spec: &ServiceEntry, resolution: Resolution) {
    if spec.endpoints.is_empty() {
        return;
    }
    if spec.workload_selector.is_some() {
        f.error(
            "spec.endpoints",
            "workloadSelector and endpoints exclude each other: keep one of them",
        );
    }
    if resolution == Resolution::None {
        f.error(
            "spec.endpoints",
            "resolution NONE cannot have endpoints: set resolution to STATIC or DNS, or remove the endpoints",
        );
    }
    if resolution == Resolution::DnsRoundRobin && spec.endpoints.len() > 1 {
        f.error(
            "spec.endpoints",
            "resolution DNS_ROUND_ROBIN takes one endpoint at most",
        );
    }
    for (i, endpoint) in spec.endpoints.iter().enumerate() {
        let field = path::index("spec.endpoints", i);
        address(f, &field, endpoint);
        let text = endpoint.address.as_deref().unwrap_or_default();
        let is_plain = text.parse::<IpAddr>().is_ok() || text.starts_with("unix://");
        if resolution == Resolution::Static && !text.is_empty() && !is_plain {
            f.error(
                format!("{field}.address"),
                format!("{text:?} is not an IP address: use resolution DNS for names"),
            );
        }
        for name in endpoint.ports.keys() {
            let is_known = spec.ports.iter().any(|p| p.name.as_ref() == Some(name));
            if !is_known {
                let field = path::key(&format!("{field}.ports"), name);
                f.error(field, "names no port of spec.ports: use one of their names");
            }
        }
    }
}

/// Validates a WorkloadEntry.
pub fn workload_entry(config: &Config<WorkloadEntry>) -> Vec<Notice> {
    let mut findings = Findings::new(Subject::new("WorkloadEntry", &config.meta));
    address(&mut findings, "spec", &config.spec);
    findings.notices
}

fn address(f: &mut Findings, field: &str, entry: &WorkloadEntry) {
    let at = format!("{field}.address");
    match entry.address.as_deref().unwrap_or_default() {
        "" if entry.network.is_some() => {}
        "" => f.error(at, "is missing: give an IP address or a name"),
        text if text.starts_with("unix://") => {
            if !text.starts_with("unix:///") && !text.starts_with("unix://@") {
                f.error(at, "is not an absolute path: write unix:///path");
            }
            if !entry.ports.is_empty() {
                f.error(
                    format!("{field}.ports"),
                    "a socket path has no ports: remove them",
                );
            }
        }
        "*" => f.error(at, "\"*\" is not an address: give an IP address or a name"),
        text => f.host(&at, text),
    }
    for (name, number) in &entry.ports {
        f.port(&path::key(&format!("{field}.ports"), name), Some(*number));
    }
}
