//! Mesh settings and Sidecar scopes.

use super::parts::{
    Read, Within, each, known, labels, map, named, optional, optional_port, origin, read_origin,
    text,
};
use lateen_model::mesh::{EgressHost, MeshSettings, OutboundMode, SidecarScope};
use lateen_proto::mesh as proto;

fn mode(from: Option<OutboundMode>) -> i32 {
    match from {
        None => proto::OutboundMode::Unspecified,
        Some(OutboundMode::AllowAny) => proto::OutboundMode::AllowAny,
        Some(OutboundMode::RegistryOnly) => proto::OutboundMode::RegistryOnly,
    }
    .into()
}

fn read_mode(from: i32) -> Read<Option<OutboundMode>> {
    let mode = match proto::OutboundMode::try_from(from).ok() {
        None => None,
        Some(proto::OutboundMode::Unspecified) => Some(None),
        Some(proto::OutboundMode::AllowAny) => Some(Some(OutboundMode::AllowAny)),
        Some(proto::OutboundMode::RegistryOnly) => Some(Some(OutboundMode::RegistryOnly)),
    };
    known(mode, from, "outbound")
}

pub(super) fn encode_settings(from: &MeshSettings) -> proto::MeshSettings {
    proto::MeshSettings {
        outbound: mode(Some(from.outbound)),
        access_log: from.access_log,
        access_log_format: optional(&from.access_log_format),
        domain: text(&from.domain),
        root_namespace: text(&from.root_namespace),
    }
}

pub(super) fn decode_settings(from: proto::MeshSettings) -> Read<MeshSettings> {
    Ok(MeshSettings {
        outbound: known(read_mode(from.outbound)?, from.outbound, "outbound")?,
        access_log: from.access_log,
        access_log_format: from.access_log_format.map(Into::into),
        domain: named(&from.domain, "domain")?,
        root_namespace: named(&from.root_namespace, "root_namespace")?,
    })
}

pub(super) fn encode_scope(from: &SidecarScope) -> proto::SidecarScope {
    let host = |h: &EgressHost| proto::EgressHost {
        namespace: optional(&h.namespace),
        host: text(&h.host),
        port: h.port.unwrap_or(0).into(),
    };
    proto::SidecarScope {
        origin: origin(&from.origin),
        workload_selector: map(&from.workload_selector),
        egress: from.egress.as_ref().map(|list| proto::Egress {
            hosts: list.iter().map(host).collect(),
        }),
        outbound: mode(from.outbound),
    }
}

pub(super) fn decode_scope(from: proto::SidecarScope) -> Read<SidecarScope> {
    let host = |h: proto::EgressHost| {
        Ok(EgressHost {
            namespace: h.namespace.map(Into::into),
            host: named(&h.host, "host")?,
            port: optional_port(h.port, "port")?,
        })
    };
    let egress = from
        .egress
        .map(|e| each(e.hosts, "hosts", host).within("egress"));
    Ok(SidecarScope {
        origin: read_origin(from.origin)?,
        workload_selector: labels(from.workload_selector),
        egress: egress.transpose()?,
        outbound: read_mode(from.outbound)?,
    })
}
