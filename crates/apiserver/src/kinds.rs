//! What is served: the built-in kinds and those of CRDs, found by group, version and resource.

mod builtin;

use crate::schema::Structural;
use crate::shape::{Shapes, Typed};
use crate::store::Resource;
use parking_lot::RwLock;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

/// One resource in one version.
pub struct Kind {
    /// API group; empty for core.
    pub group: String,
    /// Version.
    pub version: String,
    /// Kind, such as `Pod`.
    pub kind: String,
    /// Kind of lists, such as `PodList`.
    pub list_kind: String,
    /// Plural, as in paths.
    pub plural: String,
    /// Singular.
    pub singular: String,
    /// Short names for kubectl.
    pub short: Vec<String>,
    /// Groups of kinds for kubectl, such as `all`.
    pub categories: Vec<String>,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Served subresources.
    pub subresources: Vec<String>,
    /// Whether objects are only answered, never stored (reviews): `create` is the one verb.
    pub review: bool,
    /// Where objects are stored.
    pub resource: Resource,
    /// Name of the type in the OpenAPI document.
    pub type_name: String,
    /// What a CRD adds; absent for built-in kinds.
    pub custom: Option<Custom>,
    shapes: Arc<Shapes>,
}

/// The parts of a served version that come from its CRD.
pub struct Custom {
    /// Its schema as in the CRD.
    pub schema: Value,
    /// Its compiled schema.
    pub structural: Structural,
    /// `additionalPrinterColumns`.
    pub columns: Vec<Value>,
    /// `subresources.scale`.
    pub scale: Option<Value>,
    /// `selectableFields` paths, such as `.spec.color`.
    pub selectable: Vec<String>,
    /// Version served in place of this one's preference: lower sorts first in discovery.
    pub rank: usize,
}

impl Kind {
    /// The type of objects.
    pub fn typed(&self) -> Typed<'_> {
        self.shapes.typed(&self.type_name)
    }

    /// The type of `metadata`.
    pub fn metadata(&self) -> Typed<'_> {
        self.shapes.typed(META)
    }

    /// `apiVersion` of objects.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// Whether a subresource is served.
    pub fn serves(&self, subresource: &str) -> bool {
        self.subresources.iter().any(|name| name == subresource)
    }

    /// Whether this is a built-in kind of the group.
    pub fn is(&self, group: &str, plural: &str) -> bool {
        self.custom.is_none() && self.group == group && self.plural == plural
    }

    /// Served verbs in discovery's order.
    pub fn verbs(&self) -> &'static [&'static str] {
        if self.review {
            &["create"]
        } else {
            &[
                "create",
                "delete",
                "deletecollection",
                "get",
                "list",
                "patch",
                "update",
                "watch",
            ]
        }
    }
}

/// (group, version, plural).
type Address = (String, String, String);

/// Everything served now.
pub struct Registry {
    builtin: Arc<Shapes>,
    definitions: Arc<Map<String, Value>>,
    kinds: RwLock<Arc<BTreeMap<Address, Arc<Kind>>>>,
}

impl Registry {
    /// The built-in kinds.
    pub fn new() -> Self {
        let (definitions, rows) = builtin::rows();
        let shapes = Arc::new(Shapes::compile(&definitions));
        let kinds = rows.into_iter().map(|row| row.into_kind(shapes.clone()));
        let kinds = kinds.map(|kind| (address(&kind), Arc::new(kind))).collect();
        Self {
            builtin: shapes,
            definitions: Arc::new(definitions),
            kinds: RwLock::new(Arc::new(kinds)),
        }
    }

    /// The built-in types.
    pub fn builtin(&self) -> &Arc<Shapes> {
        &self.builtin
    }

    /// OpenAPI definitions of the built-in types.
    pub fn definitions(&self) -> &Arc<Map<String, Value>> {
        &self.definitions
    }

    /// A served resource.
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Kind>> {
        self.kinds
            .read()
            .get(&(group.to_owned(), version.to_owned(), plural.to_owned()))
            .cloned()
    }

    /// A served resource by its kind.
    pub fn find_kind(&self, api_version: &str, kind: &str) -> Option<Arc<Kind>> {
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
        self.all()
            .values()
            .find(|k| k.group == group && k.version == version && k.kind == kind)
            .cloned()
    }

    /// Everything served, by address.
    pub fn all(&self) -> Arc<BTreeMap<Address, Arc<Kind>>> {
        self.kinds.read().clone()
    }

    /// Each stored resource once.
    pub fn resources(&self) -> Vec<Arc<Kind>> {
        let all = self.all();
        let mut seen = std::collections::HashSet::new();
        all.values()
            .filter(|kind| !kind.review && seen.insert(kind.resource.clone()))
            .cloned()
            .collect()
    }

    /// Serves these versions of a CRD's resource in place of those served before.
    pub fn replace(&self, group: &str, plural: &str, versions: Vec<Kind>) {
        let mut kinds = self.kinds.write();
        let mut next = (**kinds).clone();
        next.retain(|_, kind| {
            !(kind.custom.is_some() && kind.group == group && kind.plural == plural)
        });
        next.extend(
            versions
                .into_iter()
                .map(|kind| (address(&kind), Arc::new(kind))),
        );
        *kinds = Arc::new(next);
    }

    /// The kind of one version of a CRD.
    pub fn custom(&self, crd: &Value, version: &Value, custom: Custom) -> Kind {
        let spec = &crd["spec"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let texts = |value: &Value| {
            value
                .as_array()
                .into_iter()
                .flatten()
                .map(text)
                .collect::<Vec<_>>()
        };
        // The status holds the accepted names, with Kubernetes' defaults filled in.
        let names = &spec["names"];
        let (group, plural, kind) = (
            text(&spec["group"]),
            text(&names["plural"]),
            text(&names["kind"]),
        );
        let or = |value: String, default: String| if value.is_empty() { default } else { value };
        let type_name = format!("{}.{}.{kind}", reversed(&group), text(&version["name"]));
        let mut schema = custom.schema.clone();
        if !schema["properties"].is_object() {
            schema["x-kubernetes-preserve-unknown-fields"] = Value::Bool(true);
            schema["properties"] = Value::Object(Map::new());
        }
        schema["properties"]["metadata"] =
            serde_json::json!({"$ref": format!("#/components/schemas/{META}")});
        schema["properties"]["apiVersion"] = serde_json::json!({"type": "string"});
        schema["properties"]["kind"] = serde_json::json!({"type": "string"});
        let shapes = Arc::new(Shapes::single(&type_name, &schema, self.builtin.clone()));
        let mut subresources = Vec::new();
        if version["subresources"]["status"].is_object() {
            subresources.push("status".to_owned());
        }
        if custom.scale.is_some() {
            subresources.push("scale".to_owned());
        }
        Kind {
            resource: Resource::new(&group, &plural),
            version: text(&version["name"]),
            list_kind: or(text(&names["listKind"]), format!("{kind}List")),
            singular: or(text(&names["singular"]), kind.to_lowercase()),
            short: texts(&names["shortNames"]),
            categories: texts(&names["categories"]),
            namespaced: spec["scope"] == "Namespaced",
            subresources,
            review: false,
            type_name,
            custom: Some(custom),
            shapes,
            group,
            plural,
            kind,
        }
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

/// Name of `ObjectMeta` in the OpenAPI document.
pub const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

fn address(kind: &Kind) -> Address {
    (
        kind.group.clone(),
        kind.version.clone(),
        kind.plural.clone(),
    )
}

/// `io.istio.networking` for `networking.istio.io`, as in names of OpenAPI types.
fn reversed(group: &str) -> String {
    group.split('.').rev().collect::<Vec<_>>().join(".")
}
