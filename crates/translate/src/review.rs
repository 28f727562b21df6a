//! Everything that is to be said about a set of objects: each by itself, as it is translated, and all together.

use crate::analyze::{self, Inputs as Together};
use crate::mesh::Mesh;
use k8s_openapi::api::core::v1::Service;
use lateen_api::meta::Config;
use lateen_api::notice::Notice;
use lateen_api::object::Object;
use lateen_api::validate::validate;
use lateen_base::Str;
use std::collections::BTreeMap;

/// What is looked at.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// The mesh.
    pub mesh: &'a Mesh,
    /// Objects of the mesh's kinds, each once.
    pub objects: &'a [&'a Object],
    /// Kubernetes Services of every namespace.
    pub services: &'a [&'a Service],
    /// Namespaces and labels of workloads; absent: they are not known.
    pub workloads: Option<&'a [(&'a str, &'a BTreeMap<Str, Str>)]>,
}

/// Looks at everything. Notices about single objects come first, in the order of the objects.
pub fn review(inputs: &Inputs<'_>) -> Vec<Notice> {
    let mut notices = Vec::new();
    for object in inputs.objects {
        let (_, mut told) = crate::among(object, inputs.objects.iter().copied(), inputs.mesh);
        told.extend(validate(object));
        told.sort();
        told.dedup();
        notices.extend(told);
    }
    notices.extend(together(inputs));
    notices
}

/// The configurations of one kind.
macro_rules! configs {
    ($inputs:expr, $kind:ident) => {
        $inputs
            .objects
            .iter()
            .filter_map(|object| match object {
                Object::$kind(config) => Some(config),
                _ => None,
            })
            .collect::<Vec<&Config<_>>>()
    };
}

/// Looks at the objects together only: what each says by itself is left out.
pub fn together(inputs: &Inputs<'_>) -> Vec<Notice> {
    analyze::analyze(&Together {
        mesh: inputs.mesh,
        services: inputs.services,
        service_entries: &configs!(inputs, ServiceEntry),
        virtual_services: &configs!(inputs, VirtualService),
        destination_rules: &configs!(inputs, DestinationRule),
        gateways: &configs!(inputs, Gateway),
        peer_authentications: &configs!(inputs, PeerAuthentication),
        request_authentications: &configs!(inputs, RequestAuthentication),
        authorization_policies: &configs!(inputs, AuthorizationPolicy),
        rate_limit_policies: &configs!(inputs, RateLimitPolicy),
        sidecars: &configs!(inputs, Sidecar),
        workloads: inputs.workloads,
    })
}
