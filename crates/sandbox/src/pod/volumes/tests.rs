//! What a program sees in its volumes.

use super::*;
use crate::controllers::testing::Lab;
use crate::pod::cache::Cache;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use kube::Api;
use kube::api::{DeleteParams, PostParams};

fn files(pairs: &[(&str, &str)]) -> Files {
    pairs
        .iter()
        .map(|(path, text)| ((*path).to_owned(), (text.as_bytes().to_vec(), 0o600)))
        .collect()
}

fn check(directory: &Path, expected: &[(&str, Option<&str>)]) {
    for (path, text) in expected {
        let read = std::fs::read_to_string(directory.join(path)).ok();
        assert_eq!(read.as_deref(), *text, "{path}");
    }
}

#[test]
fn files_change_all_at_once_and_old_ones_go() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = directory.path();
    atomic::write(path, &files(&[("a", "1"), ("dir/b", "2")]), None).expect("written");
    check(path, &[("a", Some("1")), ("dir/b", Some("2"))]);
    let mode = std::fs::metadata(path.join("a"))
        .expect("there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    atomic::write(path, &files(&[("a", "3"), ("c", "4")]), None).expect("written");
    check(path, &[("a", Some("3")), ("c", Some("4")), ("dir/b", None)]);
    let versions = std::fs::read_dir(path).expect("there").count();
    assert_eq!(versions, 4, "a, c, ..data and one version");
}

#[test]
fn mounts_may_not_leave_their_volume() {
    let pod: Pod = serde_json::from_value(serde_json::json!({
        "metadata": {"name": "p", "namespace": "n"},
        "spec": {"containers": [], "volumes": [{"name": "v", "emptyDir": {}}]}
    }))
    .expect("a pod");
    let directory = tempfile::tempdir().expect("temporary directory");
    let volumes = Volumes::new(directory.path(), directory.path());
    let mount_of = |mount: serde_json::Value| {
        let container = serde_json::from_value(serde_json::json!({
            "name": "c", "volumeMounts": [mount]
        }))
        .expect("a container");
        volumes.mounts(&pod, &container, &Environment::new())
    };
    let inside = mount_of(serde_json::json!({"name": "v", "mountPath": "/x", "subPath": "a/b"}));
    assert!(inside.expect("fine")[0].source.ends_with("volumes/v/a/b"));
    let outside = mount_of(serde_json::json!({"name": "v", "mountPath": "/x", "subPath": "../b"}));
    assert!(outside.expect_err("refused").contains("inside the volume"));
    let unknown = mount_of(serde_json::json!({"name": "w", "mountPath": "/x"}));
    assert!(unknown.expect_err("refused").contains("\"w\""));
}

const MESHED: &str = "
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  serviceAccountName: caller
  automountServiceAccountToken: false
  containers: [{name: c, image: pause}]
  volumes:
  - name: roots
    configMap: {name: istio-ca-root-cert}
  - name: token
    projected:
      sources:
      - serviceAccountToken: {path: istio-token, audience: istio-ca, expirationSeconds: 43200}
";

const ACCOUNT: &str = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: caller}
";

fn roots(text: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio-ca-root-cert}}\ndata: {{root-cert.pem: {text}}}\n"
    )
}

async fn eventually(what: &str, mut look: impl AsyncFnMut() -> bool) {
    let found = async {
        while !look().await {
            tokio::task::yield_now().await;
        }
    };
    let limit = std::time::Duration::from_secs(20);
    let found = tokio::time::timeout(limit, found).await;
    assert!(found.is_ok(), "it never came to this: {what}");
}

#[tokio::test]
async fn mesh_volumes_wait_for_their_roots_and_follow_them() {
    let lab = Lab::start().await;
    lab.apply(ACCOUNT).await;
    lab.apply(MESHED).await;
    let pods: Api<Pod> = Api::default_namespaced(lab.client.clone());
    let pod = pods.get("p").await.expect("the pod is there");
    let cache = Cache::start(lab.client.clone());
    let directory = tempfile::tempdir().expect("temporary directory");
    let mut volumes = Volumes::new(directory.path(), directory.path());
    let address = Ipv4Addr::new(10, 244, 0, 9);
    let missing = volumes.refresh(&cache, &pod, address).await;
    let sentence = missing.expect_err("no roots yet");
    assert!(
        sentence.contains("configmap \"istio-ca-root-cert\" not found"),
        "{sentence}"
    );
    let file =
        |path: &str| std::fs::read_to_string(directory.path().join("volumes").join(path)).ok();
    for text in ["one", "two"] {
        lab.apply(&roots(text)).await;
        eventually(text, async || {
            let _ = volumes.refresh(&cache, &pod, address).await;
            file("roots/root-cert.pem").as_deref() == Some(text)
        })
        .await;
    }
    // The token is the same until it is due, at 80% of its life.
    let token = file("token/istio-token").expect("a token");
    let due = volumes.renew_at().expect("a time");
    let left = due.duration_since(Timestamp::now()).as_secs();
    assert!((34_000..=34_560).contains(&left), "{left}");
    let review = |audiences: Option<Vec<String>>| {
        let reviews: Api<TokenReview> = Api::all(lab.client.clone());
        let spec = TokenReviewSpec {
            token: Some(token.clone()),
            audiences,
        };
        let review = TokenReview {
            spec,
            ..TokenReview::default()
        };
        async move {
            let answer = reviews.create(&PostParams::default(), &review).await;
            answer.expect("an answer").status.expect("a status")
        }
    };
    let good = review(Some(vec!["istio-ca".to_owned()])).await;
    let user = good.user.and_then(|user| user.username);
    assert_eq!(
        user.as_deref(),
        Some("system:serviceaccount:default:caller")
    );
    assert_ne!(
        review(None).await.authenticated,
        Some(true),
        "it is for another audience"
    );
    // A ConfigMap that goes leaves what was written, and the rest goes on.
    let maps: Api<k8s_openapi::api::core::v1::ConfigMap> =
        Api::default_namespaced(lab.client.clone());
    maps.delete("istio-ca-root-cert", &DeleteParams::default())
        .await
        .expect("deleted");
    volumes.tokens.clear();
    eventually("a new token", async || {
        let refreshed = volumes.refresh(&cache, &pod, address).await;
        refreshed.is_err() && file("token/istio-token").is_some_and(|new| new != token)
    })
    .await;
    assert_eq!(file("roots/root-cert.pem").as_deref(), Some("two"));
}

const READER: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: sds}
rules: [{apiGroups: [''], resources: [secrets], verbs: [get, watch, list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: sds}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: sds}
subjects: [{kind: ServiceAccount, name: gateway, namespace: default}]
";

#[tokio::test]
async fn rights_on_secrets_can_be_asked_about_for_an_account() {
    let lab = Lab::start().await;
    lab.apply(READER).await;
    let check = async |account: &str, namespace: &str, expected: bool| {
        let reviews: Api<SubjectAccessReview> = Api::all(lab.client.clone());
        let review = serde_json::from_value(serde_json::json!({
            "spec": { "user": format!("system:serviceaccount:default:{account}"),
                "groups": ["system:serviceaccounts", "system:serviceaccounts:default"],
                "resourceAttributes": { "verb": "get", "resource": "secrets", "name": "cert",
                    "namespace": namespace } },
        }))
        .expect("a review");
        let answer = reviews.create(&PostParams::default(), &review).await;
        let allowed = answer.expect("an answer").status.expect("a status").allowed;
        assert_eq!(allowed, expected, "{account} in {namespace}");
    };
    check("gateway", "default", true).await;
    check("gateway", "kube-system", false).await;
    check("other", "default", false).await;
}
