//! Sidecar scopes, and the outbound mode that they share with the mesh's settings.

use super::parts::{
    Read, Within, each, known, labels, map, named, optional, optional_port, origin, read_origin,
    text,
};
use lateen_model::mesh::{EgressHost, OutboundMode, SidecarScope};
use lateen_proto::mesh as proto;

pub(super) fn mode(from: Option<OutboundMode>) -> i32 {
    match from {
        None => proto::OutboundMode::Unspecified,
        Some(OutboundMode::AllowAny) => proto::OutboundMode::AllowAny,
        Some(OutboundMode::RegistryOnly) => proto::OutboundMode::RegistryOnly,
        Some(OutboundMode::AllowAnyDynamicDns) => proto::OutboundMode::AllowAnyDynamicDns,
    }
    .into()
}

pub(super) fn read_mode(from: i32) -> Read<Option<OutboundMode>> {
    let mode = match proto::OutboundMode::try_from(from).ok() {
        None => None,
        Some(proto::OutboundMode::Unspecified) => Some(None),
        Some(proto::OutboundMode::AllowAny) => Some(Some(OutboundMode::AllowAny)),
        Some(proto::OutboundMode::RegistryOnly) => Some(Some(OutboundMode::RegistryOnly)),
        Some(proto::OutboundMode::AllowAnyDynamicDns) => {
            Some(Some(OutboundMode::AllowAnyDynamicDns))
        }
    };
    known(mode, from, "outbound")
}

pub(super) fn encode(from: &SidecarScope) -> proto::SidecarScope {
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

pub(super) fn decode(from: proto::SidecarScope) -> Read<SidecarScope> {
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
