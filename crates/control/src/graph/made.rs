//! What an object means, in the form in which it is kept: what nobody looks into any more only as it is sent.

use lateen_model::resource::Resource;
use lateen_xds::encoded::Encoded;
use std::sync::Arc;

/// One resource.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Made {
    /// Other parts of the graph look into it.
    Open(Arc<Resource>),
    /// Services and workloads, of which there are many: a tenth of the size.
    Sealed(Arc<Encoded>),
}

impl Made {
    /// A resource in the form for its kind.
    pub(super) fn of(resource: Resource) -> Self {
        match resource {
            Resource::Service(_) | Resource::Workload(_) => {
                Self::Sealed(Arc::new(Encoded::of(&resource)))
            }
            resource => Self::Open(Arc::new(resource)),
        }
    }

    /// The resource, unless it is a service or a workload.
    pub(super) fn open(&self) -> Option<&Resource> {
        match self {
            Self::Open(resource) => Some(resource),
            Self::Sealed(_) => None,
        }
    }

    /// The resource as it is sent.
    pub(super) fn seal(&self) -> Arc<Encoded> {
        match self {
            Self::Open(resource) => Arc::new(Encoded::of(resource)),
            Self::Sealed(encoded) => Arc::clone(encoded),
        }
    }

    /// The resource, made anew where it is kept as bytes.
    pub(super) fn resource(&self) -> Option<Resource> {
        match self {
            Self::Open(resource) => Some(Resource::clone(resource)),
            Self::Sealed(encoded) => encoded.decode(),
        }
    }
}
