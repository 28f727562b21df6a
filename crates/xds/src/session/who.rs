//! Who a client is, and what is for it at all.

use super::Refused;
use crate::node;
use crate::server::Identity;
use crate::table::Slot;
use lateen_model::decide::resources::Audience;
use lateen_model::mesh::Scope;
use lateen_proto::discovery::DeltaDiscoveryRequest;

/// A client as it introduced itself.
#[derive(Debug)]
pub(super) struct Who {
    pub node_id: String,
    pub scope: Scope,
    pub version: String,
    pub authenticated: bool,
}

impl Who {
    /// Who the first request of a stream says that it is from; it must be who it proved to be.
    pub fn of(request: &DeltaDiscoveryRequest, proved: Option<&Identity>) -> Result<Self, Refused> {
        let node = request.node.as_ref().ok_or(Refused::NoNode)?;
        let (scope, version) = node::decode(node)?;
        if let Some(identity) = proved {
            identity.check(&scope)?;
        }
        Ok(Self {
            node_id: node.id.clone(),
            scope,
            version,
            authenticated: proved.is_some(),
        })
    }

    /// Whether what is in a slot is for it.
    pub fn may_have(&self, slot: &Slot) -> bool {
        is_for(slot.audience(), &self.scope, self.authenticated)
    }
}

/// Whether something is for a proxy. What is for single accounts goes only to those that proved theirs.
pub(super) fn is_for(audience: &Audience, scope: &Scope, authenticated: bool) -> bool {
    let personal = matches!(audience, Audience::Accounts { .. });
    (authenticated || !personal) && audience.includes(scope)
}

impl Identity {
    /// Whether a node that says it is `scope` is this one.
    fn check(&self, scope: &Scope) -> Result<(), Refused> {
        let same =
            self.namespace == scope.namespace && self.service_account == scope.service_account;
        if same {
            return Ok(());
        }
        let name = |namespace: &str, account: &str| {
            let text = format!("{namespace}/{account}");
            text.chars().take(200).collect()
        };
        Err(Refused::Impostor {
            proved: name(&self.namespace, &self.service_account),
            claimed: name(&scope.namespace, &scope.service_account),
        })
    }
}
