//! Runs a case: objects become the model's resources, resources a proxy's snapshot, calls plans.

use crate::case::Case;
use crate::world::{self, World};
use crate::{call, demand, show};
use k8s_openapi::api::core::v1::{Pod, Service};
use lateen_api::meta::Config;
use lateen_api::notice::Notice;
use lateen_api::object::{Object, from_json};
use lateen_api::service_entry::ServiceEntry;
use lateen_api::{mesh_config, validate};
use lateen_model::decide::resources::{Audience, ResourceSet};
use lateen_model::decide::snapshot::Snapshot;
use lateen_model::mesh::Scope;
use lateen_model::resource::Resource;
use lateen_model::workload::Health;
use lateen_translate::mesh::{self, Mesh};
use lateen_translate::pod::Words;
use lateen_translate::service_entry::{Allocated, allocatable};
use lateen_translate::{among, review, service, service_entry, workload, workload_entry};
use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr};

/// What came of a case.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// One for each call, in order.
    pub plans: Vec<String>,
    /// What the user is told, in one line each.
    pub notices: Vec<String>,
    /// Whether an object was refused.
    pub refused: bool,
}

/// Runs a case on these objects in place of its own.
pub fn run(world: &World, case: &Case, objects: &[Value]) -> Outcome {
    let mut setting = Setting::of(world, case, objects);
    let resources = setting.resources();
    let refused = setting.notices.iter().any(Notice::is_error);
    setting.analyze();
    let plans = case.calls.iter().map(|call| {
        let scope = setting.scope(&call.from, &case.place());
        // Of two resources with one key the first is meant: a Service goes before a ServiceEntry, as in the control plane.
        let theirs = resources
            .iter()
            .filter(|r| Audience::of(r).includes(&scope));
        let snapshot = Snapshot::build(&ResourceSet::of(theirs.rev().cloned()), &scope);
        let spoken = call::Spoken::read(&call.text, scope.role);
        show::answer(&snapshot, &spoken)
    });
    let plans = plans.collect();
    let mut notices: Vec<_> = setting.notices.iter().map(ToString::to_string).collect();
    notices.dedup();
    Outcome {
        plans,
        notices,
        refused,
    }
}

/// What becomes of a case's calls at proxies that are told of services on demand, in order.
pub fn run_on_demand(world: &World, case: &Case) -> Vec<String> {
    let mut setting = Setting::of(world, case, &case.objects);
    let resources = setting.resources();
    let plans = case.calls.iter().map(|call| {
        let scope = setting.scope(&call.from, &case.place());
        let theirs = resources
            .iter()
            .filter(|r| Audience::of(r).includes(&scope));
        let all = ResourceSet::of(theirs.rev().cloned());
        let spoken = call::Spoken::read(&call.text, scope.role);
        let full = Snapshot::build(&all, &scope);
        demand::answer(&all.to_resources(), &scope, &full, &spoken)
    });
    plans.collect()
}

/// A case's cluster.
struct Setting<'w> {
    world: &'w World,
    mesh: Mesh,
    objects: Vec<Object>,
    services: Vec<Service>,
    pods: Vec<Pod>,
    notices: Vec<Notice>,
}

impl<'w> Setting<'w> {
    fn of(world: &'w World, case: &Case, written: &[Value]) -> Self {
        let (config, mut notices) = mesh_config::parse(&case.mesh_config);
        let mesh = Mesh {
            config: config.unwrap_or_default(),
            ..Mesh::default()
        };
        let mut services = world.services.clone();
        let mut objects = Vec::new();
        for value in written {
            let (object, told) = from_json(value.clone());
            notices.extend(told);
            match object {
                Some(Object::Kubernetes(untyped)) => {
                    services.push(serde_json::from_value(untyped.value).expect("a Service"));
                }
                other => objects.extend(other),
            }
        }
        let more = case.pods.iter().map(|line| world::pod(line));
        Self {
            world,
            mesh,
            objects,
            services,
            pods: world.pods.iter().cloned().chain(more).collect(),
            notices,
        }
    }

    /// Everything that proxies are sent.
    fn resources(&mut self) -> Vec<Resource> {
        let (mut resources, told) = mesh::settings(&self.mesh);
        self.notices.extend(told);
        if self.is_plain() {
            let base = self.world.base.get_or_init(|| self.base());
            resources.extend(base.iter().cloned());
        } else {
            resources.extend(self.base());
        }
        resources.extend(
            self.world
                .credentials
                .iter()
                .cloned()
                .map(Resource::Credential),
        );
        for object in &self.objects {
            let (meant, mut told) = self.translate(object);
            told.extend(validate::validate(object));
            told.sort();
            told.dedup();
            self.notices.extend(told);
            resources.extend(meant);
        }
        resources
    }

    /// Whether what the world's own Services and pods mean is the same as in every other case.
    fn is_plain(&self) -> bool {
        let selecting = |object: &Object| matches!(object, Object::ServiceEntry(_));
        self.mesh == Mesh::default()
            && self.services.len() == self.world.services.len()
            && self.pods.len() == self.world.pods.len()
            && !self.objects.iter().any(selecting)
    }

    /// What Services and pods mean.
    fn base(&self) -> Vec<Resource> {
        let services = self.services.iter().flat_map(|service| {
            service::service(service::Inputs {
                service,
                mesh: &self.mesh,
            })
            .0
        });
        services.chain(self.workloads()).collect()
    }

    fn translate(&self, object: &Object) -> lateen_translate::Translated {
        let config = match object {
            Object::WorkloadEntry(config) => config,
            Object::ServiceEntry(config) => {
                return service_entry::service_entry(service_entry::Inputs {
                    config,
                    allocated: &self.allocated(config),
                    mesh: &self.mesh,
                });
            }
            object => return among(object, &self.objects, &self.mesh),
        };
        let ours = |s: &&Service| s.metadata.namespace.as_ref() == Some(&config.meta.namespace);
        workload_entry::workload_entry(workload_entry::Inputs {
            config,
            service_entries: &self.entries(&config.meta.namespace),
            services: &self.services.iter().filter(ours).collect::<Vec<_>>(),
            health: Health::Ready,
            mesh: &self.mesh,
        })
    }

    /// Addresses as the control plane would allocate them: one after the other.
    fn allocated(&self, config: &Config<ServiceEntry>) -> Allocated {
        let entries = self.objects.iter().filter_map(|object| match object {
            Object::ServiceEntry(config) => Some(config),
            _ => None,
        });
        let hosts = entries.flat_map(|entry| allocatable(entry).map(move |host| (entry, host)));
        let numbered = (1..)
            .zip(hosts)
            .filter(|(_, (entry, _))| entry.meta == config.meta);
        let address = |number| IpAddr::V4(Ipv4Addr::new(240, 240, 0, number));
        numbered
            .map(|(number, (_, host))| (host.to_owned(), vec![address(number)]))
            .collect()
    }

    fn entries(&self, namespace: &str) -> Vec<&Config<ServiceEntry>> {
        let entries = self.objects.iter().filter_map(|object| match object {
            Object::ServiceEntry(config) => Some(config),
            _ => None,
        });
        entries
            .filter(|config| config.meta.namespace == namespace)
            .collect()
    }

    fn workloads(&self) -> Vec<Resource> {
        let slices: Vec<_> = self
            .services
            .iter()
            .map(|s| (s, world::slice(s, &self.pods)))
            .collect();
        let one = |pod: &Pod| {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            let ours = |s: &Service| s.metadata.namespace.as_deref() == Some(namespace);
            let backings: Vec<_> = slices
                .iter()
                .filter(|(service, _)| ours(service))
                .map(|(service, slice)| workload::Backing { service, slice })
                .collect();
            workload::pod(workload::Inputs {
                pod: &lateen_translate::pod::Pod::of(pod, &mut Words::default()),
                backings: &backings,
                service_entries: &self.entries(namespace),
                node_locality: None,
                mesh: &self.mesh,
            })
        };
        self.pods.iter().flat_map(|pod| one(pod).0).collect()
    }

    /// Adds what only many objects together tell. Of the world's own Services nothing is said.
    fn analyze(&mut self) {
        let told = review::together(&review::Inputs {
            mesh: &self.mesh,
            objects: &self.objects.iter().collect::<Vec<_>>(),
            services: &self.services.iter().collect::<Vec<_>>(),
            workloads: None,
        });
        self.notices.extend(
            told.into_iter()
                .filter(|notice| notice.subject.kind != "Service"),
        );
    }

    /// The scope of `pod`, `namespace/pod`, `gateway` or `egress`.
    fn scope(&self, from: &str, place: &str) -> Scope {
        let (namespace, name) = match from {
            "gateway" => ("istio-system", "ingress"),
            "egress" => ("istio-system", "egress"),
            name => name.split_once('/').unwrap_or(("default", name)),
        };
        let found = self.pods.iter().find(|pod| {
            pod.metadata.namespace.as_deref() == Some(namespace)
                && pod.metadata.name.as_deref() == Some(name)
        });
        let pod = found.unwrap_or_else(|| panic!("{place}: there is no pod {namespace}/{name}"));
        world::scope(pod)
    }
}
