//! A cluster for tests: the real API server in memory, the real controllers, and a kubelet that
//! only pretends.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::{Client, ResourceExt};
use lateen_apiserver::pods::{
    ExecOptions, Execution, LogOptions, PodAccess, PodError, Reader, Target, Writer,
};
use lateen_apiserver::{Options, Server};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::cluster::Cluster;
use super::objects::{is_finished, is_terminating};
use super::store::is;

/// Annotation of pods that never become ready.
const NEVER_READY: &str = "test/never-ready";
/// Annotation with the phase in which a pod ends at once.
const ENDS: &str = "test/ends";

pub(crate) struct Lab {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) client: Client,
    changed: Arc<Notify>,
    shutdown: CancellationToken,
    _server: Server,
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Lab {
    pub(crate) async fn start() -> Lab {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let options = Options {
            listeners: vec![listener],
            dir: None,
            names: Vec::new(),
            pods: Arc::new(NoPods),
            service_cidr: "10.96.0.0/16".to_owned(),
        };
        let server = Server::start(options).await.expect("the API server starts");
        let text = server.kubeconfig(&url).unwrap();
        let config = kube::config::Kubeconfig::from_yaml(&text).unwrap();
        let options = kube::config::KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(config, &options)
            .await
            .unwrap();
        let client = Client::try_from(config).unwrap();
        let shutdown = CancellationToken::new();
        let cluster = Cluster::watch(client.clone(), &shutdown);
        let lab = Lab {
            cluster: cluster.clone(),
            client: client.clone(),
            changed: Arc::default(),
            shutdown: shutdown.clone(),
            _server: server,
        };
        lab.listen();
        kubelet(&cluster);
        tokio::spawn(super::run(cluster, "a certificate", shutdown));
        lab
    }

    fn listen(&self) {
        macro_rules! listen {
            ($($store:ident)*) => {$(
                let changed = self.changed.clone();
                self.cluster.$store.on_change(move |_, _| changed.notify_waiters());
            )*};
        }
        listen!(namespaces pods services slices endpoints deployments replica_sets stateful_sets
                daemon_sets jobs cron_jobs service_accounts nodes);
    }

    /// Creates the objects of a YAML text, or merges them into those that exist.
    pub(crate) async fn apply(&self, yaml: &str) {
        for document in yaml.split("\n---\n") {
            let value: Value = serde_saphyr::from_str(document).expect("valid YAML");
            let (group, version) = match value["apiVersion"].as_str().unwrap().split_once('/') {
                Some((group, version)) => (group.to_owned(), version.to_owned()),
                None => (
                    String::new(),
                    value["apiVersion"].as_str().unwrap().to_owned(),
                ),
            };
            let kind = value["kind"].as_str().unwrap();
            let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(&group, &version, kind));
            let namespaced = !matches!(kind, "Namespace" | "Node" | "MutatingWebhookConfiguration");
            let api: Api<DynamicObject> = if namespaced {
                Api::namespaced_with(self.client.clone(), "default", &resource)
            } else {
                Api::all_with(self.client.clone(), &resource)
            };
            let object: DynamicObject = serde_json::from_value(value.clone()).unwrap();
            match api.create(&PostParams::default(), &object).await {
                Err(error) if is(&error, 409) => {
                    let params = PatchParams::default();
                    api.patch(&object.name_any(), &params, &Patch::Merge(value))
                        .await
                        .unwrap();
                }
                other => drop(other.unwrap_or_else(|error| panic!("{kind}: {error}"))),
            }
        }
    }

    /// Waits until `look` finds something, looking again at every change of the cluster.
    pub(crate) async fn until<T>(&self, what: &str, look: impl Fn(&Cluster) -> Option<T>) -> T {
        let found = async {
            loop {
                let changed = self.changed.notified();
                if let Some(found) = look(&self.cluster) {
                    return found;
                }
                changed.await;
            }
        };
        match tokio::time::timeout(Duration::from_secs(30), found).await {
            Ok(found) => found,
            Err(_) => panic!("it never came to this: {what}"),
        }
    }

    /// The pods of the namespace `default` that are not on their way out.
    pub(crate) fn pods(cluster: &Cluster) -> Vec<Arc<Pod>> {
        let mut pods = cluster.pods.within("default");
        pods.retain(|pod| !is_terminating(pod));
        pods
    }
}

/// Makes pods run, with an address each, and lets them go when they are deleted.
fn kubelet(cluster: &Arc<Cluster>) {
    static NEXT: AtomicU16 = AtomicU16::new(2);
    let client = cluster.client.clone();
    cluster.pods.on_change(move |_, new| {
        let Some(pod) = new.cloned() else { return };
        let started = pod
            .status
            .as_ref()
            .is_some_and(|status| status.pod_ip.is_some());
        let client = client.clone();
        let api: Api<Pod> = Api::namespaced(client, &pod.namespace().unwrap_or_default());
        if is_terminating(&pod) {
            let now = DeleteParams {
                grace_period_seconds: Some(0),
                ..DeleteParams::default()
            };
            tokio::spawn(async move { api.delete(&pod.name_any(), &now).await });
        } else if !started && !is_finished(&pod) {
            let [high, low] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
            let status = status(&pod, &format!("10.244.{high}.{low}"));
            let patch = json!({ "status": status });
            tokio::spawn(async move {
                let params = PatchParams::default();
                api.patch_status(&pod.name_any(), &params, &Patch::Merge(patch))
                    .await
            });
        }
    });
}

fn status(pod: &Pod, ip: &str) -> Value {
    let ends = pod.annotations().get(ENDS).map(String::as_str);
    let ready = ends.is_none() && !pod.annotations().contains_key(NEVER_READY);
    let now = jiff::Timestamp::now();
    json!({
        "phase": ends.unwrap_or("Running"),
        "podIP": ip,
        "podIPs": [{ "ip": ip }],
        "conditions": [{
            "type": "Ready",
            "status": if ready { "True" } else { "False" },
            "lastTransitionTime": super::objects::time(now),
        }],
    })
}

/// Nobody asks for logs here.
struct NoPods;

fn none<T>() -> BoxFuture<'static, Result<T, PodError>> {
    Box::pin(async { Err(PodError::NotFound("no pod runs here".to_owned())) })
}

impl PodAccess for NoPods {
    fn logs(&self, _: Target, _: LogOptions) -> BoxFuture<'static, Result<Reader, PodError>> {
        none()
    }
    fn exec(&self, _: Target, _: ExecOptions) -> BoxFuture<'static, Result<Execution, PodError>> {
        none()
    }
    fn connect(&self, _: Target, _: u16) -> BoxFuture<'static, Result<(Reader, Writer), PodError>> {
        none()
    }
}
