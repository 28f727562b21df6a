//! The state that all handlers share, and one request's facts as the verbs need them.

use crate::auth::{Authenticator, User};
use crate::error::ApiError;
use crate::kinds::{Kind, Registry};
use crate::negotiate::Format;
use crate::pods::PodAccess;
use crate::store::{Key, Store};
use crate::target::{Query, Target};
use crate::token::Tokens;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tokio::sync::{Mutex, Notify, watch};

/// Everything behind the HTTP surface.
pub struct Api {
    /// Objects.
    pub store: Arc<Store>,
    /// Served kinds.
    pub registry: Registry,
    /// Who asks.
    pub authenticator: Authenticator,
    /// Service-account tokens.
    pub tokens: Arc<Tokens>,
    /// Admission webhooks.
    pub webhooks: crate::admission::Webhooks,
    /// Running pods.
    pub pods: Arc<dyn PodAccess>,
    /// Addresses for Services.
    pub services: crate::builtin::addresses::ServiceRange,
    /// Held from choosing a cluster IP or node port until the Service is stored.
    pub allocation: Mutex<()>,
    /// Wakes garbage collection.
    pub collect: Notify,
    /// Turns true when the server stops; watches end then.
    pub stopping: watch::Sender<bool>,
    /// Requests answered so far.
    pub requests: AtomicU64,
}

/// What happens with unknown fields (`fieldValidation`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strictness {
    /// Dropped silently.
    Ignore,
    /// Dropped with a warning; what is done when nothing is said.
    Warn,
    /// Refused.
    Strict,
}

/// One authorised request for a resource.
pub struct Call {
    /// Who asks.
    pub user: User,
    /// For what.
    pub target: Target,
    /// Query parameters.
    pub query: Query,
    /// The kind behind the target's resource.
    pub kind: Arc<Kind>,
    /// Wanted representation.
    pub format: Format,
    /// Field manager: parameter `fieldManager`, or the first word of the user agent.
    pub manager: String,
    /// `dryRun=All`.
    pub dry_run: bool,
    /// `fieldValidation`.
    pub strictness: Strictness,
}

impl Call {
    /// A call of the server itself, on behalf of nobody outside.
    pub fn internal(kind: &Arc<Kind>, namespace: Option<&str>, name: Option<&str>) -> Self {
        let user = User {
            name: "system:apiserver".into(),
            groups: vec!["system:masters".into()],
            ..User::default()
        };
        let target = Target {
            group: kind.group.clone(),
            version: kind.version.clone(),
            resource: kind.plural.clone(),
            namespace: namespace.map(str::to_owned),
            name: name.map(str::to_owned),
            ..Target::default()
        };
        Self {
            user,
            target,
            query: Query::default(),
            kind: kind.clone(),
            format: Format::Plain,
            manager: "kube-apiserver".to_owned(),
            dry_run: false,
            strictness: Strictness::Ignore,
        }
    }

    /// Name of the target object; 405 when the path names none.
    ///
    /// # Errors
    /// The path ends at the collection.
    pub fn name(&self) -> Result<&str, ApiError> {
        self.target
            .name
            .as_deref()
            .ok_or_else(ApiError::method_not_allowed)
    }

    /// Namespace of the target; empty for cluster-scoped kinds.
    pub fn namespace(&self) -> &str {
        if self.kind.namespaced {
            self.target.namespace.as_deref().unwrap_or_default()
        } else {
            ""
        }
    }

    /// Namespace to list: absent for all of them.
    pub fn scope(&self) -> Option<&str> {
        if self.kind.namespaced {
            self.target.namespace.as_deref()
        } else {
            None
        }
    }

    /// Where an object of this name is stored.
    pub fn key(&self, name: &str) -> Key {
        Key {
            resource: self.kind.resource.clone(),
            namespace: self.namespace().to_owned(),
            name: name.to_owned(),
        }
    }

    /// 404 for an object of this kind.
    pub fn not_found(&self, name: &str) -> ApiError {
        ApiError::not_found(&self.kind.group, &self.kind.plural, name)
    }
}
