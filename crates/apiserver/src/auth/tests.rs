//! RBAC from manifests, impersonation, and the access reviews.

pub(crate) mod kubectl;

use super::*;
use http::HeaderValue;

/// Stored objects for tests: those of a multi-document YAML text.
pub(crate) struct Objects(pub(crate) Vec<Arc<Value>>);

impl Objects {
    pub(crate) fn new(yaml: &str) -> Self {
        let documents = yaml.split("\n---").filter(|text| !text.trim().is_empty());
        Self(
            documents
                .map(|text| Arc::new(serde_saphyr::from_str(text).unwrap()))
                .collect(),
        )
    }
}

impl Lookup for Objects {
    fn list(&self, group: &str, resource: &str, namespace: Option<&str>) -> Vec<Arc<Value>> {
        let fits = |object: &&Arc<Value>| {
            let (own, _) = object["apiVersion"]
                .as_str()
                .unwrap()
                .rsplit_once('/')
                .unwrap_or_default();
            let plural = format!("{}s", object["kind"].as_str().unwrap().to_lowercase());
            let place = object["metadata"]["namespace"].as_str();
            own == group && plural == resource && (namespace.is_none() || namespace == place)
        };
        self.0.iter().filter(fits).cloned().collect()
    }

    fn find(
        &self,
        group: &str,
        resource: &str,
        namespace: Option<&str>,
        name: &str,
    ) -> Option<Arc<Value>> {
        self.list(group, resource, namespace)
            .into_iter()
            .find(|object| object["metadata"]["name"] == name)
    }
}

const RBAC: &str = r#"
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: reader}, rules: [
  {apiGroups: [""], resources: [pods, pods/log], verbs: [get, list]},
  {apiGroups: ["*"], resources: ["*/scale"], verbs: [update]},
  {apiGroups: [""], resources: [configmaps], resourceNames: [mine], verbs: ["*"]},
  {nonResourceURLs: [/metrics, "/healthz*"], verbs: [get]}]}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: faker}, rules: [
  {apiGroups: [""], resources: [users, groups, serviceaccounts], verbs: [impersonate]}]}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: readers},
  roleRef: {kind: ClusterRole, name: reader}, subjects: [{kind: User, name: jane}, {kind: Group, name: team}]}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: fakers},
  roleRef: {kind: ClusterRole, name: faker}, subjects: [{kind: User, name: boss}]}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {name: some, namespace: a},
  roleRef: {kind: ClusterRole, name: reader}, subjects: [{kind: ServiceAccount, name: bot, namespace: b}]}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: broken},
  roleRef: {kind: ClusterRole, name: absent}, subjects: [{kind: User, name: lost}]}
"#;

fn user(name: &str, groups: &[&str]) -> User {
    User {
        name: name.into(),
        groups: groups.iter().map(|one| (*one).to_owned()).collect(),
        ..User::default()
    }
}

/// `"get pods/log a/x"` (verb, resource, namespace/name with `-` for none) or `"get /path"`: `ok` or the refusal.
fn check(user: &User, action: &str) -> String {
    let words: Vec<&str> = action.split(' ').collect();
    let attributes = match words.as_slice() {
        [verb, path] => Attributes {
            verb,
            path,
            ..Attributes::default()
        },
        [verb, resource, place] => {
            let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
            let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
            let (namespace, name) = place.split_once('/').unwrap();
            let some = |text| (text != "-").then_some(text);
            let (namespace, name) = (some(namespace), some(name));
            Attributes {
                verb,
                group,
                version: "v1",
                resource,
                subresource,
                namespace,
                name,
                path: "",
            }
        }
        _ => panic!("{action}"),
    };
    match authorize(&Objects::new(RBAC), user, &attributes) {
        Ok(()) => "ok".into(),
        Err(error) => {
            assert_eq!((error.code, error.reason), (403, "Forbidden"));
            error.message
        }
    }
}

#[test]
fn rules_of_cluster_bindings() {
    let jane = user("jane", &[]);
    for action in [
        "list pods a/-",
        "list pods -/-",
        "get pods/log a/x",
        "update deployments.apps/scale a/x",
        "delete configmaps a/mine",
        "get /metrics",
        "get /healthz/etcd",
    ] {
        assert_eq!(check(&jane, action), "ok", "{action}");
    }
    assert_eq!(
        check(&jane, "create pods a/-"),
        r#"pods is forbidden: User "jane" cannot create resource "pods" in API group "" in the namespace "a""#
    );
    assert_eq!(
        check(&jane, "create pods/exec a/x"),
        r#"pods "x" is forbidden: User "jane" cannot create resource "pods/exec" in API group "" in the namespace "a""#
    );
    assert_eq!(
        check(&jane, "list nodes -/-"),
        r#"nodes is forbidden: User "jane" cannot list resource "nodes" in API group "" at the cluster scope"#
    );
    assert_eq!(
        check(&jane, "get /version"),
        r#"forbidden: User "jane" cannot get path "/version""#
    );
    assert!(check(&jane, "delete configmaps a/other").contains("cannot delete"));
    assert!(check(&jane, "list configmaps a/-").contains("cannot list"));
    assert!(check(&jane, "update deployments.apps a/x").contains(r#"API group "apps""#));
}

#[test]
fn groups_accounts_masters_and_broken_bindings() {
    assert_eq!(check(&user("x", &["team"]), "get pods a/x"), "ok");
    assert_eq!(
        check(&user("x", &[MASTERS]), "delete anything.example a/x"),
        "ok"
    );
    let bot = User::service_account("b", "bot", "1");
    assert_eq!(check(&bot, "get pods a/x"), "ok");
    assert!(check(&bot, "get pods b/x").contains("system:serviceaccount:b:bot"));
    assert!(check(&bot, "get pods -/-").contains("at the cluster scope"));
    assert!(
        check(&user("lost", &[]), "get pods a/x")
            .ends_with(r#": RBAC: clusterrole.rbac.authorization.k8s.io "absent" not found"#)
    );
}

#[test]
fn impersonation_needs_permission() {
    let objects = Objects::new(RBAC);
    let headers = |pairs: &[(&'static str, &'static str)]| {
        let mut headers = HeaderMap::new();
        for (key, value) in pairs {
            headers.append(*key, HeaderValue::from_static(value));
        }
        headers
    };
    let act = |who: &str, pairs: &[(&'static str, &'static str)]| {
        impersonate(&objects, user(who, &[]), &headers(pairs)).map_err(|error| error.message)
    };
    assert_eq!(act("jane", &[]).unwrap().name, "jane");
    let refused = act("jane", &[("Impersonate-User", "boss")]).unwrap_err();
    assert!(
        refused.contains(r#"cannot impersonate resource "users""#),
        "{refused}"
    );

    let other = act(
        "boss",
        &[("Impersonate-User", "jane"), ("Impersonate-Group", "g")],
    )
    .unwrap();
    assert_eq!(
        (other.name.as_str(), other.groups),
        ("jane", vec!["g".to_owned(), AUTHENTICATED.to_owned()])
    );
    let bot = act(
        "boss",
        &[("Impersonate-User", "system:serviceaccount:b:bot")],
    )
    .unwrap();
    assert!(bot.has_group("system:serviceaccounts:b"));
    assert!(
        act("boss", &[("Impersonate-Group", "g")])
            .unwrap_err()
            .contains("without impersonating a user")
    );
    let extra = [
        ("Impersonate-User", "jane"),
        ("Impersonate-Extra-a%2fb", "c"),
    ];
    assert!(act("boss", &extra).unwrap_err().contains("userextras/a/b"));
}

#[test]
fn reviews() {
    let objects = Objects::new(RBAC);
    let can = |spec: Value| {
        review::subject_access_review(&objects, json!({"spec": spec})).unwrap()["status"].clone()
    };
    let pods = json!({"verb": "get", "resource": "pods", "namespace": "a"});
    assert_eq!(
        can(json!({"user": "jane", "resourceAttributes": pods})),
        json!({"allowed": true, "reason":
            r#"RBAC: allowed by ClusterRoleBinding "readers" of ClusterRole "reader" to User "jane""#})
    );
    assert_eq!(
        can(json!({"user": "joe", "resourceAttributes": pods})),
        json!({"allowed": false})
    );
    assert_eq!(
        can(json!({"user": "jane", "nonResourceAttributes": {"verb": "get", "path": "/metrics"}}))
            ["allowed"],
        true
    );
    let error =
        review::subject_access_review(&objects, json!({"spec": {"user": "jane"}})).unwrap_err();
    assert_eq!(error.code, 400);

    let jane = user("jane", &["x"]);
    let own = json!({"kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1",
        "spec": {"resourceAttributes": pods}});
    assert_eq!(
        review::self_subject_access_review(&objects, &jane, own).unwrap()["status"]["allowed"],
        true
    );
    let me = review::self_subject_review(&jane, json!({})).unwrap();
    assert_eq!(
        me["status"]["userInfo"],
        json!({"username": "jane", "groups": ["x"]})
    );
    let rules =
        review::self_subject_rules_review(&objects, &jane, json!({"spec": {"namespace": "a"}}))
            .unwrap();
    assert_eq!(
        rules["status"]["resourceRules"].as_array().unwrap().len(),
        3
    );
    assert_eq!(
        rules["status"]["nonResourceRules"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn bearer_header() {
    let text = |value: &'static str| {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", HeaderValue::from_static(value));
        bearer(&headers).map(str::to_owned)
    };
    assert_eq!(text("Bearer abc").as_deref(), Some("abc"));
    assert_eq!(text("bearer abc").as_deref(), Some("abc"));
    assert_eq!(text("Basic abc"), None);
    assert_eq!(text("Bearer "), None);
}
