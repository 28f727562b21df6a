//! The real kubectl against a real server in this process: credentials, permissions, and what CRDs demand.

use crate::pods::{
    ExecOptions, Execution, LogOptions, PodAccess, PodError, Reader, Target, Writer,
};
use crate::{Options, Server};
use futures::future::BoxFuture;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

/// A server on loopback with its administrator's kubeconfig.
pub(crate) struct Cluster {
    pub(crate) server: Server,
    dir: tempfile::TempDir,
    url: String,
}

/// What a command did.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Cluster {
    /// Absent, with a line on standard error, when there is no kubectl here; under `CI` that is a failure.
    pub(crate) async fn start(pods: Arc<dyn PodAccess>) -> Option<Self> {
        let found = Command::new("kubectl")
            .args(["version", "--client"])
            .output()
            .await;
        if !found.is_ok_and(|output| output.status.success()) {
            assert!(std::env::var_os("CI").is_none(), "kubectl is not on PATH");
            eprintln!("skipped: kubectl is not on PATH");
            return None;
        }
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let options = Options {
            listeners: vec![listener],
            dir: None,
            names: Vec::new(),
            pods,
            service_cidr: "10.96.0.0/16".into(),
        };
        let server = Server::start(options).await.unwrap();
        let cluster = Self {
            server,
            dir: tempfile::tempdir().unwrap(),
            url,
        };
        std::fs::write(
            cluster.file("admin"),
            cluster.server.kubeconfig(&cluster.url).unwrap(),
        )
        .unwrap();
        Some(cluster)
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new("kubectl");
        command
            .arg("--cache-dir")
            .arg(self.file("cache"))
            .env("KUBECONFIG", self.file("admin"));
        command
            .args(arguments.split_ascii_whitespace())
            .kill_on_drop(true);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Starts kubectl without waiting for it.
    pub(crate) fn spawn(&self, arguments: &str) -> Child {
        self.command(arguments).spawn().unwrap()
    }

    /// Runs kubectl with words and standard input.
    pub(crate) async fn run(&self, arguments: &str, input: &str) -> Ran {
        let mut child = self.spawn(arguments);
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).await.unwrap();
        drop(stdin);
        let output = child.wait_with_output().await.unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Ran {
            code: output.status.code().unwrap_or(-1),
            out: text(output.stdout),
            err: text(output.stderr),
        }
    }

    /// Runs kubectl, which must succeed, and returns its output.
    pub(crate) async fn good(&self, arguments: &str, input: &str) -> String {
        let ran = self.run(arguments, input).await;
        assert_eq!(ran.code, 0, "kubectl {arguments}\n{}{}", ran.out, ran.err);
        ran.out
    }

    /// Runs kubectl, which must fail saying `part`.
    pub(crate) async fn bad(&self, arguments: &str, input: &str, part: &str) {
        let ran = self.run(arguments, input).await;
        assert!(
            ran.code != 0 && ran.err.contains(part),
            "kubectl {arguments}\n{}{}",
            ran.out,
            ran.err
        );
    }
}

/// Pods that nobody asks.
pub(crate) struct Unasked;

impl PodAccess for Unasked {
    fn logs(&self, _: Target, _: LogOptions) -> BoxFuture<'static, Result<Reader, PodError>> {
        unreachable!()
    }

    fn exec(&self, _: Target, _: ExecOptions) -> BoxFuture<'static, Result<Execution, PodError>> {
        unreachable!()
    }

    fn connect(&self, _: Target, _: u16) -> BoxFuture<'static, Result<(Reader, Writer), PodError>> {
        unreachable!()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_and_permissions() {
    let Some(cluster) = Cluster::start(Arc::new(Unasked)).await else {
        return;
    };
    let me = cluster.good("auth whoami -o json", "").await;
    assert!(
        me.contains("kubernetes-admin") && me.contains("system:masters"),
        "{me}"
    );
    cluster.good("create sa bot", "").await;
    cluster
        .good("create role reader --verb=get,list --resource=pods", "")
        .await;
    cluster
        .good(
            "create rolebinding readers --role=reader --serviceaccount=default:bot",
            "",
        )
        .await;

    let token = cluster.good("create token bot --duration=1h", "").await;
    let as_bot = format!(
        "--kubeconfig {} --token {}",
        cluster.file("plain").display(),
        token.trim()
    );
    // The administrator's kubeconfig without its certificate.
    let plain = cluster.server.kubeconfig(&cluster.url).unwrap();
    let plain: Vec<&str> = plain
        .lines()
        .filter(|line| !line.contains("client-"))
        .collect();
    std::fs::write(
        cluster.file("plain"),
        plain.join("\n").replace("  user:\n", "  user: {}\n"),
    )
    .unwrap();
    cluster.good(&format!("{as_bot} get pods"), "").await;
    cluster
        .bad(
            &format!("{as_bot} get secrets"),
            "",
            "secrets is forbidden: User \"system:serviceaccount:default:bot\" cannot list resource \"secrets\" in API group \"\" in the namespace \"default\"",
        )
        .await;
    let can = cluster
        .good(
            "auth can-i list pods --as=system:serviceaccount:default:bot",
            "",
        )
        .await;
    assert_eq!(can.trim(), "yes");
    let ran = cluster
        .run(
            "auth can-i delete pods --as=system:serviceaccount:default:bot",
            "",
        )
        .await;
    assert_eq!((ran.code, ran.out.trim()), (1, "no"));
    cluster
        .bad(
            "get pods --as=nobody",
            "",
            "User \"nobody\" cannot list resource \"pods\"",
        )
        .await;

    cluster.good("delete sa bot", "").await;
    cluster
        .bad(&format!("{as_bot} get pods"), "", "Unauthorized")
        .await;
    cluster.server.stop().await;
}

const DEFINITION: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: widgets, singular: widget, kind: Widget}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            required: [size]
            properties:
              size: {type: integer, minimum: 1}
              color: {type: string, default: blue, enum: [blue, red]}
            x-kubernetes-validations:
            - {rule: 'self.color != \"red\" || self.size < RED', message: red ones are small}
            - {rule: 'self.size >= oldSelf.size', message: widgets never shrink}
";

#[tokio::test(flavor = "multi_thread")]
async fn schemas_of_definitions() {
    let Some(cluster) = Cluster::start(Arc::new(Unasked)).await else {
        return;
    };
    cluster
        .bad("apply -f -", DEFINITION, "undeclared reference to 'RED'")
        .await;
    cluster
        .good("apply -f -", &DEFINITION.replace("RED", "5"))
        .await;
    cluster
        .good(
            "wait --for=condition=Established crd/widgets.example.com --timeout=10s",
            "",
        )
        .await;
    let widget = |spec: &str| {
        format!(
            "{{apiVersion: example.com/v1, kind: Widget, metadata: {{name: w}}, spec: {{{spec}}}}}"
        )
    };
    for (spec, part) in [
        (
            "size: 0",
            "spec.size: Invalid value: 0: spec.size in body should be greater than or equal to 1",
        ),
        ("color: red", "spec.size: Required value"),
        (
            "size: 1, color: green",
            "spec.color: Unsupported value: \"green\": supported values: \"blue\", \"red\"",
        ),
        (
            "size: 9, color: red",
            "spec: Invalid value: \"object\": red ones are small",
        ),
        ("size: 1, shape: round", "unknown field \"spec.shape\""),
    ] {
        cluster.bad("apply -f -", &widget(spec), part).await;
    }
    cluster.good("apply -f -", &widget("size: 3")).await;
    let color = cluster
        .good("get widget w -o jsonpath={.spec.color}", "")
        .await;
    assert_eq!(color, "blue", "the default");
    cluster
        .bad("apply -f -", &widget("size: 2"), "widgets never shrink")
        .await;
    cluster.good("apply -f -", &widget("size: 4")).await;
    cluster.server.stop().await;
}
