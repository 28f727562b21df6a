//! The same calls at a proxy that is told of services on demand: a control plane sends what it asked for, and it asks
//! what it has to before it decides.

use crate::call::Spoken;
use crate::show;
use lateen_model::decide::demand::{of_address, of_authority, of_server_name};
use lateen_model::decide::plan::Direction;
use lateen_model::decide::reach::Directory;
use lateen_model::decide::resources::ResourceSet;
use lateen_model::decide::simulate::simulate;
use lateen_model::decide::snapshot::Snapshot;
use lateen_model::lookup::Lookup;
use lateen_model::mesh::{Role, Scope};
use lateen_model::resource::Resource;
use std::collections::BTreeSet;

/// What becomes of a call at a proxy that may have `resources`; `full` is the snapshot of one that has them all.
pub fn answer(resources: &[Resource], scope: &Scope, full: &Snapshot, call: &Spoken) -> String {
    let mut scope = scope.clone();
    scope.on_demand = scope.role == Role::Sidecar;
    let mut directory = Directory::default();
    for (id, resource) in (0..).zip(resources) {
        directory.put(id, resource);
    }
    let mut asked = BTreeSet::new();
    loop {
        let reach = directory.reach(&scope, &asked);
        let sent = (0..).zip(resources).filter(|(id, _)| match &reach {
            Some(reach) => directory.is_within(reach, *id),
            None => true,
        });
        let sent = sent.map(|(_, resource)| resource.clone());
        let snapshot = Snapshot::build(&ResourceSet::of(sent), &scope);
        let before = asked.len();
        asked.extend(missing(&snapshot, full, call));
        if asked.len() == before {
            return show::answer(&snapshot, call);
        }
    }
}

/// What the proxy asks about a call. Whoever made the call learnt its address elsewhere.
fn missing(snapshot: &Snapshot, full: &Snapshot, call: &Spoken) -> Vec<Lookup> {
    let Ok(simulation) = simulate(full, &call.call()) else {
        return Vec::new();
    };
    if call.direction != Direction::Outbound {
        return Vec::new();
    }
    let to = simulation.destination;
    let (scheme, rest) = call.url.split_once("://").unwrap_or(("http", &call.url));
    let authority = rest.split('/').next().unwrap_or(rest);
    let named = match scheme {
        "http" => of_authority(snapshot, to.port(), authority),
        "https" => of_server_name(snapshot, authority),
        _ => None,
    };
    of_address(snapshot, to.ip())
        .into_iter()
        .chain(named)
        .collect()
}
