//! Objects in, resources and notices out, as the sequence of events brings them.

mod security;

use super::{Changes, MeshGraph, ObjectId};
use crate::source::{Delta, Id, IstioKind, slim};
use lateen_model::resource::{Kind, Resource};
use lateen_translate::pod::Words;
use serde_json::{Value, json};

struct World {
    graph: MeshGraph,
}

impl World {
    /// A namespace `shop` with service `reviews` on one ready pod, and nothing else.
    fn new() -> Self {
        let mut world = Self {
            graph: MeshGraph::new("cluster.local"),
        };
        world.service("reviews");
        world.pod("reviews-1", "10.0.0.1");
        world.slice("reviews", &[("reviews-1", "10.0.0.1", true)]);
        world.graph.commit();
        world
    }

    fn service(&mut self, name: &str) {
        let object = serde_json::from_value(json!({
            "metadata": { "name": name, "namespace": "shop" },
            "spec": { "clusterIP": "10.96.0.9", "ports": [{ "name": "http", "port": 9080 }] },
        }));
        let (id, service) = slim::service(object.expect("valid"));
        self.graph
            .take(self.graph.sources.services, Delta::Set(id, service));
    }

    fn pod(&mut self, name: &str, ip: &str) {
        let object = serde_json::from_value(json!({
            "metadata": { "name": name, "namespace": "shop", "labels": { "app": "reviews" } },
            "spec": { "containers": [] },
            "status": { "podIP": ip, "phase": "Running" },
        }));
        let (id, pod) = slim::pod(&object.expect("valid"), &mut Words::default());
        self.graph
            .take(self.graph.sources.pods, Delta::Set(id, pod));
    }

    fn slice(&mut self, service: &str, endpoints: &[(&str, &str, bool)]) {
        let endpoints: Vec<Value> = endpoints
            .iter()
            .map(|(pod, ip, ready)| {
                json!({
                    "addresses": [ip], "conditions": { "ready": ready },
                    "targetRef": { "kind": "Pod", "name": pod, "namespace": "shop" },
                })
            })
            .collect();
        let object = serde_json::from_value(json!({
            "metadata": {
                "name": format!("{service}-x"), "namespace": "shop",
                "labels": { "kubernetes.io/service-name": service },
            },
            "addressType": "IPv4", "endpoints": endpoints, "ports": [{ "name": "http", "port": 9080 }],
        }));
        let (id, slice) = slim::endpoint_slice(&object.expect("valid"), &mut Words::default());
        self.graph
            .take(self.graph.sources.slices, Delta::Set(id, slice));
    }

    fn object(&mut self, kind: IstioKind, name: &str, spec: Value) {
        let written = slim::written(json!({
            "apiVersion": "networking.istio.io/v1", "kind": kind.name(),
            "metadata": { "name": name, "namespace": "shop" }, "spec": spec,
        }));
        let source = self.graph.sources.istio(kind);
        self.graph
            .take(source, Delta::Set(Id::new("shop", name), written));
    }

    /// A WorkloadEntry `vm` that its status calls healthy or not.
    fn workload_entry(&mut self, is_healthy: bool) {
        let object = json!({
            "apiVersion": "networking.istio.io/v1", "kind": "WorkloadEntry",
            "metadata": { "name": "vm", "namespace": "shop" },
            "spec": { "address": "192.0.2.1", "labels": { "app": "vm" } },
            "status": { "conditions": [
                { "type": "Healthy", "status": if is_healthy { "True" } else { "False" } },
            ] },
        });
        let kind = IstioKind::WorkloadEntry;
        let (id, (written, _)) = slim::istio(kind, serde_json::from_value(object).expect("valid"));
        let source = self.graph.sources.istio(kind);
        self.graph.take(source, Delta::Set(id, written));
    }

    fn route(&mut self, name: &str, host: &str) {
        self.object(
            IstioKind::VirtualService,
            name,
            json!({ "hosts": [host], "http": [{ "route": [{ "destination": { "host": host } }] }] }),
        );
    }

    fn broken_route(&mut self, name: &str) {
        let regex = json!({ "uri": { "regex": "(" } });
        self.object(
            IstioKind::VirtualService,
            name,
            json!({ "hosts": ["reviews"], "http": [{
                "match": [regex], "route": [{ "destination": { "host": "reviews" } }],
            }] }),
        );
    }

    /// What a commit pushes: `+kind name` and `-kind name`.
    fn pushed(&mut self) -> Vec<String> {
        let Changes {
            changed, removed, ..
        } = self.graph.commit();
        self.look();
        let mut lines: Vec<String> = changed
            .iter()
            .map(|encoded| format!("+{:?} {}", encoded.key().kind, encoded.key().name))
            .chain(
                removed
                    .iter()
                    .map(|key| format!("-{:?} {}", key.kind, key.name)),
            )
            .collect();
        lines.sort();
        lines
    }

    /// Looks at what objects mean together; nothing of it is pushed.
    fn look(&mut self) {
        if !self.graph.take_stale() {
            return;
        }
        let found = self.graph.question().expect("settings").answer();
        self.graph.take_found(found);
        let changes = self.graph.commit();
        assert!(changes.changed.is_empty() && changes.removed.is_empty());
    }

    fn notices(&self, kind: IstioKind, name: &str) -> String {
        let object = ObjectId::istio(kind, Id::new("shop", name));
        let notices = self.graph.notices_of(&object).iter();
        notices
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n")
    }

    fn tables(&self) -> Vec<String> {
        let tables = self.graph.resources(Kind::RouteTable);
        tables.map(|table| table.key().name.to_string()).collect()
    }
}

#[test]
fn one_change_pushes_what_it_concerns() {
    let mut world = World::new();
    let vs = IstioKind::VirtualService;
    world.route("reviews", "reviews");
    assert_eq!(world.pushed(), ["+RouteTable shop/reviews"]);
    world.route("reviews", "reviews");
    assert_eq!(
        world.pushed(),
        Vec::<String>::new(),
        "an equal object is no change"
    );

    world.slice("reviews", &[("reviews-1", "10.0.0.1", false)]);
    assert_eq!(world.pushed(), ["+Workload Pod/shop/reviews-1"]);
    world.service("reviews");
    assert_eq!(world.pushed(), Vec::<String>::new());

    let source = world.graph.sources.istio(vs);
    world
        .graph
        .take(source, Delta::Remove(Id::new("shop", "reviews")));
    assert_eq!(world.pushed(), ["-RouteTable shop/reviews"]);
}

#[test]
fn a_broken_object_keeps_its_last_good_value_and_harms_nobody() {
    let mut world = World::new();
    let vs = IstioKind::VirtualService;
    world.route("good", "reviews");
    world.broken_route("never-good");
    assert_eq!(world.pushed(), ["+RouteTable shop/good"]);
    assert!(
        world.notices(vs, "never-good").contains("regex"),
        "{}",
        world.notices(vs, "never-good")
    );

    world.broken_route("good");
    assert_eq!(
        world.pushed(),
        Vec::<String>::new(),
        "nothing is taken away"
    );
    assert_eq!(world.tables(), ["shop/good"]);
    assert!(world.notices(vs, "good").starts_with("Error"));

    let object = ObjectId::istio(vs, Id::new("shop", "good"));
    assert!(world.graph.is_refused(&object) && world.graph.is_in_force(&object));
    world.route("good", "reviews.shop.svc.cluster.local");
    assert_eq!(
        world.pushed(),
        Vec::<String>::new(),
        "it means what it meant"
    );
    assert!(!world.graph.is_refused(&object));
    assert!(
        !world.notices(vs, "good").contains("Error"),
        "{}",
        world.notices(vs, "good")
    );
}

#[test]
fn undecodable_objects_are_noticed() {
    let mut world = World::new();
    let vs = IstioKind::VirtualService;
    world.object(vs, "typo", json!({ "hosts": "reviews" }));
    assert_eq!(world.pushed(), Vec::<String>::new());
    assert!(
        world.notices(vs, "typo").contains("hosts"),
        "{}",
        world.notices(vs, "typo")
    );
}

#[test]
fn what_objects_mean_together_is_noticed_and_cleared() {
    let mut world = World::new();
    let vs = IstioKind::VirtualService;
    world.route("ratings", "ratings");
    world.pushed();
    assert!(
        world.notices(vs, "ratings").contains("IST0101"),
        "{}",
        world.notices(vs, "ratings")
    );
    world.service("ratings");
    let pushed = world.pushed();
    assert_eq!(
        pushed,
        ["+Service shop/ratings.shop.svc.cluster.local"],
        "routes are not pushed again"
    );
    assert_eq!(world.notices(vs, "ratings"), "");
}

#[test]
fn an_object_that_is_not_in_force_conflicts_with_nobody() {
    let mut world = World::new();
    let vs = IstioKind::VirtualService;
    world.broken_route("a");
    world.route("b", "reviews");
    world.pushed();
    assert_eq!(world.notices(vs, "b"), "");
    world.route("a", "reviews");
    world.pushed();
    assert!(
        world.notices(vs, "b").contains("IST0109"),
        "{}",
        world.notices(vs, "b")
    );
}

#[test]
fn selected_workloads_stay_while_their_entry_is_broken() {
    let mut world = World::new();
    let se = IstioKind::ServiceEntry;
    let spec = json!({
        "hosts": ["db.example"], "resolution": "STATIC", "location": "MESH_INTERNAL",
        "ports": [{ "number": 80, "name": "http", "protocol": "HTTP" }],
        "workloadSelector": { "labels": { "app": "reviews" } },
    });
    world.object(se, "db", spec.clone());
    assert_eq!(
        world.pushed(),
        ["+Service shop/db.example", "+Workload Pod/shop/reviews-1"]
    );
    let mut broken = spec;
    broken["ports"] = json!("none");
    world.object(se, "db", broken);
    assert_eq!(world.pushed(), Vec::<String>::new());
}

#[test]
fn mesh_config_reaches_proxies_and_survives_a_mistake() {
    let mut world = World::new();
    let source = world.graph.sources.mesh_text;
    let mut set = |text: &str| {
        let id = Id::new("istio-system", "istio");
        world.graph.take(source, Delta::Set(id, text.to_owned()));
        world.graph.commit();
        let settings = world.graph.resources(Kind::MeshSettings).next();
        match settings {
            Some(Resource::MeshSettings(settings)) => format!("{:?}", settings.outbound),
            other => format!("{other:?}"),
        }
    };
    assert_eq!(set(""), "AllowAny");
    assert_eq!(
        set("outboundTrafficPolicy:\n  mode: REGISTRY_ONLY\n"),
        "RegistryOnly"
    );
    assert_eq!(set("outboundTrafficPolicy: ["), "RegistryOnly");
}

#[test]
fn a_workload_entry_drops_out_while_it_is_unhealthy() {
    let mut world = World::new();
    let spec = json!({
        "hosts": ["vm.example"], "resolution": "STATIC", "addresses": ["192.0.2.9"],
        "ports": [{ "number": 80, "name": "http", "protocol": "HTTP" }],
        "workloadSelector": { "labels": { "app": "vm" } },
    });
    world.object(IstioKind::ServiceEntry, "vm", spec);
    let health = |world: &mut World, is_healthy: bool| {
        world.workload_entry(is_healthy);
        let changes = world.graph.commit();
        let mut changed = changes.changed.iter().filter_map(|e| e.decode());
        changed.find_map(|resource| match resource {
            Resource::Workload(w) if &*w.name == "vm" => {
                let served = w.services.values().next();
                served.map(|served| format!("{:?}", served.health))
            }
            _ => None,
        })
    };
    assert_eq!(health(&mut world, true).as_deref(), Some("Ready"));
    assert_eq!(health(&mut world, false).as_deref(), Some("Unready"));
    assert_eq!(health(&mut world, true).as_deref(), Some("Ready"));
}
