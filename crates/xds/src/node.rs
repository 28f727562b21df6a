//! What a proxy says of itself when it opens a stream: node id and metadata, both ways.

use lateen_base::Str;
use lateen_model::mesh::{Role, Scope};
use lateen_proto::discovery::{Node, Struct, Value, value::Kind};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

/// The node does not say who it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "node id {id:?} is not `<sidecar|router>~<ip>~<name>.<namespace>~<namespace>.svc.<domain>`: {reason}"
)]
pub struct BadNode {
    /// The id as sent.
    pub id: String,
    /// What is wrong.
    pub reason: &'static str,
}

/// The node id of a proxy (Istio: `<type>~<ip>~<name>.<ns>~<ns>.svc.<domain>`).
pub fn id(scope: &Scope) -> String {
    let kind = match scope.role {
        Role::Sidecar => "sidecar",
        Role::Gateway => "router",
    };
    let unknown = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let ip = scope.addresses.first().copied().unwrap_or(unknown);
    let (pod, namespace, domain) = (&scope.pod, &scope.namespace, &scope.domain);
    format!("{kind}~{ip}~{pod}.{namespace}~{namespace}.svc.{domain}")
}

/// The node message of a proxy. Metadata keys are Istio's where Istio has one.
pub(crate) fn encode(scope: &Scope, node_id: &str, version: &str) -> Node {
    let text = |value: &str| Value {
        kind: Some(Kind::StringValue(value.to_owned())),
    };
    let labels = scope
        .labels
        .iter()
        .map(|(k, v)| (k.to_string(), text(v)))
        .collect();
    let addresses: Vec<_> = scope.addresses.iter().map(ToString::to_string).collect();
    let mut fields: BTreeMap<String, Value> = [
        ("NAME", &*scope.pod),
        ("NAMESPACE", &*scope.namespace),
        ("INSTANCE_IPS", &addresses.join(",")),
        ("SERVICE_ACCOUNT", &*scope.service_account),
        ("WORKLOAD_NAME", &*scope.workload_name),
        ("CANONICAL_NAME", &*scope.canonical_name),
        ("CANONICAL_REVISION", &*scope.canonical_revision),
        ("CLUSTER_ID", &*scope.cluster),
        ("DOMAIN", &*scope.domain),
        ("ISTIO_VERSION", version),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), text(value)))
    .collect();
    if scope.on_demand {
        fields.insert("ON_DEMAND".to_owned(), text("true"));
    }
    let labels = Value {
        kind: Some(Kind::StructValue(Struct { fields: labels })),
    };
    fields.insert("LABELS".to_owned(), labels);
    Node {
        id: node_id.to_owned(),
        cluster: format!("{}.{}", scope.canonical_name, scope.namespace),
        metadata: Some(Struct { fields }),
    }
}

/// Who a node is, with its version. What the metadata leaves out comes from the id or is empty.
///
/// # Errors
/// The id has not four parts, or names no known type, pod or namespace.
pub(crate) fn decode(node: &Node) -> Result<(Scope, String), BadNode> {
    let bad = |reason| BadNode {
        id: node.id.clone(),
        reason,
    };
    let parts: Vec<_> = node.id.split('~').collect();
    let [kind, ip, name, domain] = parts[..] else {
        return Err(bad("it has not four parts"));
    };
    let role = match kind {
        "sidecar" => Role::Sidecar,
        "router" => Role::Gateway,
        _ => return Err(bad("its type is not known")),
    };
    // Pod names may hold dots, namespaces may not.
    let (pod, namespace) = name
        .rsplit_once('.')
        .filter(|(pod, namespace)| !pod.is_empty() && !namespace.is_empty())
        .ok_or_else(|| bad("its name is not `<name>.<namespace>`"))?;
    let fields = node.metadata.as_ref().map(|m| &m.fields);
    let text = |key: &str| match fields?.get(key)?.kind.as_ref()? {
        Kind::StringValue(value) => Some(value.as_str()),
        _ => None,
    };
    let labels = match fields.and_then(|f| f.get("LABELS")?.kind.as_ref()) {
        Some(Kind::StructValue(labels)) => strings(labels),
        _ => BTreeMap::new(),
    };
    let addresses = text("INSTANCE_IPS").unwrap_or(ip);
    let known = |ip: &IpAddr| !ip.is_unspecified();
    let or_empty = |key| Str::from(text(key).unwrap_or_default());
    let scope = Scope {
        on_demand: text("ON_DEMAND") == Some("true"),
        role,
        pod: pod.into(),
        namespace: namespace.into(),
        labels,
        addresses: addresses
            .split(',')
            .filter_map(|a| a.trim().parse().ok())
            .filter(known)
            .collect(),
        service_account: or_empty("SERVICE_ACCOUNT"),
        workload_name: or_empty("WORKLOAD_NAME"),
        canonical_name: or_empty("CANONICAL_NAME"),
        canonical_revision: text("CANONICAL_REVISION").unwrap_or("latest").into(),
        cluster: or_empty("CLUSTER_ID"),
        domain: match text("DOMAIN") {
            Some(domain) => domain.into(),
            None => domain.split_once(".svc.").map_or("", |(_, d)| d).into(),
        },
    };
    Ok((scope, text("ISTIO_VERSION").unwrap_or_default().to_owned()))
}

fn strings(from: &Struct) -> BTreeMap<Str, Str> {
    let text = |value: &Value| match &value.kind {
        Some(Kind::StringValue(text)) => Some(Str::from(text.as_str())),
        _ => None,
    };
    from.fields
        .iter()
        .filter_map(|(key, value)| Some((key.as_str().into(), text(value)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope() -> Scope {
        Scope {
            on_demand: false,
            role: Role::Gateway,
            pod: "web-0.a".into(),
            namespace: "shop".into(),
            labels: [("app".into(), "web".into())].into(),
            addresses: vec![[10, 0, 0, 1].into(), [0, 0, 0, 0, 0, 0, 0, 1].into()],
            service_account: "web".into(),
            workload_name: "web".into(),
            canonical_name: "web".into(),
            canonical_revision: "v1".into(),
            cluster: "Kubernetes".into(),
            domain: "cluster.local".into(),
        }
    }

    #[test]
    fn a_node_comes_back_as_it_was_sent() {
        let scope = scope();
        let id = id(&scope);
        assert_eq!(id, "router~10.0.0.1~web-0.a.shop~shop.svc.cluster.local");
        let node = encode(&scope, &id, "0.1.0");
        assert_eq!(decode(&node), Ok((scope, "0.1.0".to_owned())));
    }

    #[test]
    fn an_id_alone_is_enough_and_a_bad_one_says_why() {
        let of = |id: &str| {
            let node = Node {
                id: id.to_owned(),
                ..Node::default()
            };
            decode(&node)
        };
        let (scope, _) = of("sidecar~10.0.0.9~a.b~b.svc.example.org").expect("valid");
        assert_eq!(
            (&*scope.pod, &*scope.namespace, &*scope.domain),
            ("a", "b", "example.org")
        );
        assert_eq!(scope.addresses.len(), 1);
        for (id, reason) in [
            ("sidecar~1", "it has not four parts"),
            ("ztunnel~0.0.0.0~a.b~b.svc.c", "its type is not known"),
            (
                "sidecar~0.0.0.0~a~b.svc.c",
                "its name is not `<name>.<namespace>`",
            ),
        ] {
            assert_eq!(of(id).expect_err(id).reason, reason);
        }
    }
}
