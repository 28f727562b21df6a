//! AuthorizationPolicy → who may call whom.

use crate::Translated;
use crate::mesh::Mesh;
use crate::names::origin;
use crate::policy::{salvaged_selection, selection, visibility};
use ipnet::IpNet;
use lateen_api::authorization_policy::{
    Action as WrittenAction, AuthorizationPolicy as Written, Condition as WrittenCondition,
    Operation as WrittenOperation, Rule as WrittenRule, Source as WrittenSource,
};
use lateen_api::meta::{Config, Meta};
use lateen_api::notice::{Notice, Subject, any_error};
use lateen_api::validate;
use lateen_base::Str;
use lateen_model::resource::Resource;
use lateen_model::security::{
    Action, Attribute, AuthorizationPolicy, Condition, Operation, Rule, Source,
};
use serde_json::Value;
use std::net::IpAddr;

/// Annotation that keeps a policy from being enforced (Istio).
const DRY_RUN: &str = "istio.io/dry-run";

/// What an AuthorizationPolicy is translated from.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// The AuthorizationPolicy.
    pub config: &'a Config<Written>,
    /// The mesh.
    pub mesh: &'a Mesh,
}

/// Translates an AuthorizationPolicy.
pub fn authorization_policy(inputs: Inputs<'_>) -> Translated {
    let Inputs { config, mesh } = inputs;
    let spec = &config.spec;
    let mut notices = validate::authorization_policy(config);
    if any_error(&notices) {
        return (Vec::new(), notices);
    }
    let mut reading = Reading {
        subject: Subject::new("AuthorizationPolicy", &config.meta),
        namespace: &config.meta.namespace,
        notices: &mut notices,
    };
    let rules = spec.rules.iter().enumerate();
    let rules = rules
        .map(|(i, one)| reading.rule(one, &format!("spec.rules[{i}]")))
        .collect();
    let dry_run = reading.dry_run(&config.meta);
    let provider = spec.provider.as_ref().and_then(|p| p.name.as_deref());
    let policy = AuthorizationPolicy {
        origin: origin("AuthorizationPolicy", &config.meta),
        selection: selection(
            spec.selector.as_ref(),
            spec.target_ref.as_ref(),
            &spec.target_refs,
        ),
        visibility: visibility(&config.meta, mesh),
        action: match spec.action {
            None | Some(WrittenAction::Allow) => Action::Allow,
            Some(WrittenAction::Deny) => Action::Deny,
            Some(WrittenAction::Audit) => Action::Audit,
            Some(WrittenAction::Custom) => Action::Custom {
                provider: provider.unwrap_or_default().into(),
            },
        },
        dry_run,
        rules,
    };
    crate::done(Resource::AuthorizationPolicy(policy), notices)
}

struct Reading<'a> {
    subject: Subject,
    namespace: &'a str,
    notices: &'a mut Vec<Notice>,
}

impl Reading<'_> {
    fn warn(&mut self, field: String, message: impl Into<String>) {
        self.notices
            .push(Notice::warning(&self.subject, field, message));
    }

    fn dry_run(&mut self, meta: &Meta) -> bool {
        let field = format!("metadata.annotations[\"{DRY_RUN}\"]");
        // Go's strconv.ParseBool, as Istio reads it.
        match meta.annotations.get(DRY_RUN).map(String::as_str) {
            None | Some("0" | "f" | "F" | "false" | "FALSE" | "False") => false,
            Some("1" | "t" | "T" | "true" | "TRUE" | "True") => true,
            Some(other) => {
                let message =
                    format!("{other:?} is neither true nor false: the policy is enforced");
                self.warn(field, message);
                false
            }
        }
    }

    fn rule(&mut self, rule: &WrittenRule, field: &str) -> Rule {
        let from = rule.from.iter().flatten().enumerate();
        let from = from.filter_map(|(i, from)| {
            let field = format!("{field}.from[{i}].source");
            Some(self.source(from.source.as_ref()?, &field))
        });
        let from = from.collect();
        let to = rule.to.iter().flatten();
        let to = to.filter_map(|to| to.operation.as_ref());
        let to = to.map(|one| operation(one)).collect();
        let when = rule.when.iter().enumerate();
        let when = when
            .filter_map(|(i, one)| self.condition(one, &format!("{field}.when[{i}]")))
            .collect();
        Rule { from, to, when }
    }

    fn source(&mut self, source: &WrittenSource, field: &str) -> Source {
        Source {
            principals: self.principals(&source.principals, field, "principals"),
            not_principals: self.principals(&source.not_principals, field, "notPrincipals"),
            request_principals: texts(&source.request_principals),
            not_request_principals: texts(&source.not_request_principals),
            namespaces: texts(&source.namespaces),
            not_namespaces: texts(&source.not_namespaces),
            service_accounts: self.accounts(&source.service_accounts),
            not_service_accounts: self.accounts(&source.not_service_accounts),
            trust_domains: texts(&source.trust_domains),
            not_trust_domains: texts(&source.not_trust_domains),
            ip_blocks: nets(&source.ip_blocks),
            not_ip_blocks: nets(&source.not_ip_blocks),
            remote_ip_blocks: nets(&source.remote_ip_blocks),
            not_remote_ip_blocks: nets(&source.not_remote_ip_blocks),
        }
    }

    /// Identities without their scheme, which policies leave out: with it, a DENY would never match.
    fn principals(&mut self, list: &[String], field: &str, name: &str) -> Vec<Str> {
        let mut principals = Vec::new();
        for (i, text) in list.iter().enumerate() {
            let plain = text.strip_prefix("spiffe://").unwrap_or(text);
            if plain.len() != text.len() {
                let message = format!("is read as {plain:?}: leave spiffe:// out");
                self.warn(format!("{field}.{name}[{i}]"), message);
            }
            principals.push(plain.into());
        }
        principals
    }

    /// Accounts as `namespace/name`; a bare name is one of the policy's own namespace.
    fn accounts(&self, list: &[String]) -> Vec<Str> {
        list.iter().map(|text| self.account(text)).collect()
    }

    fn account(&self, text: &str) -> Str {
        match text.contains('/') {
            true => text.into(),
            false => format!("{}/{text}", self.namespace).into(),
        }
    }

    /// A condition; absent, with an error, when it cannot be evaluated.
    fn condition(&mut self, condition: &WrittenCondition, field: &str) -> Option<Condition> {
        let key = condition.key.as_str();
        let Some(attribute) = attribute(key) else {
            let message = format!(
                "{key:?} is an attribute of Envoy's filters, which are not there: remove the condition"
            );
            let field = format!("{field}.key");
            self.notices
                .push(Notice::error(&self.subject, field, message));
            return None;
        };
        let values = |list: &[String], name: &str, reading: &mut Self| match attribute {
            Attribute::SourceServiceAccount => reading.accounts(list),
            Attribute::SourcePrincipal => reading.principals(list, field, name),
            _ => texts(list),
        };
        Some(Condition {
            values: values(&condition.values, "values", self),
            not_values: values(&condition.not_values, "notValues", self),
            attribute,
        })
    }
}

/// The attribute that a key names; absent: one that cannot be evaluated here.
fn attribute(key: &str) -> Option<Attribute> {
    let (name, inside) = validate::condition_key(key)?;
    Some(match (name, inside.as_slice()) {
        ("request.headers", [header]) => {
            Attribute::RequestHeader(header.to_ascii_lowercase().into())
        }
        ("request.auth.claims", [_, ..]) => {
            Attribute::RequestClaim(inside.iter().map(|part| (*part).into()).collect())
        }
        ("source.ip", []) => Attribute::SourceIp,
        ("remote.ip", []) => Attribute::RemoteIp,
        ("source.namespace", []) => Attribute::SourceNamespace,
        ("source.serviceAccount", []) => Attribute::SourceServiceAccount,
        ("source.trustDomain", []) => Attribute::SourceTrustDomain,
        ("source.principal", []) => Attribute::SourcePrincipal,
        ("request.auth.principal", []) => Attribute::RequestPrincipal,
        ("request.auth.audiences", []) => Attribute::RequestAudiences,
        ("request.auth.presenter", []) => Attribute::RequestPresenter,
        ("destination.ip", []) => Attribute::DestinationIp,
        ("destination.port", []) => Attribute::DestinationPort,
        ("connection.sni", []) => Attribute::ServerName,
        _ => return None,
    })
}

fn operation(operation: &WrittenOperation) -> Operation {
    Operation {
        hosts: texts(&operation.hosts),
        not_hosts: texts(&operation.not_hosts),
        ports: ports(&operation.ports),
        not_ports: ports(&operation.not_ports),
        methods: texts(&operation.methods),
        not_methods: texts(&operation.not_methods),
        paths: texts(&operation.paths),
        not_paths: texts(&operation.not_paths),
    }
}

fn texts(list: &[String]) -> Vec<Str> {
    list.iter().map(|text| text.as_str().into()).collect()
}

/// Ports; validation has refused what is none.
fn ports(list: &[String]) -> Vec<u16> {
    list.iter().filter_map(|text| text.parse().ok()).collect()
}

/// Networks; a bare address is a network of one. Validation has refused what is neither.
fn nets(list: &[String]) -> Vec<IpNet> {
    list.iter()
        .filter_map(|text| match text.parse::<IpAddr>() {
            Ok(address) => Some(address.into()),
            Err(_) => text.parse().ok(),
        })
        .collect()
}

/// A broken ALLOW lets nothing through, a broken DENY or CUSTOM stops everything that it selects. A broken AUDIT, and
/// a policy that is not enforced anyway, mean nothing.
pub(crate) fn closed(meta: &Meta, spec: &Value, mesh: &Mesh) -> Vec<Resource> {
    let (action, rules) = match spec.get("action").map(|action| action.as_str()) {
        None | Some(Some("ALLOW")) => (Action::Allow, Vec::new()),
        Some(Some("AUDIT")) => return Vec::new(),
        // Also an action that nobody knows: it may have been meant to deny.
        _ => (Action::Deny, vec![Rule::default()]),
    };
    let dry_run = meta.annotations.get(DRY_RUN);
    if dry_run.is_some_and(|text| matches!(text.as_str(), "true" | "True" | "TRUE" | "1")) {
        return Vec::new();
    }
    vec![Resource::AuthorizationPolicy(AuthorizationPolicy {
        origin: origin("AuthorizationPolicy", meta),
        selection: salvaged_selection(spec),
        visibility: visibility(meta, mesh),
        action,
        dry_run: false,
        rules,
    })]
}
