//! A real kubectl against a real socket: the verbs that users type.

use super::*;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// Runs kubectl, feeding it `input`; output and error text together.
fn kubectl(kubeconfig: &Path, arguments: &str, input: &str) -> (bool, String) {
    let mut child = Command::new("kubectl")
        .env("KUBECONFIG", kubeconfig)
        .env("HOME", kubeconfig.parent().expect("a directory"))
        .args(arguments.split_whitespace())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("kubectl starts");
    child
        .stdin
        .take()
        .expect("piped")
        .write_all(input.as_bytes())
        .expect("written");
    let output = child.wait_with_output().expect("kubectl ends");
    let text = [output.stdout, output.stderr]
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .concat();
    (output.status.success(), text)
}

const DEPLOYMENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: curl}]}
";

const DEFINITION: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: widgets, kind: Widget, shortNames: [wd]}
  versions:
  - name: v1
    served: true
    storage: true
    additionalPrinterColumns: [{name: Size, type: integer, jsonPath: .spec.size}]
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, properties: {size: {type: integer, description: How big it is.}}}
";

const WIDGET: &str =
    "{apiVersion: example.com/v1, kind: Widget, metadata: {name: w}, spec: {size: 3}}";

/// (arguments, input, whether it succeeds, words of the output).
const STEPS: &[(&str, &str, bool, &str)] = &[
    ("version", "", true, "Server Version: v1.33.0+lateen"),
    ("get namespaces", "", true, "kube-system"),
    ("create namespace shop", "", true, "namespace/shop created"),
    (
        "create configmap settings --from-literal=a=b -n shop",
        "",
        true,
        "configmap/settings created",
    ),
    (
        "get configmap settings -n shop -o jsonpath={.data.a}",
        "",
        true,
        "b",
    ),
    (
        "apply -f -",
        DEPLOYMENT,
        true,
        "deployment.apps/web created",
    ),
    (
        "apply -f -",
        DEPLOYMENT,
        true,
        "deployment.apps/web unchanged",
    ),
    ("get deployments -o wide", "", true, "app=web"),
    (
        "apply --server-side --dry-run=server -f -",
        DEPLOYMENT,
        true,
        "serverside-applied (server dry run)",
    ),
    (
        "scale deployment web --replicas=5",
        "",
        true,
        "deployment.apps/web scaled",
    ),
    (
        "get deployment web -o jsonpath={.spec.replicas}",
        "",
        true,
        "5",
    ),
    ("label deployment web tier=front", "", true, "labeled"),
    ("annotate deployment web a=b", "", true, "annotated"),
    (
        "set image deployment/web c=curl:2",
        "",
        true,
        "image updated",
    ),
    ("rollout restart deployment web", "", true, "restarted"),
    (
        "patch deployment web --type=json -p [{\"op\":\"remove\",\"path\":\"/metadata/annotations/a\"}]",
        "",
        true,
        "patched",
    ),
    ("describe deployment web", "", true, "Image:         curl:2"),
    (
        "wait deployment/web --for=jsonpath={.spec.replicas}=5 --timeout=5s",
        "",
        true,
        "condition met",
    ),
    (
        "expose deployment web --port=80",
        "",
        true,
        "service/web exposed",
    ),
    ("describe service web", "", true, "Selector:"),
    ("run p --image=curl", "", true, "pod/p created"),
    ("get pods -o wide", "", true, "NOMINATED NODE"),
    ("logs p", "", true, "hello from p"),
    ("create token default", "", true, "ey"),
    ("auth whoami", "", true, "kubernetes-admin"),
    (
        "auth can-i list pods --as=system:serviceaccount:default:default",
        "",
        false,
        "no",
    ),
    (
        "get pods --as=nobody",
        "",
        false,
        "User \"nobody\" cannot list resource \"pods\"",
    ),
    (
        "explain deployment.spec.strategy.rollingUpdate.maxSurge",
        "",
        true,
        "<IntOrString>",
    ),
    (
        "apply -f -",
        DEFINITION,
        true,
        "widgets.example.com created",
    ),
    (
        "wait crd/widgets.example.com --for=condition=Established --timeout=5s",
        "",
        true,
        "condition met",
    ),
    ("apply -f -", WIDGET, true, "widget.example.com/w created"),
    ("get wd", "", true, "SIZE"),
    ("explain widget.spec.size", "", true, "How big it is."),
    (
        "create -f -",
        "{apiVersion: v1, kind: Pod, metadata: {name: q}, spec: {containers: [{name: a, image: b, foo: 1}]}}",
        false,
        "unknown field \"spec.containers[0].foo\"",
    ),
    (
        "apply -f -",
        "{apiVersion: example.com/v1, kind: Gadget, metadata: {name: g}}",
        false,
        "no matches for kind \"Gadget\" in version \"example.com/v1\"",
    ),
    ("delete crd widgets.example.com", "", true, "deleted"),
    (
        "delete deployment,service,pod --all",
        "",
        true,
        "pod \"p\" deleted",
    ),
    ("delete namespace shop", "", true, "deleted"),
    ("api-resources", "", true, "endpointslices"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_verbs_of_kubectl() {
    if Command::new("kubectl")
        .arg("version")
        .arg("--client")
        .output()
        .is_err()
    {
        assert!(
            std::env::var_os("CI").is_none(),
            "kubectl is missing; install it"
        );
        eprintln!("skipped: there is no kubectl");
        return;
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("https://{}", listener.local_addr().expect("an address"));
    let server = Server::start(Options {
        listeners: vec![listener],
        ..options()
    })
    .await
    .expect("start");
    let directory = tempfile::tempdir().expect("temporary directory");
    let kubeconfig = directory.path().join("kubeconfig");
    std::fs::write(&kubeconfig, server.kubeconfig(&url).expect("kubeconfig")).expect("written");
    let run = move || {
        for (arguments, input, succeeds, words) in STEPS {
            let (success, text) = kubectl(&kubeconfig, arguments, input);
            assert!(
                success == *succeeds && text.contains(words),
                "kubectl {arguments}: {text}"
            );
        }
    };
    tokio::task::spawn_blocking(run).await.expect("steps");
    server.stop().await;
}
