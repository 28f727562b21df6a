//! PeerAuthentication → the modes of mutual TLS of workloads.

use crate::Translated;
use crate::mesh::Mesh;
use crate::names::{labels, origin};
use crate::policy::{is_in_root, salvaged_selection};
use lateen_api::meta::{Config, Meta};
use lateen_api::notice::{Notice, Subject, any_error};
use lateen_api::peer_authentication::{MutualTls, MutualTlsMode, PeerAuthentication as Written};
use lateen_api::validate;
use lateen_model::resource::Resource;
use lateen_model::security::{MtlsMode, PeerAuthentication};
use serde_json::Value;
use std::collections::BTreeMap;

/// What a PeerAuthentication is translated from.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// The PeerAuthentication.
    pub config: &'a Config<Written>,
    /// The mesh.
    pub mesh: &'a Mesh,
}

/// Translates a PeerAuthentication. One with a selector in the root namespace gives nothing (Istio).
pub fn peer_authentication(inputs: Inputs<'_>) -> Translated {
    let Inputs { config, mesh } = inputs;
    let spec = &config.spec;
    let mut notices = validate::peer_authentication(config);
    if any_error(&notices) {
        return (Vec::new(), notices);
    }
    let selector = spec.selector.as_ref();
    let selector = selector
        .map(|s| labels(&s.match_labels))
        .unwrap_or_default();
    if !selector.is_empty() && is_in_root(&config.meta, mesh) {
        let subject = Subject::new("PeerAuthentication", &config.meta);
        let message = "has no effect in the root namespace, whose objects are for the whole mesh: remove it, or move the object to the workloads' namespace";
        notices.push(Notice::warning(&subject, "spec.selector", message));
        return (Vec::new(), notices);
    }
    let ports = spec.port_level_mtls.iter();
    let policy = PeerAuthentication {
        origin: origin("PeerAuthentication", &config.meta),
        selector,
        mode: spec.mtls.and_then(mode),
        ports: ports
            .filter_map(|(port, tls)| Some((port.parse().ok()?, mode(*tls))))
            .collect(),
    };
    crate::done(Resource::PeerAuthentication(policy), notices)
}

fn mode(tls: MutualTls) -> Option<MtlsMode> {
    match tls.mode? {
        MutualTlsMode::Unset => None,
        MutualTlsMode::Disable => Some(MtlsMode::Disable),
        MutualTlsMode::Permissive => Some(MtlsMode::Permissive),
        MutualTlsMode::Strict => Some(MtlsMode::Strict),
    }
}

/// A broken one wants mutual TLS of whatever it selects.
pub(crate) fn closed(meta: &Meta, spec: &Value, mesh: &Mesh) -> Vec<Resource> {
    let selector = salvaged_selection(spec).labels;
    if !selector.is_empty() && is_in_root(meta, mesh) {
        return Vec::new();
    }
    vec![Resource::PeerAuthentication(PeerAuthentication {
        origin: origin("PeerAuthentication", meta),
        selector,
        mode: Some(MtlsMode::Strict),
        ports: BTreeMap::new(),
    })]
}
