//! Sentences for plans and refusals.

use crate::decide::authz::{Ruling, Verdict};
use crate::decide::cluster::{Cluster, ClusterTls, Discovery};
use crate::decide::limits::{Check, Met, Values};
use crate::decide::peers::PeerMode;
use crate::decide::plan::{ConnectionPlan, Fault, FaultReason as R, MirrorPlan, RouteFacts};
use crate::route::{AbortStatus, Share};
use crate::security::MtlsMode;
use crate::traffic::{Balancer, HashKey};

pub(super) fn accepted(plan: &ConnectionPlan) -> &'static str {
    match plan {
        ConnectionPlan::Http => "HTTP, decided for each request",
        ConnectionPlan::Tcp(_) => "opaque bytes",
        ConnectionPlan::Detect(_) => "not declared, the first side to speak decides",
        ConnectionPlan::Sni(_) => "TLS, passed through by server name",
        ConnectionPlan::Tls(_) => "TLS, ended or passed through by server name",
    }
}

/// What a server's port wants.
pub(super) fn mutual(port: u16, mode: &PeerMode) -> String {
    let wants = match mode.mode {
        MtlsMode::Disable => "DISABLE, plain text only",
        MtlsMode::Permissive => "PERMISSIVE, it may be or not",
        MtlsMode::Strict => "STRICT, nothing else",
    };
    match &mode.origin {
        Some(origin) => format!("Mutual TLS on port {port}: {wants} ({origin})."),
        None => format!("Mutual TLS on port {port}: {wants} (the default)."),
    }
}

/// How a cluster's endpoints are called; nothing to say of the application beside the proxy.
pub(super) fn secured_by(cluster: &Cluster) -> Option<String> {
    if matches!(cluster.discovery, Discovery::Fixed(_)) {
        return None;
    }
    let text = match (&cluster.tls, &cluster.discovery) {
        (ClusterTls::Plain, _) => "Endpoints are called in plain text.".to_owned(),
        (ClusterTls::Origin(tls), _) => format!("Endpoints are called by TLS ({:?}).", tls.mode),
        (ClusterTls::Mesh { required: true, .. }, _) => {
            "Endpoints are called by mutual TLS, as the DestinationRule says.".to_owned()
        }
        (ClusterTls::Mesh { .. }, Discovery::Endpoints(list)) => {
            let mutual = list.iter().filter(|e| e.identity.is_some()).count();
            match (mutual, list.len()) {
                (0, _) => "Endpoints are called in plain text: none takes mutual TLS.".to_owned(),
                (some, all) if some == all => "Endpoints are called by mutual TLS.".to_owned(),
                (some, all) => format!("{some} of {all} endpoints are called by mutual TLS."),
            }
        }
        (ClusterTls::Mesh { .. }, _) => {
            "Mutual TLS is used where a workload of the mesh answers.".to_owned()
        }
    };
    Some(text)
}

/// How an endpoint is chosen, what may be under way at once, and when a failing endpoint is left out.
pub(super) fn traffic(cluster: &Cluster) -> String {
    let mut parts = vec![match &cluster.balancer {
        Balancer::ConsistentHash(hash) => {
            let key = match &hash.key {
                HashKey::Header(name) => format!("header {name}"),
                HashKey::Cookie(cookie) => format!("cookie {}", cookie.name),
                HashKey::SourceIp => "the client's address".to_owned(),
                HashKey::QueryParameter(name) => format!("query parameter {name}"),
            };
            format!("same endpoint by {key}")
        }
        simple => format!("{simple:?}"),
    }];
    let ranks = cluster.discovery.endpoints().iter();
    if let Some(last) = ranks.map(|e| e.priority).max().filter(|last| *last > 0) {
        parts.push(format!("near ones first in {} ranks", last + 1));
    }
    let pool = &cluster.settings.pool;
    let limits = [
        (pool.max_connections, "connections"),
        (pool.max_pending, "waiting requests"),
        (pool.max_requests, "requests"),
        (pool.max_retries, "retries"),
    ];
    let limits = limits.into_iter();
    parts.extend(limits.filter_map(|(most, what)| Some(format!("at most {} {what}", most?))));
    if let Some(outlier) = &cluster.settings.outlier {
        parts.push(match outlier.consecutive_5xx {
            0 => "failing endpoints left out".to_owned(),
            errors => format!("endpoints left out after {errors} errors"),
        });
    }
    parts.join(", ")
}

/// What policies say, and what those that are tried dry would say.
pub(super) fn verdict(who: &str, ruling: &Ruling) -> Vec<String> {
    let mut lines: Vec<_> = ruling
        .audits
        .iter()
        .map(|policy| format!("Audit: {policy} notes it."))
        .collect();
    lines.push(match &ruling.verdict {
        Verdict::Allow => format!("Authorization: {who} is allowed."),
        Verdict::Deny(denied) => format!("Authorization: {who} is denied: {}.", denied.reason),
        Verdict::Ask(questions) => {
            let names = questions
                .iter()
                .map(|q| format!("{} ({})", q.provider.name, q.matched.policy));
            let names = names.collect::<Vec<_>>().join(", ");
            format!("Authorization: {who} is allowed if the provider says so: {names}.")
        }
    });
    if let Some(shadow) = &ruling.shadow {
        let would = if shadow.allowed { "allow" } else { "deny" };
        lines.push(match &shadow.matched {
            Some(matched) => format!("Dry run: would {would} it ({}).", matched.policy),
            None => format!("Dry run: would {would} it."),
        });
    }
    lines
}

/// A limit that counts the request.
pub(super) fn limited(met: &Met) -> String {
    let values = |values: &Values| {
        let pairs = values.iter().map(|(key, value)| format!("{key}={value}"));
        pairs.collect::<Vec<_>>().join(", ")
    };
    let who = format!("{}, {}", met.origin(), met.name());
    match &met.check {
        Check::Local(counters) => {
            let each = counters.iter().map(|counter| {
                let bucket = &counter.bucket;
                let apart = match &counter.values {
                    Some((_, all)) => format!(" for {}", values(all)),
                    None => String::new(),
                };
                format!(
                    "{} requests in {:?}{apart}, {} at once",
                    bucket.tokens, bucket.interval, bucket.burst
                )
            });
            let each = each.collect::<Vec<_>>().join("; ");
            format!("Rate limit of this proxy: {each} ({who}).")
        }
        Check::Global(descriptors) => {
            let each = descriptors.iter().map(values);
            let each = each.collect::<Vec<_>>().join("; ");
            let at = met.service().map_or(String::new(), |service| {
                let away = match service.fail_open {
                    true => "passes",
                    false => "is refused",
                };
                format!(
                    "{}:{} is asked, domain {}, and without its answer the request {away}: ",
                    service.host, service.port, service.domain
                )
            });
            format!("Rate limit: {at}{each} ({who}).")
        }
    }
}

pub(super) fn route(facts: &RouteFacts) -> String {
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

/// What a rule does beside sending the request: faults, CORS, copies.
pub(super) fn effects(mirrors: &[MirrorPlan], route: &RouteFacts) -> Vec<String> {
    let percent = |share: Share| f64::from(share.parts()) / 10_000.0;
    let mut lines = Vec::new();
    let policy = route.policy.as_deref();
    let fault = policy.and_then(|p| p.fault.as_ref());
    if let Some(delay) = fault.and_then(|f| f.delay) {
        let share = percent(delay.share);
        lines.push(format!("Fault: {share}% are delayed by {:?}.", delay.delay));
    }
    if let Some(abort) = fault.and_then(|f| f.abort) {
        let share = percent(abort.share);
        let status = match abort.status {
            AbortStatus::Http(code) => format!("status {code}"),
            AbortStatus::Grpc(code) => format!("gRPC status {code}"),
        };
        lines.push(format!("Fault: {share}% are answered {status}."));
    }
    if policy.is_some_and(|p| p.cors.is_some()) {
        lines.push("CORS: preflights and answers follow the rule's corsPolicy.".to_owned());
    }
    for mirror in mirrors {
        let share = percent(mirror.share);
        lines.push(format!(
            "Mirror: {share}% are copied to {}.",
            mirror.cluster.name
        ));
    }
    lines
}

/// One sentence for a refusal: what was looked for, why it failed, and whose object asked for it.
pub fn sentence(fault: &Fault) -> String {
    let subject = &fault.subject;
    let text = match fault.reason {
        R::NoRoute => format!("no route matches {subject}"),
        R::NoCluster => format!("the destination {subject} does not exist: check host and port"),
        R::NoSubset => {
            format!("{subject} names a subset that no DestinationRule defines")
        }
        R::NoEndpoint => format!("{subject} has no ready endpoint"),
        R::Undiscovered => format!(
            "the control plane did not say in time what {subject} is, and services are told on demand: see whether it \
             can be reached (lateen proxy-status)"
        ),
        R::NotInRegistry => {
            format!(
                "{subject} is not in the registry and the outbound mode is REGISTRY_ONLY: add a ServiceEntry"
            )
        }
        R::ConnectFailed => format!("no connection to {subject} could be made"),
        R::UpstreamReset => format!("{subject} closed the connection before an answer"),
        R::Overflow => format!("{subject} has as much under way as its DestinationRule allows"),
        R::UpstreamProtocol => format!("{subject} answered something that is no answer"),
        R::Timeout => format!("{subject} did not answer in time"),
        R::BadRequest => format!("the client sent {subject}"),
        R::TooLarge => format!("the request's headers are too large: {subject}"),
        R::BodyTooLarge => format!("the request's body is too large: {subject}"),
        R::Denied => format!("RBAC: access denied: {subject}"),
        R::Unauthenticated => format!("the token is not accepted: {subject}"),
        R::AuthzRefused => format!("external authorization refused: {subject}"),
        R::AuthzUnavailable => format!("external authorization cannot be asked: {subject}"),
        R::NotMutualTls => {
            format!("{subject} takes mutual TLS only, and the client did not use it")
        }
        R::HandshakeFailed => format!("the TLS handshake failed: {subject}"),
        R::Misdirected => format!("the connection's server name is another server's: {subject}"),
        R::RateLimited => format!("a limit is used up: {subject}"),
        R::RateLimitUnavailable => format!("the rate-limit service cannot be asked: {subject}"),
        R::Overloaded => format!("the proxy is overloaded: {subject}"),
    };
    match &fault.origin {
        Some(origin) => format!("{text} ({origin})"),
        None => text,
    }
}
