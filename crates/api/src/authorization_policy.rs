//! AuthorizationPolicy as users write it (Istio: security.istio.io, `AuthorizationPolicy`).

use crate::fields::{MatchLabels, TargetReference};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who may do what at workloads. CUSTOM is decided first, then DENY; with any ALLOW policy, what none allows is
/// denied.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
    { "rule": "(has(self.selector) ? 1 : 0) + (has(self.targetRef) ? 1 : 0) + (has(self.targetRefs) ? 1 : 0) <= 1",
      "message": "selector, targetRef and targetRefs exclude each other: keep one of them" }
]))]
pub struct AuthorizationPolicy {
    /// Workloads of this namespace; all of them when absent, and all of the mesh in the root namespace.
    pub selector: Option<MatchLabels>,
    /// Old form of targetRefs with one entry.
    pub target_ref: Option<TargetReference>,
    /// Objects that the policy is attached to; excludes a selector.
    #[schemars(length(max = 16))]
    pub target_refs: Vec<TargetReference>,
    /// A request matches when any of these does; one empty rule matches every request, no rule none.
    #[schemars(length(max = 512))]
    pub rules: Vec<Rule>,
    /// What a match means; ALLOW when absent.
    pub action: Option<Action>,
    /// Who is asked (CUSTOM).
    pub provider: Option<ExtensionProvider>,
}

/// What a match means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Action {
    /// Allowed.
    Allow,
    /// Denied.
    Deny,
    /// Noted in the audit log.
    Audit,
    /// A provider is asked.
    Custom,
}

/// Who is asked.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ExtensionProvider {
    /// Name of an extension provider of the mesh's configuration.
    #[schemars(length(max = 253))]
    pub name: Option<String>,
}

/// One rule: the request must match from, to and when; what is absent matches every request.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Rule {
    /// Who calls: any of these.
    #[schemars(length(min = 1, max = 512))]
    pub from: Option<Vec<From>>,
    /// What is called: any of these.
    #[schemars(length(min = 1, max = 512))]
    pub to: Option<Vec<To>>,
    /// Further conditions: all of these.
    #[schemars(length(max = 512))]
    pub when: Vec<Condition>,
}

/// One kind of caller.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct From {
    /// The caller.
    pub source: Option<Box<Source>>,
}

/// One kind of operation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct To {
    /// The operation.
    pub operation: Option<Box<Operation>>,
}

/// Who calls. All fields that are given must match. Values may be exact, "prefix*", "*suffix" or "*" (anything that
/// is there), except where a field says otherwise.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Source {
    /// Identities of peers, such as cluster.local/ns/default/sa/sleep. Needs mutual TLS.
    #[schemars(length(max = 1024), inner(length(max = 2048)))]
    pub principals: Vec<String>,
    /// None of these identities.
    #[schemars(length(max = 1024), inner(length(max = 2048)))]
    pub not_principals: Vec<String>,
    /// Identities of requests as issuer/subject of their token.
    #[schemars(length(max = 1024), inner(length(max = 2048)))]
    pub request_principals: Vec<String>,
    /// None of these identities of requests.
    #[schemars(length(max = 1024), inner(length(max = 2048)))]
    pub not_request_principals: Vec<String>,
    /// Namespaces of peers. Needs mutual TLS.
    #[schemars(length(max = 1024), inner(length(max = 253)))]
    pub namespaces: Vec<String>,
    /// None of these namespaces.
    #[schemars(length(max = 1024), inner(length(max = 253)))]
    pub not_namespaces: Vec<String>,
    /// Addresses and ranges of the connection's source.
    #[schemars(length(max = 1024), inner(length(max = 64)))]
    pub ip_blocks: Vec<String>,
    /// None of these addresses and ranges.
    #[schemars(length(max = 1024), inner(length(max = 64)))]
    pub not_ip_blocks: Vec<String>,
    /// Addresses and ranges of the client as trusted proxies tell it (X-Forwarded-For).
    #[schemars(length(max = 1024), inner(length(max = 64)))]
    pub remote_ip_blocks: Vec<String>,
    /// None of these addresses and ranges.
    #[schemars(length(max = 1024), inner(length(max = 64)))]
    pub not_remote_ip_blocks: Vec<String>,
    /// Service accounts of peers as name or namespace/name, without wildcards. Excludes principals and namespaces.
    #[schemars(length(max = 16), inner(length(max = 320)))]
    pub service_accounts: Vec<String>,
    /// None of these service accounts.
    #[schemars(length(max = 16), inner(length(max = 320)))]
    pub not_service_accounts: Vec<String>,
    /// Trust domains of peers.
    #[schemars(length(max = 1024), inner(length(max = 253)))]
    pub trust_domains: Vec<String>,
    /// None of these trust domains.
    #[schemars(length(max = 1024), inner(length(max = 253)))]
    pub not_trust_domains: Vec<String>,
}

/// What is called. All fields that are given must match; values as in a source.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Operation {
    /// Hosts, in any case. HTTP only.
    #[schemars(length(max = 1024), inner(length(max = 2048)))]
    pub hosts: Vec<String>,
    /// None of these hosts.
    #[schemars(length(max = 1024), inner(length(max = 2048)))]
    pub not_hosts: Vec<String>,
    /// Ports of the workload, as text.
    #[schemars(length(max = 1024), inner(length(max = 5)))]
    pub ports: Vec<String>,
    /// None of these ports.
    #[schemars(length(max = 1024), inner(length(max = 5)))]
    pub not_ports: Vec<String>,
    /// Methods; POST for gRPC. HTTP only.
    #[schemars(length(max = 1024), inner(length(max = 256)))]
    pub methods: Vec<String>,
    /// None of these methods.
    #[schemars(length(max = 1024), inner(length(max = 256)))]
    pub not_methods: Vec<String>,
    /// Paths without query; {*} stands for one part, {**} for any number. HTTP only.
    #[schemars(length(max = 1024), inner(length(max = 4096)))]
    pub paths: Vec<String>,
    /// None of these paths.
    #[schemars(length(max = 1024), inner(length(max = 4096)))]
    pub not_paths: Vec<String>,
}

/// One condition on an attribute.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["key"]))]
pub struct Condition {
    /// The attribute, such as source.ip or request.headers[x-tenant].
    #[schemars(length(max = 1024))]
    pub key: String,
    /// Values of which it must have one.
    #[schemars(length(max = 1024), inner(length(max = 4096)))]
    pub values: Vec<String>,
    /// Values of which it must have none.
    #[schemars(length(max = 1024), inner(length(max = 4096)))]
    pub not_values: Vec<String>,
}

impl Source {
    /// The lists of patterns, with their names.
    pub fn patterns(&self) -> [(&'static str, &[String]); 8] {
        [
            ("principals", &self.principals),
            ("notPrincipals", &self.not_principals),
            ("requestPrincipals", &self.request_principals),
            ("notRequestPrincipals", &self.not_request_principals),
            ("namespaces", &self.namespaces),
            ("notNamespaces", &self.not_namespaces),
            ("trustDomains", &self.trust_domains),
            ("notTrustDomains", &self.not_trust_domains),
        ]
    }

    /// The lists of addresses and ranges, with their names.
    pub fn blocks(&self) -> [(&'static str, &[String]); 4] {
        [
            ("ipBlocks", &self.ip_blocks),
            ("notIpBlocks", &self.not_ip_blocks),
            ("remoteIpBlocks", &self.remote_ip_blocks),
            ("notRemoteIpBlocks", &self.not_remote_ip_blocks),
        ]
    }

    /// The lists of service accounts, with their names.
    pub fn accounts(&self) -> [(&'static str, &[String]); 2] {
        [
            ("serviceAccounts", &self.service_accounts),
            ("notServiceAccounts", &self.not_service_accounts),
        ]
    }
}

impl Operation {
    /// The lists of patterns, with their names.
    pub fn patterns(&self) -> [(&'static str, &[String]); 6] {
        [
            ("hosts", &self.hosts),
            ("notHosts", &self.not_hosts),
            ("methods", &self.methods),
            ("notMethods", &self.not_methods),
            ("paths", &self.paths),
            ("notPaths", &self.not_paths),
        ]
    }

    /// The lists of ports, with their names.
    pub fn port_lists(&self) -> [(&'static str, &[String]); 2] {
        [("ports", &self.ports), ("notPorts", &self.not_ports)]
    }
}
