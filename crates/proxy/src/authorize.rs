//! Whether a request may pass: its tokens, the policies, and whoever they have to be asked about.
//!
//! ```text
//! external providers (CUSTOM) -> tokens (JWT) -> decide::authz::authorize -> routing
//! ```
//! Connections that are not HTTP are authorized when they come in.

mod notes;

use crate::connection::Conn;
use crate::exchange::Open;
use crate::external;
use crate::fault;
use crate::head;
use crate::security;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, UPGRADE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, request};
use lateen_base::Str;
use lateen_filters::external::{Answer, Decisions};
use lateen_filters::jwt::{Authenticator, JwtError, Rejected};
use lateen_model::decide::authz::{self, Denied, Matched, RequestFacts, Token, Verdict};
use lateen_model::decide::jwt::JwtRules;
use lateen_model::decide::plan::{ConnectionFacts, Direction, Fault, FaultReason, Peer};
use lateen_model::decide::snapshot::Snapshot;
use lateen_model::mesh::AuthzProvider;
use lateen_net::http::Body;
use notes::Said;
use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

pub(crate) use notes::Noticed;

/// Longest URI in a challenge, in bytes (Envoy).
const LONGEST_REALM: usize = 256;

/// What a worker keeps between requests.
#[derive(Default)]
pub(crate) struct Guard {
    /// Rules for tokens, and what was compiled from them.
    tokens: RefCell<Option<(Arc<JwtRules>, Rc<Authenticator>)>>,
    /// Answers of providers that may be used again.
    pub(crate) decisions: RefCell<Decisions>,
}

/// A request on its way through.
pub(crate) struct Asked<'a> {
    pub(crate) conn: &'a Conn,
    pub(crate) open: &'a mut Open,
    /// Its head after filters, in canonical form.
    pub(crate) head: &'a mut request::Parts,
    pub(crate) authority: &'a str,
    pub(crate) scheme: &'static str,
    /// The client's address as trusted proxies tell it.
    pub(crate) remote: IpAddr,
    pub(crate) body: &'a crate::upstream::Replay,
}

/// What a request that may pass takes along.
#[derive(Default)]
pub(crate) struct Passed {
    /// Providers that said yes, and what they said.
    answers: Vec<(Str, Rc<Answer>)>,
    /// Headers that the route is chosen by, where providers' changes do not count for that; absent: the request's own.
    pub(crate) routing: Option<HeaderMap>,
    /// Its verified token; absent: it has none.
    pub(crate) token: Option<Arc<Token>>,
    /// The request as it was looked at, where it asks for a tunnel: that outlives the policies of now.
    pub(crate) tunnel: Option<Box<Tunnel>>,
}

/// A request that was let in and may become a tunnel, kept for looking at it again when policies change.
pub(crate) struct Tunnel {
    facts: ConnectionFacts,
    peer: Peer,
    head: request::Parts,
    authority: String,
    scheme: &'static str,
    remote: IpAddr,
    token: Option<Arc<Token>>,
    /// Providers that said yes.
    asked: Vec<Str>,
}

/// A request that may not pass, and what its client is told.
pub(crate) struct Refusal {
    pub(crate) fault: Box<Fault>,
    pub(crate) status: u16,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) body: Bytes,
    /// The access log's word.
    pub(crate) details: String,
}

impl Passed {
    /// Changes the request as a provider wants it. Where its changes do not count for routing (Envoy: unless
    /// `clear_route_cache`), the headers before them are kept for that.
    fn take(&mut self, provider: &AuthzProvider, answer: Rc<Answer>, headers: &mut HeaderMap) {
        if let Answer::Allow(allowance) = &*answer
            && allowance.changes_request()
        {
            if provider.clear_route_cache {
                self.routing = None;
            } else if self.routing.is_none() {
                self.routing = Some(headers.clone());
            }
            allowance.apply(headers);
        }
        self.answers.push((provider.name.clone(), answer));
    }

    /// Adds to the response what providers want the client to get.
    pub(crate) fn finish(&self, headers: &mut HeaderMap) {
        for (_, answer) in &self.answers {
            let Answer::Allow(allowance) = &**answer else {
                continue;
            };
            for (name, value) in &allowance.downstream {
                headers.append(name, value.clone());
            }
        }
    }
}

impl Tunnel {
    /// Why it would not be let in now; absent: it would be. What providers said holds as long as the tunnel.
    pub(crate) fn objection(&self, snapshot: &Snapshot) -> Option<Fault> {
        if let Some(fault) = security::must_be_mutual(snapshot, &self.facts, &self.peer) {
            return Some(fault);
        }
        let request = RequestFacts {
            head: head::seen(&self.head, &self.authority, self.scheme),
            remote: self.remote,
            token: self.token.as_deref(),
        };
        let denied = match authz::authorize(snapshot, &self.facts, &self.peer, &request).verdict {
            Verdict::Allow => return None,
            Verdict::Deny(denied) => denied,
            Verdict::Ask(questions) => {
                let is_new = |q: &authz::Question| !self.asked.contains(&q.provider.name);
                let question = questions.into_iter().find(is_new)?;
                Denied {
                    policy: Some(question.matched),
                    reason: "its provider cannot be asked about a tunnel that is open already"
                        .to_owned(),
                }
            }
        };
        Some(security::refusal(&self.facts, &self.peer, denied).fault)
    }
}

impl Refusal {
    /// The answer. gRPC clients are told in their own way.
    pub(crate) fn answer(&self, grpc: bool) -> Response<Body> {
        let text = String::from_utf8_lossy(&self.body);
        let mut answer = fault::told(self.status, &text, grpc);
        if !grpc && !self.body.is_empty() {
            *answer.body_mut() = Body::full(self.body.clone());
        }
        let mut replaced: Vec<&HeaderName> = Vec::new();
        for (name, value) in &self.headers {
            if grpc && *name == CONTENT_TYPE {
                continue;
            }
            if replaced.contains(&name) {
                answer.headers_mut().append(name, value.clone());
            } else {
                replaced.push(name);
                answer.headers_mut().insert(name, value.clone());
            }
        }
        answer
    }
}

/// Asks everybody who has a say. Only what comes in is asked about: what goes out is the business of its receiver.
pub(crate) async fn check(mut asked: Asked<'_>) -> Result<Passed, Refusal> {
    let mut passed = Passed::default();
    if asked.conn.facts.direction == Direction::Outbound {
        return Ok(passed);
    }
    // Before anybody can refuse, since refusals are logged, too.
    asked.hide_tokens();
    let custom = asked.decide(None, authz::questions);
    asked.obey(custom, &mut passed).await?;
    let token = asked.authenticate()?;
    let ruling = asked.decide(token.as_deref(), authz::authorize);
    asked.noticed().write(&ruling);
    let tunnel = asked.tunnel(token.clone());
    passed.token = token;
    asked.obey(ruling.verdict, &mut passed).await?;
    passed.tunnel = tunnel.map(|tunnel| {
        let asked = passed.answers.iter().map(|(name, _)| name.clone());
        Box::new(Tunnel {
            asked: asked.collect(),
            ..tunnel
        })
    });
    Ok(passed)
}

/// A decision about a request.
type Decide<T> = fn(&Snapshot, &ConnectionFacts, &Peer, &RequestFacts<'_>) -> T;

impl Asked<'_> {
    fn decide<T>(&self, token: Option<&Token>, decide: Decide<T>) -> T {
        let conn = self.conn;
        let live = conn.worker.shared.live.load();
        let request = RequestFacts {
            head: head::seen(self.head, self.authority, self.scheme),
            remote: self.remote,
            token,
        };
        decide(&live.snapshot, &conn.facts, &conn.peer, &request)
    }

    /// What is kept of a request that asks for another protocol.
    fn tunnel(&self, token: Option<Arc<Token>>) -> Option<Tunnel> {
        let is_one = self.head.method == Method::CONNECT || self.head.headers.contains_key(UPGRADE);
        is_one.then(|| Tunnel {
            facts: self.conn.facts,
            peer: self.conn.peer.clone(),
            head: self.head.clone(),
            authority: self.authority.to_owned(),
            scheme: self.scheme,
            remote: self.remote,
            token,
            asked: Vec::new(),
        })
    }

    /// Refuses where the verdict does, and asks whoever it names and was not asked yet.
    async fn obey(&mut self, verdict: Verdict, passed: &mut Passed) -> Result<(), Refusal> {
        let questions = match verdict {
            Verdict::Allow => return Ok(()),
            Verdict::Deny(denied) => return Err(self.denied(denied)),
            Verdict::Ask(questions) => questions,
        };
        for question in &questions {
            let provider = &question.provider;
            if passed
                .answers
                .iter()
                .any(|(name, _)| *name == provider.name)
            {
                continue;
            }
            // Rare, and large: requests wait within requests.
            let answer = Box::pin(external::ask(self, question)).await?;
            passed.take(provider, answer, &mut self.head.headers);
        }
        Ok(())
    }

    /// The rules for tokens, and what is compiled from them; absent: there are none.
    fn rules(&self) -> Option<(Arc<JwtRules>, Rc<Authenticator>)> {
        let rules = {
            let live = self.conn.worker.shared.live.load();
            Arc::clone(live.snapshot.jwt_rules(&self.conn.facts))
        };
        if rules.rules.is_empty() {
            return None;
        }
        let authenticator = self.conn.worker.guard.authenticator(&rules);
        Some((rules, authenticator))
    }

    /// Keeps tokens in the query out of logs.
    fn hide_tokens(&mut self) {
        if let Some((_, authenticator)) = self.rules() {
            let path = authenticator.redacted(head::path(self.head));
            self.open.record.path = Some(path.into_owned());
        }
    }

    /// Verifies the request's tokens.
    fn authenticate(&mut self) -> Result<Option<Arc<Token>>, Refusal> {
        let Some((rules, authenticator)) = self.rules() else {
            return Ok(None);
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        match authenticator.authenticate(self.head, now.map_or(0, |d| d.as_secs())) {
            Ok(token) => {
                // Nobody else gets what was taken out.
                self.hide_tokens();
                Ok(token)
            }
            Err(rejected) => Err(self.unauthenticated(rejected, &rules)),
        }
    }

    fn unauthenticated(&self, rejected: Rejected, rules: &JwtRules) -> Refusal {
        let Rejected { why, rule } = rejected;
        let words = why.to_string();
        let mut realm = format!(
            "{}://{}{}",
            self.scheme,
            self.authority,
            self.head.uri.path()
        );
        if let Some((end, _)) = realm.char_indices().nth(LONGEST_REALM) {
            realm.truncate(end);
        }
        let challenge = format!(
            "Bearer realm=\"{}\", error=\"invalid_token\"",
            realm.replace(['"', '\\'], "")
        );
        let challenge = HeaderValue::from_str(&challenge).ok();
        let origin = rule.and_then(|rule| rules.origins.get(rule).cloned());
        let cause = match why {
            JwtError::KeysUnavailable => rule
                .and_then(|rule| unavailable(rules, rule))
                .map_or(words.clone(), |reason| format!("{words}: {reason}")),
            _ => words.clone(),
        };
        Refusal {
            fault: Box::new(Fault {
                reason: FaultReason::Unauthenticated,
                origin,
                subject: cause,
            }),
            status: why.status(),
            headers: challenge
                .map(|c| (WWW_AUTHENTICATE, c))
                .into_iter()
                .collect(),
            details: format!("jwt_authn_access_denied{{{}}}", words.replace(' ', "_")),
            body: words.into(),
        }
    }

    fn denied(&self, denied: Denied) -> Refusal {
        let name = denied.policy.as_ref().map(Matched::name);
        let peer = match &self.conn.peer.identity {
            Some(identity) => identity.uri(),
            None => "an unknown peer",
        };
        Refusal {
            status: 403,
            headers: Vec::new(),
            body: Bytes::from_static(b"RBAC: access denied"),
            details: format!(
                "rbac_access_denied_matched_policy[{}]",
                name.as_deref().unwrap_or("none")
            ),
            fault: Box::new(Fault {
                reason: FaultReason::Denied,
                origin: denied.policy.map(|matched| matched.policy),
                subject: format!(
                    "{peer} at {}: {}",
                    self.conn.facts.source.ip(),
                    denied.reason
                ),
            }),
        }
    }

    fn noticed(&self) -> Noticed<'_> {
        Noticed {
            conn: self.conn,
            record: &self.open.record,
            request: Some(Said {
                head: self.head,
                authority: self.authority,
                remote: self.remote,
            }),
        }
    }
}

fn unavailable(rules: &JwtRules, rule: usize) -> Option<String> {
    match &rules.rules.get(rule)?.keys {
        lateen_model::security::JwtKeys::Unavailable { uri, reason } => {
            Some(format!("{uri}: {reason}"))
        }
        lateen_model::security::JwtKeys::Inline(_) => None,
    }
}

impl Guard {
    /// What is compiled from `rules`; made anew only when they are others.
    fn authenticator(&self, rules: &Arc<JwtRules>) -> Rc<Authenticator> {
        let mut held = self.tokens.borrow_mut();
        match &*held {
            Some((same, compiled)) if Arc::ptr_eq(same, rules) => Rc::clone(compiled),
            _ => {
                let compiled = Rc::new(Authenticator::new(&rules.rules));
                *held = Some((Arc::clone(rules), Rc::clone(&compiled)));
                compiled
            }
        }
    }
}
