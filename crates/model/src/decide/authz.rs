//! Who may do what: the verdict of AuthorizationPolicies on a connection or a request.
//!
//! ```text
//! policies for this proxy --compile--> Authz (in the Snapshot)
//! admit(&Snapshot, &ConnectionFacts, &Peer) -> Ruling             (on accept, and again when policy changes)
//! authorize(&Snapshot, &ConnectionFacts, &Peer, &RequestFacts) -> Ruling
//! ```
//! CUSTOM is asked first, then DENY, then ALLOW (Istio). Asking is the caller's business.

use super::plan::{ConnectionFacts, Direction, Peer, RequestHead};
use super::resources::ResourceSet;
use super::selection::selects;
use super::snapshot::Snapshot;
use crate::mesh::{AuthzProvider, MeshSettings, Scope};
use crate::name::Origin;
use crate::security::AuthorizationPolicy;
use lateen_base::Str;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// What policies say of bytes on a connection (TCP, not HTTP: of that each request is authorized), when it comes in
/// and again whenever policies change. ALLOW rules that speak of HTTP never match here, others leave out what they say
/// of HTTP (Istio). What goes out is not authorized.
pub fn admit(snapshot: &Snapshot, facts: &ConnectionFacts, peer: &Peer) -> Ruling {
    let _ = peer;
    rule(snapshot, facts)
}

/// What policies say of one request that came in to a sidecar or a gateway.
pub fn authorize(
    snapshot: &Snapshot,
    facts: &ConnectionFacts,
    peer: &Peer,
    request: &RequestFacts<'_>,
) -> Ruling {
    let _ = (peer, request);
    rule(snapshot, facts)
}

fn rule(snapshot: &Snapshot, facts: &ConnectionFacts) -> Ruling {
    let mut ruling = Ruling::default();
    if facts.direction != Direction::Outbound && !snapshot.security.authz.policies.is_empty() {
        // Closed until the policies are compiled.
        ruling.verdict = Verdict::Deny(Denied {
            policy: None,
            reason: "policies are there".to_owned(),
        });
    }
    ruling
}

/// The policies of one proxy.
#[derive(Debug, Default)]
pub(super) struct Authz {
    policies: Vec<Arc<AuthorizationPolicy>>,
}

impl Authz {
    /// Collects the policies for a proxy.
    pub fn build(
        set: &ResourceSet,
        (scope, mesh): (&Scope, &MeshSettings),
        _providers: &BTreeMap<Str, Arc<AuthzProvider>>,
        previous: Option<&Arc<Self>>,
    ) -> Arc<Self> {
        let _ = previous;
        let root = &mesh.root_namespace;
        let all = set.authorization_policies.values();
        Arc::new(Self {
            policies: all
                .filter(|p| selects(&p.origin.namespace, &p.selection, scope, root))
                .cloned()
                .collect(),
        })
    }
}

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
    /// `issuer/subject`; absent when either claim is.
    pub principal: Option<String>,
    /// The claim `aud`.
    pub audiences: Vec<String>,
    /// The claim `azp`.
    pub presenter: Option<String>,
    /// Every claim. Claims that are lists separated by spaces are arrays here.
    pub claims: serde_json::Map<String, serde_json::Value>,
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
