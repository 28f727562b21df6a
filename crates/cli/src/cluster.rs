//! Talking to a Kubernetes-style API server as a command-line client: discovery, apply, read, delete, wait.
//! Raw JSON throughout, so that any kind works. It knows no mesh noun.

use anyhow::{Context as _, Result, bail};
use http::{Method, Request, header};
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Field manager of objects that the command line applies.
const FIELD_MANAGER: &str = "lateen";

/// A connection to a cluster with what it serves.
pub struct Cluster {
    client: Client,
    /// Namespace for objects and queries that name none.
    pub namespace: String,
    kinds: Vec<Kind>,
}

/// One served resource.
#[derive(Debug, Clone)]
pub struct Kind {
    /// API group; empty for core.
    pub group: String,
    /// Version.
    pub version: String,
    /// Kind, such as `VirtualService`.
    pub kind: String,
    /// Plural, such as `virtualservices`.
    pub plural: String,
    /// Other names that users type.
    pub names: Vec<String>,
    /// Whether objects live in a namespace.
    pub namespaced: bool,
}

impl Kind {
    /// Path of the collection, or of one object.
    pub fn path(&self, namespace: Option<&str>, name: Option<&str>) -> String {
        let mut path = match self.group.as_str() {
            "" => format!("/api/{}", self.version),
            group => format!("/apis/{group}/{}", self.version),
        };
        if let Some(namespace) = namespace.filter(|_| self.namespaced) {
            path.push_str(&format!("/namespaces/{namespace}"));
        }
        path.push_str(&format!("/{}", self.plural));
        if let Some(name) = name {
            path.push_str(&format!("/{name}"));
        }
        path
    }
}

/// The kubeconfig to use: `--kubeconfig` or `$KUBECONFIG`, else that of a running sandbox, else `~/.kube/config`.
pub fn kubeconfig_path(given: Option<&Path>) -> Option<PathBuf> {
    if let Some(path) = given {
        return Some(path.to_owned());
    }
    let sandbox = crate::sandbox::home().join("kubeconfig");
    if sandbox.exists() {
        return Some(sandbox);
    }
    let user = PathBuf::from(std::env::var_os("HOME")?).join(".kube/config");
    user.exists().then_some(user)
}

/// A client for the cluster that `path` (or the default) describes, or for the one this process runs in.
///
/// # Errors
/// There is no cluster configuration, or it cannot be read.
pub async fn client(path: Option<&Path>) -> Result<(Client, String)> {
    let config = match kubeconfig_path(path) {
        Some(path) => {
            let read = Kubeconfig::read_from(&path)
                .with_context(|| format!("cannot read the kubeconfig {}", path.display()))?;
            kube::Config::from_custom_kubeconfig(read, &KubeConfigOptions::default())
                .await
                .with_context(|| format!("the kubeconfig {} cannot be used", path.display()))?
        }
        None => kube::Config::incluster().context(
            "no cluster to talk to: start one with `lateen sandbox up`, or point KUBECONFIG at yours",
        )?,
    };
    let namespace = config.default_namespace.clone();
    Ok((Client::try_from(config)?, namespace))
}

impl Cluster {
    /// Connects and reads what the server serves.
    ///
    /// # Errors
    /// No configuration, or the server does not answer.
    pub async fn connect(kubeconfig: Option<&Path>, namespace: Option<String>) -> Result<Self> {
        let (client, default) = client(kubeconfig).await?;
        let mut cluster = Self {
            client,
            namespace: namespace.unwrap_or(default),
            kinds: Vec::new(),
        };
        cluster.refresh().await?;
        Ok(cluster)
    }

    /// The client underneath.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Reads again what the server serves: call it after CRDs were applied.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn refresh(&mut self) -> Result<()> {
        let mut lists = vec![(String::new(), "v1".to_owned())];
        let groups = self
            .read("/apis")
            .await
            .context("the API server does not answer")?;
        for group in groups["groups"].as_array().into_iter().flatten() {
            let version = group["preferredVersion"]["version"]
                .as_str()
                .unwrap_or_default();
            for served in group["versions"].as_array().into_iter().flatten() {
                let served = served["version"].as_str().unwrap_or_default();
                let at = if served == version {
                    1.min(lists.len())
                } else {
                    lists.len()
                };
                lists.insert(at, (text(&group["name"]), served.to_owned()));
            }
        }
        let mut kinds = Vec::new();
        for (group, version) in lists {
            let path = if group.is_empty() {
                "/api/v1".to_owned()
            } else {
                format!("/apis/{group}/{version}")
            };
            let list = self.read(&path).await?;
            for resource in list["resources"].as_array().into_iter().flatten() {
                let plural = text(&resource["name"]);
                if plural.contains('/') {
                    continue;
                }
                let mut names: Vec<String> = resource["shortNames"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(text)
                    .collect();
                names.push(text(&resource["singularName"]));
                kinds.push(Kind {
                    group: group.clone(),
                    version: version.clone(),
                    kind: text(&resource["kind"]),
                    plural,
                    names,
                    namespaced: resource["namespaced"].as_bool().unwrap_or_default(),
                });
            }
        }
        self.kinds = kinds;
        Ok(())
    }

    /// The resource that a user's word names: plural, singular, short name or kind, with optional `.group`.
    ///
    /// # Errors
    /// The server serves nothing of that name.
    pub fn kind(&self, word: &str) -> Result<&Kind> {
        let lower = word.to_lowercase();
        let (name, group) = lower.split_once('.').unwrap_or((&lower, ""));
        self.kinds
            .iter()
            .filter(|kind| group.is_empty() || kind.group == group)
            .find(|kind| {
                kind.plural == name
                    || kind.kind.to_lowercase() == name
                    || kind.names.iter().any(|n| n == name)
            })
            .with_context(|| {
                format!(
                    "the server does not serve {word:?}; `kubectl api-resources` lists what it does"
                )
            })
    }

    fn kind_of(&self, object: &Value) -> Result<&Kind> {
        let (api_version, kind) = (text(&object["apiVersion"]), text(&object["kind"]));
        let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
        self.kinds
            .iter()
            .find(|k| k.group == group && k.version == version && k.kind == kind)
            .with_context(|| {
                format!(
                    "the server does not serve {kind} of {api_version}; are its CRDs installed?"
                )
            })
    }

    /// Creates or updates `object` by server-side apply and returns what the server stored.
    ///
    /// # Errors
    /// Its kind is not served, or the server refuses it.
    pub async fn apply(&self, object: &Value) -> Result<Value> {
        let kind = self.kind_of(object)?;
        let name = object["metadata"]["name"]
            .as_str()
            .context("the object has no metadata.name")?;
        let namespace = object["metadata"]["namespace"]
            .as_str()
            .unwrap_or(&self.namespace);
        let path = kind.path(Some(namespace), Some(name));
        let path = format!("{path}?fieldManager={FIELD_MANAGER}&force=true");
        let request = Request::builder()
            .method(Method::PATCH)
            .uri(path)
            .header(header::CONTENT_TYPE, "application/apply-patch+yaml")
            .body(serde_json::to_vec(object)?)?;
        Ok(self.client.request(request).await?)
    }

    /// Deletes the object that `object` names; absent objects are fine.
    ///
    /// # Errors
    /// Its kind is not served, or the server refuses.
    pub async fn delete(&self, object: &Value) -> Result<bool> {
        let kind = self.kind_of(object)?;
        let name = object["metadata"]["name"]
            .as_str()
            .context("the object has no metadata.name")?;
        let namespace = object["metadata"]["namespace"]
            .as_str()
            .unwrap_or(&self.namespace);
        let request = Request::builder()
            .method(Method::DELETE)
            .uri(kind.path(Some(namespace), Some(name)))
            .body(Vec::new())?;
        match self.client.request::<Value>(request).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads a path as JSON.
    ///
    /// # Errors
    /// The server does not answer or refuses.
    pub async fn read(&self, path: &str) -> Result<Value> {
        let request = Request::builder().uri(path).body(Vec::new())?;
        Ok(self.client.request(request).await?)
    }

    /// Reads a path as the server's own table.
    ///
    /// # Errors
    /// The server does not answer or refuses.
    pub async fn read_table(&self, path: &str) -> Result<Value> {
        let request = Request::builder()
            .uri(path)
            .header(
                header::ACCEPT,
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
            )
            .body(Vec::new())?;
        Ok(self.client.request(request).await?)
    }
}

/// A JSON string's text; empty for anything else.
pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The documents of YAML `text`, in order, empty ones left out. `source` names it in errors.
///
/// # Errors
/// A document is not YAML or not an object.
pub fn documents(source: &str, text: &str) -> Result<Vec<Value>> {
    let parsed: Vec<Value> =
        serde_saphyr::from_multiple(text).with_context(|| format!("{source} is not valid YAML"))?;
    let mut out = Vec::new();
    for document in parsed {
        match document {
            Value::Null => {}
            Value::Object(_) if document["kind"] == "List" => {
                out.extend(document["items"].as_array().cloned().unwrap_or_default());
            }
            Value::Object(_) => out.push(document),
            other => bail!("{source}: a document is {other}, not an object"),
        }
    }
    Ok(out)
}

/// The documents of a file, of every YAML file in a folder, or of standard input (`-`).
///
/// # Errors
/// It cannot be read or is not YAML.
pub fn documents_at(path: &Path) -> Result<Vec<Value>> {
    let shown = path.display().to_string();
    if shown == "-" {
        return documents(
            "standard input",
            &std::io::read_to_string(std::io::stdin())?,
        );
    }
    if path.is_dir() {
        let files = crate::local::files(path, false)?;
        let each = files
            .iter()
            .map(|file| documents_at(file))
            .collect::<Result<Vec<_>>>()?;
        return Ok(each.into_iter().flatten().collect());
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {shown}"))?;
    documents(&shown, &text)
}
