//! Sentences for plans and refusals.

use crate::decide::plan::{ConnectionPlan, Fault, FaultReason as R, RouteFacts};

pub(super) fn accepted(plan: &ConnectionPlan) -> &'static str {
    match plan {
        ConnectionPlan::Http => "HTTP, decided for each request",
        ConnectionPlan::Tcp(_) => "opaque bytes",
        ConnectionPlan::Detect(_) => "not declared, the first side to speak decides",
        ConnectionPlan::Sni(_) => "TLS, passed through by server name",
        ConnectionPlan::Tls(_) => "TLS, ended or passed through by server name",
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
        R::Overloaded => format!("the proxy is overloaded: {subject}"),
    };
    match &fault.origin {
        Some(origin) => format!("{text} ({origin})"),
        None => text,
    }
}
