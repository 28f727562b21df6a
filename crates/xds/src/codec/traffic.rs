//! Traffic policies.

mod balancer;
mod pool;

pub(super) use balancer::{decode_locality, encode_locality};
pub(super) use pool::{decode as decode_pool, encode as encode_pool};
pub(super) use pool::{decode_keepalive, decode_outlier, encode_keepalive, encode_outlier};

use super::parts::{
    Read, Within, bad, each, labels, map, named, narrow, origin, port, read_origin,
    read_visibility, text, visibility,
};
use super::tls;
use lateen_model::traffic::{
    ProxyProtocol, RetryBudget, Subset, TrafficPolicy, TrafficSettings, Tunnel,
};
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
        balancer: from.balancer.as_ref().map(balancer::encode),
        pool: from.pool.as_ref().map(encode_pool),
        outlier: from.outlier.as_ref().map(encode_outlier),
        tls: from.tls.as_ref().map(tls::encode_client),
        tunnel: from.tunnel.as_ref().map(|tunnel| proto::Tunnel {
            post: tunnel.post,
            host: text(&tunnel.host),
            port: tunnel.port.into(),
        }),
        proxy_protocol: match from.proxy_protocol {
            None => 0,
            Some(ProxyProtocol::V1) => 1,
            Some(ProxyProtocol::V2) => 2,
        },
        retry_budget: from.retry_budget.map(|budget| proto::RetryBudget {
            percent: budget.percent,
            least: budget.least,
        }),
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
    let balancer = from.balancer.map(balancer::decode).transpose();
    let outlier = from.outlier.map(decode_outlier).transpose();
    let tunnel = from.tunnel.map(decode_tunnel).transpose();
    let budget = from.retry_budget.map(decode_budget).transpose();
    Ok(TrafficSettings {
        balancer: balancer.within("balancer")?,
        pool: from.pool.map(decode_pool),
        outlier: outlier.within("outlier")?,
        tls: from.tls.map(tls::decode_client).transpose().within("tls")?,
        tunnel: tunnel.within("tunnel")?,
        proxy_protocol: match from.proxy_protocol {
            0 => None,
            1 => Some(ProxyProtocol::V1),
            2 => Some(ProxyProtocol::V2),
            other => {
                let reason = format!("version {other} is not known to this version");
                return Err(bad("proxy_protocol", reason));
            }
        },
        retry_budget: budget.within("retry_budget")?,
        ports: from
            .ports
            .into_iter()
            .map(decode_port_settings)
            .collect::<Read<_>>()?,
    })
}

fn decode_tunnel(from: proto::Tunnel) -> Read<Tunnel> {
    Ok(Tunnel {
        post: from.post,
        host: named(&from.host, "host")?,
        port: port(from.port, "port")?,
    })
}

fn decode_budget(from: proto::RetryBudget) -> Read<RetryBudget> {
    Ok(RetryBudget {
        percent: between(from.percent, (0.0, 100.0), "percent")?,
        least: from.least,
    })
}

/// A number within bounds, which also says that it is one.
fn between(number: f64, (least, most): (f64, f64), field: &str) -> Read<f64> {
    match number >= least && number <= most {
        true => Ok(number),
        false => Err(bad(field, format!("{number} is out of range"))),
    }
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
