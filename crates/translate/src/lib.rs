//! Pure transforms from what the user wrote to what the mesh means: one file per user kind.
//!
//! ```text
//! api object + Mesh --<kind>::<function>(Inputs)--> (Vec<Resource>, Vec<Notice>)
//! ```
//! A notice that is an error means that the object must not be put in force: no resource comes back, and whoever
//! keeps the old value keeps it in force. Warnings come with the resources. [`mod@analyze`] looks at many objects
//! together. Nothing here waits, does IO or keeps state; what an object means never depends on who asks.

pub mod analyze;
pub mod authorization_policy;
pub mod destination_rule;
pub mod endpoint_slice;
pub mod gateway;
pub mod mesh;
pub mod names;
pub mod peer_authentication;
pub mod pod;
pub mod policy;
pub mod protocol;
pub mod rate_limit_policy;
pub mod request_authentication;
pub mod review;
pub mod service;
pub mod service_entry;
pub mod sidecar;
pub mod slice;
pub mod tls;
pub mod virtual_service;
pub mod workload;
pub mod workload_entry;

use lateen_api::notice::Notice;
use lateen_api::object::Object;
use lateen_model::resource::Resource;
use mesh::Mesh;

/// What one object means, and what is to be said about it.
pub type Translated = (Vec<Resource>, Vec<Notice>);

/// Translates an Istio object by itself, as admission and simulation do: what would it mean, and what is to be said?
/// Workloads that other objects select are not looked at. Objects of other kinds give nothing.
pub fn alone(object: &Object, mesh: &Mesh) -> Translated {
    match object {
        Object::Gateway(config) => gateway::gateway(gateway::Inputs { config }),
        Object::VirtualService(config) => {
            virtual_service::virtual_service(virtual_service::Inputs {
                config,
                mesh,
                delegates: None,
            })
        }
        Object::DestinationRule(config) => {
            destination_rule::destination_rule(destination_rule::Inputs { config, mesh })
        }
        Object::ServiceEntry(config) => service_entry::service_entry(service_entry::Inputs {
            config,
            allocated: &service_entry::Allocated::new(),
            mesh,
        }),
        Object::Sidecar(config) => sidecar::sidecar(sidecar::Inputs { config, mesh }),
        Object::WorkloadEntry(config) => workload_entry::workload_entry(workload_entry::Inputs {
            config,
            service_entries: &[],
            services: &[],
            health: lateen_model::workload::Health::Ready,
            mesh,
        }),
        Object::PeerAuthentication(config) => {
            peer_authentication::peer_authentication(peer_authentication::Inputs { config, mesh })
        }
        Object::RequestAuthentication(config) => {
            request_authentication::request_authentication(request_authentication::Inputs {
                config,
                mesh,
            })
        }
        Object::AuthorizationPolicy(config) => {
            authorization_policy::authorization_policy(authorization_policy::Inputs {
                config,
                mesh,
            })
        }
        Object::RateLimitPolicy(config) => {
            rate_limit_policy::rate_limit_policy(rate_limit_policy::Inputs { config, mesh })
        }
        Object::Kubernetes(_) | Object::Unsupported(_) => Translated::default(),
    }
}

/// As [`alone`], with the VirtualServices among `others` to delegate to.
pub fn among<'o>(
    object: &Object,
    others: impl IntoIterator<Item = &'o Object>,
    mesh: &Mesh,
) -> Translated {
    let Object::VirtualService(config) = object else {
        return alone(object, mesh);
    };
    let routes = others.into_iter().filter_map(|other| match other {
        Object::VirtualService(config) => Some(config),
        _ => None,
    });
    virtual_service::virtual_service(virtual_service::Inputs {
        config,
        mesh,
        delegates: Some(&routes.collect::<Vec<_>>()),
    })
}

/// The sentence about a field that is accepted, kept and without effect.
pub(crate) const NOT_YET: &str = "is not in force yet: it has no effect";

/// Notices and, unless one is an error, the resource.
pub(crate) fn done(resource: Resource, notices: Vec<Notice>) -> Translated {
    if lateen_api::notice::any_error(&notices) {
        (Vec::new(), notices)
    } else {
        (vec![resource], notices)
    }
}
