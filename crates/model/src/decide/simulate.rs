//! Tells in sentences what a proxy would do with a call, by asking the proxy's own decisions.

mod url;
mod words;

use super::cluster::{Cluster, Discovery};
use super::clusters::Target;
use super::host::canonical;
use super::plan::{
    ConnectionFacts, ConnectionPlan, Direction, Peer, RequestHead, RequestPlan, TcpPlan,
};
use super::routes::{Action, Rule, first_match};
use super::snapshot::Snapshot;
use super::{connection, gateway, outbound, request, server_name};
use crate::workload::Health;
use http::HeaderMap;
use lateen_base::Str;
use std::net::SocketAddr;
use std::sync::Arc;
use url::{Url, own_address, parse, resolve};
use words::{accepted, route};

pub use url::BadUrl;
pub use words::sentence;

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
    /// Every step up to the choice of a destination, one sentence each, in order.
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
            simulation.http((snapshot, &facts), call, &url, dice);
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
            ConnectionPlan::Tcp(plan)
            | ConnectionPlan::Detect(plan)
            | ConnectionPlan::Sni(plan)
            | ConnectionPlan::Tls(plan),
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
        (snapshot, facts): (&Snapshot, &ConnectionFacts),
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
        let plan = request(snapshot, facts, &Peer::default(), &head, dice);
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
            match opened.and_then(|o| gateway::hosts(o, &Peer::default(), host).ok()?.find(host)) {
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
