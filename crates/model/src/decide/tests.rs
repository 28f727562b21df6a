//! Calls against small meshes: text in, plan out. The language is told in [`mesh`].

mod demand;
mod effects;
mod egress;
mod gateway;
mod hosts;
mod inbound;
mod index;
mod l4;
mod locality;
mod mesh;
mod names;
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
use crate::identity::SpiffeId;
use crate::route::RedirectPort;
use mesh::{Mesh, snapshot};

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
/// mode IP:PORT   secured ALPN IP:PORT   who NAME     the last: DNS
/// ```
fn answer(snapshot: &Snapshot, call: &str) -> String {
    let call = Spoken::read(call);
    let (words, facts, dice) = (&call.words, &call.facts, call.dice);
    match words[0] {
        "mode" => {
            let found = super::peer_mode(snapshot, facts);
            let by = found.origin.map(|o| format!(" by {}", o.name));
            format!("{:?}{}", found.mode, by.unwrap_or_default())
        }
        "secured" => show_connection(&super::secured(snapshot, facts, words[1], dice)),
        "admit" => show_ruling(&authz::admit(snapshot, facts, &call.peer)),
        "tls" => {
            let sni = Some(words[1]).filter(|w| *w != "-");
            show_gateway_tls(&super::gateway_tls(snapshot, facts, sni, dice))
        }
        "inside" => {
            let plan = super::gateway_decrypted(snapshot, facts, Some(words[1]), dice);
            show_connection(&plan)
        }
        "open" => show_connection(&connection(snapshot, facts, dice)),
        "who" => show_known(super::known(snapshot, words[1], &SEARCH.map(str::to_owned))),
        "sni" => show_tcp(&server_name(snapshot, facts, words[1], dice)),
        "may" => call.asked(snapshot, words[1], words[2]),
        method => call.asked(snapshot, method, words[1]),
    }
}

/// Domains that the application's resolver searches.
const SEARCH: [&str; 3] = [
    "default.svc.cluster.local",
    "svc.cluster.local",
    "cluster.local",
];

fn show_known(known: Option<super::Known>) -> String {
    let Some(known) = known else {
        return "-".to_owned();
    };
    let addresses: Vec<_> = known.addresses.iter().map(ToString::to_string).collect();
    let alias = known.alias.map(|alias| format!("{alias}: "));
    format!("{}{}", alias.unwrap_or_default(), addresses.join(" "))
}

/// A call in its parts.
struct Spoken<'a> {
    words: Vec<&'a str>,
    facts: ConnectionFacts,
    dice: u64,
    /// Whether an address was given.
    addressed: bool,
    peer: Peer,
    token: Option<Token>,
    headers: http::HeaderMap,
}

impl<'a> Spoken<'a> {
    fn read(text: &'a str) -> Self {
        let mut words: Vec<_> = text.split_whitespace().collect();
        let direction = match words[0] {
            "inbound" => Direction::Inbound,
            "gateway" => Direction::Gateway,
            _ => Direction::Outbound,
        };
        if direction != Direction::Outbound {
            words.remove(0);
        }
        let mut call = Spoken {
            words: Vec::new(),
            facts: ConnectionFacts {
                direction,
                source: "10.244.0.99:40000".parse().expect("valid"),
                destination: "192.0.2.1:80".parse().expect("valid"),
            },
            dice: 0,
            addressed: false,
            peer: Peer::default(),
            token: None,
            headers: http::HeaderMap::new(),
        };
        for word in &words[1..] {
            call.word(word);
        }
        call.words = words;
        call
    }

    fn word(&mut self, word: &str) {
        let token = &mut self.token;
        if let Some(principal) = word.strip_prefix("as=") {
            let id = SpiffeId::parse(&format!("spiffe://{principal}"));
            self.peer.identity = Some(id.expect("identity"));
            self.peer.tls = true;
        } else if let Some(name) = word.strip_prefix("over=") {
            self.peer.server_name = name.trim_matches('-').into();
            self.peer.tls = true;
        } else if let Some(address) = word.strip_prefix("ip=") {
            self.facts.source.set_ip(address.parse().expect("address"));
        } else if let Some(principal) = word.strip_prefix("jwt=") {
            let (issuer, subject) = principal.rsplit_once('/').expect("issuer/subject");
            let token = token.get_or_insert_default();
            token.issuer = Some(issuer.to_owned());
            token.subject = Some(subject.to_owned());
        } else if let Some(claim) = word.strip_prefix("claim:") {
            let (name, value) = claim.split_once('=').expect("name=value");
            let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
            let claims = &mut token.get_or_insert_default().claims;
            claims.insert(name.to_owned(), value);
        } else if let Some(number) = word.strip_prefix("dice=") {
            self.dice = number.parse().expect("dice");
        } else if let Some(address) = word.strip_prefix("to=") {
            self.facts.destination = address.parse().expect("address");
            self.addressed = true;
        } else if let Ok(address) = word.parse() {
            self.facts.destination = address;
        } else if let Some((name, value)) =
            word.split_once(':').filter(|(_, v)| !v.starts_with("//"))
        {
            let name: http::HeaderName = name.parse().expect("header name");
            let value = value.parse().expect("header value");
            self.headers.append(name, value);
        }
    }

    /// A request, or what policies say of it.
    fn asked(&self, snapshot: &Snapshot, method: &str, url: &str) -> String {
        let (scheme, rest) = url.split_once("://").expect("URL");
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let mut facts = self.facts;
        if !self.addressed {
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
            headers: &self.headers,
            token: self.token.as_ref(),
        };
        if self.words[0] != "may" {
            return show_request(&request(snapshot, &facts, &self.peer, &head, self.dice));
        }
        let asked = authz::RequestFacts {
            head,
            remote: facts.source.ip(),
            token: self.token.as_ref(),
        };
        show_ruling(&authz::authorize(snapshot, &facts, &self.peer, &asked))
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
        Discovery::DynamicDns(_) => format!("{name} @asked"),
        _ => name,
    }
}

/// How a cluster is called: `plain`, `mesh sni=… [required] [to ID]` (of its first endpoint), or `origin MODE [sans=…]`.
fn cluster_tls(snapshot: &Snapshot, name: &str) -> String {
    use super::cluster::{ClusterTls, Discovery};
    let cluster = snapshot.cluster(name).expect("a cluster");
    match &cluster.tls {
        ClusterTls::Plain => "plain".to_owned(),
        ClusterTls::Mesh {
            server_name,
            required,
            ..
        } => {
            let first = match &cluster.discovery {
                Discovery::Endpoints(list) => list.first().and_then(|e| e.identity.as_ref()),
                _ => None,
            };
            let required = if *required { " required" } else { "" };
            let to = first.map(|id| format!(" to {id}")).unwrap_or_default();
            format!("mesh sni={server_name}{required}{to}")
        }
        ClusterTls::Origin(settings) => {
            let sans = match &settings.sans[..] {
                [] => String::new(),
                sans => format!(" sans={}", sans.join(",")),
            };
            format!("origin {:?}{sans}", settings.mode)
        }
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
        RequestPlan::Redirect {
            redirect,
            route,
            response_edits,
        } => {
            let part = |name: &str, value: &Option<lateen_base::Str>| {
                value
                    .as_ref()
                    .map_or(String::new(), |v| format!(" {name}={v}"))
            };
            let port = match redirect.port {
                RedirectPort::Number(port) => format!(" port={port}"),
                RedirectPort::Kept | RedirectPort::Request => String::new(),
            };
            format!(
                "{}{}{}{}{port} by {}{}",
                redirect.status,
                part("uri", &redirect.uri),
                part("authority", &redirect.authority),
                part("scheme", &redirect.scheme),
                route.origin.as_ref().map_or("-", |o| &o.name),
                show_edits(" response", response_edits)
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
    for mirror in &*plan.mirrors {
        let percent = mirror.share.parts() / 10_000;
        text += &format!(" mirror={}:{percent}%", show_cluster(&mirror.cluster));
    }
    text += &show_policy(plan.route.policy.as_deref());
    text + &show_edits(" request", &plan.request_edits)
        + &show_edits(" response", &plan.response_edits)
}

fn show_policy(policy: Option<&super::plan::RoutePolicy>) -> String {
    let mut text = String::new();
    let fault = policy.and_then(|p| p.fault.as_ref());
    if let Some(delay) = fault.and_then(|f| f.delay) {
        text += &format!(" delay={:?}:{}%", delay.delay, delay.share.parts() / 10_000);
    }
    if let Some(abort) = fault.and_then(|f| f.abort) {
        text += &format!(
            " abort={:?}:{}%",
            abort.status,
            abort.share.parts() / 10_000
        );
    }
    if policy.is_some_and(|p| p.cors.is_some()) {
        text += " cors";
    }
    text
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
