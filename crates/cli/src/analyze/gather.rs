//! What is looked at: objects of a cluster, and of files, which take the place of the cluster's.

use crate::args::Connection;
use crate::cluster::Cluster;
use crate::local::files;
use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::{Pod, Service};
use lateen_api::notice::{Notice, Place, Subject};
use lateen_api::object::{Object, from_json};
use lateen_api::yaml::{self, Document};
use lateen_base::Str;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// Kinds of the mesh, as their collections are called.
const KINDS: [&str; 10] = [
    "gateways.networking.istio.io",
    "virtualservices.networking.istio.io",
    "destinationrules.networking.istio.io",
    "serviceentries.networking.istio.io",
    "sidecars.networking.istio.io",
    "workloadentries.networking.istio.io",
    "peerauthentications.security.istio.io",
    "requestauthentications.security.istio.io",
    "authorizationpolicies.security.istio.io",
    "ratelimitpolicies.networking.lateen.dev",
];

/// Istio's code for an object that is not what its schema says.
const UNREADABLE: &str = "IST0106";

/// Annotation that lists codes not to be told of an object (Istio's).
const SUPPRESS: &str = "galley.istio.io/analyze-suppress";

/// Everything that is looked at.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    entries: BTreeMap<Subject, Entry>,
    pub services: Vec<Service>,
    pub pods: Vec<Pod>,
    /// Labels of namespaces by name.
    pub namespaces: BTreeMap<String, BTreeMap<String, String>>,
    /// What was said while reading.
    pub notices: Vec<Notice>,
    /// The namespace that is looked at when no other is named.
    pub namespace: String,
    mesh: Option<String>,
}

#[derive(Debug)]
struct Entry {
    object: Object,
    /// Absent: it is the cluster's.
    document: Option<Document>,
}

impl Gathered {
    /// Nothing yet; objects of files that name no namespace are in this one, or in `default`.
    pub fn within(namespace: Option<&str>) -> Self {
        Self {
            namespace: namespace.unwrap_or("default").to_owned(),
            ..Self::default()
        }
    }

    /// Reads every object that the cluster has of what matters.
    pub async fn read_cluster(&mut self, connection: &Connection) -> Result<()> {
        let cluster = Cluster::connect(
            connection.kubeconfig.as_deref(),
            connection.namespace.clone(),
        )
        .await?;
        self.namespace.clone_from(&cluster.namespace);
        for word in KINDS {
            // Not installed: there are none.
            let Ok(kind) = cluster.kind(word) else {
                continue;
            };
            for value in list(&cluster, &kind.path(None, None)).await? {
                let (object, notices) = from_json(value);
                self.notices.extend(notices.into_iter().map(coded));
                self.entries.extend(object.map(|object| {
                    (
                        object.subject(),
                        Entry {
                            object,
                            document: None,
                        },
                    )
                }));
            }
        }
        self.services = typed(&cluster, "/api/v1/services").await?;
        self.pods = typed(&cluster, "/api/v1/pods").await?;
        for value in list(&cluster, "/api/v1/namespaces").await? {
            let labels = serde_json::from_value(value["metadata"]["labels"].clone());
            let name = value["metadata"]["name"].as_str().unwrap_or_default();
            self.namespaces
                .insert(name.to_owned(), labels.unwrap_or_default());
        }
        let config = "/api/v1/namespaces/istio-system/configmaps/istio";
        if let Ok(found) = cluster.read(config).await {
            self.mesh = found["data"]["mesh"].as_str().map(str::to_owned);
        }
        Ok(())
    }

    /// Reads a file, a folder of YAML files, or standard input (`-`).
    pub fn read_files(&mut self, path: &Path, recursive: bool) -> Result<()> {
        if path.as_os_str() == "-" {
            let text = std::io::read_to_string(std::io::stdin())?;
            self.read_text("standard input", &text);
            return Ok(());
        }
        for file in files(path, recursive)? {
            let shown = file.display().to_string();
            let text =
                std::fs::read_to_string(&file).with_context(|| format!("cannot read {shown}"))?;
            self.read_text(&shown, &text);
        }
        Ok(())
    }

    pub(super) fn read_text(&mut self, file: &str, text: &str) {
        for mut document in yaml::parse(file, text) {
            self.notices
                .extend(document.notices.iter().cloned().map(coded));
            let Some(object) = document.object.take() else {
                continue;
            };
            match &object {
                Object::Kubernetes(_) => self.take_kubernetes(&document.value),
                object => {
                    let object = in_namespace(object, &self.namespace, &document.value);
                    let entry = Entry {
                        object,
                        document: Some(document),
                    };
                    self.entries.insert(entry.object.subject(), entry);
                }
            }
        }
    }

    fn take_kubernetes(&mut self, value: &Value) {
        let name = value["metadata"]["name"].as_str().unwrap_or_default();
        match value["kind"].as_str() {
            Some("Service") => {
                let mut service: Service =
                    serde_json::from_value(value.clone()).unwrap_or_default();
                let own = self.namespace.clone();
                let namespace = service.metadata.namespace.get_or_insert(own).clone();
                self.services.retain(|old| {
                    (
                        old.metadata.namespace.as_deref(),
                        old.metadata.name.as_deref(),
                    ) != (Some(&*namespace), Some(name))
                });
                self.services.push(service);
            }
            Some("ConfigMap") if name == "istio" => {
                self.mesh = value["data"]["mesh"].as_str().map(str::to_owned);
            }
            _ => {}
        }
    }

    /// MeshConfig as written; absent: none was found.
    pub fn mesh_config(&self) -> Option<String> {
        self.mesh.clone()
    }

    /// Every object of the mesh's kinds.
    pub fn objects(&self) -> Vec<&Object> {
        self.entries.values().map(|entry| &entry.object).collect()
    }

    /// Namespaces and labels of pods, in the form that analysis takes.
    pub fn workloads(&self) -> Vec<(String, BTreeMap<Str, Str>)> {
        let pods = self.pods.iter().map(|pod| {
            let labels = pod.metadata.labels.iter().flatten();
            let labels = labels.map(|(key, value)| (key.as_str().into(), value.as_str().into()));
            let namespace = pod.metadata.namespace.clone();
            (namespace.unwrap_or_default(), labels.collect())
        });
        pods.collect()
    }

    /// Adds files and lines to notices about objects that came from files.
    pub fn place(&self, notices: &mut [Notice]) {
        for notice in notices.iter_mut().filter(|notice| notice.place.is_none()) {
            let entry = self.entries.get(&notice.subject);
            if let Some(document) = entry.and_then(|entry| entry.document.as_ref()) {
                notice.place = Some(Place {
                    file: document.file.clone(),
                    line: document.line_of(&notice.field),
                });
            }
        }
    }

    /// Whether a notice is about something in `namespace`, in a file, or about no namespace.
    pub fn is_of(&self, notice: &Notice, namespace: &str) -> bool {
        let subject = &notice.subject;
        let own = match &*subject.kind {
            "Namespace" => subject.name == namespace,
            _ => subject.namespace.is_empty() || subject.namespace == namespace,
        };
        own || notice.place.is_some()
    }

    /// Whether the object that a notice is about does not want to hear its code.
    pub fn is_suppressed(&self, notice: &Notice) -> bool {
        let Some(code) = notice.code else {
            return false;
        };
        let entry = self.entries.get(&notice.subject);
        let list = entry.and_then(|entry| entry.object.meta().annotations.get(SUPPRESS));
        let mut wanted = list.iter().flat_map(|list| list.split(','));
        wanted.any(|one| matches!(one.trim(), "*") || one.trim() == code)
    }
}

/// A notice of an object that cannot be read, with Istio's code for that.
fn coded(mut notice: Notice) -> Notice {
    if notice.is_error() && notice.code.is_none() {
        notice.code = Some(UNREADABLE);
    }
    notice
}

/// The object with the namespace that it gets when it is applied.
fn in_namespace(object: &Object, namespace: &str, written: &Value) -> Object {
    if !object.meta().namespace.is_empty() {
        return object.clone();
    }
    let mut value = written.clone();
    value["metadata"]["namespace"] = namespace.into();
    from_json(value).0.unwrap_or_else(|| object.clone())
}

async fn list(cluster: &Cluster, path: &str) -> Result<Vec<Value>> {
    let mut list = cluster
        .read(path)
        .await
        .with_context(|| format!("cannot list {path}"))?;
    let (version, kind) = (list["apiVersion"].clone(), list["kind"].clone());
    let kind = kind
        .as_str()
        .and_then(|kind| kind.strip_suffix("List"))
        .unwrap_or_default();
    let items = list["items"]
        .as_array_mut()
        .map(std::mem::take)
        .unwrap_or_default();
    // Items of a list do not say what they are.
    let named = items.into_iter().map(|mut item| {
        if item["kind"].is_null() {
            item["kind"] = kind.into();
            item["apiVersion"] = version.clone();
        }
        item
    });
    Ok(named.collect())
}

async fn typed<T: serde::de::DeserializeOwned>(cluster: &Cluster, path: &str) -> Result<Vec<T>> {
    let values = list(cluster, path).await?;
    Ok(values
        .into_iter()
        .filter_map(|value| serde_json::from_value(value).ok())
        .collect())
}
