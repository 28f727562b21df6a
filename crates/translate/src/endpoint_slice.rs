//! EndpointSlice → workloads for endpoints that are not pods, such as those of a Service without a selector.

use crate::mesh::Mesh;
use crate::slice::Lone;
use crate::workload::{Backing, Described, slice_ports};
use crate::{Translated, service};
use lateen_model::resource::Resource;
use lateen_model::workload::{ServicePorts, Workload};
use std::collections::BTreeMap;

/// What a slice is translated from.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// The slice and its Service.
    pub backing: Backing<'a>,
    /// The mesh.
    pub mesh: &'a Mesh,
}

/// Translates the endpoints of a slice that refer to no pod; pods are translated by [`crate::workload::pod`].
pub fn endpoint_slice(inputs: Inputs<'_>) -> Translated {
    let Backing { service, slice } = inputs.backing;
    if slice.others.is_empty() {
        return Translated::default();
    }
    let key = service::key(&service.metadata, inputs.mesh);
    let ports = slice_ports(inputs.backing);
    let service_name = service.metadata.name.as_deref().unwrap_or_default();
    let described = Described::by(&BTreeMap::new(), service_name);
    let workload = |endpoint: &Lone| {
        let (name, index) = (&slice.name, endpoint.index);
        let locality = match &*endpoint.zone {
            "" => "".into(),
            zone => format!("/{zone}").into(),
        };
        Resource::Workload(Workload {
            uid: format!("EndpointSlice/{}/{name}/{index}", key.namespace).into(),
            name: format!("{name}-{index}").into(),
            namespace: key.namespace.clone(),
            addresses: endpoint.addresses.to_vec(),
            hostname: endpoint.host.clone(),
            labels: BTreeMap::new(),
            service_account: "".into(),
            workload_name: described.workload_name.clone(),
            canonical_name: described.canonical_name.clone(),
            canonical_revision: described.canonical_revision.clone(),
            node: endpoint.node.clone(),
            locality,
            weight: 1,
            has_sidecar: false,
            takes_mtls: false,
            trust_domain: "".into(),
            services: BTreeMap::from([(
                key.clone(),
                ServicePorts {
                    ports: ports.clone(),
                    health: endpoint.state.health,
                    hostname: endpoint.state.hostname.clone(),
                },
            )]),
        })
    };
    (slice.others.iter().map(workload).collect(), Vec::new())
}
