//! The table of built-in kinds. Short names and categories: Kubernetes' own (`kubectl api-resources`).

use super::Kind;
use crate::shape::{Shapes, annotate};
use crate::store::Resource;
use k8s_openapi::api;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as extensions;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value};
use std::sync::Arc;

pub(super) struct Row {
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: String,
    type_name: String,
    namespaced: bool,
    short: &'static [&'static str],
    categories: &'static [&'static str],
    subresources: &'static [&'static str],
    review: bool,
}

impl Row {
    pub(super) fn into_kind(self, shapes: Arc<Shapes>) -> Kind {
        let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        Kind {
            group: self.group.to_owned(),
            version: self.version.to_owned(),
            kind: self.kind.to_owned(),
            list_kind: format!("{}List", self.kind),
            singular: self.kind.to_lowercase(),
            short: owned(self.short),
            categories: owned(self.categories),
            namespaced: self.namespaced,
            subresources: owned(self.subresources),
            review: self.review,
            resource: Resource::new(self.group, &self.plural),
            plural: self.plural,
            type_name: self.type_name,
            custom: None,
            shapes,
        }
    }
}

struct Table {
    generator: SchemaGenerator,
    rows: Vec<Row>,
}

impl Table {
    /// Adds a kind; what differs from a plain namespaced kind is set on the returned row.
    fn add<K: k8s_openapi::Resource + schemars::JsonSchema>(
        &mut self,
        plural: &str,
        short: &'static [&'static str],
    ) -> &mut Row {
        let _ = self.generator.subschema_for::<K>();
        self.rows.push(Row {
            group: K::GROUP,
            version: K::VERSION,
            kind: K::KIND,
            plural: plural.to_owned(),
            type_name: K::schema_name().into_owned(),
            namespaced: true,
            short,
            categories: &[],
            subresources: &[],
            review: false,
        });
        self.rows.last_mut().expect("a row was just pushed")
    }
}

impl Row {
    fn cluster(&mut self) -> &mut Self {
        self.namespaced = false;
        self
    }

    fn sub(&mut self, subresources: &'static [&'static str]) -> &mut Self {
        self.subresources = subresources;
        self
    }

    fn all(&mut self) -> &mut Self {
        self.categories = &["all"];
        self
    }

    fn review(&mut self) -> &mut Self {
        self.review = true;
        self
    }
}

/// Definitions of all types, and the kinds.
pub(super) fn rows() -> (Map<String, Value>, Vec<Row>) {
    let mut table = Table {
        generator: SchemaSettings::openapi3().into_generator(),
        rows: Vec::new(),
    };
    core(&mut table);
    workloads(&mut table);
    policies(&mut table);
    machinery(&mut table);
    let mut definitions = table.generator.take_definitions(true);
    annotate(&mut definitions);
    (definitions, table.rows)
}

fn core(table: &mut Table) {
    use api::core::v1::*;
    table.add::<Pod>("pods", &["po"]).all().sub(&[
        "status",
        "log",
        "exec",
        "attach",
        "portforward",
        "eviction",
        "binding",
        "ephemeralcontainers",
    ]);
    table
        .add::<Service>("services", &["svc"])
        .all()
        .sub(&["status"]);
    table.add::<Endpoints>("endpoints", &["ep"]);
    table
        .add::<Namespace>("namespaces", &["ns"])
        .cluster()
        .sub(&["status", "finalize"]);
    table
        .add::<Node>("nodes", &["no"])
        .cluster()
        .sub(&["status"]);
    table.add::<ConfigMap>("configmaps", &["cm"]);
    table.add::<Secret>("secrets", &[]);
    table
        .add::<ServiceAccount>("serviceaccounts", &["sa"])
        .sub(&["token"]);
    table.add::<Event>("events", &["ev"]);
    table
        .add::<ReplicationController>("replicationcontrollers", &["rc"])
        .all()
        .sub(&["status", "scale"]);
    table
        .add::<PersistentVolumeClaim>("persistentvolumeclaims", &["pvc"])
        .sub(&["status"]);
    table
        .add::<PersistentVolume>("persistentvolumes", &["pv"])
        .cluster()
        .sub(&["status"]);
    table.add::<LimitRange>("limitranges", &["limits"]);
    table
        .add::<ResourceQuota>("resourcequotas", &["quota"])
        .sub(&["status"]);
    table.add::<PodTemplate>("podtemplates", &[]);
}

fn workloads(table: &mut Table) {
    use api::{apps::v1::*, batch::v1::*};
    table
        .add::<Deployment>("deployments", &["deploy"])
        .all()
        .sub(&["status", "scale"]);
    table
        .add::<ReplicaSet>("replicasets", &["rs"])
        .all()
        .sub(&["status", "scale"]);
    table
        .add::<StatefulSet>("statefulsets", &["sts"])
        .all()
        .sub(&["status", "scale"]);
    table
        .add::<DaemonSet>("daemonsets", &["ds"])
        .all()
        .sub(&["status"]);
    table.add::<ControllerRevision>("controllerrevisions", &[]);
    table.add::<Job>("jobs", &[]).all().sub(&["status"]);
    table
        .add::<CronJob>("cronjobs", &["cj"])
        .all()
        .sub(&["status"]);
    table
        .add::<api::autoscaling::v2::HorizontalPodAutoscaler>("horizontalpodautoscalers", &["hpa"])
        .all()
        .sub(&["status"]);
    table
        .add::<api::policy::v1::PodDisruptionBudget>("poddisruptionbudgets", &["pdb"])
        .sub(&["status"]);
}

fn policies(table: &mut Table) {
    use api::{networking::v1::*, rbac::v1::*};
    table.add::<Ingress>("ingresses", &["ing"]).sub(&["status"]);
    table.add::<IngressClass>("ingressclasses", &[]).cluster();
    table.add::<NetworkPolicy>("networkpolicies", &["netpol"]);
    table.add::<Role>("roles", &[]);
    table.add::<RoleBinding>("rolebindings", &[]);
    table.add::<ClusterRole>("clusterroles", &[]).cluster();
    table
        .add::<ClusterRoleBinding>("clusterrolebindings", &[])
        .cluster();
}

fn machinery(table: &mut Table) {
    use api::{admissionregistration::v1::*, authentication::v1::*, authorization::v1::*};
    table
        .add::<MutatingWebhookConfiguration>("mutatingwebhookconfigurations", &[])
        .cluster()
        .categories = &["api-extensions"];
    table
        .add::<ValidatingWebhookConfiguration>("validatingwebhookconfigurations", &[])
        .cluster()
        .categories = &["api-extensions"];
    table
        .add::<extensions::CustomResourceDefinition>("customresourcedefinitions", &["crd", "crds"])
        .cluster()
        .sub(&["status"])
        .categories = &["api-extensions"];
    table.add::<api::coordination::v1::Lease>("leases", &[]);
    table.add::<api::discovery::v1::EndpointSlice>("endpointslices", &[]);
    table
        .add::<api::scheduling::v1::PriorityClass>("priorityclasses", &["pc"])
        .cluster();
    table
        .add::<api::storage::v1::StorageClass>("storageclasses", &["sc"])
        .cluster();
    table
        .add::<TokenReview>("tokenreviews", &[])
        .cluster()
        .review();
    table
        .add::<SelfSubjectReview>("selfsubjectreviews", &[])
        .cluster()
        .review();
    table
        .add::<SubjectAccessReview>("subjectaccessreviews", &[])
        .cluster()
        .review();
    table
        .add::<SelfSubjectAccessReview>("selfsubjectaccessreviews", &[])
        .cluster()
        .review();
    table
        .add::<SelfSubjectRulesReview>("selfsubjectrulesreviews", &[])
        .cluster()
        .review();
    table
        .add::<LocalSubjectAccessReview>("localsubjectaccessreviews", &[])
        .review();
    // Bodies of subresources: no resources of their own, but clients ask for their schemas.
    let _ = table
        .generator
        .subschema_for::<api::autoscaling::v1::Scale>();
    let _ = table.generator.subschema_for::<TokenRequest>();
    let _ = table.generator.subschema_for::<api::policy::v1::Eviction>();
    let _ = table.generator.subschema_for::<api::core::v1::Binding>();
    let _ = table
        .generator
        .subschema_for::<k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions>();
    let _ = table
        .generator
        .subschema_for::<k8s_openapi::apimachinery::pkg::apis::meta::v1::Status>();
}
