//! The table of kinds that Lateen knows: names, versions, columns, and how far each is supported.
//! It does not hold schemas; those are in [`crate::crd`].

/// How far a kind is supported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    /// Istio kind with a type of its own: see [`crate::object::Object`].
    Typed,
    /// Kubernetes kind, kept as JSON.
    Kubernetes,
    /// Known by name; not in force yet.
    Later,
}

/// A column that `kubectl get` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// Heading.
    pub name: &'static str,
    /// `string` or `date`.
    pub data_type: &'static str,
    /// JSON path of the value.
    pub json_path: &'static str,
    /// What it shows.
    pub description: &'static str,
}

/// One kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// API group; empty for Kubernetes' core group.
    pub group: &'static str,
    /// Served versions; the first is preferred.
    pub versions: &'static [&'static str],
    /// Version that is stored.
    pub storage: &'static str,
    /// Kind, such as `VirtualService`.
    pub kind: &'static str,
    /// Plural, as in URLs.
    pub plural: &'static str,
    /// Singular, as on the command line.
    pub singular: &'static str,
    /// Short names.
    pub short_names: &'static [&'static str],
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Categories that `kubectl get` expands.
    pub categories: &'static [&'static str],
    /// Columns beside the name.
    pub columns: &'static [Column],
    /// How far it is supported.
    pub support: Support,
}

impl Kind {
    /// `group/version` as in `apiVersion`, for one of its versions.
    pub fn api_version(&self, version: &str) -> String {
        if self.group.is_empty() {
            version.to_owned()
        } else {
            format!("{}/{version}", self.group)
        }
    }

    /// Whether `text` names this kind on a command line: kind, plural, singular, short name or `plural.group`.
    pub fn is_called(&self, text: &str) -> bool {
        let plain = |text: &str| {
            text.eq_ignore_ascii_case(self.kind)
                || text.eq_ignore_ascii_case(self.plural)
                || text.eq_ignore_ascii_case(self.singular)
                || self
                    .short_names
                    .iter()
                    .any(|s| text.eq_ignore_ascii_case(s))
        };
        plain(text)
            || text
                .split_once('.')
                .is_some_and(|(name, group)| plain(name) && group == self.group)
    }
}

/// The kind that `apiVersion` and `kind` of an object name, in any served version.
/// Absent: Lateen does not know the group and kind, or the version is not served.
pub fn find(api_version: &str, kind: &str) -> Option<&'static Kind> {
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    of_group(group, kind).filter(|k| k.versions.contains(&version))
}

/// The kind of this name in an API group, whatever its version.
pub fn of_group(group: &str, kind: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|k| k.group == group && k.kind == kind)
}

/// The kind that a user means by a word such as `vs`, `virtualservices` or `gateways.networking.istio.io`.
/// Istio's kinds come before others of the same name.
pub fn named(word: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|k| k.is_called(word))
}

const fn column(name: &'static str, json_path: &'static str, description: &'static str) -> Column {
    Column {
        name,
        data_type: "string",
        json_path,
        description,
    }
}

const AGE: Column = Column {
    name: "Age",
    data_type: "date",
    json_path: ".metadata.creationTimestamp",
    description: "Time since the object was created",
};

const NETWORKING: &str = "networking.istio.io";
const THREE: &[&str] = &["v1", "v1beta1", "v1alpha3"];

/// What all of Istio's kinds share.
const ISTIO: Kind = Kind {
    group: NETWORKING,
    versions: THREE,
    storage: "v1",
    kind: "",
    plural: "",
    singular: "",
    short_names: &[],
    namespaced: true,
    categories: &["istio-io", "networking-istio-io"],
    columns: &[AGE],
    support: Support::Typed,
};

/// What Istio's security kinds share.
const SECURE: Kind = Kind {
    group: SECURITY,
    versions: &["v1", "v1beta1"],
    categories: &["istio-io", "security-istio-io"],
    ..ISTIO
};

/// An Istio kind that is known by name only.
const fn later(
    group: &'static str,
    versions: &'static [&'static str],
    kind: &'static str,
    names: (&'static str, &'static str),
) -> Kind {
    Kind {
        group,
        versions,
        storage: versions[0],
        kind,
        plural: names.1,
        singular: names.0,
        short_names: &[],
        namespaced: true,
        categories: &["istio-io"],
        columns: &[AGE],
        support: Support::Later,
    }
}

/// A Kubernetes kind.
const fn kubernetes(
    group: &'static str,
    kind: &'static str,
    names: (&'static str, &'static str),
    short_names: &'static [&'static str],
    namespaced: bool,
) -> Kind {
    Kind {
        group,
        versions: &["v1"],
        storage: "v1",
        kind,
        plural: names.1,
        singular: names.0,
        short_names,
        namespaced,
        categories: &[],
        columns: &[],
        support: Support::Kubernetes,
    }
}

const APPS: &str = "apps";
const RBAC: &str = "rbac.authorization.k8s.io";
const ADMISSION: &str = "admissionregistration.k8s.io";
const GATEWAY_API: &str = "gateway.networking.k8s.io";
const SECURITY: &str = "security.istio.io";
const EXTENSIONS: &str = "extensions.istio.io";

/// The API group of Lateen's own kinds.
pub const LATEEN: &str = "networking.lateen.dev";

/// Every kind that Lateen knows.
pub static KINDS: &[Kind] = &[
    Kind {
        kind: "VirtualService",
        plural: "virtualservices",
        singular: "virtualservice",
        short_names: &["vs"],
        columns: &[
            column(
                "Gateways",
                ".spec.gateways",
                "Gateways and sidecars that the rules bind to",
            ),
            column("Hosts", ".spec.hosts", "Hosts that the rules are for"),
            AGE,
        ],
        ..ISTIO
    },
    Kind {
        kind: "DestinationRule",
        plural: "destinationrules",
        singular: "destinationrule",
        short_names: &["dr"],
        columns: &[
            column("Host", ".spec.host", "Host that the policy is for"),
            AGE,
        ],
        ..ISTIO
    },
    Kind {
        kind: "Gateway",
        plural: "gateways",
        singular: "gateway",
        short_names: &["gw"],
        ..ISTIO
    },
    Kind {
        kind: "ServiceEntry",
        plural: "serviceentries",
        singular: "serviceentry",
        short_names: &["se"],
        columns: &[
            column("Hosts", ".spec.hosts", "Hosts of the service"),
            column(
                "Location",
                ".spec.location",
                "Whether the service belongs to the mesh",
            ),
            column("Resolution", ".spec.resolution", "How endpoints are found"),
            AGE,
        ],
        ..ISTIO
    },
    Kind {
        kind: "Sidecar",
        plural: "sidecars",
        singular: "sidecar",
        ..ISTIO
    },
    Kind {
        kind: "WorkloadEntry",
        plural: "workloadentries",
        singular: "workloadentry",
        short_names: &["we"],
        columns: &[
            AGE,
            column("Address", ".spec.address", "Address of the workload"),
        ],
        ..ISTIO
    },
    Kind {
        kind: "AuthorizationPolicy",
        plural: "authorizationpolicies",
        singular: "authorizationpolicy",
        short_names: &["ap"],
        columns: &[column("Action", ".spec.action", "What a match means"), AGE],
        ..SECURE
    },
    Kind {
        kind: "PeerAuthentication",
        plural: "peerauthentications",
        singular: "peerauthentication",
        short_names: &["pa"],
        columns: &[
            column("Mode", ".spec.mtls.mode", "The mode of mutual TLS"),
            AGE,
        ],
        ..SECURE
    },
    Kind {
        kind: "RequestAuthentication",
        plural: "requestauthentications",
        singular: "requestauthentication",
        short_names: &["ra"],
        ..SECURE
    },
    Kind {
        group: LATEEN,
        versions: &["v1alpha1"],
        storage: "v1alpha1",
        kind: "RateLimitPolicy",
        plural: "ratelimitpolicies",
        singular: "ratelimitpolicy",
        short_names: &["rlp"],
        categories: &["lateen"],
        ..ISTIO
    },
    later(
        NETWORKING,
        THREE,
        "WorkloadGroup",
        ("workloadgroup", "workloadgroups"),
    ),
    later(
        NETWORKING,
        &["v1alpha3"],
        "EnvoyFilter",
        ("envoyfilter", "envoyfilters"),
    ),
    later(
        NETWORKING,
        &["v1beta1"],
        "ProxyConfig",
        ("proxyconfig", "proxyconfigs"),
    ),
    later(
        "telemetry.istio.io",
        &["v1", "v1alpha1"],
        "Telemetry",
        ("telemetry", "telemetries"),
    ),
    later(
        EXTENSIONS,
        &["v1alpha1"],
        "WasmPlugin",
        ("wasmplugin", "wasmplugins"),
    ),
    later(
        EXTENSIONS,
        &["v1alpha1"],
        "TrafficExtension",
        ("trafficextension", "trafficextensions"),
    ),
    later(
        GATEWAY_API,
        &["v1", "v1beta1"],
        "GatewayClass",
        ("gatewayclass", "gatewayclasses"),
    ),
    later(
        GATEWAY_API,
        &["v1", "v1beta1"],
        "Gateway",
        ("gateway", "gateways"),
    ),
    later(
        GATEWAY_API,
        &["v1", "v1beta1"],
        "HTTPRoute",
        ("httproute", "httproutes"),
    ),
    later(
        GATEWAY_API,
        &["v1"],
        "GRPCRoute",
        ("grpcroute", "grpcroutes"),
    ),
    later(
        GATEWAY_API,
        &["v1", "v1alpha2"],
        "TCPRoute",
        ("tcproute", "tcproutes"),
    ),
    later(
        GATEWAY_API,
        &["v1", "v1alpha3", "v1alpha2"],
        "TLSRoute",
        ("tlsroute", "tlsroutes"),
    ),
    later(
        GATEWAY_API,
        &["v1beta1"],
        "ReferenceGrant",
        ("referencegrant", "referencegrants"),
    ),
    later(
        "networking.k8s.io",
        &["v1"],
        "Ingress",
        ("ingress", "ingresses"),
    ),
    later(
        "networking.k8s.io",
        &["v1"],
        "IngressClass",
        ("ingressclass", "ingressclasses"),
    ),
    kubernetes("", "Pod", ("pod", "pods"), &["po"], true),
    kubernetes("", "Service", ("service", "services"), &["svc"], true),
    kubernetes("", "Namespace", ("namespace", "namespaces"), &["ns"], false),
    kubernetes("", "Node", ("node", "nodes"), &["no"], false),
    kubernetes(
        "",
        "ServiceAccount",
        ("serviceaccount", "serviceaccounts"),
        &["sa"],
        true,
    ),
    kubernetes("", "ConfigMap", ("configmap", "configmaps"), &["cm"], true),
    kubernetes("", "Secret", ("secret", "secrets"), &[], true),
    kubernetes("", "Event", ("event", "events"), &["ev"], true),
    kubernetes(
        APPS,
        "Deployment",
        ("deployment", "deployments"),
        &["deploy"],
        true,
    ),
    kubernetes(
        APPS,
        "ReplicaSet",
        ("replicaset", "replicasets"),
        &["rs"],
        true,
    ),
    kubernetes("batch", "Job", ("job", "jobs"), &[], true),
    kubernetes(
        "discovery.k8s.io",
        "EndpointSlice",
        ("endpointslice", "endpointslices"),
        &[],
        true,
    ),
    kubernetes(RBAC, "Role", ("role", "roles"), &[], true),
    kubernetes(
        RBAC,
        "RoleBinding",
        ("rolebinding", "rolebindings"),
        &[],
        true,
    ),
    kubernetes(
        RBAC,
        "ClusterRole",
        ("clusterrole", "clusterroles"),
        &[],
        false,
    ),
    kubernetes(
        RBAC,
        "ClusterRoleBinding",
        ("clusterrolebinding", "clusterrolebindings"),
        &[],
        false,
    ),
    kubernetes(
        "coordination.k8s.io",
        "Lease",
        ("lease", "leases"),
        &[],
        true,
    ),
    kubernetes(
        ADMISSION,
        "MutatingWebhookConfiguration",
        (
            "mutatingwebhookconfiguration",
            "mutatingwebhookconfigurations",
        ),
        &[],
        false,
    ),
    kubernetes(
        ADMISSION,
        "ValidatingWebhookConfiguration",
        (
            "validatingwebhookconfiguration",
            "validatingwebhookconfigurations",
        ),
        &[],
        false,
    ),
    kubernetes(
        "apiextensions.k8s.io",
        "CustomResourceDefinition",
        ("customresourcedefinition", "customresourcedefinitions"),
        &["crd", "crds"],
        false,
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn found_by_what_users_write() {
        assert_eq!(named("vs").map(|k| k.kind), Some("VirtualService"));
        assert_eq!(
            named("gateways.networking.istio.io").map(|k| k.group),
            Some(NETWORKING)
        );
        assert_eq!(
            named("gateways.gateway.networking.k8s.io").map(|k| k.group),
            Some(GATEWAY_API)
        );
        for version in THREE {
            let api_version = format!("{NETWORKING}/{version}");
            assert!(find(&api_version, "Sidecar").is_some(), "{api_version}");
        }
        assert!(find("networking.istio.io/v2", "Sidecar").is_none());
        assert!(find("v1", "Pod").is_some() && find("v1", "VirtualService").is_none());
    }

    #[test]
    fn the_stored_version_is_served() {
        for kind in KINDS {
            assert!(kind.versions.contains(&kind.storage), "{}", kind.kind);
        }
    }
}
