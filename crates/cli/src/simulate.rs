//! `lateen simulate`: asks the control plane for what a proxy is sent and runs the proxy's own decisions on it.

use crate::args::SimulateArgs;
use crate::cluster::{Cluster, text};
use crate::forward;
use crate::sandbox::pod_name;
use anyhow::{Context as _, Result, bail};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use lateen_model::decide::plan::Direction;
use lateen_model::decide::resources::ResourceSet;
use lateen_model::decide::simulate::{Call, Simulation, simulate};
use lateen_model::decide::snapshot::Snapshot;
use lateen_model::mesh::{Role, Scope};
use lateen_xds::client::{self, Update};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::mpsc;

/// Prints what would happen to a call.
///
/// # Errors
/// The pod or the control plane is not there, or the URL makes no sense.
pub async fn run(args: &SimulateArgs) -> Result<()> {
    let connection = &args.connection;
    let cluster = Cluster::connect(
        connection.kubeconfig.as_deref(),
        connection.namespace.clone(),
    )
    .await?;
    let (namespace, pod) = match args.from.as_str() {
        "gateway" => pod_name(&cluster, "deploy/istio-ingressgateway.istio-system").await?,
        name => pod_name(&cluster, name).await?,
    };
    let object = cluster
        .read(&format!("/api/v1/namespaces/{namespace}/pods/{pod}"))
        .await
        .with_context(|| format!("pod {namespace}/{pod}"))?;
    let scope = scope_of(&object);
    let resources = resources_for(&cluster, &scope).await?;
    let snapshot = Snapshot::build(&resources, &scope);
    let method: Method = args
        .method
        .parse()
        .with_context(|| format!("{:?} is not a method", args.method))?;
    let headers = headers(&args.headers)?;
    let direction = match scope.role {
        Role::Gateway => Direction::Gateway,
        Role::Sidecar => Direction::Outbound,
    };
    let call = Call {
        direction,
        method: &method,
        url: &args.to,
        headers: &headers,
        dice: None,
    };
    println!(
        "From {} {}/{}:",
        if direction == Direction::Gateway {
            "gateway"
        } else {
            "pod"
        },
        namespace,
        pod
    );
    print(&simulate(&snapshot, &call)?);
    Ok(())
}

fn print(simulation: &Simulation) {
    for step in &simulation.steps {
        println!("  {step}");
    }
    for choice in &simulation.choices {
        println!("  {:.0}% → {}", choice.percent, choice.cluster);
        for endpoint in &choice.endpoints {
            println!("         {endpoint}");
        }
        if let Some(problem) = &choice.problem {
            println!("         cannot be used: {problem}");
        }
    }
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
    let containers = ["initContainers", "containers"].map(|list| pod["spec"][list].as_array());
    let is_router = containers
        .into_iter()
        .flatten()
        .flatten()
        .filter(|c| c["name"] == "istio-proxy")
        .any(|c| {
            c["args"]
                .as_array()
                .is_some_and(|args| args.iter().any(|a| a == "router"))
        });
    let name = text(&metadata["name"]);
    let canonical = label("service.istio.io/canonical-name")
        .or_else(|| label("app"))
        .unwrap_or_else(|| name.clone());
    let revision = label("service.istio.io/canonical-revision").or_else(|| label("version"));
    Scope {
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

/// Everything that the control plane sends to a proxy of this scope.
async fn resources_for(cluster: &Cluster, scope: &Scope) -> Result<ResourceSet> {
    let (namespace, istiod) = pod_name(cluster, "deploy/istiod.istio-system")
        .await
        .context("the control plane")?;
    let address = forward::listen(cluster, &namespace, &istiod, 15010).await?;
    let (sender, mut updates) = mpsc::channel(16);
    let options = client::Options {
        address: address.to_string(),
        connect: client::plain(&address.to_string(), |_| Ok(())),
        token: None,
        scope: scope.clone(),
        node_id: client::node_id(scope),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        cache: None,
    };
    tokio::spawn(client::run(options, sender));
    let mut set = ResourceSet::default();
    let whole = async {
        while let Some(update) = updates.recv().await {
            match update {
                Update::Changed { changed, removed } => {
                    set.apply(changed, removed);
                }
                Update::Synced => return Ok(()),
            }
        }
        bail!("the control plane closed the stream")
    };
    tokio::time::timeout(Duration::from_secs(10), whole)
        .await
        .context("the control plane does not answer")??;
    Ok(set)
}
