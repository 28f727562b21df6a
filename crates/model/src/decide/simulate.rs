//! Tells in sentences what a proxy would do with a call, by asking the proxy's own decisions.

use super::cluster::{Cluster, Discovery};
use super::clusters::Target;
use super::host::{canonical, port_of};
use super::plan::{
    ConnectionFacts, ConnectionPlan, Direction, Fault, RequestHead, RequestPlan, RouteFacts,
    TcpPlan,
};
use super::routes::{Action, Rule, first_match};
use super::snapshot::Snapshot;
use super::{connection, gateway, outbound, request, server_name};
use crate::workload::Health;
use http::HeaderMap;
use lateen_base::Str;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

/// A call to try.
#[derive(Debug, Clone)]
pub struct Call<'a> {
    /// From which side: `Outbound` for a client's sidecar, `Gateway` for an ingress, `Inbound` for the server's sidecar.
    pub direction: Direction,
    /// Method.
    pub method: &'a http::Method,
    /// `http://host[:port]/path`, `https://…` (TLS passed through) or `tcp://host:port`.
    pub url: &'a str,
    /// Headers beside `Host`.
    pub headers: &'a HeaderMap,
    /// Chance; absent: the first destination of positive weight is shown as the plan.
    pub dice: Option<u64>,
}

/// What would happen.
#[derive(Debug, Clone, PartialEq)]
pub struct Simulation {
    /// Every step, one sentence each, in order.
    pub steps: Vec<String>,
    /// Where the client's connection would go, as its resolver sees it.
    pub destination: SocketAddr,
    /// The decision on accept.
    pub connection: ConnectionPlan,
    /// The decision on the request; absent when the connection is not HTTP.
    pub request: Option<RequestPlan>,
    /// Everything the traffic can go to, with its share.
    pub choices: Vec<Choice>,
}

/// One weighted destination.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// Cluster name.
    pub cluster: Str,
    /// Share in percent.
    pub percent: f64,
    /// Where it leads: endpoint addresses with workload and state, or a sentence.
    pub endpoints: Vec<String>,
    /// Why it cannot be used, when it cannot.
    pub problem: Option<String>,
}

/// The URL cannot be used.
#[derive(Debug, thiserror::Error, PartialEq)]
#[error(
    "{url:?} is not a URL to simulate: {reason}; write http://host[:port]/path, https://host or tcp://host:port"
)]
pub struct BadUrl {
    /// As given.
    pub url: String,
    /// What is wrong.
    pub reason: &'static str,
}

struct Url<'a> {
    scheme: &'a str,
    authority: &'a str,
    path: &'a str,
    port: u16,
}

/// Says what `snapshot`'s proxy does with `call`.
///
/// # Errors
/// The URL has no known scheme, no host, or (`tcp`) no port.
pub fn simulate(snapshot: &Snapshot, call: &Call<'_>) -> Result<Simulation, BadUrl> {
    let url = parse(call.url)?;
    let mut steps = Vec::new();
    let destination = resolve(snapshot, call.direction, &url, &mut steps);
    let facts = ConnectionFacts {
        direction: call.direction,
        source: SocketAddr::new(own_address(snapshot), 0),
        destination,
    };
    let dice = call.dice.unwrap_or(0);
    let plan = connection(snapshot, &facts, dice);
    steps.push(format!("Connection to {destination}: {}.", accepted(&plan)));
    let mut simulation = Simulation {
        steps,
        destination,
        connection: plan,
        request: None,
        choices: Vec::new(),
    };
    match (&simulation.connection, url.scheme) {
        (ConnectionPlan::Http | ConnectionPlan::Detect(_), "http") => {
            simulation.http(snapshot, &facts, call, &url, dice);
        }
        (ConnectionPlan::Sni(_) | ConnectionPlan::Detect(_) | ConnectionPlan::Http, "https") => {
            let name = canonical(url.authority);
            let plan = server_name(snapshot, &facts, &name, dice);
            simulation
                .steps
                .push(format!("TLS with server name {name:?} is passed through."));
            simulation.bytes(&plan);
        }
        (ConnectionPlan::Http, _) => {
            let note = "The port speaks HTTP: bytes that are not HTTP are answered with 400.";
            simulation.steps.push(note.to_owned());
        }
        (
            ConnectionPlan::Tcp(plan) | ConnectionPlan::Detect(plan) | ConnectionPlan::Sni(plan),
            _,
        ) => {
            let plan = plan.clone();
            simulation.bytes(&plan);
        }
    }
    Ok(simulation)
}

impl Simulation {
    fn http(
        &mut self,
        snapshot: &Snapshot,
        facts: &ConnectionFacts,
        call: &Call<'_>,
        url: &Url<'_>,
        dice: u64,
    ) {
        let head = RequestHead {
            method: call.method,
            authority: url.authority,
            path: url.path,
            scheme: "http",
            headers: call.headers,
        };
        let host = canonical(url.authority);
        let rules = rules_of(snapshot, facts, &host, &mut self.steps);
        let found = rules.and_then(|rules| first_match(rules, &head));
        if let Some((rule, _, _)) = found {
            self.weigh(rule);
        }
        let plan = request(snapshot, facts, &head, dice);
        self.describe(&plan, &head);
        self.request = Some(plan);
    }

    fn weigh(&mut self, rule: &Rule) {
        let Action::Forward(list) = &rule.action else {
            return;
        };
        let total: f64 = list.iter().map(|w| f64::from(w.weight)).sum();
        for choice in list {
            let percent = match (list.len(), total > 0.0) {
                (1, _) => 100.0,
                (_, true) => 100.0 * f64::from(choice.weight) / total,
                (_, false) => 0.0,
            };
            let made = match &choice.target {
                Target::Cluster(cluster) => Choice::of(cluster, percent),
                Target::Missing { subject, .. } => Choice {
                    cluster: subject.as_str().into(),
                    percent,
                    endpoints: Vec::new(),
                    problem: choice
                        .target
                        .usable(None)
                        .err()
                        .map(|fault| sentence(&fault)),
                },
            };
            self.choices.push(made);
        }
    }

    fn describe(&mut self, plan: &RequestPlan, head: &RequestHead<'_>) {
        match plan {
            RequestPlan::Forward(plan) => {
                self.steps.push(format!("Route: {}.", route(&plan.route)));
                if let Some(path) = &plan.path {
                    self.steps
                        .push(format!("Path {} becomes {path}.", head.path));
                }
                if let Some(authority) = &plan.authority {
                    self.steps.push(format!("Host becomes {authority}."));
                }
                if let Some(timeout) = plan.timeout {
                    self.steps.push(format!("Timeout: {timeout:?}."));
                }
                self.steps.push(match plan.retries.attempts {
                    0 => "No retries.".to_owned(),
                    n => format!("Up to {n} retries on {}.", plan.retries.retry_on.join(", ")),
                });
                self.forward(&plan.cluster);
            }
            RequestPlan::Redirect {
                redirect,
                route: by,
            } => self.steps.push(format!(
                "Answer: redirect {} by {}.",
                redirect.status,
                route(by)
            )),
            RequestPlan::Direct {
                status, route: by, ..
            } => self
                .steps
                .push(format!("Answer: {status} by {}.", route(by))),
            RequestPlan::Refuse(fault) => self.steps.push(format!(
                "Answer: {} ({}): {}.",
                fault.status(),
                fault.flag(),
                sentence(fault)
            )),
        }
    }

    fn bytes(&mut self, plan: &TcpPlan) {
        match plan {
            TcpPlan::Forward { cluster, origin } => {
                let by = match origin {
                    Some(origin) => format!("Bytes follow {origin}."),
                    None => "No VirtualService concerns these bytes.".to_owned(),
                };
                self.steps.push(by);
                self.forward(cluster);
            }
            TcpPlan::Refuse(fault) => {
                self.steps
                    .push(format!("Closed with a reset: {}.", sentence(fault)));
            }
        }
    }

    fn forward(&mut self, cluster: &Arc<Cluster>) {
        if self.choices.is_empty() {
            self.choices.push(Choice::of(cluster, 100.0));
        }
        let policy = cluster.service.as_ref().and_then(|s| s.policy.as_ref());
        if let Some(policy) = policy {
            self.steps
                .push(format!("Traffic policy: {policy}, {:?}.", cluster.balancer));
        }
        for choice in &self.choices {
            let place = match &choice.problem {
                Some(problem) => problem.clone(),
                None => choice.endpoints.join(", "),
            };
            let line = format!("{:.0}% to {}: {place}.", choice.percent, choice.cluster);
            self.steps.push(line);
        }
    }
}

impl Choice {
    fn of(cluster: &Arc<Cluster>, percent: f64) -> Self {
        let problem = Target::Cluster(cluster.clone()).usable(None).err();
        let endpoints = match &cluster.discovery {
            Discovery::Endpoints(list) => list
                .iter()
                .map(|e| {
                    let state = match e.health {
                        Health::Ready => "",
                        Health::Draining => " (draining)",
                        Health::Unready => " (not ready)",
                    };
                    format!("{} {}{state}", e.address, e.workload.name)
                })
                .collect(),
            Discovery::OriginalDestination => vec!["the address that the client chose".to_owned()],
            Discovery::Dns(names) => names
                .iter()
                .map(|(name, port)| format!("{name}:{port} by DNS"))
                .collect(),
            Discovery::Fixed(address) => vec![address.to_string()],
        };
        Self {
            cluster: cluster.name.clone(),
            percent,
            endpoints,
            problem: problem.map(|fault| sentence(&fault)),
        }
    }
}

/// Rules in force for the host, and a sentence on how they were found.
fn rules_of<'s>(
    snapshot: &'s Snapshot,
    facts: &ConnectionFacts,
    host: &str,
    steps: &mut Vec<String>,
) -> Option<&'s [Arc<Rule>]> {
    let number = facts.destination.port();
    let (text, rules) = match facts.direction {
        Direction::Inbound => ("the application's port, no routes".to_owned(), None),
        Direction::Gateway => {
            let opened = gateway::port(snapshot, facts).map(|(opened, _)| opened);
            match opened.and_then(|o| o.hosts.find(host)) {
                Some(served) => ("served by the gateway".to_owned(), Some(&*served.rules)),
                None => (
                    "no server or VirtualService of the gateway has it".to_owned(),
                    None,
                ),
            }
        }
        Direction::Outbound => match outbound::virtual_host(snapshot, facts, host) {
            Some(found) => {
                let rules = found.rules.as_deref();
                let text = match rules.and_then(|r| r.first()) {
                    Some(rule) => format!("{}, {}", found.domain, rule.table.origin),
                    None => format!("{}, no VirtualService", found.domain),
                };
                (text, rules)
            }
            None => {
                let mode = snapshot.outbound_mode();
                (format!("nobody declares it; outbound mode {mode:?}"), None)
            }
        },
    };
    steps.push(format!("Host {host:?} on port {number}: {text}."));
    rules
}

fn accepted(plan: &ConnectionPlan) -> &'static str {
    match plan {
        ConnectionPlan::Http => "HTTP, decided for each request",
        ConnectionPlan::Tcp(_) => "opaque bytes",
        ConnectionPlan::Detect(_) => "not declared, the first side to speak decides",
        ConnectionPlan::Sni(_) => "TLS, passed through by server name",
    }
}

fn route(facts: &RouteFacts) -> String {
    match (&facts.origin, facts.rule) {
        (Some(origin), Some(rule)) => {
            let name = match &*facts.name {
                "" => String::new(),
                name => format!(" {name:?}"),
            };
            format!("{origin}, rule {}{name}", rule + 1)
        }
        (Some(origin), None) => format!("{origin} ({})", facts.name),
        (None, _) => format!("{} (no VirtualService concerns it)", facts.name),
    }
}

/// One sentence for a refusal: what was looked for, why it failed, and whose object asked for it.
pub fn sentence(fault: &Fault) -> String {
    use super::plan::FaultReason as R;
    let subject = &fault.subject;
    let text = match fault.reason {
        R::NoRoute => format!("no route matches {subject}"),
        R::NoCluster => format!("the destination {subject} does not exist: check host and port"),
        R::NoSubset => {
            format!("{subject} names a subset that no DestinationRule defines")
        }
        R::NoEndpoint => format!("{subject} has no ready endpoint"),
        R::NotInRegistry => {
            format!(
                "{subject} is not in the registry and the outbound mode is REGISTRY_ONLY: add a ServiceEntry"
            )
        }
        R::ConnectFailed => format!("no connection to {subject} could be made"),
        R::UpstreamReset => format!("{subject} closed the connection before an answer"),
        R::Timeout => format!("{subject} did not answer in time"),
        R::BadRequest => format!("the client sent {subject}"),
        R::TooLarge => format!("the request's headers are too large: {subject}"),
    };
    match &fault.origin {
        Some(origin) => format!("{text} ({origin})"),
        None => text,
    }
}

fn parse(text: &str) -> Result<Url<'_>, BadUrl> {
    let bad = |reason| BadUrl {
        url: text.to_owned(),
        reason,
    };
    let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    };
    let authority = authority.rsplit('@').next().unwrap_or(authority);
    if canonical(authority).is_empty() {
        return Err(bad("it has no host"));
    }
    let default = match scheme {
        "http" => Some(80),
        "https" => Some(443),
        "tcp" => None,
        _ => return Err(bad("its scheme is not known")),
    };
    let port = port_of(authority).or(default);
    Ok(Url {
        scheme,
        authority,
        path,
        port: port.ok_or_else(|| bad("it has no port"))?,
    })
}

/// The address that the client's resolver gives: virtual, else an endpoint's, else a stand-in.
fn resolve(
    snapshot: &Snapshot,
    direction: Direction,
    url: &Url<'_>,
    steps: &mut Vec<String>,
) -> SocketAddr {
    let host = canonical(url.authority);
    if direction != Direction::Outbound {
        return SocketAddr::new(own_address(snapshot), url.port);
    }
    if let Ok(ip) = host.parse::<IpAddr>() {
        return SocketAddr::new(ip, url.port);
    }
    // TEST-NET-1 (RFC 5737): an address that no service has.
    let stand_in = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    let Some(visible) = snapshot.service_by_alias(&host, url.port) else {
        steps.push(format!(
            "{host} is no service that this proxy sees: taken for an outside host."
        ));
        return SocketAddr::new(stand_in, url.port);
    };
    let service = &visible.service;
    let target = Target::usable(&snapshot.clusters.of_port(visible, url.port), None).cloned();
    let (ip, port, kind) = match (
        service.addresses.first(),
        target.map(|c| c.discovery.clone()),
    ) {
        (Some(address), _) => (address.ip, url.port, "virtual address"),
        (None, Ok(Discovery::Endpoints(list))) if !list.is_empty() => (
            list[0].address.ip(),
            list[0].address.port(),
            "a pod's address",
        ),
        _ => (stand_in, url.port, "an outside address"),
    };
    steps.push(format!(
        "{host} is service {}; it resolves to {ip} ({kind}).",
        service.key
    ));
    SocketAddr::new(ip, port)
}

fn own_address(snapshot: &Snapshot) -> IpAddr {
    let first = snapshot.scope().addresses.first().copied();
    first.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}
