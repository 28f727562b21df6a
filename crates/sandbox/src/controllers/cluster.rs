//! What the node's own parts know of the cluster: one store per kind, shared by the controllers,
//! the service proxy and DNS.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Event, Namespace, Node, Pod, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Client;
use tokio_util::sync::CancellationToken;

use super::store::Store;

/// The cluster in memory. Hand the same value to [`super::run`], `services::run` and `dns::run`.
pub struct Cluster {
    /// The API server.
    pub client: Client,
    /// Namespaces.
    pub namespaces: Store<Namespace>,
    /// Nodes.
    pub nodes: Store<Node>,
    /// Pods of all namespaces.
    pub pods: Store<Pod>,
    /// Services.
    pub services: Store<Service>,
    /// Endpoint slices.
    pub slices: Store<EndpointSlice>,
    /// Legacy endpoints.
    pub endpoints: Store<Endpoints>,
    /// Deployments.
    pub deployments: Store<Deployment>,
    /// Replica sets.
    pub replica_sets: Store<ReplicaSet>,
    /// Stateful sets.
    pub stateful_sets: Store<StatefulSet>,
    /// Daemon sets.
    pub daemon_sets: Store<DaemonSet>,
    /// Jobs.
    pub jobs: Store<Job>,
    /// Cron jobs.
    pub cron_jobs: Store<CronJob>,
    /// Service accounts.
    pub service_accounts: Store<ServiceAccount>,
    /// For writing events; not watched.
    pub(crate) events: Store<Event>,
    /// For writing config maps; not watched.
    pub(crate) config_maps: Store<ConfigMap>,
}

impl Cluster {
    /// Starts to watch, until `shutdown`. Must be called inside a tokio runtime.
    pub fn watch(client: Client, shutdown: &CancellationToken) -> Arc<Cluster> {
        macro_rules! store {
            () => {
                Store::watch(client.clone(), shutdown.clone())
            };
        }
        Arc::new(Cluster {
            namespaces: store!(),
            nodes: store!(),
            pods: store!(),
            services: store!(),
            slices: store!(),
            endpoints: store!(),
            deployments: store!(),
            replica_sets: store!(),
            stateful_sets: store!(),
            daemon_sets: store!(),
            jobs: store!(),
            cron_jobs: store!(),
            service_accounts: store!(),
            events: Store::detached(client.clone()),
            config_maps: Store::detached(client.clone()),
            client,
        })
    }

    /// Waits until everything has been listed once.
    pub async fn ready(&self) {
        self.namespaces.ready().await;
        self.nodes.ready().await;
        self.pods.ready().await;
        self.services.ready().await;
        self.slices.ready().await;
        self.endpoints.ready().await;
        self.deployments.ready().await;
        self.replica_sets.ready().await;
        self.stateful_sets.ready().await;
        self.daemon_sets.ready().await;
        self.jobs.ready().await;
        self.cron_jobs.ready().await;
        self.service_accounts.ready().await;
    }
}
