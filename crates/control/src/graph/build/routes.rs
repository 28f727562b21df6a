//! VirtualServices, which depend on those that they delegate to.

use super::{Outcome, Outcomes, translated, with_notices};
use crate::graph::Sources;
use crate::source::{Id, IstioKind};
use lateen_api::notice::any_error;
use lateen_api::object::Object;
use lateen_api::validate;
use lateen_collections::{Collection, Graph, Held};
use lateen_translate::mesh::Mesh;
use lateen_translate::{Translated, virtual_service};

/// Translates VirtualServices with the last good form of those that they delegate to.
pub(super) fn tables(graph: &mut Graph, sources: &Sources, mesh: Collection<(), Mesh>) -> Outcomes {
    let kind = IstioKind::VirtualService;
    let source = sources.istio(kind);
    let good = graph.hold("good virtual services", source, |written| {
        match &written.object {
            Some(Object::VirtualService(config))
                if !any_error(&validate::virtual_service(config)) =>
            {
                Held::Take(config.clone())
            }
            _ => Held::Keep,
        }
    });
    let names = ("route tables", kind.name());
    translated(graph, names, source, mesh, move |fetch, written, mesh| {
        Outcome::from(with_notices(written, |object| {
            let Object::VirtualService(config) = object else {
                return Translated::default();
            };
            let wanted = virtual_service::delegates(config);
            let ids: Vec<_> = wanted
                .map(|(namespace, name)| Id::new(namespace, name))
                .collect();
            let found: Vec<_> = ids.iter().filter_map(|id| fetch.get(good, id)).collect();
            virtual_service::virtual_service(virtual_service::Inputs {
                config,
                mesh,
                delegates: Some(&found),
            })
        }))
    })
}
