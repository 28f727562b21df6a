//! Services.

use super::parts::{
    Read, each, ip, key, known, named, optional_port, origin, port, read_address, read_ip,
    read_key, read_origin, read_visibility, strs, text, texts, visibility,
};
use lateen_model::service::{
    Address, Location, Port, Protocol, Resolution, Service, TrafficDistribution,
};
use lateen_proto::mesh as proto;

pub(super) fn encode(from: &Service) -> proto::Service {
    proto::Service {
        key: key(&from.key),
        name: text(&from.name),
        origin: origin(&from.origin),
        addresses: from
            .addresses
            .iter()
            .map(|a| proto::Address {
                ip: ip(a.ip),
                prefix: a.prefix.into(),
            })
            .collect(),
        ports: from.ports.iter().map(encode_port).collect(),
        resolution: match from.resolution {
            Resolution::Static => proto::Resolution::Static,
            Resolution::None => proto::Resolution::None,
            Resolution::Dns => proto::Resolution::Dns,
            Resolution::DnsFirst => proto::Resolution::DnsFirst,
            Resolution::DynamicDns => proto::Resolution::DynamicDns,
        }
        .into(),
        location: match from.location {
            Location::Internal => proto::Location::Internal,
            Location::External => proto::Location::External,
        }
        .into(),
        visible_to: visibility(&from.visibility),
        aliases: texts(&from.aliases),
        allocated: from.allocated.iter().map(|a| ip(*a)).collect(),
        sans: texts(&from.sans),
        traffic_distribution: match from.traffic_distribution {
            None => proto::TrafficDistribution::Unspecified,
            Some(TrafficDistribution::SameZone) => proto::TrafficDistribution::SameZone,
            Some(TrafficDistribution::SameNode) => proto::TrafficDistribution::SameNode,
        }
        .into(),
    }
}

fn encode_port(from: &Port) -> proto::Port {
    proto::Port {
        number: from.number.into(),
        name: text(&from.name),
        protocol: encode_protocol(from.protocol).into(),
        target: from.target.unwrap_or(0).into(),
    }
}

pub(super) fn decode(from: proto::Service) -> Read<Service> {
    let resolution = match from.resolution() {
        proto::Resolution::Unspecified => None,
        proto::Resolution::Static => Some(Resolution::Static),
        proto::Resolution::None => Some(Resolution::None),
        proto::Resolution::Dns => Some(Resolution::Dns),
        proto::Resolution::DnsFirst => Some(Resolution::DnsFirst),
        proto::Resolution::DynamicDns => Some(Resolution::DynamicDns),
    };
    // What a later version prefers is not worth refusing a service for.
    let traffic_distribution = match from.traffic_distribution() {
        proto::TrafficDistribution::Unspecified => None,
        proto::TrafficDistribution::SameZone => Some(TrafficDistribution::SameZone),
        proto::TrafficDistribution::SameNode => Some(TrafficDistribution::SameNode),
    };
    let location = match from.location() {
        proto::Location::Unspecified => None,
        proto::Location::Internal => Some(Location::Internal),
        proto::Location::External => Some(Location::External),
    };
    Ok(Service {
        key: read_key(from.key)?,
        name: named(&from.name, "name")?,
        origin: read_origin(from.origin)?,
        addresses: each(from.addresses, "addresses", decode_address)?,
        ports: each(from.ports, "ports", decode_port)?,
        resolution: known(resolution, from.resolution, "resolution")?,
        location: known(location, from.location, "location")?,
        visibility: read_visibility(from.visible_to),
        aliases: strs(from.aliases),
        allocated: each(from.allocated, "allocated", |a| read_ip(&a, ""))?,
        sans: strs(from.sans),
        traffic_distribution,
    })
}

fn decode_address(from: proto::Address) -> Read<Address> {
    let (ip, prefix) = read_address(&from)?;
    Ok(Address { ip, prefix })
}

fn decode_port(from: proto::Port) -> Read<Port> {
    let protocol = decode_protocol(from.protocol());
    Ok(Port {
        number: port(from.number, "number")?,
        protocol: known(protocol, from.protocol, "protocol")?,
        target: optional_port(from.target, "target")?,
        name: from.name.into(),
    })
}

pub(super) fn encode_protocol(from: Protocol) -> proto::Protocol {
    match from {
        Protocol::Http => proto::Protocol::Http,
        Protocol::Http2 => proto::Protocol::Http2,
        Protocol::Grpc => proto::Protocol::Grpc,
        Protocol::GrpcWeb => proto::Protocol::GrpcWeb,
        Protocol::Tls => proto::Protocol::Tls,
        Protocol::Tcp => proto::Protocol::Tcp,
        Protocol::Udp => proto::Protocol::Udp,
        Protocol::Detect => proto::Protocol::Detect,
    }
}

/// None for values that this version does not know.
pub(super) fn decode_protocol(from: proto::Protocol) -> Option<Protocol> {
    match from {
        proto::Protocol::Unspecified => None,
        proto::Protocol::Http => Some(Protocol::Http),
        proto::Protocol::Http2 => Some(Protocol::Http2),
        proto::Protocol::Grpc => Some(Protocol::Grpc),
        proto::Protocol::GrpcWeb => Some(Protocol::GrpcWeb),
        proto::Protocol::Tls => Some(Protocol::Tls),
        proto::Protocol::Tcp => Some(Protocol::Tcp),
        proto::Protocol::Udp => Some(Protocol::Udp),
        proto::Protocol::Detect => Some(Protocol::Detect),
    }
}
