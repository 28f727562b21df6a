//! Pods in a real sandbox, from outside: what runs, what is shown, what is left behind. It starts a sandbox
//! in namespaces of its own (as any user), so it has its own `main`: a sandbox begins before any thread.

use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Event, Pod};
use kube::api::{
    AttachParams, DeleteParams, ListParams, LogParams, Patch, PatchParams, PostParams,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::wait::{Condition, await_condition};
use kube::{Api, Client, Config};
use lateen_sandbox::{Home, UpError, UpOptions};
use serde_json::json;
use tokio::io::AsyncReadExt;

fn main() {
    lateen_sandbox::maybe_run_stage();
    let directory = tempfile::tempdir().expect("temporary directory");
    let home = Home::new(directory.path().join("home"));
    assert!(matches!(
        lateen_sandbox::down(&home),
        Err(UpError::NotRunning { .. })
    ));
    let sandbox = lateen_sandbox::up(options(&home), &mut |_| {}).expect("a sandbox");

    let again = lateen_sandbox::up(options(&home), &mut |_| {}).expect_err("one is running");
    assert!(matches!(again, UpError::AlreadyRunning { .. }), "{again}");
    let mut taken = options(&Home::new(directory.path().join("other")));
    taken.api = sandbox.api();
    let taken = lateen_sandbox::up(taken, &mut |_| {}).expect_err("the port is taken");
    assert!(
        taken.to_string().contains(&sandbox.api().to_string()),
        "{taken}"
    );

    let kubeconfig = sandbox.kubeconfig();
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(async {
            let pods = Pods::connect(&kubeconfig).await;
            pods.runs_in_order().await;
            pods.completes_with_a_sidecar().await;
            pods.restarts_what_is_not_alive().await;
            pods.follows_config_maps().await;
            pods.names_what_is_missing().await;
        });
    let status = lateen_sandbox::status(&home).expect("a status");
    assert!(
        status
            .components
            .iter()
            .any(|c| c.pod == "node" && c.resident > 0)
    );
    sandbox.stop().expect("stopped");
    assert!(!kubeconfig.exists(), "the kubeconfig of a stopped sandbox");
    let left = std::fs::read_dir(home.path().join("run"))
        .expect("there")
        .count();
    assert_eq!(left, 0, "files of pods on the host");
    println!("ok");
}

fn options(home: &Home) -> UpOptions {
    UpOptions {
        home: home.clone(),
        api: ([127, 0, 0, 1], 0).into(),
        publish: Vec::new(),
        state: None,
        images: None,
        detach: false,
        log: "info".into(),
    }
}

struct Pods {
    client: Client,
    pods: Api<Pod>,
}

impl Pods {
    async fn connect(kubeconfig: &Path) -> Self {
        let kubeconfig = Kubeconfig::read_from(kubeconfig).expect("a kubeconfig");
        let options = KubeConfigOptions::default();
        let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
        let client = Client::try_from(config.expect("a configuration")).expect("a client");
        Self {
            pods: Api::namespaced(client.clone(), "default"),
            client,
        }
    }

    async fn create(&self, name: &str, spec: serde_json::Value) {
        let pod = json!({"metadata": {"name": name}, "spec": spec});
        let pod = serde_json::from_value(pod).expect("a pod");
        let created = self.pods.create(&PostParams::default(), &pod).await;
        created.expect("created");
    }

    async fn until(&self, name: &str, what: &str, holds: impl Condition<Pod>) {
        let wait = await_condition(self.pods.clone(), name, holds);
        match tokio::time::timeout(Duration::from_secs(30), wait).await {
            Ok(done) => drop(done.expect("a watch")),
            Err(_) => panic!(
                "{name} is not {what}: {:#?}",
                self.pods.get_status(name).await
            ),
        }
    }

    async fn log(&self, name: &str, container: &str) -> String {
        let parameters = LogParams {
            container: Some(container.into()),
            ..LogParams::default()
        };
        self.pods.logs(name, &parameters).await.expect("a log")
    }

    async fn exec(&self, name: &str, command: &[&str]) -> String {
        let parameters = AttachParams::default().container("app").stderr(false);
        let mut process = self
            .pods
            .exec(name, command.iter().copied(), &parameters)
            .await
            .expect("started");
        let mut text = String::new();
        let mut out = process.stdout().expect("its output");
        out.read_to_string(&mut text).await.expect("read");
        text
    }

    async fn runs_in_order(&self) {
        self.create("ordered", json!({
            "terminationGracePeriodSeconds": 1,
            "initContainers": [
                {"name": "first", "image": "busybox", "command": ["sh", "-c", "echo one > /shared/log"],
                 "volumeMounts": [{"name": "shared", "mountPath": "/shared"}]},
                {"name": "side", "image": "busybox", "restartPolicy": "Always",
                 "command": ["sh", "-c", "echo two >> /shared/log; sleep infinity"],
                 "startupProbe": {"exec": {"command": ["grep", "-q", "two", "/shared/log"]}},
                 "volumeMounts": [{"name": "shared", "mountPath": "/shared"}]},
            ],
            "containers": [{
                "name": "app", "image": "busybox",
                "command": ["sh", "-c", "cat /shared/log; echo $(ADDRESS); sleep infinity"],
                "env": [{"name": "ADDRESS", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
                "volumeMounts": [{"name": "shared", "mountPath": "/shared"}],
            }],
            "volumes": [{"name": "shared", "emptyDir": {}}],
        }))
        .await;
        self.until("ordered", "ready", ready as fn(Option<&Pod>) -> bool)
            .await;
        let pod = self.pods.get("ordered").await.expect("there");
        let address = pod.status.and_then(|s| s.pod_ip).expect("an address");
        assert_eq!(
            self.log("ordered", "app").await,
            format!("one\ntwo\n{address}\n")
        );
        assert_eq!(
            self.exec("ordered", &["hostname", "-i"]).await.trim(),
            address
        );
        assert_eq!(
            self.exec("ordered", &["sh", "-c", "echo $ADDRESS"])
                .await
                .trim(),
            address
        );
        let deleted = self.pods.delete("ordered", &DeleteParams::default()).await;
        deleted.expect("deleted");
        self.until("ordered", "gone", gone as fn(Option<&Pod>) -> bool)
            .await;
    }

    async fn completes_with_a_sidecar(&self) {
        self.create("job", json!({
            "restartPolicy": "Never",
            "initContainers": [{"name": "side", "image": "busybox", "restartPolicy": "Always",
                "command": ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"]}],
            "containers": [{"name": "app", "image": "busybox", "command": ["sh", "-c", "echo done"]}],
        }))
        .await;
        self.until("job", "complete", succeeded as fn(Option<&Pod>) -> bool)
            .await;
        assert_eq!(self.log("job", "app").await, "done\n");
    }

    async fn restarts_what_is_not_alive(&self) {
        self.create(
            "dying",
            json!({
                "terminationGracePeriodSeconds": 1,
                "containers": [{"name": "app", "image": "busybox", "command": ["sleep", "infinity"],
                    "livenessProbe": {"exec": {"command": ["false"]}, "failureThreshold": 1}}],
            }),
        )
        .await;
        self.until("dying", "restarted", restarted as fn(Option<&Pod>) -> bool)
            .await;
    }

    async fn follows_config_maps(&self) {
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), "default");
        let map = json!({"metadata": {"name": "settings"}, "data": {"color": "red"}});
        let map = serde_json::from_value(map).expect("a map");
        maps.create(&PostParams::default(), &map)
            .await
            .expect("created");
        self.create("follower", json!({
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "app", "image": "busybox",
                "command": ["sh", "-c", "until grep -q blue /settings/color; do sleep 0.05; done; echo seen; sleep infinity"],
                "volumeMounts": [{"name": "settings", "mountPath": "/settings"}],
                "readinessProbe": {"exec": {"command": ["grep", "-q", "blue", "/settings/color"]}}}],
            "volumes": [{"name": "settings", "configMap": {"name": "settings"}}],
        }))
        .await;
        let change = Patch::Merge(json!({"data": {"color": "blue"}}));
        let changed = maps
            .patch("settings", &PatchParams::default(), &change)
            .await;
        changed.expect("changed");
        self.until("follower", "ready", ready as fn(Option<&Pod>) -> bool)
            .await;
    }

    async fn names_what_is_missing(&self) {
        self.create(
            "unknown",
            json!({
                "containers": [{"name": "app", "image": "example.com/nobody/knows:1"}]
            }),
        )
        .await;
        self.until(
            "unknown",
            "refused",
            image_refused as fn(Option<&Pod>) -> bool,
        )
        .await;
        let events: Api<Event> = Api::namespaced(self.client.clone(), "default");
        let about = ListParams::default().fields("involvedObject.name=unknown");
        let mut told = false;
        for _ in 0..100 {
            let list = events.list(&about).await.expect("events");
            told |= list.iter().any(|e| {
                e.message
                    .as_deref()
                    .is_some_and(|m| m.contains("example.com/nobody/knows:1"))
            });
            if told {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(told, "an event names the image");
    }
}

fn condition(pod: Option<&Pod>, kind: &str) -> bool {
    let conditions = pod.and_then(|p| p.status.as_ref()?.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|c| c.type_ == kind && c.status == "True")
}

fn ready(pod: Option<&Pod>) -> bool {
    condition(pod, "Ready")
}

fn gone(pod: Option<&Pod>) -> bool {
    pod.is_none()
}

fn succeeded(pod: Option<&Pod>) -> bool {
    pod.and_then(|p| p.status.as_ref()?.phase.as_deref()) == Some("Succeeded")
}

fn statuses(pod: Option<&Pod>) -> Vec<k8s_openapi::api::core::v1::ContainerStatus> {
    pod.and_then(|p| p.status.as_ref()?.container_statuses.clone())
        .unwrap_or_default()
}

fn restarted(pod: Option<&Pod>) -> bool {
    statuses(pod).iter().any(|c| c.restart_count > 0)
}

fn image_refused(pod: Option<&Pod>) -> bool {
    statuses(pod).iter().any(|c| {
        let waiting = c.state.as_ref().and_then(|s| s.waiting.as_ref());
        waiting.is_some_and(|w| {
            w.reason.as_deref() == Some("ErrImagePull")
                && w.message.as_deref().is_some_and(|m| m.contains("--images"))
        })
    })
}
