//! The part of `metadata` that means something to the mesh, and typed configuration objects.

use crate::fields::Labels;
use serde_json::Value;

/// Names, labels, annotations and age of an object. `managedFields` and the like are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Meta {
    /// Name.
    pub name: String,
    /// Namespace; empty when the text names none or the kind has none.
    pub namespace: String,
    /// Labels.
    pub labels: Labels,
    /// Annotations, without kubectl's copy of the last applied object.
    pub annotations: Labels,
    /// `creationTimestamp` in unix milliseconds; 0 when absent.
    pub created: u64,
    /// `generation`; 0 when absent.
    pub generation: i64,
    /// Unique id; empty when absent.
    pub uid: String,
    /// `resourceVersion`; empty when absent.
    pub resource_version: String,
}

/// kubectl's copy of the object, which only repeats what is written elsewhere.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

impl Meta {
    /// Reads `metadata` out of an object. Parts with wrong types read as absent.
    pub fn of(object: &Value) -> Self {
        let meta = &object["metadata"];
        let text = |key: &str| meta[key].as_str().unwrap_or_default().to_owned();
        let map = |key: &str| -> Labels {
            meta[key]
                .as_object()
                .into_iter()
                .flatten()
                .filter(|(key, _)| *key != LAST_APPLIED)
                .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
                .collect()
        };
        let created = meta["creationTimestamp"]
            .as_str()
            .and_then(|text| text.parse::<jiff::Timestamp>().ok())
            .and_then(|time| u64::try_from(time.as_millisecond()).ok());
        Self {
            name: text("name"),
            namespace: text("namespace"),
            labels: map("labels"),
            annotations: map("annotations"),
            created: created.unwrap_or_default(),
            generation: meta["generation"].as_i64().unwrap_or_default(),
            uid: text("uid"),
            resource_version: text("resourceVersion"),
        }
    }
}

/// A typed object: its metadata and its spec. `status` is not part of what users write.
#[derive(Debug, Clone, PartialEq)]
pub struct Config<T> {
    /// Names, labels, annotations, age.
    pub meta: Meta,
    /// What the user asked for.
    pub spec: T,
}
