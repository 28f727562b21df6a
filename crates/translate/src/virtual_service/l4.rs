//! TLS and TCP rules.

use super::{Reading, labels, port, weighted};
use lateen_api::virtual_service::l4 as written;
use lateen_base::Str;
use lateen_model::route::{L4Match, TcpRoute, TlsRoute, WeightedDestination};

/// Translates a rule for TLS that is passed through.
pub(super) fn tls(r: &Reading<'_>, rule: &written::TlsRoute) -> TlsRoute {
    let condition = |m: &written::TlsMatchAttributes| L4Match {
        // Server names are what clients send: short ones stay short.
        sni_hosts: m
            .sni_hosts
            .iter()
            .map(|n| n.to_ascii_lowercase().into())
            .collect(),
        destination_subnets: texts(&m.destination_subnets),
        port: port(m.port),
        source_labels: labels(&m.source_labels),
        source_namespace: given(m.source_namespace.as_deref()),
        gateways: r.gateways(&m.gateways),
        source_subnet: None,
    };
    TlsRoute {
        matches: rule.matches.iter().map(condition).collect(),
        destinations: destinations(r, &rule.route),
    }
}

/// Translates a rule for opaque TCP.
pub(super) fn tcp(r: &Reading<'_>, rule: &written::TcpRoute) -> TcpRoute {
    let condition = |m: &written::L4MatchAttributes| L4Match {
        sni_hosts: Vec::new(),
        destination_subnets: texts(&m.destination_subnets),
        port: port(m.port),
        source_labels: labels(&m.source_labels),
        source_namespace: given(m.source_namespace.as_deref()),
        gateways: r.gateways(&m.gateways),
        source_subnet: given(m.source_subnet.as_deref()),
    };
    TcpRoute {
        matches: rule.matches.iter().map(condition).collect(),
        destinations: destinations(r, &rule.route),
    }
}

fn destinations(r: &Reading<'_>, routes: &[written::RouteDestination]) -> Vec<WeightedDestination> {
    let all = routes.iter().map(|to| (to, to.weight)).collect();
    weighted(all)
        .into_iter()
        .map(|(to, weight)| WeightedDestination {
            destination: r.destination(&to.destination),
            weight,
        })
        .collect()
}

fn texts(written: &[String]) -> Vec<Str> {
    written.iter().map(|text| text.as_str().into()).collect()
}

fn given(text: Option<&str>) -> Option<Str> {
    text.filter(|text| !text.is_empty()).map(Into::into)
}
