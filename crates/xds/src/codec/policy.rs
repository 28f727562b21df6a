//! Authorization policies.

use super::parts::{
    Read, Within, bad, each, known, named, narrow, nets, origin, read_nets, read_origin,
    read_visibility, strs, text, texts, visibility,
};
use super::security::{read_selection, selection};
use lateen_base::Str;
use lateen_model::security::{
    Action, Attribute, AuthorizationPolicy, Condition, Operation, Rule, Source,
};
use lateen_proto::mesh as proto;

pub(super) fn encode(from: &AuthorizationPolicy) -> proto::AuthorizationPolicy {
    let (action, provider) = match &from.action {
        Action::Allow => (proto::PolicyAction::Allow, String::new()),
        Action::Deny => (proto::PolicyAction::Deny, String::new()),
        Action::Audit => (proto::PolicyAction::Audit, String::new()),
        Action::Custom { provider } => (proto::PolicyAction::Custom, text(provider)),
    };
    proto::AuthorizationPolicy {
        origin: origin(&from.origin),
        selection: selection(&from.selection),
        visible_to: visibility(&from.visibility),
        action: action.into(),
        provider,
        dry_run: from.dry_run,
        rules: from.rules.iter().map(encode_rule).collect(),
    }
}

fn encode_rule(from: &Rule) -> proto::Rule {
    proto::Rule {
        from: from.from.iter().map(encode_source).collect(),
        to: from.to.iter().map(encode_operation).collect(),
        when: from.when.iter().map(encode_condition).collect(),
    }
}

fn encode_source(from: &Source) -> proto::Source {
    proto::Source {
        principals: texts(&from.principals),
        not_principals: texts(&from.not_principals),
        request_principals: texts(&from.request_principals),
        not_request_principals: texts(&from.not_request_principals),
        namespaces: texts(&from.namespaces),
        not_namespaces: texts(&from.not_namespaces),
        service_accounts: texts(&from.service_accounts),
        not_service_accounts: texts(&from.not_service_accounts),
        trust_domains: texts(&from.trust_domains),
        not_trust_domains: texts(&from.not_trust_domains),
        ip_blocks: nets(&from.ip_blocks),
        not_ip_blocks: nets(&from.not_ip_blocks),
        remote_ip_blocks: nets(&from.remote_ip_blocks),
        not_remote_ip_blocks: nets(&from.not_remote_ip_blocks),
    }
}

fn encode_operation(from: &Operation) -> proto::Operation {
    let ports = |list: &[u16]| list.iter().map(|p| u32::from(*p)).collect();
    proto::Operation {
        hosts: texts(&from.hosts),
        not_hosts: texts(&from.not_hosts),
        ports: ports(&from.ports),
        not_ports: ports(&from.not_ports),
        methods: texts(&from.methods),
        not_methods: texts(&from.not_methods),
        paths: texts(&from.paths),
        not_paths: texts(&from.not_paths),
    }
}

fn encode_condition(from: &Condition) -> proto::Condition {
    use proto::Attribute as To;
    let (attribute, names) = match &from.attribute {
        Attribute::RequestHeader(name) => (To::RequestHeader, vec![text(name)]),
        Attribute::RequestClaim(path) => (To::RequestClaim, texts(path)),
        Attribute::SourceIp => (To::SourceIp, Vec::new()),
        Attribute::RemoteIp => (To::RemoteIp, Vec::new()),
        Attribute::SourceNamespace => (To::SourceNamespace, Vec::new()),
        Attribute::SourceServiceAccount => (To::SourceServiceAccount, Vec::new()),
        Attribute::SourceTrustDomain => (To::SourceTrustDomain, Vec::new()),
        Attribute::SourcePrincipal => (To::SourcePrincipal, Vec::new()),
        Attribute::RequestPrincipal => (To::RequestPrincipal, Vec::new()),
        Attribute::RequestAudiences => (To::RequestAudiences, Vec::new()),
        Attribute::RequestPresenter => (To::RequestPresenter, Vec::new()),
        Attribute::DestinationIp => (To::DestinationIp, Vec::new()),
        Attribute::DestinationPort => (To::DestinationPort, Vec::new()),
        Attribute::ServerName => (To::ServerName, Vec::new()),
    };
    proto::Condition {
        attribute: attribute.into(),
        names,
        values: texts(&from.values),
        not_values: texts(&from.not_values),
    }
}

pub(super) fn decode(from: proto::AuthorizationPolicy) -> Read<AuthorizationPolicy> {
    let provider = from.provider.as_str();
    let action = match from.action() {
        proto::PolicyAction::Unspecified => None,
        proto::PolicyAction::Allow => Some(Action::Allow),
        proto::PolicyAction::Deny => Some(Action::Deny),
        proto::PolicyAction::Audit => Some(Action::Audit),
        proto::PolicyAction::Custom => Some(Action::Custom {
            provider: named(provider, "provider")?,
        }),
    };
    Ok(AuthorizationPolicy {
        action: known(action, from.action, "action")?,
        origin: read_origin(from.origin)?,
        selection: read_selection(from.selection)?,
        visibility: read_visibility(from.visible_to),
        dry_run: from.dry_run,
        rules: each(from.rules, "rules", decode_rule)?,
    })
}

fn decode_rule(from: proto::Rule) -> Read<Rule> {
    Ok(Rule {
        from: each(from.from, "from", decode_source)?,
        to: each(from.to, "to", decode_operation)?,
        when: each(from.when, "when", decode_condition)?,
    })
}

fn decode_source(from: proto::Source) -> Read<Source> {
    Ok(Source {
        principals: strs(from.principals),
        not_principals: strs(from.not_principals),
        request_principals: strs(from.request_principals),
        not_request_principals: strs(from.not_request_principals),
        namespaces: strs(from.namespaces),
        not_namespaces: strs(from.not_namespaces),
        service_accounts: strs(from.service_accounts),
        not_service_accounts: strs(from.not_service_accounts),
        trust_domains: strs(from.trust_domains),
        not_trust_domains: strs(from.not_trust_domains),
        ip_blocks: read_nets(from.ip_blocks, "ip_blocks")?,
        not_ip_blocks: read_nets(from.not_ip_blocks, "not_ip_blocks")?,
        remote_ip_blocks: read_nets(from.remote_ip_blocks, "remote_ip_blocks")?,
        not_remote_ip_blocks: read_nets(from.not_remote_ip_blocks, "not_remote_ip_blocks")?,
    })
}

fn decode_operation(from: proto::Operation) -> Read<Operation> {
    let ports = |list: Vec<u32>, field: &str| {
        let ports = list.into_iter().map(|p| narrow(p, ""));
        ports.collect::<Read<Vec<u16>>>().within(field)
    };
    Ok(Operation {
        hosts: strs(from.hosts),
        not_hosts: strs(from.not_hosts),
        ports: ports(from.ports, "ports")?,
        not_ports: ports(from.not_ports, "not_ports")?,
        methods: strs(from.methods),
        not_methods: strs(from.not_methods),
        paths: strs(from.paths),
        not_paths: strs(from.not_paths),
    })
}

fn decode_condition(from: proto::Condition) -> Read<Condition> {
    use proto::Attribute as From;
    let attribute = match from.attribute() {
        From::Unspecified => None,
        From::RequestHeader => Some(Attribute::RequestHeader(only(&from.names)?)),
        From::RequestClaim if from.names.is_empty() => {
            return Err(bad("names", "a claim has at least one name"));
        }
        From::RequestClaim => Some(Attribute::RequestClaim(strs(from.names))),
        From::SourceIp => Some(Attribute::SourceIp),
        From::RemoteIp => Some(Attribute::RemoteIp),
        From::SourceNamespace => Some(Attribute::SourceNamespace),
        From::SourceServiceAccount => Some(Attribute::SourceServiceAccount),
        From::SourceTrustDomain => Some(Attribute::SourceTrustDomain),
        From::SourcePrincipal => Some(Attribute::SourcePrincipal),
        From::RequestPrincipal => Some(Attribute::RequestPrincipal),
        From::RequestAudiences => Some(Attribute::RequestAudiences),
        From::RequestPresenter => Some(Attribute::RequestPresenter),
        From::DestinationIp => Some(Attribute::DestinationIp),
        From::DestinationPort => Some(Attribute::DestinationPort),
        From::ServerName => Some(Attribute::ServerName),
    };
    Ok(Condition {
        attribute: known(attribute, from.attribute, "attribute")?,
        values: strs(from.values),
        not_values: strs(from.not_values),
    })
}

fn only(names: &[String]) -> Read<Str> {
    match names {
        [one] => named(one, "names"),
        _ => Err(bad("names", "a header has exactly one name")),
    }
}
