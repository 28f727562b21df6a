//! Objects of security in the language of [`super`].

use super::{option, origin, pairs};
use crate::mesh::{AuthzProtocol, AuthzProvider};
use crate::name::Visibility;
use crate::resource::Resource;
use crate::security::*;
use lateen_base::Str;
use std::time::Duration;

pub fn object(kind: &str, rest: &[&str], age: u64) -> Resource {
    match kind {
        "peers" => Resource::PeerAuthentication(PeerAuthentication {
            origin: origin("PeerAuthentication", rest[0], age),
            selector: selected(rest),
            mode: rest.iter().find_map(|w| mode(w)),
            ports: rest
                .iter()
                .filter_map(|w| w.strip_prefix("at=")?.split_once(':'))
                .map(|(port, text)| (port.parse().expect("port"), mode(text)))
                .collect(),
        }),
        "tokens" => Resource::RequestAuthentication(RequestAuthentication {
            origin: origin("RequestAuthentication", rest[0], age),
            selection: selection(rest),
            visibility: Visibility::Public,
            rules: vec![jwt(option(rest, "issuer").expect("issuer"))],
        }),
        "secret" => {
            let text = |word: &str| -> &str { if rest.contains(&word) { "pem" } else { "" } };
            Resource::Credential(Credential {
                origin: origin("Secret", rest[0], age),
                chain: text("pair").into(),
                key: Secret::new(text("pair")),
                ca: text("ca").into(),
                crl: "".into(),
                readers: vec!["default".into()],
            })
        }
        _ => Resource::AuthorizationPolicy(AuthorizationPolicy {
            origin: origin("AuthorizationPolicy", rest[0], age),
            selection: selection(rest),
            visibility: Visibility::Public,
            action: match kind {
                "allow" => Action::Allow,
                "deny" => Action::Deny,
                "audit" => Action::Audit,
                _ => Action::Custom {
                    provider: option(rest, "provider").expect("provider").into(),
                },
            },
            dry_run: rest.contains(&"dry"),
            rules: Vec::new(),
        }),
    }
}

fn mode(word: &str) -> Option<MtlsMode> {
    match word {
        "disable" => Some(MtlsMode::Disable),
        "permissive" => Some(MtlsMode::Permissive),
        "strict" => Some(MtlsMode::Strict),
        _ => None,
    }
}

fn selected(rest: &[&str]) -> std::collections::BTreeMap<Str, Str> {
    option(rest, "select")
        .map(|s| pairs(&[s]))
        .unwrap_or_default()
}

fn selection(rest: &[&str]) -> Selection {
    let target = option(rest, "target").map(|t| t.split_once('/').expect("kind/name"));
    Selection {
        labels: selected(rest),
        targets: target
            .into_iter()
            .map(|(kind, name)| TargetRef {
                kind: kind.into(),
                name: name.into(),
            })
            .collect(),
    }
}

pub fn provider(text: &str) -> AuthzProvider {
    let (name, http) = match text.split_once(':') {
        Some((name, _)) => (name, true),
        None => (text, false),
    };
    AuthzProvider {
        name: name.into(),
        host: "authz.default.svc.cluster.local".into(),
        port: 9000,
        timeout: Duration::from_secs(600),
        fail_open: false,
        status_on_error: 403,
        body: None,
        clear_route_cache: false,
        protocol: match http {
            false => AuthzProtocol::Grpc,
            true => AuthzProtocol::Http {
                path_prefix: "".into(),
                request_headers: Vec::new(),
                additional_headers: Vec::new(),
                upstream_on_allow: Vec::new(),
                downstream_on_deny: Vec::new(),
                downstream_on_allow: Vec::new(),
            },
        },
    }
}

fn jwt(issuer: &str) -> JwtRule {
    JwtRule {
        issuer: Some(issuer.into()),
        audiences: Vec::new(),
        keys: JwtKeys::Inline("{}".into()),
        from_headers: Vec::new(),
        from_params: Vec::new(),
        from_cookies: Vec::new(),
        forward_original: false,
        payload_header: None,
        claim_headers: Vec::new(),
        space_delimited: Vec::new(),
    }
}

/// `from principals=a,b to methods=GET paths=/x when request.headers[x]=v,!w`: each `from` and `to` is one alternative.
pub fn rule(words: &[&str]) -> Rule {
    let mut rule = Rule::default();
    let mut part = "";
    for word in words {
        match *word {
            "from" => rule.from.push(Source::default()),
            "to" => rule.to.push(Operation::default()),
            "when" => {}
            text => {
                let (name, values) = text.split_once('=').expect("name=values");
                let values: Vec<Str> = values.split(',').map(Str::from).collect();
                match part {
                    "from" => source(rule.from.last_mut().expect("from"), name, values),
                    "to" => operation(rule.to.last_mut().expect("to"), name, values),
                    _ => rule.when.push(condition(name, values)),
                }
                continue;
            }
        }
        part = word;
    }
    rule
}

fn source(s: &mut Source, name: &str, values: Vec<Str>) {
    let nets = || values.iter().map(|v| v.parse().expect("network")).collect();
    match name {
        "principals" => s.principals = values,
        "notPrincipals" => s.not_principals = values,
        "requestPrincipals" => s.request_principals = values,
        "notRequestPrincipals" => s.not_request_principals = values,
        "namespaces" => s.namespaces = values,
        "notNamespaces" => s.not_namespaces = values,
        "serviceAccounts" => s.service_accounts = values,
        "notServiceAccounts" => s.not_service_accounts = values,
        "trustDomains" => s.trust_domains = values,
        "notTrustDomains" => s.not_trust_domains = values,
        "ipBlocks" => s.ip_blocks = nets(),
        "notIpBlocks" => s.not_ip_blocks = nets(),
        "remoteIpBlocks" => s.remote_ip_blocks = nets(),
        "notRemoteIpBlocks" => s.not_remote_ip_blocks = nets(),
        other => panic!("unknown source {other}"),
    }
}

fn operation(o: &mut Operation, name: &str, values: Vec<Str>) {
    let ports = || values.iter().map(|v| v.parse().expect("port")).collect();
    match name {
        "hosts" => o.hosts = values,
        "notHosts" => o.not_hosts = values,
        "ports" => o.ports = ports(),
        "notPorts" => o.not_ports = ports(),
        "methods" => o.methods = values,
        "notMethods" => o.not_methods = values,
        "paths" => o.paths = values,
        "notPaths" => o.not_paths = values,
        other => panic!("unknown operation {other}"),
    }
}

fn condition(name: &str, values: Vec<Str>) -> Condition {
    let (not, name) = match name.strip_prefix('!') {
        Some(name) => (true, name),
        None => (false, name),
    };
    let inner = |prefix: &str| name.strip_prefix(prefix)?.strip_suffix(']');
    let attribute = match name {
        "source.ip" => Attribute::SourceIp,
        "remote.ip" => Attribute::RemoteIp,
        "source.namespace" => Attribute::SourceNamespace,
        "source.serviceAccount" => Attribute::SourceServiceAccount,
        "source.trustDomain" => Attribute::SourceTrustDomain,
        "source.principal" => Attribute::SourcePrincipal,
        "request.auth.principal" => Attribute::RequestPrincipal,
        "request.auth.audiences" => Attribute::RequestAudiences,
        "request.auth.presenter" => Attribute::RequestPresenter,
        "destination.ip" => Attribute::DestinationIp,
        "destination.port" => Attribute::DestinationPort,
        "connection.sni" => Attribute::ServerName,
        _ => match (inner("request.headers["), inner("request.auth.claims[")) {
            (Some(header), _) => Attribute::RequestHeader(header.into()),
            (_, Some(claims)) => {
                Attribute::RequestClaim(claims.split("][").map(Str::from).collect())
            }
            _ => panic!("unknown attribute {name}"),
        },
    };
    let (values, not_values) = match not {
        true => (Vec::new(), values),
        false => (values, Vec::new()),
    };
    Condition {
        attribute,
        values,
        not_values,
    }
}
