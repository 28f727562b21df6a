//! Which tokens a proxy takes: the rules of every RequestAuthentication that is for it. Verifying is elsewhere.

use super::resources::ResourceSet;
use super::selection::selects;
use crate::mesh::Scope;
use crate::name::Origin;
use crate::security::JwtRule;
use lateen_base::Str;
use std::sync::Arc;

/// The rules of every RequestAuthentication of a proxy, oldest object first.
#[derive(Debug, Default, PartialEq)]
pub struct JwtRules {
    /// The rules.
    pub rules: Vec<JwtRule>,
    /// The object of each rule, at the same position.
    pub origins: Vec<Origin>,
}

impl JwtRules {
    /// Collects the rules for a proxy; the same reference as before when they are the same, so that what is compiled
    /// from them can be kept under it.
    pub(super) fn build(
        set: &ResourceSet,
        scope: &Scope,
        root: &Str,
        previous: Option<&Arc<Self>>,
    ) -> Arc<Self> {
        let mut objects: Vec<_> = set
            .request_authentications
            .values()
            .filter(|o| selects(&o.origin.namespace, &o.selection, scope, root))
            .collect();
        objects.sort_by_key(|o| (o.origin.created, &o.origin.namespace, &o.origin.name));
        let mut found = Self::default();
        for object in objects {
            for rule in &object.rules {
                found.rules.push(rule.clone());
                found.origins.push(object.origin.clone());
            }
        }
        match previous {
            Some(old) if **old == found => old.clone(),
            _ => Arc::new(found),
        }
    }
}
