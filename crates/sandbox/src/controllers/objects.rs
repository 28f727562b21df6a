//! What several controllers ask of Kubernetes objects: who owns one, is a pod ready, does a
//! selector match, what does a template hash to. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    LabelSelector, ObjectMeta, OwnerReference, Time,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::Resource;
use serde::Serialize;

/// Labels of an object.
pub(crate) type Labels = BTreeMap<String, String>;

/// The owner that controls an object; absent: nobody does.
pub(crate) fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references
        .iter()
        .flatten()
        .find(|owner| owner.controller == Some(true))
}

/// A reference that makes `owner` the controller of another object.
pub(crate) fn controlled_by<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    let meta = owner.meta();
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// Whether a selector matches labels. An empty selector matches everything; an operator that
/// Kubernetes does not have matches nothing.
pub(crate) fn matches(selector: &LabelSelector, labels: &Labels) -> bool {
    let exact = selector.match_labels.iter().flatten();
    let expressions = selector.match_expressions.iter().flatten();
    exact
        .into_iter()
        .all(|(key, value)| labels.get(key) == Some(value))
        && expressions.into_iter().all(|expression| {
            let value = labels.get(&expression.key);
            let listed = || {
                let values = expression.values.as_deref().unwrap_or_default();
                value.is_some_and(|value| values.contains(value))
            };
            match expression.operator.as_str() {
                "In" => listed(),
                "NotIn" => !listed(),
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        })
}

/// Labels of a pod; none is an empty map.
pub(crate) fn labels(meta: &ObjectMeta) -> &Labels {
    static NONE: Labels = BTreeMap::new();
    meta.labels.as_ref().unwrap_or(&NONE)
}

/// The pod's phase; absent means that nobody has started it yet.
pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .unwrap_or("Pending")
}

/// Whether all containers have ended for good.
pub(crate) fn is_finished(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Whether the pod is being deleted.
pub(crate) fn is_terminating(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Whether the pod counts as a replica.
pub(crate) fn is_active(pod: &Pod) -> bool {
    !is_finished(pod) && !is_terminating(pod)
}

/// Since when the pod is ready; absent: it is not. A missing time counts as long ago.
pub(crate) fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let ready = conditions
        .iter()
        .find(|condition| condition.type_ == "Ready")?;
    if ready.status != "True" {
        return None;
    }
    Some(
        ready
            .last_transition_time
            .as_ref()
            .map_or(Timestamp::UNIX_EPOCH, |time| time.0),
    )
}

/// Whether the pod is ready for traffic.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    ready_since(pod).is_some()
}

/// Whether the pod has been ready for `min_ready_seconds`; if not, when it will be (absent: it is
/// not even ready).
pub(crate) fn availability(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> Availability {
    let Some(since) = ready_since(pod) else {
        return Availability::NotReady;
    };
    let ready_for = now.duration_since(since).as_millis();
    let left = i128::from(min_ready_seconds) * 1000 - ready_for;
    if left <= 0 {
        Availability::Available
    } else {
        Availability::In(std::time::Duration::from_millis(left as u64))
    }
}

/// How far a pod is from being available.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Availability {
    NotReady,
    In(std::time::Duration),
    Available,
}

/// How many pods are ready, how many available, and when the next one will be.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) ready: i32,
    pub(crate) available: i32,
    pub(crate) next: Option<std::time::Duration>,
}

impl Tally {
    pub(crate) fn of<'a>(
        pods: impl IntoIterator<Item = &'a Pod>,
        min_ready_seconds: i32,
        now: Timestamp,
    ) -> Tally {
        let mut tally = Tally::default();
        for pod in pods {
            match availability(pod, min_ready_seconds, now) {
                Availability::NotReady => {}
                Availability::In(left) => {
                    tally.ready += 1;
                    tally.next = Some(tally.next.map_or(left, |next| next.min(left)));
                }
                Availability::Available => {
                    tally.ready += 1;
                    tally.available += 1;
                }
            }
        }
        tally
    }
}

/// A pod after a template, owned by `owner`. The name is given by the API server from
/// `generate_name`, unless the caller sets one.
pub(crate) fn pod_from(
    template: &PodTemplateSpec,
    owner: OwnerReference,
    namespace: &str,
    generate_name: String,
) -> Pod {
    let meta = template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(generate_name),
            namespace: Some(namespace.to_owned()),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// A short name for what an object says, made of letters that spell no words. The same content
/// gives the same name in every version of this program (FNV-1a over its JSON).
pub(crate) fn hash_name(content: &impl Serialize, salt: i32) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    // The types of k8s-openapi have string keys only, so that this cannot fail.
    let mut bytes = serde_json::to_vec(content).unwrap_or_default();
    if salt != 0 {
        bytes.extend(salt.to_be_bytes());
    }
    let mut hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (0..10)
        .map(|_| {
            let letter = LETTERS[(hash % LETTERS.len() as u64) as usize];
            hash /= LETTERS.len() as u64;
            char::from(letter)
        })
        .collect()
}

/// A number or a percentage of `whole`. Text that is neither counts as 0.
pub(crate) fn scaled(value: Option<&IntOrString>, default: &str, whole: i32, up: bool) -> i32 {
    let text = match value {
        Some(IntOrString::Int(number)) => return *number,
        Some(IntOrString::String(text)) => text.as_str(),
        None => default,
    };
    let Some(percent) = text.strip_suffix('%') else {
        return text.parse().unwrap_or(0);
    };
    let product = percent.parse::<i32>().unwrap_or(0).saturating_mul(whole);
    if up {
        (product + 99).div_euclid(100)
    } else {
        product.div_euclid(100)
    }
}

/// A time as Kubernetes writes it: whole seconds.
pub(crate) fn time(now: Timestamp) -> Time {
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}

/// How long something has lasted, never negative.
pub(crate) fn elapsed(since: Option<&Time>, now: Timestamp) -> std::time::Duration {
    let since = since.map_or(now, |time| time.0);
    std::time::Duration::try_from(now.duration_since(since)).unwrap_or_default()
}
