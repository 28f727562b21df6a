//! A call in parts that live long enough, and what a proxy learns of its caller: by the rules of the proxy's own filters.

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use lateen_filters::jwt::Authenticator;
use lateen_filters::{Client, Context, Edge};
use lateen_model::decide::authz::Token;
use lateen_model::decide::jwt::JwtRules;
use lateen_model::decide::plan::{ConnectionFacts, Direction, Fault, FaultReason, ForwardPlan};
use lateen_model::decide::simulate::{Call, Caller};
use lateen_model::decide::snapshot::Snapshot;
use lateen_model::identity::SpiffeId;
use lateen_model::route::HeaderEdit;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Where proxies note whom they serve.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// A call.
pub struct Request {
    direction: Direction,
    method: Method,
    url: String,
    /// The port that is called, where it is not the URL's.
    port: Option<u16>,
    headers: HeaderMap,
    sender: Sender,
    /// The client's address as trusted proxies tell it.
    remote: Option<IpAddr>,
    token: Option<Arc<Token>>,
}

/// Who a server's sidecar hears from.
#[derive(Debug, Clone, Default)]
pub struct Sender {
    /// What its certificate proves.
    pub identity: Option<SpiffeId>,
    /// Its address.
    pub address: Option<IpAddr>,
    /// The server name of its mutual TLS.
    pub server_name: String,
}

/// What a proxy makes of what it receives, before policies.
#[derive(Debug, Default)]
pub struct Received {
    /// Sentences.
    pub notes: Vec<String>,
    /// Why the token is refused.
    pub refused: Option<Fault>,
}

impl Request {
    /// A call of somebody of whom nothing is known.
    pub fn new(direction: Direction, method: Method, url: &str, headers: HeaderMap) -> Self {
        Self {
            direction,
            method,
            url: url.to_owned(),
            port: None,
            headers,
            sender: Sender::default(),
            remote: None,
            token: None,
        }
    }

    /// The call as decisions take it.
    pub fn borrow(&self) -> Call<'_> {
        Call {
            direction: self.direction,
            method: &self.method,
            url: &self.url,
            port: self.port,
            headers: &self.headers,
            dice: None,
            caller: Caller {
                identity: self.sender.identity.clone(),
                address: self.sender.address,
                remote: self.remote,
                server_name: &self.sender.server_name,
                token: self.token.as_deref(),
            },
        }
    }

    /// The same call as it arrives at a server's sidecar, on `port`. `plan` is what its client's proxy decided; absent:
    /// it is not HTTP there.
    #[must_use]
    pub fn at_server(mut self, plan: Option<&ForwardPlan>, port: u16, sender: Sender) -> Self {
        if let Some(plan) = plan {
            self.rewrite(plan.authority.as_deref(), plan.path.as_deref());
            for edit in &plan.request_edits {
                apply(edit, &mut self.headers);
            }
        }
        if self.direction == Direction::Gateway
            && let Some(remote) = self.remote.or(self.sender.address)
            && let Ok(value) = HeaderValue::from_str(&remote.to_string())
        {
            // Gateways tell the rest of the mesh whom they serve.
            self.headers.append(FORWARDED_FOR, value);
        }
        Self {
            direction: Direction::Inbound,
            port: Some(port),
            sender,
            remote: None,
            token: None,
            ..self
        }
    }

    /// What the proxy of `snapshot` learns of the caller. Tokens that do not travel on are taken out of the call.
    pub fn received_by(&mut self, snapshot: &Snapshot) -> Received {
        let mut received = Received::default();
        if self.direction == Direction::Outbound {
            return received;
        }
        let own = snapshot.scope().addresses.first().copied();
        let source = self.sender.address.or(own);
        let source = SocketAddr::new(source.unwrap_or(Ipv4Addr::LOCALHOST.into()), 0);
        let client = Client {
            is_member: self.sender.identity.is_some(),
            ..Client::default()
        };
        let edge = Edge::of(snapshot.mesh());
        let context = Context::new(self.direction, source, Rc::new(client), edge);
        let remote = context.client_address(&self.headers);
        if remote != source.ip() {
            let note = format!("The client's address is {remote}, as x-forwarded-for tells.");
            received.notes.push(note);
        }
        self.remote = Some(remote);
        let facts = ConnectionFacts {
            direction: self.direction,
            source,
            destination: source,
        };
        self.verify(snapshot.jwt_rules(&facts), &mut received);
        received
    }

    fn verify(&mut self, rules: &JwtRules, received: &mut Received) {
        if rules.rules.is_empty() {
            if self.headers.contains_key(http::header::AUTHORIZATION) {
                let note = "No RequestAuthentication is for this proxy: a token proves nothing.";
                received.notes.push(note.to_owned());
            }
            return;
        }
        let target = parts(&self.url).2.to_owned();
        let Ok(message) = http::Request::builder().uri(target).body(()) else {
            // Its form is refused by whoever decides next.
            return;
        };
        let (mut head, ()) = message.into_parts();
        head.headers = std::mem::take(&mut self.headers);
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let authenticator = Authenticator::new(&rules.rules);
        match authenticator.authenticate(&mut head, now.map_or(0, |d| d.as_secs())) {
            Ok(None) => {}
            Ok(Some(token)) => {
                let who = token.principal();
                let who = who.unwrap_or_else(|| "nobody: it names no issuer and subject".into());
                received.notes.push(format!("The token is good: {who}."));
                self.token = Some(token);
            }
            Err(rejected) => {
                let origin = rejected.rule.and_then(|rule| rules.origins.get(rule));
                received.refused = Some(Fault {
                    reason: FaultReason::Unauthenticated,
                    origin: origin.cloned(),
                    subject: rejected.why.to_string(),
                });
            }
        }
        if let Some(target) = head.uri.path_and_query() {
            self.rewrite(None, Some(target.as_str()));
        }
        self.headers = head.headers;
    }

    fn rewrite(&mut self, authority: Option<&str>, path: Option<&str>) {
        let (scheme, old, target) = parts(&self.url);
        let (authority, path) = (authority.unwrap_or(old), path.unwrap_or(target));
        self.url = format!("{scheme}://{authority}{path}");
    }
}

/// Scheme, host with port, and path with query.
fn parts(url: &str) -> (&str, &str, &str) {
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    match rest.find('/') {
        Some(at) => (scheme, &rest[..at], &rest[at..]),
        None => (scheme, rest, "/"),
    }
}

fn apply(edit: &HeaderEdit, headers: &mut HeaderMap) {
    let named = |name: &str, value: &str| {
        let name: HeaderName = name.parse().ok()?;
        Some((name, HeaderValue::from_str(value).ok()?))
    };
    for name in &edit.remove {
        headers.remove(&**name);
    }
    for (name, value) in edit.set.iter().filter_map(|(n, v)| named(n, v)) {
        headers.insert(name, value);
    }
    for (name, value) in edit.add.iter().filter_map(|(n, v)| named(n, v)) {
        headers.append(name, value);
    }
}

#[cfg(test)]
mod tests;
