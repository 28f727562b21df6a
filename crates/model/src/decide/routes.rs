//! Route tables compiled for one proxy, port and gateway, and the plan of a request that meets them.

mod index;

use super::clusters::{Clusters, Target};
use super::matcher::{matches, split_path};
use super::plan::{
    Fault, FaultReason, ForwardPlan, MirrorPlan, RequestHead, RequestPlan, RouteFacts, RoutePolicy,
};
use super::registry::Registry;
use super::rewrite;
use crate::matching::{StringMatch, labels_match};
use crate::mesh::Scope;
use crate::route::{
    HeaderEdit, HttpAction, HttpDestination, HttpMatch, HttpRoute, Redirect, RedirectPort,
    RetryPolicy, RouteTable,
};
use lateen_base::Str;
use std::collections::BTreeMap;
use std::sync::Arc;

#[cfg(test)]
pub(super) use index::Found;
pub(super) use index::Rules;

/// Name under which tables mean every sidecar.
pub(super) const MESH: &str = "mesh";

/// Where compiled rules look things up.
pub(super) struct Compiler<'a> {
    pub scope: &'a Scope,
    pub registry: &'a Registry,
    pub clusters: &'a Clusters,
    pub default_retries: &'a Arc<RetryPolicy>,
}

/// One rule, ready to decide.
#[derive(Debug)]
pub(super) struct Rule {
    pub table: Arc<RouteTable>,
    pub index: usize,
    /// Position in the rule's `matches`, and the route name it gives. A rule that matches everything has
    /// one alternative without position.
    pub alternatives: Vec<(Option<usize>, Str)>,
    pub action: Action,
    pub retries: Arc<RetryPolicy>,
    pub mirrors: Arc<[MirrorPlan]>,
    pub policy: Option<Arc<RoutePolicy>>,
    /// The port that clients address.
    port: u16,
}

/// What a rule does, with destinations resolved.
#[derive(Debug)]
pub(super) enum Action {
    Forward(Vec<Weighted>),
    Redirect,
    Direct,
}

/// A weighted destination, resolved.
#[derive(Debug)]
pub(super) struct Weighted {
    pub weight: u32,
    pub target: Target,
    authority: Option<Str>,
    request_edits: Vec<HeaderEdit>,
    response_edits: Vec<HeaderEdit>,
}

impl Compiler<'_> {
    /// The rules of `table` that can apply to this proxy at `port` behind `gateway`.
    pub fn rules(&self, table: &Arc<RouteTable>, port: u16, gateway: &str) -> Vec<Arc<Rule>> {
        let rules = table.http.iter().enumerate();
        rules
            .filter_map(|(index, rule)| {
                let alternatives = self.alternatives(rule, port, gateway);
                (!alternatives.is_empty()).then(|| {
                    Arc::new(Rule {
                        table: table.clone(),
                        index,
                        alternatives,
                        action: self.action(rule, port),
                        retries: self.retries(rule),
                        mirrors: self.mirrors(rule, port),
                        policy: policy(rule),
                        port,
                    })
                })
            })
            .collect()
    }

    fn alternatives(
        &self,
        rule: &HttpRoute,
        port: u16,
        gateway: &str,
    ) -> Vec<(Option<usize>, Str)> {
        if rule.matches.is_empty() {
            return vec![(None, rule.name.clone())];
        }
        let applies = |m: &HttpMatch| {
            m.port.is_none_or(|p| p == port)
                && self.source_fits(m)
                && at_gateway(&m.gateways, gateway)
        };
        rule.matches
            .iter()
            .enumerate()
            .filter(|(_, m)| applies(m))
            .map(|(at, m)| {
                let name = match (rule.name.is_empty(), m.name.is_empty()) {
                    (_, true) => rule.name.clone(),
                    (true, false) => m.name.clone(),
                    (false, false) => format!("{}.{}", rule.name, m.name).into(),
                };
                (Some(at), name)
            })
            .collect()
    }

    fn source_fits(&self, wanted: &HttpMatch) -> bool {
        self.client_fits(&wanted.source_labels, wanted.source_namespace.as_ref())
    }

    /// Whether this proxy is the client that a rule is limited to.
    pub fn client_fits(&self, labels: &BTreeMap<Str, Str>, namespace: Option<&Str>) -> bool {
        labels_match(labels, &self.scope.labels)
            && namespace.is_none_or(|ns| *ns == self.scope.namespace)
    }

    fn action(&self, rule: &HttpRoute, port: u16) -> Action {
        match &rule.action {
            HttpAction::Redirect(_) => Action::Redirect,
            HttpAction::Direct(_) => Action::Direct,
            HttpAction::Forward(list) => Action::Forward(
                list.iter()
                    .map(|destination| self.weighted(rule, destination, port))
                    .collect(),
            ),
        }
    }

    fn weighted(&self, rule: &HttpRoute, to: &HttpDestination, port: u16) -> Weighted {
        let (rule_authority, rule_edit) = take_authority(&rule.headers.request);
        let (own_authority, own_edit) = take_authority(&to.headers.request);
        let rewritten = rule.rewrite.as_ref().and_then(|r| r.authority.clone());
        // Istio: one destination's edits are appended to the rule's; of several, each comes before the rule's.
        let several = matches!(&rule.action, HttpAction::Forward(all) if all.len() > 1);
        let edits = |mut all: [HeaderEdit; 2]| {
            if several {
                all.reverse();
            }
            all.into_iter()
                .filter(|e| *e != HeaderEdit::default())
                .collect()
        };
        Weighted {
            weight: to.weight,
            target: self
                .clusters
                .of_destination(self.registry, &to.destination, port),
            authority: own_authority.or(rewritten).or(rule_authority),
            request_edits: edits([rule_edit, own_edit]),
            response_edits: edits([rule.headers.response.clone(), to.headers.response.clone()]),
        }
    }

    fn mirrors(&self, rule: &HttpRoute, port: u16) -> Arc<[MirrorPlan]> {
        let plans = rule.mirrors.iter().filter_map(|mirror| {
            let to = &mirror.destination;
            match self.clusters.of_destination(self.registry, to, port) {
                Target::Cluster(cluster) => Some(MirrorPlan {
                    cluster,
                    share: mirror.share,
                }),
                Target::Missing { .. } => None,
            }
        });
        plans.collect()
    }

    fn retries(&self, rule: &HttpRoute) -> Arc<RetryPolicy> {
        match &rule.retries {
            None => self.default_retries.clone(),
            Some(policy) if policy.retry_on.is_empty() => Arc::new(RetryPolicy {
                retry_on: self.default_retries.retry_on.clone(),
                ..policy.clone()
            }),
            Some(policy) => Arc::new(policy.clone()),
        }
    }
}

fn policy(rule: &HttpRoute) -> Option<Arc<RoutePolicy>> {
    (rule.fault.is_some() || rule.cors.is_some()).then(|| {
        Arc::new(RoutePolicy {
            fault: rule.fault.clone(),
            cors: rule.cors.clone(),
        })
    })
}

/// Whether an alternative limited to `gateways` (empty: the table's) applies at `gateway`.
pub(super) fn at_gateway(gateways: &[Str], gateway: &str) -> bool {
    gateways.is_empty() || gateways.iter().any(|g| &**g == gateway)
}

/// Splits a set `Host` or `:authority` from other edits: setting it rewrites the authority.
fn take_authority(edit: &HeaderEdit) -> (Option<Str>, HeaderEdit) {
    let is_host = |name: &str| name.eq_ignore_ascii_case("host") || name == ":authority";
    let mut rest = edit.clone();
    let found = rest.set.iter().find(|(name, _)| is_host(name));
    let authority = found.map(|(_, value)| value.clone());
    rest.set.retain(|(name, _)| !is_host(name));
    (authority, rest)
}

/// Istio's default retry policy: two further tries for what surely did not reach the application. A 503 of the
/// application is not among that (Istio: `EXCLUDE_UNSAFE_503_FROM_DEFAULT_RETRY`).
pub(super) fn default_retries() -> RetryPolicy {
    let conditions = [
        "connect-failure",
        "refused-stream",
        "unavailable",
        "cancelled",
    ];
    RetryPolicy {
        attempts: 2,
        retry_on: conditions.map(Str::from).to_vec(),
        ..RetryPolicy::none()
    }
}

impl Rule {
    /// Whether the rule takes every request: such rules go last where tables are merged.
    pub fn is_catch_all(&self) -> bool {
        let any_path = |m: &HttpMatch| {
            let uri = match &m.uri {
                None | Some(StringMatch::Present) => true,
                Some(StringMatch::Prefix(prefix)) => &**prefix == "/",
                Some(StringMatch::Regex(pattern)) => matches!(pattern.source(), ".*" | "*"),
                Some(StringMatch::Exact(_)) => false,
            };
            let others = m.method.is_none()
                && m.scheme.is_none()
                && m.authority.is_none()
                && m.headers.is_empty()
                && m.without_headers.is_empty()
                && m.query.is_empty()
                && m.claims.is_empty();
            uri && others
        };
        self.alternatives.iter().any(|(at, _)| match at {
            None => true,
            Some(at) => any_path(&self.source().matches[*at]),
        })
    }

    /// The redirect of one request: with the path that a replaced prefix makes, and the port that it came in at.
    fn redirect(
        &self,
        written: &Redirect,
        wanted: Option<&HttpMatch>,
        head: &RequestHead<'_>,
    ) -> Redirect {
        let (path, _) = split_path(head.path);
        let by_prefix = |prefix: &Str| Str::from(rewrite::path(prefix, wanted, path));
        Redirect {
            uri: written
                .prefix
                .as_ref()
                .map(by_prefix)
                .or(written.uri.clone()),
            prefix: None,
            port: match written.port {
                RedirectPort::Request => RedirectPort::Number(self.port),
                port => port,
            },
            ..written.clone()
        }
    }

    /// The rule as the user wrote it.
    pub fn source(&self) -> &HttpRoute {
        &self.table.http[self.index]
    }

    /// The rule's names for logs and explanations: the object that it was written in, and its position there.
    pub fn facts(&self, name: &Str) -> RouteFacts {
        let (origin, index) = match &self.source().delegated {
            Some(delegated) => (&delegated.origin, delegated.index),
            None => (&self.table.origin, self.index),
        };
        RouteFacts {
            name: name.clone(),
            origin: Some(origin.clone()),
            rule: Some(index),
            policy: self.policy.clone(),
        }
    }
}

/// The plan of the first rule that takes the request; 404 when none does.
pub(super) fn plan(rules: &Rules, head: &RequestHead<'_>, dice: u64) -> RequestPlan {
    let Some((rule, wanted, name)) = rules.find(head) else {
        let (path, _) = split_path(head.path);
        return RequestPlan::Refuse(Fault {
            reason: FaultReason::NoRoute,
            origin: rules.first().map(|rule| rule.table.origin.clone()),
            subject: format!("{} {}{path}", head.method, head.authority),
        });
    };
    let route = rule.facts(name);
    let source = rule.source();
    let response_edits = || {
        let edits = Some(&source.headers.response).filter(|e| **e != HeaderEdit::default());
        edits.cloned().into_iter().collect()
    };
    match (&rule.action, &source.action) {
        (Action::Forward(choices), _) => forward(rule, choices, (wanted, route), head, dice),
        (_, HttpAction::Redirect(redirect)) => RequestPlan::Redirect {
            redirect: rule.redirect(redirect, wanted, head),
            route,
            response_edits: response_edits(),
        },
        (_, HttpAction::Direct(answer)) => RequestPlan::Direct {
            status: answer.status,
            body: answer.body.clone(),
            route,
            response_edits: response_edits(),
        },
        (_, HttpAction::Forward(_)) => no_destination(rule),
    }
}

fn forward(
    rule: &Rule,
    choices: &[Weighted],
    (wanted, route): (Option<&HttpMatch>, RouteFacts),
    head: &RequestHead<'_>,
    dice: u64,
) -> RequestPlan {
    let Some(choice) = choose(choices, |c| c.weight, dice) else {
        return no_destination(rule);
    };
    let cluster = match choice.target.usable(route.origin.as_ref()) {
        Ok(cluster) => cluster.clone(),
        Err(fault) => return RequestPlan::Refuse(fault),
    };
    let source = rule.source();
    let path = source.rewrite.as_ref().and_then(|r| match &r.regex {
        Some(regex) => Some(rewrite::by_regex(regex, head.path)),
        None => Some(rewrite::path(r.uri.as_deref()?, wanted, head.path)),
    });
    RequestPlan::Forward(Box::new(ForwardPlan {
        route,
        cluster,
        path,
        authority: choice.authority.clone(),
        request_edits: choice.request_edits.clone(),
        response_edits: choice.response_edits.clone(),
        timeout: source.timeout.filter(|t| !t.is_zero()),
        retries: rule.retries.clone(),
        mirrors: rule.mirrors.clone(),
    }))
}

fn no_destination(rule: &Rule) -> RequestPlan {
    RequestPlan::Refuse(Fault {
        reason: FaultReason::NoCluster,
        origin: Some(rule.table.origin.clone()),
        subject: "a rule without a destination of positive weight".to_owned(),
    })
}

/// One of `choices` by weight: `dice` modulo the sum. One choice alone takes everything, whatever
/// its weight; none is made when all weights of several are 0.
pub(super) fn choose<T>(choices: &[T], weight: impl Fn(&T) -> u32, dice: u64) -> Option<&T> {
    if let [only] = choices {
        return Some(only);
    }
    let total: u64 = choices.iter().map(|c| u64::from(weight(c))).sum();
    let mut rest = dice.checked_rem(total)?;
    choices.iter().find(|choice| {
        let share = u64::from(weight(choice));
        let here = rest < share;
        rest = rest.saturating_sub(share);
        here
    })
}

/// A request sent to a cluster without any rule of the user.
pub(super) fn default_plan(target: &Target, name: &Str, retries: &Arc<RetryPolicy>) -> RequestPlan {
    match target.usable(None) {
        Err(fault) => RequestPlan::Refuse(fault),
        Ok(cluster) => RequestPlan::Forward(Box::new(ForwardPlan {
            route: RouteFacts {
                name: name.clone(),
                ..RouteFacts::default()
            },
            ..ForwardPlan::to(cluster.clone(), retries.clone())
        })),
    }
}
