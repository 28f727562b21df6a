//! Plans as text: what is done, on the first line; everything that differs from the default, one line each.

use crate::call::Spoken;
use crate::cluster;
use lateen_model::decide::gateway_server;
use lateen_model::decide::plan::{
    ConnectionFacts, ConnectionPlan, Direction, Fault, ForwardPlan, RequestPlan, RouteFacts,
    TcpPlan,
};
use lateen_model::decide::simulate::{Choice, Simulation, sentence, simulate};
use lateen_model::decide::snapshot::Snapshot;
use lateen_model::matching::StringMatch;
use lateen_model::route::{
    AbortStatus, CorsPolicy, HeaderEdit, Redirect, RedirectPort, RetryPolicy, Share,
};
use lateen_model::tls::{ServerTls, TlsVersion};
use std::net::SocketAddr;

/// Conditions of Istio's default retry policy.
const RETRY_ON: [&str; 4] = [
    "connect-failure",
    "refused-stream",
    "unavailable",
    "cancelled",
];

/// What `snapshot`'s proxy does with a call.
pub fn answer(snapshot: &Snapshot, call: &Spoken) -> String {
    let simulation = match simulate(snapshot, &call.call()) {
        Ok(simulation) => simulation,
        Err(error) => return error.to_string(),
    };
    let mut lines = match &simulation.request {
        Some(plan) => request(plan),
        None => connection(&simulation.connection),
    };
    lines.extend(shares(&simulation.choices));
    lines.extend(listener(snapshot, call, &simulation));
    lines.extend(bound(snapshot, call, simulation.destination));
    lines
        .iter()
        .map(|line| short(line))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Without what every name of the cluster ends in.
fn short(line: &str) -> String {
    line.replace(".svc.cluster.local", "")
}

fn connection(plan: &ConnectionPlan) -> Vec<String> {
    match plan {
        ConnectionPlan::Http => vec!["400: the port speaks HTTP".to_owned()],
        ConnectionPlan::Tcp(plan)
        | ConnectionPlan::Detect(plan)
        | ConnectionPlan::Sni(plan)
        | ConnectionPlan::Tls(plan) => match plan {
            TcpPlan::Refuse(fault) => vec![format!("reset {}: {}", fault.flag(), sentence(fault))],
            TcpPlan::Forward { cluster, origin } => {
                let by = origin
                    .as_ref()
                    .map(|o| format!(" by {o}"))
                    .unwrap_or_default();
                let mut lines = vec![format!("tcp {}{by}", cluster::target(cluster))];
                lines.extend(cluster::details(cluster));
                lines
            }
        },
    }
}

fn request(plan: &RequestPlan) -> Vec<String> {
    match plan {
        RequestPlan::Refuse(fault) => vec![refusal(fault)],
        RequestPlan::Redirect {
            redirect,
            route,
            response_edits,
        } => {
            let mut lines = vec![format!("{}{}", redirection(redirect), by(route))];
            lines.extend(edits("response", response_edits));
            lines.extend(policy(route));
            lines
        }
        RequestPlan::Direct {
            status,
            body,
            route,
            response_edits,
        } => {
            let body = String::from_utf8_lossy(body);
            let mut lines = vec![format!("{status} {body:?}{}", by(route))];
            lines.extend(edits("response", response_edits));
            lines.extend(policy(route));
            lines
        }
        RequestPlan::Forward(plan) => forward(plan),
    }
}

fn refusal(fault: &Fault) -> String {
    format!("{} {}: {}", fault.status(), fault.flag(), sentence(fault))
}

fn redirection(redirect: &Redirect) -> String {
    let mut text = redirect.status.to_string();
    let parts = [
        ("scheme", &redirect.scheme),
        ("authority", &redirect.authority),
        ("uri", &redirect.uri),
    ];
    for (name, value) in parts {
        if let Some(value) = value {
            text += &format!(" {name}={value}");
        }
    }
    if let RedirectPort::Number(port) = redirect.port {
        text += &format!(" port={port}");
    }
    text
}

fn by(route: &RouteFacts) -> String {
    match (&route.origin, route.rule) {
        (Some(origin), Some(rule)) => {
            let name = if route.name.is_empty() {
                String::new()
            } else {
                format!(" {:?}", &*route.name)
            };
            format!(" by {origin} rule {}{name}", rule + 1)
        }
        (Some(origin), None) => format!(" by {origin} ({})", route.name),
        (None, _) => format!(" ({})", route.name),
    }
}

fn forward(plan: &ForwardPlan) -> Vec<String> {
    let mut lines = vec![format!(
        "{}{}",
        cluster::target(&plan.cluster),
        by(&plan.route)
    )];
    lines.extend(plan.path.iter().map(|path| format!("path {path}")));
    lines.extend(
        plan.authority
            .iter()
            .map(|host| format!("authority {host}")),
    );
    lines.extend(edits("request", &plan.request_edits));
    lines.extend(edits("response", &plan.response_edits));
    lines.extend(plan.timeout.map(|timeout| format!("timeout {timeout:?}")));
    let is_rule = plan.route.rule.is_some();
    lines.extend(retries(&plan.retries, is_rule));
    lines.extend(policy(&plan.route));
    for mirror in &*plan.mirrors {
        let target = cluster::target(&mirror.cluster);
        lines.push(format!("mirror {} to {target}", share(mirror.share)));
    }
    lines.extend(cluster::details(&plan.cluster));
    lines
}

/// Retries that are not Istio's default.
fn retries(policy: &RetryPolicy, is_rule: bool) -> Option<String> {
    if policy.attempts == 0 {
        return is_rule.then(|| "retries off".to_owned());
    }
    let mut text = format!("retries {}", policy.attempts);
    let usual = policy.retry_on.iter().map(|c| &**c).eq(RETRY_ON);
    if !usual {
        text += &format!(" on {}", policy.retry_on.join(","));
    }
    if let Some(bound) = policy.per_try_timeout {
        text += &format!(", each {bound:?}");
    }
    if let Some(pause) = policy.backoff {
        text += &format!(", backoff {pause:?}");
    }
    if !policy.ignore_previous_hosts {
        text += ", same endpoints again";
    }
    if policy.remote_localities {
        text += ", other localities";
    }
    (text != "retries 2").then_some(text)
}

fn share(share: Share) -> String {
    format!("{}%", f64::from(share.parts()) / 10_000.0)
}

/// Faults and CORS.
fn policy(route: &RouteFacts) -> Vec<String> {
    let mut lines = Vec::new();
    let Some(policy) = &route.policy else {
        return lines;
    };
    let fault = policy.fault.as_ref();
    if let Some(delay) = fault.and_then(|f| f.delay) {
        lines.push(format!("delay {} by {:?}", share(delay.share), delay.delay));
    }
    if let Some(abort) = fault.and_then(|f| f.abort) {
        let status = match abort.status {
            AbortStatus::Http(code) => code.to_string(),
            AbortStatus::Grpc(code) => format!("gRPC status {code}"),
        };
        lines.push(format!("abort {} with {status}", share(abort.share)));
    }
    lines.extend(policy.cors.as_ref().map(cors));
    lines
}

fn cors(policy: &CorsPolicy) -> String {
    let origin = |wanted: &StringMatch| match wanted {
        StringMatch::Exact(text) => text.to_string(),
        StringMatch::Prefix(text) => format!("{text}*"),
        StringMatch::Regex(pattern) => format!("~{}", pattern.source()),
        StringMatch::Present => "*".to_owned(),
    };
    let origins: Vec<_> = policy.allow_origins.iter().map(origin).collect();
    let mut text = format!("cors {}", origins.join(" "));
    let lists = [
        ("methods", &policy.allow_methods),
        ("headers", &policy.allow_headers),
        ("expose", &policy.expose_headers),
    ];
    for (name, list) in lists {
        if !list.is_empty() {
            text += &format!("; {name} {}", list.join(","));
        }
    }
    if let Some(age) = policy.max_age {
        text += &format!("; max age {age:?}");
    }
    if let Some(allowed) = policy.allow_credentials {
        text += &format!("; credentials {allowed}");
    }
    if !policy.forward_unmatched {
        text += "; other preflights end here";
    }
    text
}

fn edits(side: &str, edits: &[HeaderEdit]) -> Vec<String> {
    let mut parts = Vec::new();
    for edit in edits {
        parts.extend(edit.remove.iter().map(|name| format!("-{name}")));
        parts.extend(
            edit.set
                .iter()
                .map(|(name, value)| format!("{name}={value}")),
        );
        parts.extend(
            edit.add
                .iter()
                .map(|(name, value)| format!("{name}+={value}")),
        );
    }
    match parts.is_empty() {
        true => Vec::new(),
        false => vec![format!("{side} {}", parts.join(" "))],
    }
}

/// Shares of several destinations.
fn shares(choices: &[Choice]) -> Option<String> {
    let one = |choice: &Choice| {
        let problem = choice.problem.as_ref().map(|p| format!(" ({p})"));
        format!(
            "{}% {}{}",
            choice.percent,
            choice.cluster,
            problem.unwrap_or_default()
        )
    };
    let list: Vec<_> = choices.iter().map(one).collect();
    (list.len() > 1).then(|| format!("shares {}", list.join(", ")))
}

/// The TLS that a gateway ends.
fn listener(snapshot: &Snapshot, call: &Spoken, simulation: &Simulation) -> Option<String> {
    if call.direction != Direction::Gateway || !call.url.starts_with("https://") {
        return None;
    }
    let host = call.url["https://".len()..]
        .split(['/', ':'])
        .next()
        .unwrap_or_default();
    let facts = ConnectionFacts {
        direction: Direction::Gateway,
        source: SocketAddr::new(simulation.destination.ip(), 0),
        destination: simulation.destination,
    };
    let (key, server, _) = gateway_server(snapshot, &facts, Some(host))?;
    let name = if server.name.is_empty() {
        String::new()
    } else {
        format!(" {:?}", &*server.name)
    };
    Some(format!(
        "TLS ends at {}{name}: {}",
        server.origin,
        server_tls(key)
    ))
}

/// The address that a gateway listens on, where that is not every one.
fn bound(snapshot: &Snapshot, call: &Spoken, destination: SocketAddr) -> Option<String> {
    if call.direction != Direction::Gateway {
        return None;
    }
    let mut listeners = snapshot.gateway_listeners().into_iter();
    let listener = listeners.find(|l| l.bind_port == destination.port())?;
    Some(format!("listens on {} only", listener.address?))
}

fn server_tls(tls: &ServerTls) -> String {
    let mut text = format!("{:?}", tls.mode);
    let mut list = |name: &str, values: &[String]| {
        if !values.is_empty() {
            text += &format!("; {name} {}", values.join(","));
        }
    };
    let texts =
        |list: &[lateen_base::Str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    list("secret", &texts(&tls.credentials));
    list("ca", &texts(tls.ca_credential.as_slice()));
    for files in &tls.files {
        list("files", &cluster::files(files));
    }
    list("names", &texts(&tls.sans));
    list("spki", &texts(&tls.spki));
    list("hash", &texts(&tls.hashes));
    if tls.min != TlsVersion::V1_2 {
        list("from", &[format!("{:?}", tls.min)]);
    }
    if tls.max != TlsVersion::V1_3 {
        list("to", &[format!("{:?}", tls.max)]);
    }
    list("ciphers", &texts(&tls.ciphers));
    list("curves", &texts(&tls.curves));
    if tls.skip_verify {
        text += "; not verified";
    }
    text
}
