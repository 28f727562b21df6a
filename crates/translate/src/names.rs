//! Names as Istio resolves them: short hosts, gateways, namespaces that see an object.

use lateen_api::meta::Meta;
use lateen_base::Str;
use lateen_model::name::{Origin, Visibility};

/// Full host of `host` as written in an object of `namespace`: a name without a dot gets
/// `.<namespace>.svc.<domain>` (Istio: short names resolve in the rule's own namespace); lower case, no trailing dot.
/// `*` stays.
pub fn full_host(host: &str, namespace: &str, domain: &str) -> Str {
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    if host == "*" || host.contains('.') || host.contains(':') {
        host.into()
    } else {
        service_host(&host, namespace, domain)
    }
}

/// Full host of a Kubernetes Service.
pub fn service_host(name: &str, namespace: &str, domain: &str) -> Str {
    format!("{name}.{namespace}.svc.{domain}").into()
}

/// A gateway as `namespace/name`; `mesh` stays. `name.namespace.…` is an old form of `namespace/name`.
pub fn gateway_name(gateway: &str, namespace: &str) -> Str {
    if gateway == "mesh" {
        return gateway.into();
    }
    match gateway.split_once('/') {
        Some((".", name)) => format!("{namespace}/{name}").into(),
        Some(_) => gateway.into(),
        None => {
            let mut parts = gateway.split('.');
            let name = parts.next().unwrap_or(gateway);
            format!("{}/{name}", parts.next().unwrap_or(namespace)).into()
        }
    }
}

/// Who sees an object: its `exportTo`, else the mesh's default for its kind, else everybody.
pub fn visibility(export_to: &[String], default: &[String], namespace: &str) -> Visibility {
    let chosen = if export_to.is_empty() {
        default
    } else {
        export_to
    };
    if chosen.is_empty() || chosen.iter().any(|entry| entry == "*") {
        return Visibility::Public;
    }
    Visibility::Namespaces(
        chosen
            .iter()
            .filter(|entry| *entry != "~")
            .map(|entry| {
                if entry == "." {
                    namespace.into()
                } else {
                    entry.as_str().into()
                }
            })
            .collect(),
    )
}

/// The origin of an object of `kind`.
pub fn origin(kind: &str, meta: &Meta) -> Origin {
    Origin {
        kind: kind.into(),
        namespace: meta.namespace.as_str().into(),
        name: meta.name.as_str().into(),
        created: meta.created,
    }
}

/// Labels as the model keeps them.
pub fn labels(labels: &lateen_api::fields::Labels) -> std::collections::BTreeMap<Str, Str> {
    labels
        .iter()
        .map(|(key, value)| (key.as_str().into(), value.as_str().into()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for (written, want) in [
            ("reviews", "reviews.ns.svc.cluster.local"),
            ("Reviews", "reviews.ns.svc.cluster.local"),
            (
                "reviews.other.svc.cluster.local.",
                "reviews.other.svc.cluster.local",
            ),
            ("www.Example.com", "www.example.com"),
            ("*", "*"),
            ("*.example.com", "*.example.com"),
            ("2001:db8::1", "2001:db8::1"),
        ] {
            assert_eq!(&*full_host(written, "ns", "cluster.local"), want);
        }
    }

    #[test]
    fn gateways() {
        for (written, want) in [
            ("mesh", "mesh"),
            ("g", "ns/g"),
            ("./g", "ns/g"),
            ("other/g", "other/g"),
            ("g.other.svc.cluster.local", "other/g"),
        ] {
            assert_eq!(&*gateway_name(written, "ns"), want);
        }
    }

    #[test]
    fn who_sees() {
        let list = |entries: &[&str]| entries.iter().map(ToString::to_string).collect::<Vec<_>>();
        let names = |entries: &[&str]| {
            Visibility::Namespaces(entries.iter().map(|e| (*e).into()).collect())
        };
        assert_eq!(visibility(&[], &[], "ns"), Visibility::Public);
        assert_eq!(visibility(&[], &list(&["."]), "ns"), names(&["ns"]));
        assert_eq!(
            visibility(&list(&["*"]), &list(&["."]), "ns"),
            Visibility::Public
        );
        assert_eq!(visibility(&list(&["~"]), &[], "ns"), names(&[]));
        assert_eq!(
            visibility(&list(&[".", "b"]), &[], "ns"),
            names(&["ns", "b"])
        );
    }
}
