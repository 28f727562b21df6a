//! Calls against small meshes: text in, plan out. The language is told in [`mesh`].

mod gateway;
mod hosts;
mod inbound;
mod l4;
mod mesh;
mod policy;
mod routes;
mod security;
mod snapshot;

use super::authz::{self, Token};
use super::plan::{
    ConnectionFacts, ConnectionPlan, Direction, GatewayTls, Peer, RequestHead, RequestPlan, TcpPlan,
};
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

/// A call is one of these, optionally after `inbound` or `gateway`, with `to=IP:PORT`, `dice=N`, `as=PRINCIPAL`,
/// `ip=ADDRESS` (of the client), `jwt=ISSUER/SUBJECT`, `claim:NAME=VALUE`, `over=SNI` and `header:value` after it:
///
/// ```text
/// GET http://host[:port]/path    may GET http://…    the route; what policies say
/// open IP:PORT   admit IP:PORT                       the plan for a connection; what policies say of bytes
/// sni NAME IP:PORT   tls NAME|- IP:PORT   inside NAME IP:PORT
/// mode IP:PORT   secured ALPN IP:PORT
/// ```
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
    let mut from: std::net::IpAddr = "10.244.0.99".parse().expect("valid");
    let mut headers = http::HeaderMap::new();
    let mut peer = Peer::default();
    let mut token: Option<Token> = None;
    for word in &words[1..] {
        if let Some(principal) = word.strip_prefix("as=") {
            let id = crate::identity::SpiffeId::parse(&format!("spiffe://{principal}"));
            peer.identity = Some(id.expect("identity"));
            peer.tls = true;
            continue;
        } else if let Some(name) = word.strip_prefix("over=") {
            peer.server_name = name.trim_matches('-').into();
            peer.tls = true;
            continue;
        } else if let Some(address) = word.strip_prefix("ip=") {
            from = address.parse().expect("address");
            continue;
        } else if let Some(principal) = word.strip_prefix("jwt=") {
            token.get_or_insert_default().principal = Some(principal.to_owned());
            continue;
        } else if let Some((name, value)) =
            word.strip_prefix("claim:").and_then(|c| c.split_once('='))
        {
            let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
            let claims = &mut token.get_or_insert_default().claims;
            claims.insert(name.to_owned(), value);
            continue;
        }
        if let Some(number) = word.strip_prefix("dice=") {
            dice = number.parse().expect("dice");
        } else if let Some(address) = word.strip_prefix("to=") {
            to = address.parse().expect("address");
        } else if let Ok(address) = word.parse() {
            to = address;
        } else if let Some((name, value)) = word
            .split_once(':')
            .filter(|(n, _)| !matches!(*n, "http" | "https"))
        {
            let name: http::HeaderName = name.parse().expect("header name");
            headers.append(name, value.parse().expect("header value"));
        }
    }
    let mut facts = ConnectionFacts {
        direction,
        source: SocketAddr::new(from, 40000),
        destination: to,
    };
    match words[0] {
        "mode" => {
            let found = super::peer_mode(snapshot, &facts);
            let by = found.origin.map(|o| format!(" by {}", o.name));
            format!("{:?}{}", found.mode, by.unwrap_or_default())
        }
        "secured" => show_connection(&super::secured(snapshot, &facts, words[1], dice)),
        "admit" => show_ruling(&authz::admit(snapshot, &facts, &peer)),
        "tls" => {
            let sni = Some(words[1]).filter(|w| *w != "-");
            show_gateway_tls(&super::gateway_tls(snapshot, &facts, sni, dice))
        }
        "inside" => {
            let plan = super::gateway_decrypted(snapshot, &facts, Some(words[1]), dice);
            show_connection(&plan)
        }
        "open" => show_connection(&connection(snapshot, &facts, dice)),
        "sni" => show_tcp(&server_name(snapshot, &facts, words[1], dice)),
        first => {
            let method = if first == "may" { words[1] } else { first };
            let url = words[if first == "may" { 2 } else { 1 }];
            let (scheme, url) = url.split_once("://").expect("URL");
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
                scheme,
                headers: &headers,
            };
            if first == "may" {
                let facts_of_request = authz::RequestFacts {
                    head,
                    remote: from,
                    token: token.as_ref(),
                };
                let ruling = authz::authorize(snapshot, &facts, &peer, &facts_of_request);
                return show_ruling(&ruling);
            }
            show_request(&request(snapshot, &facts, &peer, &head, dice))
        }
    }
}

fn show_connection(plan: &ConnectionPlan) -> String {
    match plan {
        ConnectionPlan::Http => "http".to_owned(),
        ConnectionPlan::Tcp(plan) => format!("tcp {}", show_tcp(plan)),
        ConnectionPlan::Detect(plan) => format!("detect {}", show_tcp(plan)),
        ConnectionPlan::Sni(plan) => format!("sni {}", show_tcp(plan)),
        ConnectionPlan::Tls(plan) => format!("tls {}", show_tcp(plan)),
    }
}

fn show_gateway_tls(plan: &GatewayTls) -> String {
    match plan {
        GatewayTls::Terminate { key, server, then } => {
            let names: Vec<_> = key.credentials.iter().map(|c| &**c).collect();
            let (mode, names) = (key.mode, names.join(","));
            format!("{mode:?} {names} {then:?} by {}", server.origin.name)
        }
        GatewayTls::Passthrough(plan) => format!("pass {}", show_tcp(plan)),
        GatewayTls::Refuse(fault) => show_fault(fault),
    }
}

/// `allow`, `deny [by NAME#RULE]: reason` or `ask PROVIDER,…`; then audits and what a dry run says.
fn show_ruling(ruling: &authz::Ruling) -> String {
    let by = |m: &authz::Matched| format!("{}#{}", m.policy.name, m.rule);
    let mut text = match &ruling.verdict {
        authz::Verdict::Allow => "allow".to_owned(),
        authz::Verdict::Deny(denied) => match &denied.policy {
            Some(matched) => format!("deny by {}", by(matched)),
            None => format!("deny: {}", denied.reason),
        },
        authz::Verdict::Ask(questions) => {
            let names: Vec<_> = questions.iter().map(|q| &*q.provider.name).collect();
            format!("ask {}", names.join(","))
        }
    };
    for policy in &ruling.audits {
        text += &format!(" audit {}", policy.name);
    }
    if let Some(shadow) = &ruling.shadow {
        let word = if shadow.allowed { "allow" } else { "deny" };
        let by = shadow.matched.as_ref().map_or("-".to_owned(), by);
        text += &format!(" dry {word} {by}");
    }
    text
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
