//! What a deployment does next: pure, from the deployment and its replica sets as they are.
//!
//! The rules are those of Kubernetes' deployment controller: the new replica set grows within
//! `maxSurge`, old ones shrink while `maxUnavailable` permits, and never the other way round. One
//! simplification: a deployment that is scaled in the middle of a rollout does not spread the
//! change over its replica sets in proportion; the rollout's own rules bring it there.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use kube::ResourceExt;

use super::super::objects::{Labels, hash_name, scaled};

/// Label that tells the pods of one template from those of another.
pub(crate) const HASH: &str = "pod-template-hash";
/// Annotation with the number of a rollout.
pub(crate) const REVISION: &str = "deployment.kubernetes.io/revision";

/// A change of one replica set's size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resize {
    pub(crate) name: String,
    pub(crate) from: i32,
    pub(crate) to: i32,
}

/// What to do now. Empty when all is as it should be, or has to be waited for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Step {
    /// Create the replica set of the current template, of this size.
    pub(crate) create: Option<i32>,
    pub(crate) resize: Vec<Resize>,
    /// Names of old replica sets beyond the history limit.
    pub(crate) delete: Vec<String>,
}

/// A deployment with its replica sets sorted out.
pub(crate) struct Rollout<'a> {
    pub(crate) deployment: &'a Deployment,
    /// The replica set of the current template; absent until it is created.
    pub(crate) new: Option<&'a ReplicaSet>,
    /// The others, oldest first.
    pub(crate) old: Vec<&'a ReplicaSet>,
    /// Pods of old replica sets that have not ended; only asked for by `Recreate`.
    pub(crate) old_pods: usize,
}

impl<'a> Rollout<'a> {
    /// Sorts the replica sets that the deployment owns.
    pub(crate) fn of(
        deployment: &'a Deployment,
        mut sets: Vec<&'a ReplicaSet>,
        old_pods: usize,
    ) -> Rollout<'a> {
        sets.sort_by_key(|set| (set.creation_timestamp().map(|time| time.0), set.name_any()));
        let hash = template_hash(deployment);
        let wanted = deployment.spec.as_ref().map(|spec| bare(&spec.template));
        let is_new = |set: &ReplicaSet| {
            let template = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
            set.labels().get(HASH) == Some(&hash) || template.map(bare) == wanted
        };
        // Of several that fit the oldest is taken, so that all observers agree.
        let at = sets.iter().position(|set| is_new(set));
        let new = at.map(|at| sets.remove(at));
        Rollout {
            deployment,
            new,
            old: sets,
            old_pods,
        }
    }

    /// Pods wanted in all.
    pub(crate) fn wanted(&self) -> i32 {
        self.deployment
            .spec
            .as_ref()
            .and_then(|spec| spec.replicas)
            .unwrap_or(1)
    }

    /// Every replica set, the old ones first.
    pub(crate) fn all(&self) -> impl Iterator<Item = &'a ReplicaSet> {
        self.old.iter().copied().chain(self.new)
    }

    /// Number of the current rollout: one more than that of any old replica set, unless the new
    /// one has a higher number already.
    pub(crate) fn revision(&self) -> i64 {
        let highest = self.old.iter().map(|set| revision(set)).max().unwrap_or(0);
        self.new.map_or(0, revision).max(highest + 1)
    }

    /// How many pods may be missing while a rollout goes on.
    pub(crate) fn max_unavailable(&self) -> i32 {
        self.limits().1
    }

    /// Surge and unavailability; never both zero, as nothing could move then.
    fn limits(&self) -> (i32, i32) {
        let spec = self.deployment.spec.as_ref();
        let rolling = spec
            .and_then(|spec| spec.strategy.as_ref())
            .and_then(|strategy| strategy.rolling_update.as_ref());
        let wanted = self.wanted();
        let surge = rolling.and_then(|rolling| rolling.max_surge.as_ref());
        let unavailable = rolling.and_then(|rolling| rolling.max_unavailable.as_ref());
        let surge = scaled(surge, "25%", wanted, true);
        let unavailable = scaled(unavailable, "25%", wanted, false);
        if surge == 0 && unavailable == 0 {
            (0, 1)
        } else {
            (surge, unavailable.min(wanted))
        }
    }

    /// The most pods that may exist at a time.
    pub(crate) fn max_pods(&self) -> i32 {
        if self.recreates() {
            self.wanted()
        } else {
            self.wanted() + self.limits().0
        }
    }

    fn recreates(&self) -> bool {
        let spec = self.deployment.spec.as_ref();
        let strategy = spec.and_then(|spec| spec.strategy.as_ref());
        strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate")
    }

    /// Whether the rollout is over: all pods are of the new template and available.
    pub(crate) fn is_complete(&self) -> bool {
        let Some(new) = self.new else { return false };
        let wanted = self.wanted();
        replicas(new) == wanted
            && status(new).replicas == wanted
            && status(new).available == wanted
            && self
                .old
                .iter()
                .all(|set| replicas(set) == 0 && status(set).replicas == 0)
    }

    /// What to do next.
    pub(crate) fn step(&self) -> Step {
        let spec = self.deployment.spec.as_ref();
        if spec.is_some_and(|spec| spec.paused == Some(true)) {
            return self.scale_only();
        }
        let mut step = if self.recreates() {
            self.recreate()
        } else {
            self.roll()
        };
        step.delete = self.surplus_history();
        step
    }

    /// While paused, only a change of the size is followed.
    fn scale_only(&self) -> Step {
        let mut step = Step::default();
        let active: Vec<_> = self.all().filter(|set| replicas(set) > 0).collect();
        match (active.as_slice(), self.new) {
            ([only], _) => step.push(only, self.wanted()),
            ([], Some(new)) => step.push(new, self.wanted()),
            _ => {}
        }
        step
    }

    fn recreate(&self) -> Step {
        let mut step = Step::default();
        self.old.iter().for_each(|set| step.push(set, 0));
        if !step.resize.is_empty() || self.old_pods > 0 {
            return step;
        }
        match self.new {
            Some(new) => step.push(new, self.wanted()),
            None => step.create = Some(self.wanted()),
        }
        step
    }

    fn roll(&self) -> Step {
        let mut step = Step::default();
        let total: i32 = self.all().map(replicas).sum();
        let room = (self.max_pods() - total).max(0);
        let Some(new) = self.new else {
            step.create = Some(room.min(self.wanted()));
            return step;
        };
        let current = replicas(new);
        if current > self.wanted() {
            step.push(new, self.wanted());
        } else {
            step.push(new, current + room.min(self.wanted() - current));
        }
        if step.resize.is_empty() {
            self.shrink_old(new, total, &mut step);
        }
        step
    }

    fn shrink_old(&self, new: &ReplicaSet, total: i32, step: &mut Step) {
        let least = self.wanted() - self.max_unavailable();
        let new_missing = replicas(new) - status(new).available;
        let mut allowed = total - least - new_missing;
        if allowed <= 0 {
            return;
        }
        let mut sizes: Vec<i32> = self.old.iter().map(|set| replicas(set)).collect();
        // Pods that serve nobody go first: they cost no availability.
        for (set, size) in self.old.iter().zip(&mut sizes) {
            let idle = (*size - status(set).available).clamp(0, allowed);
            *size -= idle;
            allowed -= idle;
        }
        let available: i32 = self.all().map(|set| status(set).available).sum();
        let mut spare = (available - least).max(0);
        for size in &mut sizes {
            let gone = (*size).min(spare);
            *size -= gone;
            spare -= gone;
        }
        for (set, size) in self.old.iter().zip(sizes) {
            step.push(set, size);
        }
    }

    /// Old replica sets without pods beyond `revisionHistoryLimit`, oldest rollouts first.
    fn surplus_history(&self) -> Vec<String> {
        let spec = self.deployment.spec.as_ref();
        let limit = spec
            .and_then(|spec| spec.revision_history_limit)
            .unwrap_or(10);
        let mut idle: Vec<_> = self
            .old
            .iter()
            .filter(|set| {
                replicas(set) == 0
                    && status(set).replicas == 0
                    && set.metadata.deletion_timestamp.is_none()
            })
            .collect();
        idle.sort_by_key(|set| revision(set));
        let surplus = idle
            .len()
            .saturating_sub(usize::try_from(limit).unwrap_or(0));
        idle.into_iter()
            .take(surplus)
            .map(|set| set.name_any())
            .collect()
    }
}

impl Step {
    /// Notes a new size, if it is one.
    fn push(&mut self, set: &ReplicaSet, to: i32) {
        let from = replicas(set);
        if from != to {
            self.resize.push(Resize {
                name: set.name_any(),
                from,
                to,
            });
        }
    }
}

/// Wanted size of a replica set.
pub(crate) fn replicas(set: &ReplicaSet) -> i32 {
    set.spec
        .as_ref()
        .and_then(|spec| spec.replicas)
        .unwrap_or(1)
}

/// Counts from a replica set's status.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Counts {
    pub(crate) replicas: i32,
    pub(crate) ready: i32,
    pub(crate) available: i32,
}

/// What a replica set has reached.
pub(crate) fn status(set: &ReplicaSet) -> Counts {
    set.status
        .as_ref()
        .map_or_else(Counts::default, |status| Counts {
            replicas: status.replicas,
            ready: status.ready_replicas.unwrap_or(0),
            available: status.available_replicas.unwrap_or(0),
        })
}

/// Number of the rollout that a replica set belongs to; 0 when it has none.
pub(crate) fn revision(set: &ReplicaSet) -> i64 {
    set.annotations()
        .get(REVISION)
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

/// The hash that names the replica set of the deployment's current template.
pub(crate) fn template_hash(deployment: &Deployment) -> String {
    let salt = deployment
        .status
        .as_ref()
        .and_then(|status| status.collision_count)
        .unwrap_or(0);
    hash_name(
        &deployment.spec.as_ref().map(|spec| bare(&spec.template)),
        salt,
    )
}

/// A template without the hash label, which replica sets add.
fn bare(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut template = template.clone();
    if let Some(meta) = &mut template.metadata {
        if let Some(labels) = &mut meta.labels {
            labels.remove(HASH);
        }
        meta.labels = meta
            .labels
            .take()
            .filter(|labels: &Labels| !labels.is_empty());
        meta.creation_timestamp = None;
    }
    template
}
