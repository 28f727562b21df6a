//! Workloads.

use super::parts::{
    Read, Within, bad, each, ip, key, known, labels, map, named, narrow, port, read_ip, read_key,
    text,
};
use lateen_model::name::ServiceKey;
use lateen_model::workload::{Health, ServicePorts, Workload};
use lateen_proto::mesh as proto;

pub(super) fn encode(from: &Workload) -> proto::Workload {
    proto::Workload {
        uid: text(&from.uid),
        name: text(&from.name),
        namespace: text(&from.namespace),
        addresses: from.addresses.iter().map(|a| ip(*a)).collect(),
        hostname: from.hostname.as_ref().map(text).unwrap_or_default(),
        labels: map(&from.labels),
        service_account: text(&from.service_account),
        workload_name: text(&from.workload_name),
        canonical_name: text(&from.canonical_name),
        canonical_revision: text(&from.canonical_revision),
        node: text(&from.node),
        locality: text(&from.locality),
        weight: from.weight,
        has_sidecar: from.has_sidecar,
        takes_mtls: from.takes_mtls,
        trust_domain: text(&from.trust_domain),
        services: from.services.iter().map(encode_served).collect(),
    }
}

fn encode_served((service, from): (&ServiceKey, &ServicePorts)) -> proto::ServedService {
    let ports = from.ports.iter();
    proto::ServedService {
        key: key(service),
        ports: ports.map(|(a, b)| ((*a).into(), (*b).into())).collect(),
        health: match from.health {
            Health::Ready => proto::Health::Ready,
            Health::Draining => proto::Health::Draining,
            Health::Unready => proto::Health::Unready,
        }
        .into(),
        hostname: from.hostname.as_ref().map(text).unwrap_or_default(),
    }
}

pub(super) fn decode(from: proto::Workload) -> Read<Workload> {
    if from.weight == 0 {
        return Err(bad("weight", "it must be at least 1"));
    }
    Ok(Workload {
        uid: named(&from.uid, "uid")?,
        name: named(&from.name, "name")?,
        namespace: named(&from.namespace, "namespace")?,
        addresses: each(from.addresses, "addresses", |a| read_ip(&a, ""))?,
        hostname: (!from.hostname.is_empty()).then(|| from.hostname.into()),
        labels: labels(from.labels),
        service_account: from.service_account.into(),
        workload_name: from.workload_name.into(),
        canonical_name: from.canonical_name.into(),
        canonical_revision: from.canonical_revision.into(),
        node: from.node.into(),
        locality: from.locality.into(),
        weight: from.weight,
        has_sidecar: from.has_sidecar,
        takes_mtls: from.takes_mtls,
        trust_domain: from.trust_domain.into(),
        services: each(from.services, "services", decode_served)?
            .into_iter()
            .collect(),
    })
}

fn decode_served(from: proto::ServedService) -> Read<(ServiceKey, ServicePorts)> {
    let health = match from.health() {
        proto::Health::Unspecified => None,
        proto::Health::Ready => Some(Health::Ready),
        proto::Health::Draining => Some(Health::Draining),
        proto::Health::Unready => Some(Health::Unready),
    };
    let health = known(health, from.health, "health")?;
    let ports = from.ports.into_iter().map(|(service, target)| {
        let field = format!("ports[{service}]");
        let number = narrow(service, "").within(&field)?;
        Ok((number, port(target, &field)?))
    });
    let ports = ports.collect::<Read<_>>()?;
    let served = ServicePorts {
        ports,
        health,
        hostname: (!from.hostname.is_empty()).then(|| from.hostname.into()),
    };
    Ok((read_key(from.key)?, served))
}
