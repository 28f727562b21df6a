//! Analyzer of Gateways that nobody can reach: no workload carries their labels, or no Service leads to their ports.

use super::{Inputs, NOT_FOUND};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use lateen_api::fields::Labels;
use lateen_api::notice::{Notice, Subject};
use lateen_base::Str;
use std::collections::{BTreeMap, BTreeSet};

/// Istio's code for a Gateway's port that no Service of its workloads has.
pub const PORT_NOT_EXPOSED: &str = "IST0104";

/// Looks at Gateways where workloads are known.
pub(super) fn analyze(inputs: &Inputs<'_>, notices: &mut Vec<Notice>) {
    let Some(workloads) = inputs.workloads else {
        return;
    };
    for config in inputs.gateways {
        let selector = &config.spec.selector;
        let subject = Subject::new("Gateway", &config.meta);
        let mut selected = workloads
            .iter()
            .filter(|(_, labels)| carries(labels, selector))
            .peekable();
        if selected.peek().is_none() {
            let message = "no pod has these labels, so the gateway is nowhere: correct them, or install such a gateway";
            notices.push(Notice::warning(&subject, "spec.selector", message).code(NOT_FOUND));
            continue;
        }
        let ports: BTreeSet<u32> = selected
            .flat_map(|(namespace, labels)| exposed(inputs, namespace, labels))
            .collect();
        // Pods on the network of their nodes need no Service.
        if ports.is_empty() {
            continue;
        }
        for (i, server) in config.spec.servers.iter().enumerate() {
            let number = server.port.as_ref().and_then(|port| port.number);
            let Some(number) = number.filter(|number| !ports.contains(number)) else {
                continue;
            };
            let list: Vec<_> = ports.iter().map(u32::to_string).collect();
            let message = format!(
                "no Service leads to port {number} of the gateway's pods, so nobody outside reaches it: use one of {}, or add the port to the gateway's Service",
                list.join(", ")
            );
            let field = format!("spec.servers[{i}].port.number");
            notices.push(Notice::warning(&subject, field, message).code(PORT_NOT_EXPOSED));
        }
    }
}

fn carries(labels: &BTreeMap<Str, Str>, selector: &Labels) -> bool {
    let has =
        |(key, value): (&String, &String)| labels.get(key.as_str()).is_some_and(|v| **v == **value);
    selector.iter().all(has)
}

/// Ports by which Services lead to a workload: their own (Istio: a Gateway may name either) and those on the pod.
fn exposed(inputs: &Inputs<'_>, namespace: &str, labels: &BTreeMap<Str, Str>) -> BTreeSet<u32> {
    let leads = |service: &&&Service| {
        let selector = service
            .spec
            .as_ref()
            .and_then(|spec| spec.selector.as_ref());
        service.metadata.namespace.as_deref() == Some(namespace)
            && selector.is_some_and(|selector| !selector.is_empty() && carries(labels, selector))
    };
    let specs = inputs
        .services
        .iter()
        .filter(leads)
        .filter_map(|service| service.spec.as_ref());
    let ports = specs.flat_map(|spec| spec.ports.iter().flatten());
    ports
        .flat_map(|port| {
            let target = match &port.target_port {
                Some(IntOrString::Int(number)) => Some(*number),
                _ => None,
            };
            [Some(port.port), target].into_iter().flatten()
        })
        .filter_map(|number| u32::try_from(number).ok())
        .collect()
}
