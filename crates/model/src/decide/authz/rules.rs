//! Rules of policies, ready to be tested.

use super::attribute::{Attr, Facts};
use super::values::{Pattern, Set};
use crate::mesh::MeshSettings;
use crate::security::{Action, AuthorizationPolicy, Condition, Operation, Rule, Source};
use ipnet::IpNet;
use lateen_base::Str;

/// One rule of a policy.
#[derive(Debug)]
pub(super) struct Compiled {
    /// Position of the policy among those of the proxy.
    pub policy: usize,
    /// Position of the rule in the policy.
    pub rule: usize,
    /// Any of these; empty: anybody.
    from: Vec<Vec<Test>>,
    /// Any of these; empty: anything.
    to: Vec<Vec<Test>>,
    /// All of these.
    when: Vec<Test>,
}

/// One attribute's wanted and unwanted values.
#[derive(Debug)]
struct Test {
    attr: Attr,
    /// As written, for the index; empty: anything.
    patterns: Vec<Pattern>,
    wanted: Option<Set>,
    unwanted: Option<Set>,
}

impl Test {
    fn fits(&self, facts: &Facts<'_>) -> bool {
        let any = |set: &Set| facts.any(&self.attr, |value| set.has(value));
        self.wanted.as_ref().is_none_or(any) && !self.unwanted.as_ref().is_some_and(any)
    }
}

/// What rules are compiled for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target<'a> {
    pub mesh: &'a MeshSettings,
    /// Whether requests are tested; else bytes.
    pub http: bool,
}

impl Target<'_> {
    /// Compiles a rule. `None`: it can never match (Istio: an ALLOW rule that speaks of HTTP where there is none).
    pub fn rule(
        self,
        policy: &AuthorizationPolicy,
        (at, number): (usize, usize),
        rule: &Rule,
    ) -> Option<Compiled> {
        let make = Maker {
            target: self,
            open: policy.action == Action::Allow,
        };
        let from = rule.from.iter().map(|source| make.source(source));
        let to = rule.to.iter().map(|operation| make.operation(operation));
        let when = rule.when.iter().map(|condition| make.condition(condition));
        Some(Compiled {
            policy: at,
            rule: number,
            from: alternatives(from.collect::<Option<_>>()?),
            to: alternatives(to.collect::<Option<_>>()?),
            when: when
                .collect::<Option<Vec<_>>>()?
                .into_iter()
                .flatten()
                .collect(),
        })
    }
}

/// An alternative without tests takes everything, and so do all together.
fn alternatives(all: Vec<Vec<Test>>) -> Vec<Vec<Test>> {
    match all.iter().any(Vec::is_empty) {
        true => Vec::new(),
        false => all,
    }
}

/// Makes the tests of one rule.
struct Maker<'a> {
    target: Target<'a>,
    /// Whether a match opens the door: then what is in doubt does not match.
    open: bool,
}

/// The tests of an alternative; `None` outside: the rule never matches.
type Tests = Option<Vec<Test>>;

impl Maker<'_> {
    fn source(&self, source: &Source) -> Tests {
        let s = source;
        let text = |attr, wanted, unwanted| self.test(attr, texts(wanted), texts(unwanted));
        let nets = |attr, wanted, unwanted| self.nets(attr, wanted, unwanted);
        self.all([
            text(Attr::Principal, &s.principals, &s.not_principals),
            text(
                Attr::RequestPrincipal,
                &s.request_principals,
                &s.not_request_principals,
            ),
            text(Attr::Namespace, &s.namespaces, &s.not_namespaces),
            text(Attr::Account, &s.service_accounts, &s.not_service_accounts),
            text(Attr::TrustDomain, &s.trust_domains, &s.not_trust_domains),
            nets(Attr::SourceIp, &s.ip_blocks, &s.not_ip_blocks),
            nets(Attr::RemoteIp, &s.remote_ip_blocks, &s.not_remote_ip_blocks),
        ])
    }

    fn operation(&self, operation: &Operation) -> Tests {
        let o = operation;
        let text = |attr, wanted, unwanted| self.test(attr, texts(wanted), texts(unwanted));
        let ports = |list: &[u16]| list.iter().map(|p| p.to_string()).collect::<Vec<_>>();
        let (wanted, unwanted) = (ports(&o.ports), ports(&o.not_ports));
        self.all([
            text(Attr::Host, &o.hosts, &o.not_hosts),
            self.test(Attr::Port, strings(&wanted), strings(&unwanted)),
            text(Attr::Method, &o.methods, &o.not_methods),
            text(Attr::Path, &o.paths, &o.not_paths),
        ])
    }

    fn condition(&self, condition: &Condition) -> Tests {
        let attr = Attr::from(&condition.attribute);
        if attr.is_http() && !self.target.http && self.open {
            return None;
        }
        self.all([self.test(attr, texts(&condition.values), texts(&condition.not_values))])
    }

    fn all(&self, tests: impl IntoIterator<Item = Made>) -> Tests {
        let mut all = Vec::new();
        for made in tests {
            match made {
                Made::Nothing => {}
                Made::Test(test) => all.push(*test),
                Made::Never => return None,
            }
        }
        Some(all)
    }

    fn nets(&self, attr: Attr, wanted: &[IpNet], unwanted: &[IpNet]) -> Made {
        let read = |list: &[IpNet]| list.iter().map(|net| Pattern::net(*net)).collect();
        self.made(attr, read(wanted), read(unwanted))
    }

    fn test<'t>(
        &self,
        attr: Attr,
        wanted: impl Iterator<Item = &'t str>,
        unwanted: impl Iterator<Item = &'t str>,
    ) -> Made {
        let wanted = self.read(&attr, wanted);
        let unwanted = self.read(&attr, unwanted);
        self.made(attr, wanted, unwanted)
    }

    fn read<'t>(&self, attr: &Attr, list: impl Iterator<Item = &'t str>) -> Vec<Pattern> {
        let mut patterns = Vec::new();
        for text in list {
            if *attr == Attr::Principal {
                let all = of_every_domain(text, self.target.mesh);
                patterns.extend(all.iter().map(|text| Pattern::read(attr, text)));
            } else {
                patterns.push(Pattern::read(attr, text));
            }
        }
        patterns
    }

    fn made(&self, attr: Attr, patterns: Vec<Pattern>, unwanted: Vec<Pattern>) -> Made {
        if patterns.is_empty() && unwanted.is_empty() {
            return Made::Nothing;
        }
        if attr.is_http() && !self.target.http {
            return match self.open {
                true => Made::Never,
                false => Made::Nothing,
            };
        }
        let set = |list: &[Pattern], unreadable| {
            (!list.is_empty()).then(|| Set::new(&attr, list, unreadable))
        };
        Made::Test(Box::new(Test {
            wanted: set(&patterns, !self.open),
            unwanted: set(&unwanted, self.open),
            patterns,
            attr,
        }))
    }
}

/// What a pair of lists came out as.
enum Made {
    /// It says nothing.
    Nothing,
    Test(Box<Test>),
    /// The rule cannot match.
    Never,
}

fn texts(list: &[Str]) -> impl Iterator<Item = &str> {
    list.iter().map(|text| &**text)
}

fn strings(list: &[String]) -> impl Iterator<Item = &str> {
    list.iter().map(String::as_str)
}

/// A principal written for the mesh's trust domain, an alias of it or `cluster.local`, for all of these (Istio:
/// trust-domain aliases; `cluster.local` stands for the mesh's own domain).
fn of_every_domain(principal: &str, mesh: &MeshSettings) -> Vec<String> {
    let own = || std::iter::once(&mesh.trust_domain).chain(&mesh.trust_domain_aliases);
    let (domain, rest) = match principal.split_once('/') {
        Some((domain, rest)) if domain != "*" => (domain, rest),
        _ => return vec![principal.to_owned()],
    };
    let covers = |name: &Str| match domain.strip_prefix('*') {
        Some(suffix) => name.ends_with(suffix),
        None => **name == *domain,
    };
    if domain != "cluster.local" && !own().any(covers) {
        return vec![principal.to_owned()];
    }
    // What is written stays: `*-domain` may mean others too.
    let mut all = vec![principal.to_owned()];
    if domain == "cluster.local" && !own().any(covers) {
        all.clear();
    }
    for domain in own() {
        let text = format!("{domain}/{rest}");
        if !all.contains(&text) {
            all.push(text);
        }
    }
    all
}

impl Compiled {
    /// Whether it matches.
    pub fn fits(&self, facts: &Facts<'_>) -> bool {
        let one = |list: &[Vec<Test>]| {
            list.is_empty() || list.iter().any(|tests| tests.iter().all(|t| t.fits(facts)))
        };
        one(&self.from) && one(&self.to) && self.when.iter().all(|t| t.fits(facts))
    }

    /// Attributes of which every match has one of the values beside.
    pub fn necessary(&self) -> Vec<(&Attr, Vec<&Pattern>)> {
        let mut found = Vec::new();
        for list in [&self.from, &self.to] {
            let Some(first) = list.first() else {
                continue;
            };
            for test in first.iter().filter(|t| !t.patterns.is_empty()) {
                let of = |tests: &'_ Vec<Test>| {
                    tests
                        .iter()
                        .position(|t| t.attr == test.attr && !t.patterns.is_empty())
                };
                if list.iter().any(|tests| of(tests).is_none()) {
                    continue;
                }
                let patterns = list
                    .iter()
                    .flat_map(|tests| of(tests).map_or(&[][..], |at| &tests[at].patterns));
                found.push((&test.attr, patterns.collect()));
            }
        }
        for test in self.when.iter().filter(|t| !t.patterns.is_empty()) {
            found.push((&test.attr, test.patterns.iter().collect()));
        }
        found
    }
}
