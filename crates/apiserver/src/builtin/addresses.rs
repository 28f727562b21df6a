//! Cluster IPs and node ports of Services. The stored Services are the only record of what is taken.

use crate::api::Api;
use crate::error::ApiError;
use crate::meta;
use crate::store::Resource;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::net::Ipv4Addr;

/// Node ports, as Kubernetes' default range.
const NODE_PORTS: std::ops::RangeInclusive<u64> = 30_000..=32_767;

/// The addresses that Services get.
#[derive(Debug, Clone, Copy)]
pub struct ServiceRange {
    base: u32,
    size: u32,
}

impl ServiceRange {
    /// Reads `10.96.0.0/16`.
    ///
    /// # Errors
    /// A sentence when it is no IPv4 network of a usable size (/12 to /28).
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad = || {
            format!("invalid service network {text:?}; give an IPv4 network such as 10.96.0.0/16")
        };
        let (address, bits) = text.split_once('/').ok_or_else(bad)?;
        let address: Ipv4Addr = address.parse().map_err(|_| bad())?;
        let bits: u32 = bits
            .parse()
            .ok()
            .filter(|bits| (12..=28).contains(bits))
            .ok_or_else(bad)?;
        let size = 1_u32 << (32 - bits);
        Ok(Self {
            base: u32::from(address) & !(size - 1),
            size,
        })
    }

    /// The address of the `kubernetes` Service: the first one.
    pub fn first(self) -> Ipv4Addr {
        Ipv4Addr::from(self.base + 1)
    }

    fn contains(self, address: Ipv4Addr) -> bool {
        let offset = u32::from(address).wrapping_sub(self.base);
        offset > 0 && offset < self.size - 1
    }

    /// Kubernetes keeps the lower addresses for those who ask for one by number.
    fn reserved(self) -> u32 {
        (self.size / 16).clamp(16.min(self.size / 2), 256)
    }
}

/// Gives a Service its cluster IP and node ports, or checks those it asks for. Call with `Api::allocation` held.
///
/// # Errors
/// 422 when an address or port is taken or outside the range, 500 when none is left.
pub fn allocate(api: &Api, service: &mut Value, old: Option<&Value>) -> Result<(), ApiError> {
    let (all, _) = api.store.all(&Resource::new("", "services"), None);
    let uid = meta::text(service, "uid").to_owned();
    let others: Vec<&Value> = all
        .iter()
        .map(|found| &**found)
        .filter(|found| meta::text(found, "uid") != uid)
        .collect();
    cluster_ip(api.services, service, old, &others)?;
    node_ports(service, old, &others)
}

fn cluster_ip(
    range: ServiceRange,
    service: &mut Value,
    old: Option<&Value>,
    others: &[&Value],
) -> Result<(), ApiError> {
    if service["spec"]["type"] == "ExternalName" {
        for field in ["clusterIP", "clusterIPs"] {
            drop(service["spec"].as_object_mut().map(|map| map.remove(field)));
        }
        return Ok(());
    }
    let before = old
        .and_then(|old| old["spec"]["clusterIP"].as_str())
        .unwrap_or_default()
        .to_owned();
    let wanted = service["spec"]["clusterIP"]
        .as_str()
        .or(service["spec"]["clusterIPs"][0].as_str());
    let wanted = match wanted {
        // An update that says nothing keeps what there is.
        None | Some("") => before.clone(),
        Some(wanted) => wanted.to_owned(),
    };
    let invalid = |why: &str| {
        let cause = meta::invalid("spec.clusterIPs", &wanted, why);
        Err(ApiError::invalid(
            "",
            "Service",
            meta::text(service, "name"),
            vec![cause],
        ))
    };
    if !before.is_empty() && wanted != before {
        return invalid("field is immutable");
    }
    let taken: HashSet<&str> = others
        .iter()
        .filter_map(|other| other["spec"]["clusterIP"].as_str())
        .collect();
    let chosen = match wanted.as_str() {
        "None" => wanted,
        "" => free(range, &taken).ok_or_else(|| {
            ApiError::internal(
                "failed to allocate a serviceIP: range is full; delete Services that are not used",
            )
        })?,
        text => {
            let Ok(address) = text.parse::<Ipv4Addr>() else {
                return invalid("must be a valid IP address, (e.g. 10.9.8.7) or \"None\"");
            };
            if wanted != before && !range.contains(address) {
                return invalid(
                    "failed to allocate IP: the provided IP is not in the valid range of Service addresses",
                );
            }
            if taken.contains(text) {
                return invalid("failed to allocate IP: provided IP is already allocated");
            }
            wanted
        }
    };
    service["spec"]["clusterIPs"] = json!([chosen]);
    service["spec"]["clusterIP"] = json!(chosen);
    Ok(())
}

fn free(range: ServiceRange, taken: &HashSet<&str>) -> Option<String> {
    let usable = range.size - 1 - range.reserved();
    let start = uuid::Uuid::new_v4().as_fields().0 % usable;
    let upper = (0..usable).map(|step| range.reserved() + (start + step) % usable);
    let lower = 1..range.reserved();
    upper
        .chain(lower)
        .map(|offset| Ipv4Addr::from(range.base + offset))
        .filter(|address| range.contains(*address))
        .map(|address| address.to_string())
        .find(|address| !taken.contains(address.as_str()))
}

fn node_ports(service: &mut Value, old: Option<&Value>, others: &[&Value]) -> Result<(), ApiError> {
    let has_ports = matches!(
        service["spec"]["type"].as_str(),
        Some("NodePort" | "LoadBalancer")
    );
    let name = meta::text(service, "name").to_owned();
    let mut taken: HashSet<(String, u64)> = others.iter().flat_map(|other| used(other)).collect();
    let before = old
        .map(|old| old["spec"]["ports"].clone())
        .unwrap_or_default();
    let Some(ports) = service["spec"]["ports"].as_array_mut() else {
        return Ok(());
    };
    for (index, port) in ports.iter_mut().enumerate() {
        if !has_ports {
            drop(port.as_object_mut().map(|map| map.remove("nodePort")));
            continue;
        }
        let protocol = port["protocol"].as_str().unwrap_or("TCP").to_owned();
        let mut wanted = port["nodePort"].as_u64().unwrap_or(0);
        if wanted == 0 {
            let same = before.as_array().into_iter().flatten().find(|old| {
                old["port"] == port["port"] && old["protocol"].as_str().unwrap_or("TCP") == protocol
            });
            wanted = same.and_then(|old| old["nodePort"].as_u64()).unwrap_or(0);
        }
        let field = format!("spec.ports[{index}].nodePort");
        let invalid = |why: &str| {
            let cause = meta::invalid(field.clone(), &wanted.to_string(), why);
            Err(ApiError::invalid("", "Service", &name, vec![cause]))
        };
        if wanted != 0 {
            if !NODE_PORTS.contains(&wanted) {
                return invalid(
                    "provided port is not in the valid range. The range of valid ports is 30000-32767",
                );
            }
            if taken.contains(&(protocol.clone(), wanted)) {
                return invalid("provided port is already allocated");
            }
        } else {
            let span = NODE_PORTS.end() - NODE_PORTS.start() + 1;
            let start = u64::from(uuid::Uuid::new_v4().as_fields().0) % span;
            let free = (0..span).map(|step| NODE_PORTS.start() + (start + step) % span);
            let free = free
                .into_iter()
                .find(|port| !taken.contains(&(protocol.clone(), *port)));
            wanted = free.ok_or_else(|| {
                ApiError::internal("failed to allocate a nodePort: range is full")
            })?;
        }
        port["nodePort"] = json!(wanted);
        taken.insert((protocol, wanted));
    }
    Ok(())
}

fn used(service: &Value) -> Vec<(String, u64)> {
    let ports = service["spec"]["ports"].as_array().into_iter().flatten();
    let ports = ports.filter_map(|port| {
        Some((
            port["protocol"].as_str().unwrap_or("TCP").to_owned(),
            port["nodePort"].as_u64()?,
        ))
    });
    ports.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_from_the_upper_part_first() {
        let range = ServiceRange::parse("10.96.0.0/28").expect("range");
        assert_eq!(range.first().to_string(), "10.96.0.1");
        let mut taken: Vec<String> = Vec::new();
        while let Some(next) = free(range, &taken.iter().map(String::as_str).collect()) {
            taken.push(next);
        }
        assert_eq!(
            taken.iter().collect::<HashSet<_>>().len(),
            14,
            "all but network and broadcast: {taken:?}"
        );
        assert!(ServiceRange::parse("10.96.0.0").is_err());
    }
}
