//! EndpointSlice → workloads for endpoints that are not pods, such as those of a Service without a selector.

use crate::mesh::Mesh;
use crate::workload::{Backing, Described, health, slice_ports};
use crate::{Translated, service};
use k8s_openapi::api::discovery::v1::Endpoint;
use lateen_base::Str;
use lateen_model::resource::Resource;
use lateen_model::workload::{ServicePorts, Workload};
use std::collections::BTreeMap;
use std::net::IpAddr;

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
    let key = service::key(&service.metadata, inputs.mesh);
    let ports = slice_ports(inputs.backing);
    let slice_name = slice.metadata.name.as_deref().unwrap_or_default();
    let service_name = service.metadata.name.as_deref().unwrap_or_default();
    let described = Described::by(&BTreeMap::new(), service_name);
    let workload = |(index, endpoint): (usize, &Endpoint)| {
        let (addresses, hostname) = place(&endpoint.addresses);
        Resource::Workload(Workload {
            uid: format!("EndpointSlice/{}/{slice_name}/{index}", key.namespace).into(),
            name: format!("{slice_name}-{index}").into(),
            namespace: key.namespace.clone(),
            addresses,
            hostname,
            labels: BTreeMap::new(),
            service_account: "".into(),
            workload_name: described.workload_name.clone(),
            canonical_name: described.canonical_name.clone(),
            canonical_revision: described.canonical_revision.clone(),
            node: endpoint.node_name.as_deref().unwrap_or_default().into(),
            locality: endpoint
                .zone
                .as_deref()
                .map(|zone| format!("/{zone}"))
                .unwrap_or_default()
                .into(),
            weight: 1,
            has_sidecar: false,
            takes_mtls: false,
            trust_domain: "".into(),
            services: BTreeMap::from([(
                key.clone(),
                ServicePorts {
                    ports: ports.clone(),
                    health: health(endpoint.conditions.as_ref()),
                    hostname: endpoint.hostname.as_deref().map(Str::from),
                },
            )]),
        })
    };
    let is_pod = |endpoint: &Endpoint| {
        let target = endpoint.target_ref.as_ref();
        target.is_some_and(|target| target.kind.as_deref() == Some("Pod"))
    };
    let resources = slice
        .endpoints
        .iter()
        .enumerate()
        .filter(|(_, endpoint)| !endpoint.addresses.is_empty() && !is_pod(endpoint))
        .map(workload)
        .collect();
    (resources, Vec::new())
}

/// Addresses of an endpoint; slices of type FQDN hold a name instead.
fn place(addresses: &[String]) -> (Vec<IpAddr>, Option<Str>) {
    let parsed = addresses
        .iter()
        .filter_map(|a| a.parse().ok())
        .collect::<Vec<_>>();
    let hostname = if parsed.is_empty() {
        addresses.first()
    } else {
        None
    };
    (parsed, hostname.map(|name| name.as_str().into()))
}
