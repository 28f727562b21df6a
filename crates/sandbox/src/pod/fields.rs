//! The Downward API: facts of a pod and of a container's resources as text. Pure.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::cluster_network::NODE_ADDRESS;

/// The node's name.
pub(crate) const NODE_NAME: &str = "lateen";

/// The value of a field such as `metadata.name` or `metadata.labels['app']`.
///
/// # Errors
/// The field is not one that pods may refer to.
pub(crate) fn field(pod: &Pod, address: Ipv4Addr, path: &str) -> Result<String, String> {
    let meta = &pod.metadata;
    let spec = pod.spec.as_ref();
    let text = |value: Option<&String>| value.cloned().unwrap_or_default();
    Ok(match path {
        "metadata.name" => text(meta.name.as_ref()),
        "metadata.namespace" => text(meta.namespace.as_ref()),
        "metadata.uid" => text(meta.uid.as_ref()),
        "metadata.labels" => listed(meta.labels.as_ref()),
        "metadata.annotations" => listed(meta.annotations.as_ref()),
        "spec.nodeName" => NODE_NAME.into(),
        "spec.serviceAccountName" => text(spec.and_then(|s| s.service_account_name.as_ref())),
        "status.podIP" | "status.podIPs" => address.to_string(),
        "status.hostIP" | "status.hostIPs" => NODE_ADDRESS.to_string(),
        _ => {
            let keyed = |prefix: &str, map: Option<&BTreeMap<String, String>>| {
                let key = path.strip_prefix(prefix)?.strip_suffix("']")?.to_owned();
                Some(map.and_then(|m| m.get(&key)).cloned().unwrap_or_default())
            };
            return keyed("metadata.labels['", meta.labels.as_ref())
                .or_else(|| keyed("metadata.annotations['", meta.annotations.as_ref()))
                .ok_or_else(|| {
                    format!("fieldPath \"{path}\" is not one a pod may refer to; see `kubectl explain pod.spec.containers.env.valueFrom.fieldRef`")
                });
        }
    })
}

/// Labels or annotations in the form of a Downward API file.
fn listed(map: Option<&BTreeMap<String, String>>) -> String {
    map.into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={value:?}\n"))
        .collect()
}

/// A container's limit or request, divided and rounded up. A missing limit is the whole machine's.
///
/// # Errors
/// The resource is none of cpu, memory, ephemeral-storage and hugepages, or a number is malformed.
pub(crate) fn resource(
    container: &Container,
    selector: &ResourceFieldSelector,
) -> Result<String, String> {
    let (kind, name) = selector
        .resource
        .split_once('.')
        .ok_or_else(|| format!("resource \"{}\" has no dot", selector.resource))?;
    let resources = container.resources.as_ref();
    let limit = resources.and_then(|r| r.limits.as_ref()?.get(name));
    let request = resources.and_then(|r| r.requests.as_ref()?.get(name));
    let written = match kind {
        "limits" => limit,
        "requests" => request.or(limit),
        _ => {
            return Err(format!(
                "resource \"{}\" is neither limits nor requests",
                selector.resource
            ));
        }
    };
    let value = match written {
        Some(quantity) => parse(quantity)?,
        None if kind == "requests" => 0.0,
        None => capacity(name)?,
    };
    let divisor = match &selector.divisor {
        Some(divisor) if !divisor.0.is_empty() && divisor.0 != "0" => parse(divisor)?,
        _ => 1.0,
    };
    Ok(format!("{:.0}", (value / divisor).ceil()))
}

/// What the machine has of a resource.
///
/// # Errors
/// Not a resource known here.
pub(crate) fn capacity(name: &str) -> Result<f64, String> {
    match name {
        "cpu" => Ok(std::thread::available_parallelism().map_or(1.0, |n| n.get() as f64)),
        "memory" => Ok(total_memory().unwrap_or(f64::from(1 << 30))),
        "ephemeral-storage" => Ok(f64::from(1 << 30)),
        _ => Err(format!("resource \"{name}\" is not known here")),
    }
}

fn total_memory() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("MemTotal:"))?;
    let kilobytes: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes * 1024.0)
}

/// A quantity such as `250m`, `64Mi` or `1e3` as a number.
///
/// # Errors
/// It is not a quantity.
pub(crate) fn parse(quantity: &Quantity) -> Result<f64, String> {
    const SUFFIXES: [(&str, f64); 16] = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("Pi", 1_125_899_906_842_624.0),
        ("Ei", 1_152_921_504_606_846_976.0),
        ("n", 1e-9),
        ("u", 1e-6),
        ("m", 1e-3),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
        ("E", 1e18),
        ("", 1.0),
    ];
    let text = quantity.0.trim();
    SUFFIXES
        .iter()
        .filter_map(|(suffix, factor)| {
            let number: f64 = text.strip_suffix(suffix)?.parse().ok()?;
            Some(number * factor)
        })
        .next()
        .ok_or_else(|| format!("\"{text}\" is not a quantity"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "web", "namespace": "shop", "labels": {"app": "a\"b"}},
            "spec": {"serviceAccountName": "sa", "containers": []}
        }))
        .expect("a pod");
        let check = |path: &str, expected: Result<&str, ()>| {
            let got = field(&pod, Ipv4Addr::new(10, 244, 0, 9), path);
            assert_eq!(got.as_deref().map_err(|_| ()), expected, "{path}");
        };
        check("metadata.name", Ok("web"));
        check("metadata.labels['app']", Ok("a\"b"));
        check("metadata.labels", Ok("app=\"a\\\"b\"\n"));
        check("metadata.annotations['none']", Ok(""));
        check("status.podIP", Ok("10.244.0.9"));
        check("status.hostIP", Ok("10.244.0.1"));
        check("spec.serviceAccountName", Ok("sa"));
        check("spec.containers", Err(()));
    }

    #[test]
    fn resources_are_divided_and_rounded_up() {
        let container: Container = serde_json::from_value(serde_json::json!({
            "name": "c", "resources": {"limits": {"cpu": "1500m", "memory": "64Mi"}}
        }))
        .expect("a container");
        let check = |resource_: &str, divisor: &str, expected: &str| {
            let selector = ResourceFieldSelector {
                resource: resource_.into(),
                divisor: Some(Quantity(divisor.into())),
                ..ResourceFieldSelector::default()
            };
            assert_eq!(resource(&container, &selector).as_deref(), Ok(expected));
        };
        check("limits.cpu", "1", "2");
        check("limits.cpu", "1m", "1500");
        check("requests.memory", "1Mi", "64");
        check("limits.memory", "0", "67108864");
    }
}
