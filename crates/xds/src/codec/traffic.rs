//! Traffic policies.

use super::parts::{
    Read, Within, bad, duration, each, known, labels, map, named, narrow, origin, read_duration,
    read_origin, read_visibility, text, visibility,
};
use super::tls;
use lateen_model::traffic::{Balancer, Subset, TrafficPolicy, TrafficSettings};
use lateen_proto::mesh as proto;

pub(super) fn encode(from: &TrafficPolicy) -> proto::TrafficPolicy {
    proto::TrafficPolicy {
        origin: origin(&from.origin),
        host: text(&from.host),
        visible_to: visibility(&from.visibility),
        workload_selector: map(&from.workload_selector),
        settings: Some(encode_settings(&from.settings)),
        subsets: from
            .subsets
            .iter()
            .map(|s| proto::Subset {
                name: text(&s.name),
                labels: map(&s.labels),
                settings: Some(encode_settings(&s.settings)),
            })
            .collect(),
    }
}

fn encode_settings(from: &TrafficSettings) -> proto::TrafficSettings {
    proto::TrafficSettings {
        balancer: match from.balancer {
            None => proto::Balancer::Unspecified,
            Some(Balancer::LeastRequest) => proto::Balancer::LeastRequest,
            Some(Balancer::RoundRobin) => proto::Balancer::RoundRobin,
            Some(Balancer::Random) => proto::Balancer::Random,
            Some(Balancer::Passthrough) => proto::Balancer::Passthrough,
        }
        .into(),
        connect_timeout: duration(from.connect_timeout),
        tls: from.tls.as_ref().map(tls::encode_client),
        ports: from
            .ports
            .iter()
            .map(|(port, settings)| ((*port).into(), encode_settings(settings)))
            .collect(),
    }
}

pub(super) fn decode(from: proto::TrafficPolicy) -> Read<TrafficPolicy> {
    Ok(TrafficPolicy {
        origin: read_origin(from.origin)?,
        host: named(&from.host, "host")?,
        visibility: read_visibility(from.visible_to),
        workload_selector: labels(from.workload_selector),
        settings: decode_settings(from.settings).within("settings")?,
        subsets: each(from.subsets, "subsets", |s| {
            Ok(Subset {
                name: named(&s.name, "name")?,
                labels: labels(s.labels),
                settings: decode_settings(s.settings).within("settings")?,
            })
        })?,
    })
}

fn decode_settings(from: Option<proto::TrafficSettings>) -> Read<TrafficSettings> {
    let Some(from) = from else {
        return Ok(TrafficSettings::default());
    };
    let balancer = match proto::Balancer::try_from(from.balancer).ok() {
        None => None,
        Some(proto::Balancer::Unspecified) => Some(None),
        Some(proto::Balancer::LeastRequest) => Some(Some(Balancer::LeastRequest)),
        Some(proto::Balancer::RoundRobin) => Some(Some(Balancer::RoundRobin)),
        Some(proto::Balancer::Random) => Some(Some(Balancer::Random)),
        Some(proto::Balancer::Passthrough) => Some(Some(Balancer::Passthrough)),
    };
    Ok(TrafficSettings {
        balancer: known(balancer, from.balancer, "balancer")?,
        connect_timeout: read_duration(from.connect_timeout),
        tls: from.tls.map(tls::decode_client).transpose().within("tls")?,
        ports: from
            .ports
            .into_iter()
            .map(decode_port_settings)
            .collect::<Read<_>>()?,
    })
}

fn decode_port_settings(
    (port, from): (u32, proto::TrafficSettings),
) -> Read<(u16, TrafficSettings)> {
    let field = format!("ports[{port}]");
    if !from.ports.is_empty() {
        return Err(bad(&field, "settings of a port have no ports of their own"));
    }
    let number = narrow(port, &field)?;
    Ok((number, decode_settings(Some(from)).within(&field)?))
}
