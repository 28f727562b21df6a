//! Sidecar scopes, and the outbound mode that they share with the mesh's settings.

use super::parts::{
    Read, Within, each, ip, known, labels, map, named, optional, optional_port, origin, port,
    read_ip, read_origin, text,
};
use super::{route, service, traffic};
use lateen_model::mesh::{
    EgressHost, IngressEndpoint, IngressListener, OutboundMode, SidecarScope,
};
use lateen_proto::mesh as proto;
use std::net::SocketAddr;

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
        excluded: from.excluded.iter().map(host).collect(),
        egress_proxy: from.egress_proxy.as_ref().map(route::encode_destination),
        ingress: from.ingress.as_ref().map(|list| proto::Ingress {
            listeners: list.iter().map(encode_listener).collect(),
        }),
        inbound_pool: from.inbound_pool.as_ref().map(traffic::encode_pool),
    }
}

fn encode_listener(from: &IngressListener) -> proto::IngressListener {
    use proto::ingress_listener::Endpoint;
    proto::IngressListener {
        port: from.port.into(),
        protocol: service::encode_protocol(from.protocol).into(),
        endpoint: from.endpoint.map(|endpoint| match endpoint {
            IngressEndpoint::Address(address) => Endpoint::Address(proto::SocketAddress {
                ip: ip(address.ip()),
                port: address.port().into(),
            }),
            IngressEndpoint::Instance(port) => Endpoint::InstancePort(port.into()),
        }),
        pool: from.pool.as_ref().map(traffic::encode_pool),
    }
}

fn decode_listener(from: proto::IngressListener) -> Read<IngressListener> {
    use proto::ingress_listener::Endpoint;
    let protocol = service::decode_protocol(from.protocol());
    let endpoint = from.endpoint.map(|endpoint| {
        Ok(match endpoint {
            Endpoint::Address(address) => IngressEndpoint::Address(SocketAddr::new(
                read_ip(&address.ip, "address.ip")?,
                port(address.port, "address.port")?,
            )),
            Endpoint::InstancePort(number) => {
                IngressEndpoint::Instance(port(number, "instance_port")?)
            }
        })
    });
    Ok(IngressListener {
        port: port(from.port, "port")?,
        protocol: known(protocol, from.protocol, "protocol")?,
        endpoint: endpoint.transpose()?,
        pool: from.pool.map(traffic::decode_pool),
    })
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
        excluded: each(from.excluded, "excluded", host)?,
        egress_proxy: match from.egress_proxy {
            None => None,
            to => Some(route::decode_destination(to).within("egress_proxy")?),
        },
        ingress: from
            .ingress
            .map(|list| each(list.listeners, "ingress", decode_listener))
            .transpose()?,
        inbound_pool: from.inbound_pool.map(traffic::decode_pool),
    })
}
