//! Calls against small meshes: text in, plan out. The language is told in [`mesh`].

mod gateway;
mod hosts;
mod inbound;
mod l4;
mod mesh;
mod policy;
mod routes;
mod snapshot;

use super::plan::{ConnectionFacts, ConnectionPlan, Direction, RequestHead, RequestPlan, TcpPlan};
use super::snapshot::Snapshot;
use super::{connection, request, server_name};
use mesh::{Mesh, snapshot};
use std::net::SocketAddr;

/// Builds `config` as its proxy sees it and compares each call with its plan.
#[track_caller]
fn check(config: &str, cases: &[(&str, &str)]) {
    let Mesh { set, scope } = mesh::parse(config);
    let snapshot = Snapshot::build(&set, &scope);
    for (call, want) in cases {
        let got = answer(&snapshot, call);
        assert_eq!(got, *want, "\ncall: {call}\nin:\n{config}");
    }
}

/// A call is `GET http://host[:port]/path [to=IP:PORT] [name:value]… [dice=N]`, `open IP:PORT`,
/// `sni NAME IP:PORT`, each optionally after `inbound` or `gateway`.
fn answer(snapshot: &Snapshot, call: &str) -> String {
    let mut words: Vec<_> = call.split_whitespace().collect();
    let direction = match words[0] {
        "inbound" => Direction::Inbound,
        "gateway" => Direction::Gateway,
        _ => Direction::Outbound,
    };
    if direction != Direction::Outbound {
        words.remove(0);
    }
    let mut dice = 0;
    let mut to: SocketAddr = "192.0.2.1:80".parse().expect("valid");
    let mut headers = http::HeaderMap::new();
    for word in &words[1..] {
        if let Some(number) = word.strip_prefix("dice=") {
            dice = number.parse().expect("dice");
        } else if let Some(address) = word.strip_prefix("to=") {
            to = address.parse().expect("address");
        } else if let Ok(address) = word.parse() {
            to = address;
        } else if let Some((name, value)) = word.split_once(':').filter(|(n, _)| *n != "http") {
            let name: http::HeaderName = name.parse().expect("header name");
            headers.append(name, value.parse().expect("header value"));
        }
    }
    let mut facts = ConnectionFacts {
        direction,
        source: "10.244.0.99:40000".parse().expect("valid"),
        destination: to,
    };
    match words[0] {
        "open" => show_connection(&connection(snapshot, &facts, dice)),
        "sni" => show_tcp(&server_name(snapshot, &facts, words[1], dice)),
        method => {
            let url = words[1].strip_prefix("http://").expect("URL");
            let (authority, path) = url.split_at(url.find('/').unwrap_or(url.len()));
            if !words.iter().any(|w| w.starts_with("to=")) {
                let port = super::host::port_of(authority).unwrap_or(80);
                facts.destination.set_port(port);
                if let Ok(ip) = super::host::canonical(authority).parse() {
                    facts.destination.set_ip(ip);
                }
            }
            let head = RequestHead {
                method: &method.parse().expect("method"),
                authority,
                path: if path.is_empty() { "/" } else { path },
                scheme: "http",
                headers: &headers,
            };
            show_request(&request(snapshot, &facts, &head, dice))
        }
    }
}

fn show_connection(plan: &ConnectionPlan) -> String {
    match plan {
        ConnectionPlan::Http => "http".to_owned(),
        ConnectionPlan::Tcp(plan) => format!("tcp {}", show_tcp(plan)),
        ConnectionPlan::Detect(plan) => format!("detect {}", show_tcp(plan)),
        ConnectionPlan::Sni(plan) => format!("sni {}", show_tcp(plan)),
    }
}

fn show_tcp(plan: &TcpPlan) -> String {
    match plan {
        TcpPlan::Forward { cluster, origin } => {
            let by = origin.as_ref().map(|o| format!(" by {}", o.name));
            format!("{}{}", show_cluster(cluster), by.unwrap_or_default())
        }
        TcpPlan::Refuse(fault) => show_fault(fault),
    }
}

/// The cluster's name without the domain; `@pod` when it is bound to the client's choice of address.
fn show_cluster(cluster: &super::cluster::Cluster) -> String {
    use super::cluster::Discovery;
    let name = cluster.name.replace(".svc.cluster.local", "");
    match cluster.discovery {
        Discovery::OriginalDestination if cluster.service.is_some() => format!("{name} @original"),
        Discovery::Fixed(address) => format!("{name} @{address}"),
        _ => name,
    }
}

fn show_fault(fault: &super::plan::Fault) -> String {
    let by = fault.origin.as_ref().map(|o| format!(" by {}", o.name));
    let subject = fault.subject.replace(".svc.cluster.local", "");
    format!("{:?} {subject}{}", fault.reason, by.unwrap_or_default())
}

fn show_request(plan: &RequestPlan) -> String {
    match plan {
        RequestPlan::Refuse(fault) => format!("{} {}", fault.status(), show_fault(fault)),
        RequestPlan::Redirect { redirect, route } => {
            let part = |name: &str, value: &Option<lateen_base::Str>| {
                value
                    .as_ref()
                    .map_or(String::new(), |v| format!(" {name}={v}"))
            };
            format!(
                "{}{}{}{} by {}",
                redirect.status,
                part("uri", &redirect.uri),
                part("authority", &redirect.authority),
                part("scheme", &redirect.scheme),
                route.origin.as_ref().map_or("-", |o| &o.name)
            )
        }
        RequestPlan::Direct {
            status,
            body,
            route,
            response_edits,
        } => format!(
            "{status} {} by {}{}",
            String::from_utf8_lossy(body),
            route.origin.as_ref().map_or("-", |o| &o.name),
            show_edits(" response", response_edits)
        ),
        RequestPlan::Forward(plan) => show_forward(plan),
    }
}

fn show_forward(plan: &super::plan::ForwardPlan) -> String {
    let mut text = show_cluster(&plan.cluster);
    match (&plan.route.origin, plan.route.rule) {
        (Some(origin), Some(rule)) => text += &format!(" by {}#{rule}", origin.name),
        _ => text += &format!(" ({})", plan.route.name),
    }
    if let Some(path) = &plan.path {
        text += &format!(" path={path}");
    }
    if let Some(authority) = &plan.authority {
        text += &format!(" authority={authority}");
    }
    if let Some(timeout) = plan.timeout {
        text += &format!(" timeout={timeout:?}");
    }
    text + &show_edits(" request", &plan.request_edits)
        + &show_edits(" response", &plan.response_edits)
}

fn show_edits(side: &str, edits: &[crate::route::HeaderEdit]) -> String {
    let mut text = String::new();
    for edit in edits {
        for (name, value) in &edit.set {
            text += &format!("{side} {name}={value}");
        }
        for (name, value) in &edit.add {
            text += &format!("{side} {name}+={value}");
        }
        for name in &edit.remove {
            text += &format!("{side} -{name}");
        }
    }
    text
}
