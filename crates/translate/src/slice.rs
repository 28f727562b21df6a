//! What of an EndpointSlice means something to the mesh: all that is kept of the thousands that a mesh has. It decides
//! nothing.

use crate::pod::Words;
use crate::workload::health;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use lateen_base::Str;
use lateen_model::workload::Health;
use std::net::IpAddr;

/// Label of an EndpointSlice that names its Service (Kubernetes: `kubernetes.io/service-name`).
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// An EndpointSlice.
#[derive(Debug, Clone, PartialEq)]
pub struct Slice {
    /// Its namespace.
    pub namespace: Str,
    /// Its name.
    pub name: Str,
    /// Name of the Service whose endpoints it lists; absent: it belongs to none.
    pub service: Option<Str>,
    /// Its ports, each name once.
    pub ports: Box<[Port]>,
    /// Endpoints that are pods, in the order of the slice. Where they are is the pods' own to say.
    pub pods: Box<[Member]>,
    /// Endpoints that are no pods.
    pub others: Box<[Lone]>,
}

/// A port of the endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Name of the Service's port that it stands for; empty: the one without a name.
    pub name: Str,
    /// Number; absent: none that can be called.
    pub number: Option<u16>,
}

/// An endpoint that is a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The pod's namespace.
    pub namespace: Str,
    /// The pod's name.
    pub name: Str,
    /// What the slice says of it.
    pub state: State,
}

/// An endpoint that is no pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lone {
    /// Its place among all endpoints of the slice, from 0.
    pub index: usize,
    /// Its addresses; empty: it has a host name.
    pub addresses: Box<[IpAddr]>,
    /// What to resolve, in slices of host names.
    pub host: Option<Str>,
    /// Its node; empty: unknown.
    pub node: Str,
    /// Its zone; empty: unknown.
    pub zone: Str,
    /// What the slice says of it.
    pub state: State,
}

/// What a slice says of any endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Whether it takes new requests.
    pub health: Health,
    /// Its own name below a headless service's.
    pub hostname: Option<Str>,
}

impl Slice {
    /// Reads a slice; texts that `words` knows are shared.
    pub fn of(slice: &EndpointSlice, words: &mut Words) -> Self {
        let meta = &slice.metadata;
        let namespace = words.text(meta.namespace.as_deref().unwrap_or_default());
        let (mut pods, mut others) = (Vec::new(), Vec::new());
        for (index, endpoint) in slice.endpoints.iter().enumerate() {
            match pod_of(endpoint) {
                Some(target) => pods.extend(member(target, endpoint, &namespace, words)),
                None => others.extend(lone(index, endpoint, words)),
            }
        }
        let labels = meta.labels.as_ref();
        let service = labels.and_then(|labels| labels.get(SERVICE_NAME));
        Self {
            service: service.map(|name| words.text(name)),
            name: meta.name.as_deref().unwrap_or_default().into(),
            ports: ports(slice.ports.as_deref().unwrap_or_default(), words),
            pods: pods.into(),
            others: others.into(),
            namespace,
        }
    }
}

/// The pod that an endpoint is; absent: it is none.
fn pod_of(endpoint: &Endpoint) -> Option<&ObjectReference> {
    let target = endpoint.target_ref.as_ref()?;
    (target.kind.as_deref() == Some("Pod")).then_some(target)
}

fn member(
    target: &ObjectReference,
    endpoint: &Endpoint,
    own: &Str,
    words: &mut Words,
) -> Option<Member> {
    let namespace = match target.namespace.as_deref() {
        Some(other) if *other != **own => words.text(other),
        _ => Str::clone(own),
    };
    Some(Member {
        namespace,
        name: target.name.as_deref()?.into(),
        state: state(endpoint),
    })
}

/// Absent: nothing can be sent to it.
fn lone(index: usize, endpoint: &Endpoint, words: &mut Words) -> Option<Lone> {
    let first = endpoint.addresses.first()?;
    let addresses = endpoint.addresses.iter();
    let addresses: Box<[IpAddr]> = addresses.filter_map(|text| text.parse().ok()).collect();
    Some(Lone {
        index,
        host: addresses.is_empty().then(|| first.as_str().into()),
        addresses,
        node: words.text(endpoint.node_name.as_deref().unwrap_or_default()),
        zone: words.text(endpoint.zone.as_deref().unwrap_or_default()),
        state: state(endpoint),
    })
}

fn state(endpoint: &Endpoint) -> State {
    State {
        health: health(endpoint.conditions.as_ref()),
        hostname: endpoint.hostname.as_deref().map(Str::from),
    }
}

/// The first port of each name, as Kubernetes asks for different ones.
fn ports(written: &[EndpointPort], words: &mut Words) -> Box<[Port]> {
    let mut ports: Vec<Port> = Vec::with_capacity(written.len());
    for port in written {
        let name = port.name.as_deref().unwrap_or_default();
        if ports.iter().any(|known| *known.name == *name) {
            continue;
        }
        ports.push(Port {
            name: words.text(name),
            number: port.port.and_then(|number| u16::try_from(number).ok()),
        });
    }
    ports.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn slice(value: Value) -> Slice {
        let object = serde_json::from_value(value).expect("a slice");
        Slice::of(&object, &mut Words::default())
    }

    fn written() -> Value {
        json!({
            "addressType": "IPv4",
            "metadata": {
                "name": "web-1", "namespace": "shop", "labels": { "kubernetes.io/service-name": "web", "team": "a" },
                "ownerReferences": [{ "apiVersion": "v1", "kind": "Service", "name": "web", "uid": "u" }],
            },
            "ports": [
                { "name": "http", "port": 8080 }, { "name": "http", "port": 1 }, { "port": 90 }, { "name": "none" },
            ],
            "endpoints": [
                { "addresses": ["10.0.0.1"], "conditions": { "ready": false, "serving": true, "terminating": true },
                  "hostname": "web-0", "nodeName": "n", "zone": "z",
                  "targetRef": { "kind": "Pod", "name": "a", "namespace": "shop", "uid": "u" } },
                { "addresses": ["10.0.0.2"], "targetRef": { "kind": "Pod", "name": "b", "namespace": "other" } },
                { "addresses": ["192.0.2.1", "x"], "nodeName": "n", "zone": "z", "hints": { "forZones": [{ "name": "z" }] } },
                { "addresses": [] },
                { "addresses": ["db.example.com"], "targetRef": { "kind": "Node", "name": "n" } },
            ],
        })
    }

    #[test]
    fn what_means_something_is_kept() {
        let slice = slice(written());
        assert_eq!(slice.service.as_deref(), Some("web"));
        let ports = slice.ports.iter().map(|port| (&*port.name, port.number));
        let ports: Vec<_> = ports.collect();
        assert_eq!(
            ports,
            [("http", Some(8080)), ("", Some(90)), ("none", None)]
        );
        let pods = slice.pods.iter().map(|pod| {
            let state = &pod.state;
            (
                &*pod.namespace,
                &*pod.name,
                state.health,
                state.hostname.as_deref(),
            )
        });
        let pods: Vec<_> = pods.collect();
        assert_eq!(
            pods,
            [
                ("shop", "a", Health::Draining, Some("web-0")),
                ("other", "b", Health::Ready, None),
            ]
        );
        let others = slice.others.iter().map(|other| {
            (
                other.index,
                &*other.addresses,
                other.host.as_deref(),
                &*other.zone,
            )
        });
        let others: Vec<_> = others.collect();
        let address = IpAddr::from([192, 0, 2, 1]);
        assert_eq!(
            others,
            [
                (2, &[address][..], None, "z"),
                (4, &[][..], Some("db.example.com"), ""),
            ]
        );
    }

    #[test]
    fn an_edit_of_what_means_nothing_is_no_change() {
        let before = slice(written());
        let edited = |path: &str, value: Value| {
            let mut object = written();
            *object.pointer_mut(path).expect("there") = value;
            slice(object) == before
        };
        assert!(edited("/metadata/labels/team", json!("b")));
        assert!(edited("/metadata/ownerReferences", json!([])));
        assert!(edited("/endpoints/0/addresses/0", json!("10.0.0.9")));
        assert!(edited("/endpoints/0/zone", json!("y")));
        assert!(edited("/endpoints/2/hints", json!(null)));
        assert!(!edited("/endpoints/0/conditions/serving", json!(false)));
        assert!(!edited("/endpoints/0/targetRef/name", json!("c")));
        assert!(!edited("/endpoints/2/zone", json!("y")));
        assert!(!edited("/endpoints/2/addresses/0", json!("192.0.2.2")));
        assert!(!edited(
            "/metadata/labels/kubernetes.io~1service-name",
            json!("x")
        ));
        assert!(!edited("/ports/0/port", json!(8081)));
    }
}
