//! Tells in sentences what a proxy would do with a call, by asking the proxy's own decisions.

mod choices;
mod hosts;
mod url;
mod words;

use super::authz::{self, RequestFacts, Ruling, Token, Verdict};
use super::canonical::path;
use super::cluster::Cluster;
use super::host::canonical;
use super::limits::{LimitFacts, met};
use super::peers::{PeerMode, peer_mode};
use super::plan::{
    ConnectionFacts, ConnectionPlan, Direction, Fault, FaultReason, GatewayTls, Peer, RequestHead,
    RequestPlan, TcpPlan,
};
use super::snapshot::Snapshot;
use super::{connection, gateway_decrypted, gateway_tls, request, secured, server_name};
use crate::identity::SpiffeId;
use crate::security::MtlsMode;
use choices::choices;
use hosts::rules_of;
use http::HeaderMap;
use lateen_base::Str;
use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use url::{Url, own_address, parse, resolve};
use words::{accepted, effects, limited, mutual, route, secured_by, traffic, verdict};

pub use choices::Choice;
pub use url::BadUrl;
pub use words::sentence;

/// Who makes a call, as the server's side sees it.
#[derive(Debug, Clone, Default)]
pub struct Caller<'a> {
    /// What its certificate proves; absent: plain text, or at a gateway no certificate of the mesh.
    pub identity: Option<SpiffeId>,
    /// Its address; absent: an address of the proxy's own.
    pub address: Option<IpAddr>,
    /// The client's address as trusted proxies tell it; absent: `address`.
    pub remote: Option<IpAddr>,
    /// The server name of its mutual TLS; empty: none.
    pub server_name: &'a str,
    /// Its verified token; absent: none.
    pub token: Option<&'a Token>,
}

/// A call to try.
#[derive(Debug, Clone)]
pub struct Call<'a> {
    /// From which side: `Outbound` for a client's sidecar, `Gateway` for an ingress, `Inbound` for the server's sidecar.
    pub direction: Direction,
    /// Method.
    pub method: &'a http::Method,
    /// `http://host[:port]/path`, `https://…` (TLS passed through) or `tcp://host:port`.
    pub url: &'a str,
    /// The port that is called where it is not the URL's: at a server's sidecar, the application's.
    pub port: Option<u16>,
    /// Headers beside `Host`.
    pub headers: &'a HeaderMap,
    /// Chance; absent: the first destination of positive weight is shown as the plan.
    pub dice: Option<u64>,
    /// Who calls, where the proxy is the server's sidecar or a gateway.
    pub caller: Caller<'a>,
}

/// What would happen.
#[derive(Debug, Clone, PartialEq)]
pub struct Simulation {
    /// Every step up to the choice of a destination, one sentence each, in order.
    pub steps: Vec<String>,
    /// Where the client's connection would go, as its resolver sees it.
    pub destination: SocketAddr,
    /// The decision on the connection: that on accept, or, where it turned out not to be HTTP, what becomes of it.
    pub connection: ConnectionPlan,
    /// Whether the server's port wants mutual TLS; absent for what goes out, and at gateways.
    pub mode: Option<PeerMode>,
    /// What policies say; absent for what goes out, and when it does not get that far.
    pub ruling: Option<Ruling>,
    /// The decision on the request; absent when the connection is not HTTP. A request that policies deny is refused.
    pub request: Option<RequestPlan>,
    /// Everything the traffic can go to, with its share.
    pub choices: Vec<Choice>,
}

/// Says what `snapshot`'s proxy does with `call`.
///
/// # Errors
/// The URL has no known scheme, no host, or (`tcp`) no port.
pub fn simulate(snapshot: &Snapshot, call: &Call<'_>) -> Result<Simulation, BadUrl> {
    let mut url = parse(call.url)?;
    url.port = call.port.unwrap_or(url.port);
    let mut steps = Vec::new();
    let destination = resolve(snapshot, call.direction, &url, &mut steps);
    let source = call.caller.address.unwrap_or_else(|| own_address(snapshot));
    let facts = ConnectionFacts {
        direction: call.direction,
        source: SocketAddr::new(source, 0),
        destination,
    };
    let mut case = Case {
        snapshot,
        facts,
        call,
        url,
        dice: call.dice.unwrap_or(0),
        peer: Peer::default(),
    };
    let mut simulation = Simulation {
        steps,
        destination,
        connection: connection(snapshot, &facts, case.dice),
        mode: None,
        ruling: None,
        request: None,
        choices: Vec::new(),
    };
    if let Direction::Inbound = call.direction {
        simulation.inbound(&mut case);
    }
    let accepted = accepted(&simulation.connection);
    simulation
        .steps
        .push(format!("Connection to {destination}: {accepted}."));
    simulation.carry(&mut case);
    Ok(simulation)
}

/// A call with what is known of it.
struct Case<'a> {
    snapshot: &'a Snapshot,
    facts: ConnectionFacts,
    call: &'a Call<'a>,
    url: Url<'a>,
    dice: u64,
    peer: Peer,
}

impl<'a> Case<'a> {
    fn request<'h>(&self, head: &RequestHead<'h>) -> RequestFacts<'h>
    where
        'a: 'h,
    {
        RequestFacts {
            head: *head,
            remote: self.call.caller.remote.unwrap_or(self.facts.source.ip()),
            token: self.call.caller.token,
        }
    }
}

impl Simulation {
    /// Mutual TLS at a server's sidecar.
    fn inbound(&mut self, case: &mut Case<'_>) {
        let port = case.facts.destination.port();
        let mode = peer_mode(case.snapshot, &case.facts);
        self.steps.push(mutual(port, &mode));
        match (&case.call.caller.identity, mode.mode) {
            (Some(identity), MtlsMode::Strict | MtlsMode::Permissive) => {
                let http = case.url.scheme == "http";
                let alpn = if http { "istio-http/1.1" } else { "istio" };
                case.peer = Peer {
                    identity: Some(identity.clone()),
                    server_name: canonical(case.call.caller.server_name).as_ref().into(),
                    alpn: alpn.into(),
                    tls: true,
                };
                self.connection = secured(case.snapshot, &case.facts, alpn, case.dice);
            }
            (Some(_), MtlsMode::Disable) => {
                let note = "Mutual TLS does not end here: the caller proves nothing.";
                self.steps.push(note.to_owned());
            }
            (None, MtlsMode::Strict) => {
                self.connection = ConnectionPlan::Tcp(TcpPlan::Refuse(Fault {
                    reason: FaultReason::NotMutualTls,
                    origin: mode.origin.clone(),
                    subject: format!("port {port}"),
                }));
            }
            (None, _) => {}
        }
        self.mode = Some(mode);
    }

    /// What becomes of the connection.
    fn carry(&mut self, case: &mut Case<'_>) {
        match (self.connection.clone(), case.url.scheme) {
            (ConnectionPlan::Http | ConnectionPlan::Detect(_), "http") => self.http(case),
            (ConnectionPlan::Tls(_), "https") => self.gateway_tls(case),
            (
                ConnectionPlan::Sni(_) | ConnectionPlan::Detect(_) | ConnectionPlan::Http,
                "https",
            ) => {
                let name = canonical(case.url.authority);
                let plan = server_name(case.snapshot, &case.facts, &name, case.dice);
                self.passed(case, &name, &plan);
            }
            (ConnectionPlan::Http, _) => {
                let note = "The port speaks HTTP: bytes that are not HTTP are answered with 400.";
                self.steps.push(note.to_owned());
            }
            (
                ConnectionPlan::Tcp(plan)
                | ConnectionPlan::Detect(plan)
                | ConnectionPlan::Sni(plan)
                | ConnectionPlan::Tls(plan),
                _,
            ) => self.bytes(case, &plan),
        }
    }

    fn gateway_tls(&mut self, case: &mut Case<'_>) {
        let name = canonical(case.url.authority);
        match gateway_tls(case.snapshot, &case.facts, Some(&name), case.dice) {
            GatewayTls::Terminate { key, server, .. } => {
                self.steps.push(format!(
                    "TLS with server name {name:?} ends here: {}, mode {:?}.",
                    server.origin, key.mode
                ));
                case.peer = Peer {
                    identity: case.call.caller.identity.clone(),
                    server_name: name.as_ref().into(),
                    alpn: Str::default(),
                    tls: true,
                };
                match gateway_decrypted(case.snapshot, &case.facts, Some(&name), case.dice) {
                    ConnectionPlan::Http | ConnectionPlan::Detect(_) => self.http(case),
                    ConnectionPlan::Tcp(plan)
                    | ConnectionPlan::Sni(plan)
                    | ConnectionPlan::Tls(plan) => self.bytes(case, &plan),
                }
            }
            GatewayTls::Passthrough(plan) => self.passed(case, &name, &plan),
            GatewayTls::Refuse(fault) => self.bytes(case, &TcpPlan::Refuse(fault)),
        }
    }

    /// TLS that does not end here, with what its first bytes tell.
    fn passed(&mut self, case: &mut Case<'_>, name: &str, plan: &TcpPlan) {
        self.steps
            .push(format!("TLS with server name {name:?} is passed through."));
        case.peer.server_name = name.into();
        self.bytes(case, plan);
    }

    fn http(&mut self, case: &Case<'_>) {
        let (snapshot, facts) = (case.snapshot, &case.facts);
        let mode = snapshot.mesh().path_normalization;
        let path = path(mode, case.url.path).unwrap_or(Cow::Borrowed(case.url.path));
        if path != case.url.path {
            self.steps
                .push(format!("Path {} is taken as {path}.", case.url.path));
        }
        let head = RequestHead {
            method: case.call.method,
            authority: case.url.authority,
            path: &path,
            scheme: case.url.scheme,
            headers: case.call.headers,
            token: case.call.caller.token,
        };
        let rules = rules_of(case, &canonical(case.url.authority), &mut self.steps);
        if let Some(fault) = self.authorize(case, &head) {
            let plan = RequestPlan::Refuse(fault);
            self.describe(&plan, &head);
            self.request = Some(plan);
            return;
        }
        if let Some((rule, _, _)) = rules.and_then(|rules| rules.find(&head)) {
            self.choices = choices(rule);
        }
        let plan = request(snapshot, facts, &case.peer, &head, case.dice);
        let limits = LimitFacts::of(case.request(&head), &plan);
        let limits = met(snapshot, facts, &case.peer, &limits);
        self.steps.extend(limits.iter().map(limited));
        self.describe(&plan, &head);
        self.request = Some(plan);
    }

    /// What policies say of a request; the refusal when they deny it.
    fn authorize(&mut self, case: &Case<'_>, head: &RequestHead<'_>) -> Option<Fault> {
        let facts = case.request(head);
        if case.facts.direction == Direction::Outbound {
            return None;
        }
        let ruling = authz::authorize(case.snapshot, &case.facts, &case.peer, &facts);
        self.ruled(case, ruling)
    }

    fn ruled(&mut self, case: &Case<'_>, ruling: Ruling) -> Option<Fault> {
        let who = match &case.peer.identity {
            Some(identity) => identity.principal().to_owned(),
            None => "a caller without identity".to_owned(),
        };
        self.steps.extend(verdict(&who, &ruling));
        let fault = match &ruling.verdict {
            Verdict::Deny(denied) => Some(Fault {
                reason: FaultReason::Denied,
                origin: denied.policy.as_ref().map(|m| m.policy.clone()),
                subject: denied.reason.clone(),
            }),
            Verdict::Allow | Verdict::Ask(_) => None,
        };
        self.ruling = Some(ruling);
        fault
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
                self.steps.extend(effects(&plan.mirrors, &plan.route));
                self.forward(&plan.cluster);
            }
            RequestPlan::Redirect {
                redirect,
                route: by,
                ..
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

    fn bytes(&mut self, case: &Case<'_>, plan: &TcpPlan) {
        match plan {
            TcpPlan::Forward { cluster, origin } => {
                if case.facts.direction != Direction::Outbound {
                    let ruling = authz::admit(case.snapshot, &case.facts, &case.peer);
                    if let Some(fault) = self.ruled(case, ruling) {
                        self.refuse(fault);
                        return;
                    }
                }
                let by = match origin {
                    Some(origin) => format!("Bytes follow {origin}."),
                    None => "No VirtualService concerns these bytes.".to_owned(),
                };
                self.steps.push(by);
                self.connection = ConnectionPlan::Tcp(plan.clone());
                self.forward(cluster);
            }
            TcpPlan::Refuse(fault) => self.refuse(fault.clone()),
        }
    }

    /// The end of a connection that is not HTTP.
    fn refuse(&mut self, fault: Fault) {
        let text = sentence(&fault);
        self.steps.push(format!("Closed with a reset: {text}."));
        self.connection = ConnectionPlan::Tcp(TcpPlan::Refuse(fault));
    }

    fn forward(&mut self, cluster: &Arc<Cluster>) {
        if self.choices.is_empty() {
            self.choices.push(Choice::of(cluster, 100.0));
        }
        self.steps.extend(secured_by(cluster));
        let policy = cluster.service.as_ref().and_then(|s| s.policy.as_ref());
        if let Some(policy) = policy {
            self.steps
                .push(format!("Traffic policy: {policy}, {}.", traffic(cluster)));
        }
    }
}
