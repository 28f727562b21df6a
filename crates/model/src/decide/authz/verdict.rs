//! The policies of one proxy as a whole: their rules by what a match means, and the verdict.

use super::attribute::Facts;
use super::index::RuleSet;
use super::rules::{Compiled, Target};
use super::{Denied, Matched, Question, Ruling, Shadow, Verdict};
use crate::decide::resources::ResourceSet;
use crate::decide::selection::selects;
use crate::decide::snapshot::Snapshot;
use crate::mesh::{AuthzProtocol, MeshSettings, Scope};
use crate::security::{Action, AuthorizationPolicy};
use lateen_base::Str;
use std::sync::Arc;

/// The policies of one proxy, compiled.
#[derive(Debug, Default)]
pub(in crate::decide) struct Authz {
    /// Oldest first.
    policies: Vec<Arc<AuthorizationPolicy>>,
    /// Trust domains that principals were compiled for, the mesh's own first.
    domains: Vec<Str>,
    requests: Table,
    bytes: Table,
    counts: Counts,
}

/// Numbers of policies.
#[derive(Debug, Default)]
struct Counts {
    allow: usize,
    custom: usize,
    dry_allow: usize,
    dry_deny: usize,
}

/// Rules by what a match means.
#[derive(Debug, Default)]
struct Table {
    custom: RuleSet,
    deny: RuleSet,
    allow: RuleSet,
    audit: RuleSet,
    shadow_deny: RuleSet,
    shadow_allow: RuleSet,
}

impl Authz {
    /// Compiles the policies for a proxy; the same reference as before when they are the same.
    pub fn build(
        set: &ResourceSet,
        (scope, mesh): (&Scope, &MeshSettings),
        previous: Option<&Arc<Self>>,
    ) -> Arc<Self> {
        let root = &mesh.root_namespace;
        let mut policies: Vec<_> = set
            .authorization_policies
            .values()
            .filter(|p| selects(&p.origin.namespace, &p.selection, scope, root))
            .cloned()
            .collect();
        policies.sort_by(|a, b| {
            let key = |p: &AuthorizationPolicy| {
                (
                    p.origin.created,
                    p.origin.namespace.clone(),
                    p.origin.name.clone(),
                )
            };
            key(a).cmp(&key(b))
        });
        let mut domains = vec![mesh.trust_domain.clone()];
        domains.extend(mesh.trust_domain_aliases.iter().cloned());
        let same = |old: &&Arc<Self>| {
            old.domains == domains
                && old.policies.len() == policies.len()
                && old
                    .policies
                    .iter()
                    .zip(&policies)
                    .all(|(a, b)| Arc::ptr_eq(a, b) || a == b)
        };
        if let Some(old) = previous.filter(same) {
            return old.clone();
        }
        let target = |http| Target { mesh, http };
        let count = |action: Action, dry_run| {
            let all = policies.iter();
            all.filter(|p| p.action == action && p.dry_run == dry_run)
                .count()
        };
        Arc::new(Self {
            requests: Table::new(&policies, target(true)),
            bytes: Table::new(&policies, target(false)),
            counts: Counts {
                allow: count(Action::Allow, false),
                custom: policies
                    .iter()
                    .filter(|p| matches!(p.action, Action::Custom { .. }))
                    .count(),
                dry_allow: count(Action::Allow, true),
                dry_deny: count(Action::Deny, true),
            },
            policies,
            domains,
        })
    }

    /// Origins of the policies, with what they do, oldest first.
    pub fn policies(&self) -> &[Arc<AuthorizationPolicy>] {
        &self.policies
    }

    /// What the policies say of a request, or of bytes when the facts have none.
    pub(super) fn rule(&self, snapshot: &Snapshot, facts: &Facts<'_>) -> Ruling {
        let table = match facts.request {
            Some(_) => &self.requests,
            None => &self.bytes,
        };
        let mut audits: Vec<usize> = Vec::new();
        table.audit.each(facts, |rule| {
            if !audits.contains(&rule.policy) {
                audits.push(rule.policy);
            }
            false
        });
        audits.sort_unstable();
        let origin = |at: usize| self.policies[at].origin.clone();
        Ruling {
            verdict: self.verdict(table, snapshot, facts),
            audits: audits.into_iter().map(origin).collect(),
            shadow: self.shadow(table, facts),
        }
    }

    /// Whether any policy is CUSTOM.
    pub(super) fn asks(&self) -> bool {
        self.counts.custom > 0
    }

    /// Whom CUSTOM policies want to have asked about a request.
    pub(super) fn questions(&self, snapshot: &Snapshot, facts: &Facts<'_>) -> Verdict {
        self.ask(&self.requests, snapshot, facts)
    }

    fn verdict(&self, table: &Table, snapshot: &Snapshot, facts: &Facts<'_>) -> Verdict {
        if let Some(rule) = table.deny.first(facts) {
            let matched = self.matched(rule);
            let reason = format!("{} denies it by its rule {}", matched.policy, rule.rule + 1);
            return Verdict::Deny(Denied {
                policy: Some(matched),
                reason,
            });
        }
        if self.counts.allow > 0 && table.allow.first(facts).is_none() {
            return Verdict::Deny(Denied {
                policy: None,
                reason: self.none_matches(),
            });
        }
        self.ask(table, snapshot, facts)
    }

    /// CUSTOM rules that match, each provider once.
    fn ask(&self, table: &Table, snapshot: &Snapshot, facts: &Facts<'_>) -> Verdict {
        let mut found = Vec::new();
        table.custom.each(facts, |rule| {
            found.push((rule.policy, rule.rule, rule));
            false
        });
        found.sort_unstable_by_key(|(policy, rule, _)| (*policy, *rule));
        let mut questions: Vec<Question> = Vec::new();
        for (at, _, rule) in found {
            let policy = &self.policies[at];
            let Action::Custom { provider: name } = &policy.action else {
                continue;
            };
            if questions.iter().any(|q| q.provider.name == *name) {
                continue;
            }
            let reason = match snapshot.provider(name) {
                Some(provider)
                    if facts.request.is_none() && provider.protocol != AuthzProtocol::Grpc =>
                {
                    "can be asked about HTTP only"
                }
                Some(provider) => {
                    questions.push(Question {
                        provider: provider.clone(),
                        matched: self.matched(rule),
                    });
                    continue;
                }
                None => "is not among the mesh's extensionProviders",
            };
            return Verdict::Deny(Denied {
                policy: Some(self.matched(rule)),
                reason: format!("the provider {name:?} of {} {reason}", policy.origin),
            });
        }
        match questions.is_empty() {
            true => Verdict::Allow,
            false => Verdict::Ask(questions),
        }
    }

    fn shadow(&self, table: &Table, facts: &Facts<'_>) -> Option<Shadow> {
        let Counts {
            dry_allow,
            dry_deny,
            ..
        } = self.counts;
        if dry_deny + dry_allow == 0 {
            return None;
        }
        let denied = table.shadow_deny.first(facts);
        let allowed = table.shadow_allow.first(facts);
        Some(Shadow {
            allowed: denied.is_none() && (allowed.is_some() || dry_allow == 0),
            matched: denied.or(allowed).map(|rule| self.matched(rule)),
        })
    }

    /// A sentence that names up to three policies.
    fn none_matches(&self) -> String {
        let allows = self
            .policies
            .iter()
            .filter(|p| p.action == Action::Allow && !p.dry_run);
        let names = allows
            .take(3)
            .map(|p| format!("{}/{}", p.origin.namespace, p.origin.name));
        let names = names.collect::<Vec<_>>().join(", ");
        match self.counts.allow {
            1 => format!("the only ALLOW policy, {names}, does not match"),
            count @ 2..=3 => format!("none of the {count} ALLOW policies matches ({names})"),
            count => format!("none of the {count} ALLOW policies matches ({names}, …)"),
        }
    }

    /// Number of rules for requests that have to be tried each time.
    #[cfg(test)]
    pub fn unfiled(&self) -> usize {
        let table = &self.requests;
        [&table.custom, &table.deny, &table.allow, &table.audit]
            .map(RuleSet::unfiled)
            .into_iter()
            .sum()
    }

    /// Number of DENY rules that requests were tried with so far.
    #[cfg(test)]
    pub fn tried(&self) -> usize {
        self.requests.deny.tried()
    }

    fn matched(&self, rule: &Compiled) -> Matched {
        Matched {
            policy: self.policies[rule.policy].origin.clone(),
            rule: rule.rule,
        }
    }
}

impl Table {
    fn new(policies: &[Arc<AuthorizationPolicy>], target: Target<'_>) -> Self {
        let of = |wanted: fn(&AuthorizationPolicy) -> bool| {
            let mut rules = Vec::new();
            for (at, policy) in policies.iter().enumerate().filter(|(_, p)| wanted(p)) {
                for (number, rule) in policy.rules.iter().enumerate() {
                    rules.extend(target.rule(policy, (at, number), rule));
                }
            }
            RuleSet::new(rules)
        };
        Self {
            // Only ALLOW and DENY can be tried dry (Istio).
            custom: of(|p| matches!(p.action, Action::Custom { .. })),
            audit: of(|p| p.action == Action::Audit),
            deny: of(|p| p.action == Action::Deny && !p.dry_run),
            allow: of(|p| p.action == Action::Allow && !p.dry_run),
            shadow_deny: of(|p| p.action == Action::Deny && p.dry_run),
            shadow_allow: of(|p| p.action == Action::Allow && p.dry_run),
        }
    }
}
