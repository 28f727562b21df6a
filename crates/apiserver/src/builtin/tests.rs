//! Cases of `builtin`: text in, observable result out.

use super::*;
use crate::kinds::Registry;

#[test]
fn the_class_of_a_pod_follows_containers_that_webhooks_add() {
    let kind = Registry::new().find("", "v1", "pods").expect("pods");
    let container = json!({"name": "a", "image": "curl"});
    let mut pod = json!({"metadata": {"name": "x"}, "spec": {"containers": [container]}});
    let mut check = |add: Value, class: &str| {
        if !add.is_null() {
            pod["spec"]["initContainers"] = json!([add]);
        }
        defaults(&kind, &mut pod, None);
        assert_eq!(pod["status"]["qosClass"], class, "{pod}");
    };
    check(Value::Null, "BestEffort");
    let resources = json!({"requests": {"cpu": "10m"}});
    check(
        json!({"name": "proxy", "image": "curl", "resources": resources}),
        "Burstable",
    );
}

#[test]
fn kinds_that_nothing_acts_on_say_so() {
    let check = |group: &str, plural: &str, expected: Option<&str>| {
        let kind = Registry::new().find(group, "v1", plural).expect("a kind");
        assert_eq!(inert(&kind).as_deref(), expected, "{plural}");
    };
    check("", "configmaps", None);
    check("apps", "deployments", None);
    let quota = "nothing in this cluster acts on ResourceQuota objects: no limit is enforced";
    check("", "resourcequotas", Some(quota));
}
