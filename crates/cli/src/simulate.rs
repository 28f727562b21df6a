//! `lateen simulate`: asks the control plane for what a proxy is sent and runs the proxy's own decisions on it.

mod request;
mod story;

pub use request::{Request, Sender};
pub use story::Story;

use crate::args::SimulateArgs;
use crate::cluster::{Cluster, text};
use crate::local;
use crate::sandbox::pod_name;
use crate::view::resources_for;
use anyhow::{Context as _, Result};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};
use lateen_model::decide::plan::Direction;
use lateen_model::decide::snapshot::Snapshot;
use lateen_model::mesh::{Role, Scope};
use lateen_model::resource::Kind;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Prints what would happen to a call at its caller's side.
///
/// # Errors
/// The pod or the control plane is not there, or the URL makes no sense.
pub async fn run(args: &SimulateArgs) -> Result<()> {
    let side = Side::of_caller(args).await?;
    side.print_from();
    let mut request = side.call(args)?;
    let story = side.story(&mut request)?;
    story.print();
    if let Some(refusal) = &story.refused {
        println!("  Answer: {refusal}.");
    }
    Ok(())
}

/// A proxy, and what it decides from.
pub struct Side {
    /// The cluster that was asked.
    pub cluster: Cluster,
    /// The proxy.
    pub scope: Scope,
    /// Whether its pod runs a proxy at all.
    pub has_proxy: bool,
    /// What it decides from.
    pub snapshot: Snapshot,
}

impl Side {
    /// The caller's side.
    ///
    /// # Errors
    /// The pod or the control plane is not there, or a file of `-f` is not in order.
    pub async fn of_caller(args: &SimulateArgs) -> Result<Self> {
        let connection = &args.connection;
        let cluster = Cluster::connect(
            connection.kubeconfig.as_deref(),
            connection.namespace.clone(),
        )
        .await?;
        let name = match args.from.as_str() {
            "gateway" => "deploy/istio-ingressgateway.istio-system",
            name => name,
        };
        let (namespace, pod) = pod_name(&cluster, name).await?;
        Self::of_pod(cluster, (&namespace, &pod), &args.files).await
    }

    /// The side of one pod, with the objects in `files` laid over what its proxy has.
    ///
    /// # Errors
    /// As for [`Self::of_caller`].
    pub async fn of_pod(
        cluster: Cluster,
        (namespace, pod): (&str, &str),
        files: &[PathBuf],
    ) -> Result<Self> {
        let object = cluster
            .read(&format!("/api/v1/namespaces/{namespace}/pods/{pod}"))
            .await
            .with_context(|| format!("pod {namespace}/{pod}"))?;
        let scope = scope_of(&object);
        let mut resources = resources_for(&cluster, &scope).await?;
        for file in files {
            let laid_over = local::resources(file)?;
            let objects = laid_over
                .into_iter()
                .filter(|r| r.key().kind != Kind::MeshSettings);
            resources.apply(objects, []);
        }
        Ok(Self {
            has_proxy: proxy_of(&object).is_some(),
            snapshot: Snapshot::build(&resources, &scope),
            scope,
            cluster,
        })
    }

    /// The call that the arguments describe.
    ///
    /// # Errors
    /// The method, a header or the token makes no sense.
    pub fn call(&self, args: &SimulateArgs) -> Result<Request> {
        let method = args.method.parse();
        let method = method.with_context(|| format!("{:?} is not a method", args.method))?;
        let direction = match self.scope.role {
            Role::Gateway => Direction::Gateway,
            Role::Sidecar => Direction::Outbound,
        };
        let mut headers = headers(&args.headers)?;
        if let Some(token) = &args.token {
            let bearer = format!("Bearer {}", token_text(token)?);
            let mut bearer = HeaderValue::from_str(&bearer).context("--token is not a token")?;
            bearer.set_sensitive(true);
            headers.append(AUTHORIZATION, bearer);
        }
        Ok(Request::new(direction, method, &args.to, headers))
    }

    /// What becomes of a call here.
    ///
    /// # Errors
    /// The URL makes no sense.
    pub fn story(&self, request: &mut Request) -> Result<Story> {
        Ok(Story::of(&self.snapshot, request)?)
    }

    /// Says whose side it is.
    pub fn print_from(&self) {
        let what = match self.scope.role {
            Role::Gateway => "gateway",
            Role::Sidecar => "pod",
        };
        println!("From {what} {}/{}:", self.scope.namespace, self.scope.pod);
    }
}

/// The token of `--token`: as it stands there, or in the file after `@`.
fn token_text(given: &str) -> Result<String> {
    let text = match given.strip_prefix('@') {
        Some(file) => std::fs::read_to_string(file).with_context(|| format!("token {file}"))?,
        None => given.to_owned(),
    };
    Ok(text.trim().to_owned())
}

fn headers(given: &[String]) -> Result<HeaderMap> {
    let mut out = HeaderMap::new();
    for header in given {
        let (name, value) = header
            .split_once(':')
            .with_context(|| format!("{header:?} is not NAME: VALUE"))?;
        let name = HeaderName::try_from(name.trim())
            .with_context(|| format!("{name:?} is not a header name"))?;
        let value =
            HeaderValue::from_str(value.trim()).with_context(|| format!("the value of {name}"))?;
        out.append(name, value);
    }
    Ok(out)
}

/// The proxy's container of a pod.
fn proxy_of(pod: &Value) -> Option<&Value> {
    let lists = ["initContainers", "containers"].map(|list| pod["spec"][list].as_array());
    let mut containers = lists.into_iter().flatten().flatten();
    containers.find(|c| c["name"] == "istio-proxy")
}

/// What the proxy in a pod is. A pod without one gets the scope that its proxy would have.
pub fn scope_of(pod: &Value) -> Scope {
    let metadata = &pod["metadata"];
    let labels: BTreeMap<_, _> = metadata["labels"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(k, v)| (k.as_str().into(), v.as_str().unwrap_or_default().into()))
        .collect();
    let label = |name: &str| metadata["labels"][name].as_str().map(str::to_owned);
    let is_router = proxy_of(pod).is_some_and(|container| {
        let args = container["args"].as_array();
        args.is_some_and(|args| args.iter().any(|a| a == "router"))
    });
    let name = text(&metadata["name"]);
    let canonical = label("service.istio.io/canonical-name")
        .or_else(|| label("app"))
        .unwrap_or_else(|| name.clone());
    let revision = label("service.istio.io/canonical-revision").or_else(|| label("version"));
    Scope {
        on_demand: false,
        role: if is_router {
            Role::Gateway
        } else {
            Role::Sidecar
        },
        pod: name.as_str().into(),
        namespace: text(&metadata["namespace"]).into(),
        labels,
        addresses: pod["status"]["podIP"]
            .as_str()
            .and_then(|ip| ip.parse().ok())
            .into_iter()
            .collect(),
        service_account: text(&pod["spec"]["serviceAccountName"]).into(),
        workload_name: canonical.as_str().into(),
        canonical_name: canonical.into(),
        canonical_revision: revision.unwrap_or_else(|| "latest".to_owned()).into(),
        cluster: "Kubernetes".into(),
        domain: "cluster.local".into(),
    }
}
