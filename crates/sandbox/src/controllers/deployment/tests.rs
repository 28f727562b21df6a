//! Rollouts: turn by turn on paper, and once with the real API server.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetStatus};
use serde_json::json;

use super::super::testing::Lab;
use super::step::{HASH, Rollout, replicas, status, template_hash};
use super::*;

fn deployment(replicas: i32, image: &str, strategy: serde_json::Value) -> Deployment {
    serde_json::from_value(json!({
        "metadata": { "name": "web", "namespace": "default", "uid": "d", "generation": 1 },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": { "app": "web" } },
            "strategy": strategy,
            "template": {
                "metadata": { "labels": { "app": "web" } },
                "spec": { "containers": [{ "name": "web", "image": image }] },
            },
        },
    }))
    .unwrap()
}

/// Replica sets that reach their size in the next turn; `broken` ones never become available.
struct World {
    deployment: Deployment,
    sets: Vec<ReplicaSet>,
    broken: Vec<String>,
}

impl World {
    /// A deployment whose rollout is over.
    fn settled(deployment: Deployment) -> World {
        let mut world = World {
            deployment,
            sets: Vec::new(),
            broken: Vec::new(),
        };
        (0..10).for_each(|_| drop(world.turn()));
        world
    }

    /// One step and its effect; the sizes wanted and the pods available after it.
    fn turn(&mut self) -> String {
        let old_pods = self
            .sets
            .iter()
            .filter(|set| self.is_old(set))
            .map(|set| status(set).replicas);
        let old_pods = old_pods.sum::<i32>() as usize;
        let step = Rollout::of(&self.deployment, self.sets.iter().collect(), old_pods).step();
        if let Some(size) = step.create {
            let hash = template_hash(&self.deployment);
            self.sets.push(
                serde_json::from_value(json!({
                    "metadata": { "name": format!("web-{hash}"), "labels": { HASH: hash } },
                    "spec": { "replicas": size, "selector": {} },
                }))
                .unwrap(),
            );
        }
        for resize in &step.resize {
            let set = self
                .sets
                .iter_mut()
                .find(|set| set.name_any() == resize.name)
                .unwrap();
            set.spec.as_mut().unwrap().replicas = Some(resize.to);
        }
        self.sets
            .retain(|set| !step.delete.contains(&set.name_any()));
        let wanted: Vec<String> = self
            .sets
            .iter()
            .map(|set| replicas(set).to_string())
            .collect();
        for set in &mut self.sets {
            let works = !self.broken.contains(&set.name_any());
            let size = replicas(set);
            set.status = Some(ReplicaSetStatus {
                replicas: size,
                available_replicas: Some(if works { size } else { 0 }),
                ready_replicas: Some(if works { size } else { 0 }),
                ..ReplicaSetStatus::default()
            });
        }
        let available: i32 = self.sets.iter().map(|set| status(set).available).sum();
        format!("{} ({available})", wanted.join("+"))
    }

    fn is_old(&self, set: &ReplicaSet) -> bool {
        set.labels().get(HASH) != Some(&template_hash(&self.deployment))
    }

    fn change(&mut self, image: &str) {
        let template = &mut self.deployment.spec.as_mut().unwrap().template;
        template.spec.as_mut().unwrap().containers[0].image = Some(image.to_owned());
    }
}

fn check(replicas: i32, strategy: serde_json::Value, turns: &[&str]) {
    let mut world = World::settled(deployment(replicas, "v1", strategy));
    world.change("v2");
    let seen: Vec<String> = turns.iter().map(|_| world.turn()).collect();
    assert_eq!(seen, turns);
    assert_eq!(world.turn(), *turns.last().unwrap(), "it is settled");
}

#[test]
fn rolling_updates() {
    let rolling = |surge: serde_json::Value, unavailable: serde_json::Value| json!({ "rollingUpdate": { "maxSurge": surge, "maxUnavailable": unavailable } });
    // Defaults, 25% each: one pod goes only after its successor is there.
    check(1, json!({}), &["1+1 (2)", "0+1 (1)"]);
    check(
        4,
        json!({}),
        &["4+1 (5)", "2+1 (3)", "2+3 (5)", "0+3 (3)", "0+4 (4)"],
    );
    check(
        2,
        rolling(json!(0), json!(0)),
        &["2+0 (2)", "1+0 (1)", "1+1 (2)", "0+1 (1)", "0+2 (2)"],
    );
    check(3, rolling(json!("100%"), json!(0)), &["3+3 (6)", "0+3 (3)"]);
    check(2, json!({ "type": "Recreate" }), &["0 (0)", "0+2 (2)"]);
}

#[test]
fn a_template_that_does_not_start_stops_the_rollout() {
    let mut world = World::settled(deployment(4, "v1", json!({})));
    world.change("v2");
    world
        .broken
        .push(format!("web-{}", template_hash(&world.deployment)));
    let seen: Vec<String> = (0..5).map(|_| world.turn()).collect();
    assert_eq!(
        seen,
        ["4+1 (4)", "3+1 (3)", "3+2 (3)", "3+2 (3)", "3+2 (3)"]
    );
    // Going back finds the old replica set again.
    world.change("v1");
    (0..5).for_each(|_| drop(world.turn()));
    assert_eq!(world.turn(), "4+0 (4)");
}

#[test]
fn paused_deployments_scale_and_nothing_else() {
    let mut world = World::settled(deployment(2, "v1", json!({})));
    world.deployment.spec.as_mut().unwrap().paused = Some(true);
    world.change("v2");
    assert_eq!(world.turn(), "2 (2)");
    world.deployment.spec.as_mut().unwrap().replicas = Some(5);
    assert_eq!(world.turn(), "5 (5)");
}

#[test]
fn history_is_bounded() {
    let mut world = World::settled(deployment(1, "v0", json!({})));
    world
        .deployment
        .spec
        .as_mut()
        .unwrap()
        .revision_history_limit = Some(2);
    for version in 1..6 {
        world.change(&format!("v{version}"));
        (0..4).for_each(|_| drop(world.turn()));
    }
    assert_eq!(world.sets.len(), 3);
}

const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: { name: web, annotations: { kubernetes.io/change-cause: first } }
spec:
  replicas: 3
  selector: { matchLabels: { app: web } }
  template:
    metadata: { labels: { app: web } }
    spec: { containers: [ { name: web, image: one } ] }
";

fn rolled_out(cluster: &Cluster, revision: &str) -> Option<()> {
    let deployment = cluster.deployments.find(&Key::new("default", "web"))?;
    let status = deployment.status.clone()?;
    let progressing = status
        .conditions
        .iter()
        .flatten()
        .find(|one| one.type_ == "Progressing")?;
    (deployment
        .annotations()
        .get(REVISION)
        .is_some_and(|own| own == revision)
        && status.observed_generation == deployment.metadata.generation
        && status.updated_replicas == Some(3)
        && status.replicas == Some(3)
        && status.available_replicas == Some(3)
        && status.unavailable_replicas.is_none()
        && progressing.reason.as_deref() == Some("NewReplicaSetAvailable"))
    .then_some(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_in_a_cluster() {
    let lab = Lab::start().await;
    lab.apply(WEB).await;
    lab.until("three pods", |cluster| rolled_out(cluster, "1"))
        .await;
    let pods = Lab::pods(&lab.cluster);
    assert_eq!(pods.len(), 3);
    let set = lab.cluster.replica_sets.within("default").remove(0);
    assert!(
        pods[0]
            .name_any()
            .starts_with(&format!("{}-", set.name_any()))
    );
    assert_eq!(set.annotations()["kubernetes.io/change-cause"], "first");
    assert_eq!(pods[0].labels().get(HASH), set.labels().get(HASH));

    lab.apply(&WEB.replace("one", "two").replace("first", "second"))
        .await;
    lab.until("the second revision", |cluster| rolled_out(cluster, "2"))
        .await;
    let sets = lab.cluster.replica_sets.within("default");
    assert_eq!(sets.len(), 2);
    lab.apply(&WEB.replace("first", "third")).await;
    lab.until("the first template again", |cluster| {
        rolled_out(cluster, "3")
    })
    .await;
    let sets = lab.cluster.replica_sets.within("default");
    assert_eq!(sets.len(), 2, "the old replica set was taken again");
    let back = sets.iter().find(|one| one.uid() == set.uid()).unwrap();
    assert_eq!(
        back.annotations()["deployment.kubernetes.io/revision-history"],
        "1"
    );

    let web = lab
        .cluster
        .deployments
        .find(&Key::new("default", "web"))
        .unwrap();
    lab.cluster.deployments.delete(&web).await.unwrap();
    lab.until("nothing is left", |cluster| {
        let left =
            cluster.pods.within("default").len() + cluster.replica_sets.within("default").len();
        (left == 0).then_some(())
    })
    .await;
}
