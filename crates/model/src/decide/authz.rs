//! Who may do what: the verdict of AuthorizationPolicies on a connection or a request.
//!
//! ```text
//! policies for this proxy --compile--> Authz (in the Snapshot)
//! admit(&Snapshot, &ConnectionFacts, &Peer) -> Ruling             (on accept, and again when policy changes)
//! authorize(&Snapshot, &ConnectionFacts, &Peer, &RequestFacts) -> Ruling
//! ```
//! CUSTOM is asked first, then DENY, then ALLOW (Istio). Asking is the caller's business.

mod affix;
mod attribute;
mod index;
mod rules;
mod template;
mod values;
mod verdict;

use super::canonical;
use super::plan::{ConnectionFacts, Direction, Peer, RequestHead};
use super::snapshot::Snapshot;
use crate::mesh::AuthzProvider;
use crate::name::Origin;
use attribute::{Facts, Value};
use lateen_base::Str;
use std::net::IpAddr;
use std::sync::Arc;

pub(super) use verdict::Authz;

/// A request as policies see it: the same canonical form that routing uses.
#[derive(Debug, Clone, Copy)]
pub struct RequestFacts<'a> {
    /// The head, its path normalised.
    pub head: RequestHead<'a>,
    /// The client's address as trusted proxies tell it; the peer's own without such.
    pub remote: IpAddr,
    /// The verified token; absent: the request has none.
    pub token: Option<&'a Token>,
}

/// A verified token.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Token {
    /// The claim `iss`. Without control characters: verifiers refuse tokens with them.
    pub issuer: Option<String>,
    /// The claim `sub`. As above.
    pub subject: Option<String>,
    /// The claim `aud`.
    pub audiences: Vec<String>,
    /// The claim `azp`.
    pub presenter: Option<String>,
    /// Every claim. Claims that are lists separated by spaces are arrays here.
    pub claims: serde_json::Map<String, serde_json::Value>,
}

impl Token {
    /// `issuer/subject`; absent when either is missing or empty.
    pub fn principal(&self) -> Option<String> {
        let (issuer, subject) = self.issuer_and_subject()?;
        Some(format!("{issuer}/{subject}"))
    }

    fn issuer_and_subject(&self) -> Option<(&str, &str)> {
        let given = |claim: &'_ Option<String>| claim.as_deref().is_some_and(|c| !c.is_empty());
        let both = given(&self.issuer) && given(&self.subject);
        both.then_some(())?;
        self.issuer.as_deref().zip(self.subject.as_deref())
    }
}

/// Whether a claim of `token` says yes to `test`: its text, or one of its list. `path` goes from the outermost key inwards.
pub(super) fn has_claim(token: &Token, path: &[Str], test: impl Fn(&str) -> bool) -> bool {
    attribute::claim(token, path, |value| match value {
        Value::Text(text) => test(text),
        Value::Host(_) | Value::Ip(_) | Value::Port(_) => false,
    })
}

/// What policies say.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Ruling {
    /// Whether it may go on.
    pub verdict: Verdict,
    /// AUDIT policies that match.
    pub audits: Vec<Origin>,
    /// What dry-run policies would have said; absent: there is none.
    pub shadow: Option<Shadow>,
}

/// Whether a connection or request may go on.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Verdict {
    /// Yes.
    #[default]
    Allow,
    /// No.
    Deny(Denied),
    /// Yes, if every one of these providers says so. DENY and ALLOW policies have been looked at already and agree.
    Ask(Vec<Question>),
}

/// Why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    /// The DENY policy that matches, or the CUSTOM policy that cannot be asked; absent: none of the ALLOW policies matches.
    pub policy: Option<Matched>,
    /// A sentence for logs and `lateen why`, such as `none of the 2 ALLOW policies matches`.
    pub reason: String,
}

/// The rule that decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matched {
    /// The policy.
    pub policy: Origin,
    /// Position of the rule in it, from 0.
    pub rule: usize,
}

impl Matched {
    /// Istio's name of the rule in access logs: `ns[foo]-policy[deny-all]-rule[0]`.
    pub fn name(&self) -> String {
        format!(
            "ns[{}]-policy[{}]-rule[{}]",
            self.policy.namespace, self.policy.name, self.rule
        )
    }
}

/// A provider to be asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// The provider.
    pub provider: Arc<AuthzProvider>,
    /// The CUSTOM rule that matched.
    pub matched: Matched,
}

/// What dry-run policies would have said.
#[derive(Debug, Clone, PartialEq)]
pub struct Shadow {
    /// Whether they would have let it pass.
    pub allowed: bool,
    /// The rule that would have decided; absent: no ALLOW policy matched.
    pub matched: Option<Matched>,
}

/// What policies say of bytes on a connection (TCP, not HTTP: of that each request is authorized), when it comes in
/// and again whenever policies change. ALLOW rules that speak of HTTP never match here, others leave out what they say
/// of HTTP (Istio). What goes out is not authorized.
pub fn admit(snapshot: &Snapshot, facts: &ConnectionFacts, peer: &Peer) -> Ruling {
    let authz = &snapshot.security.authz;
    if facts.direction == Direction::Outbound || authz.policies().is_empty() {
        return Ruling::default();
    }
    let facts = Facts::new(facts, peer, None, "");
    authz.rule(snapshot, &facts)
}

/// Whom CUSTOM policies want to have asked about one request, before anything else is looked at: the providers'
/// headers may be what tokens and other policies need (Istio's order). `Deny`: one of them cannot be asked.
/// [`authorize`] names the same providers again, and those that a token brings in.
pub fn questions(
    snapshot: &Snapshot,
    facts: &ConnectionFacts,
    peer: &Peer,
    request: &RequestFacts<'_>,
) -> Verdict {
    let authz = &snapshot.security.authz;
    if facts.direction == Direction::Outbound || !authz.asks() {
        return Verdict::Allow;
    }
    let mode = snapshot.mesh.path_normalization;
    match canonical::path(mode, request.head.path) {
        Ok(path) => authz.questions(snapshot, &Facts::new(facts, peer, Some(request), &path)),
        // Refused by whoever decides next.
        Err(_) => Verdict::Allow,
    }
}

/// What policies say of one request that came in to a sidecar or a gateway. Its path is looked at in canonical form;
/// one that has none is denied.
pub fn authorize(
    snapshot: &Snapshot,
    facts: &ConnectionFacts,
    peer: &Peer,
    request: &RequestFacts<'_>,
) -> Ruling {
    let authz = &snapshot.security.authz;
    if facts.direction == Direction::Outbound || authz.policies().is_empty() {
        return Ruling::default();
    }
    let mode = snapshot.mesh().path_normalization;
    let checked = canonical::host(request.head.authority)
        .and_then(|_| canonical::path(mode, request.head.path));
    let path = match checked {
        Ok(path) => path,
        Err(reason) => {
            let denied = Denied {
                policy: None,
                reason: format!("policies cannot be applied to {reason}"),
            };
            return Ruling {
                verdict: Verdict::Deny(denied),
                ..Ruling::default()
            };
        }
    };
    let facts = Facts::new(facts, peer, Some(request), &path);
    authz.rule(snapshot, &facts)
}
