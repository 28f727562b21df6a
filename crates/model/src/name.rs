//! Names of things: services, the user's objects, and who may see them. No lookup happens here.

use lateen_base::Str;
use serde::{Serialize, Serializer};
use std::fmt;

/// A service's key: the namespace of the object that declares it and its fully qualified host name
/// (lower case, no trailing dot). Written `namespace/hostname`.
/// It is serialized in that form, so that it can be a key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceKey {
    /// Namespace of the declaring Service or ServiceEntry.
    pub namespace: Str,
    /// Fully qualified host name, such as `reviews.default.svc.cluster.local`; may start with `*.`.
    pub hostname: Str,
}

impl Serialize for ServiceKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.hostname)
    }
}

/// The user's object that a value came from, named in refusals, logs and `lateen why`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Origin {
    /// Kind as users write it, such as `VirtualService`.
    pub kind: Str,
    /// The object's namespace; empty for cluster-scoped objects.
    pub namespace: Str,
    /// The object's name.
    pub name: Str,
    /// `metadata.creationTimestamp` in unix milliseconds; ties are broken by age, oldest first
    /// (Istio: conflict resolution by creation time, then name).
    pub created: u64,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// Which client namespaces may see an object (Istio: `exportTo`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub enum Visibility {
    /// Every namespace (`*`), Istio's default.
    Public,
    /// Only these namespaces; `.` is already replaced by the object's own. Empty: nobody (`~`).
    Namespaces(Vec<Str>),
}

impl Visibility {
    /// Whether a client in `namespace` may see the object.
    pub fn includes(&self, namespace: &str) -> bool {
        match self {
            Self::Public => true,
            Self::Namespaces(names) => names.iter().any(|n| &**n == namespace),
        }
    }
}
