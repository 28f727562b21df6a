//! Admission webhooks, called as Kubernetes calls them: mutating ones one after another, validating ones together.
//!
//! Configurations are read from the stored objects at each request. What a webhook answers is not trusted: sizes
//! and times are bounded, and the verbs validate a mutated object again. Admission policies in CEL
//! (ValidatingAdmissionPolicy) and the `authorizer` variable of match conditions are not supported.

mod call;
mod hook;
mod review;

use crate::auth::User;
use crate::error::ApiError;
use crate::lookup::Lookup;
use crate::schema::Expression;
use hook::{Hook, Stage};
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;

/// Compiled match conditions and TLS settings kept at most; sandboxes have a handful.
const MOST_CACHED: usize = 64;

/// What a request does to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// POST, and server-side apply or PUT that makes a new object.
    Create,
    /// PUT and PATCH.
    Update,
    /// DELETE, also of collections (once for each object).
    Delete,
    /// exec, attach, port-forward and proxy.
    Connect,
}

/// Group, version and kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupVersionKind {
    /// API group; empty for the core group.
    pub group: String,
    /// Version.
    pub version: String,
    /// Kind, such as `Pod`.
    pub kind: String,
}

/// Group, version and resource.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupVersionResource {
    /// API group; empty for the core group.
    pub group: String,
    /// Version.
    pub version: String,
    /// Resource (plural), such as `pods`.
    pub resource: String,
}

/// One request as webhooks see it.
#[derive(Debug, Clone)]
pub struct AdmissionInput {
    /// What is done.
    pub operation: Operation,
    /// Kind of the object.
    pub kind: GroupVersionKind,
    /// Resource of the request.
    pub resource: GroupVersionResource,
    /// Subresource; empty for none.
    pub subresource: String,
    /// Namespace; absent for cluster-scoped objects. For a Namespace object its own name.
    pub namespace: Option<String>,
    /// Name; empty on a create with `generateName` only.
    pub name: String,
    /// Who asks.
    pub user: User,
    /// The new object; absent on delete.
    pub object: Option<Value>,
    /// The stored object; absent on create.
    pub old_object: Option<Value>,
    /// Nothing will be stored.
    pub dry_run: bool,
}

/// Finds and calls webhooks.
pub struct Webhooks {
    lookup: Arc<dyn Lookup>,
    connector: call::Connector,
    conditions: Mutex<HashMap<String, Arc<Result<Expression, String>>>>,
}

// === impl Webhooks ===

impl Webhooks {
    /// Webhooks as configured by the stored objects.
    pub fn new(lookup: Arc<dyn Lookup>) -> Self {
        Self {
            lookup,
            connector: call::Connector::default(),
            conditions: Mutex::default(),
        }
    }

    /// The webhooks of a stage that a request must pass, in the order of configuration names.
    fn hooks(&self, stage: Stage, input: &AdmissionInput) -> Vec<Hook> {
        // Kubernetes: configurations of webhooks are exempt, so that a broken one can be repaired.
        if input.resource.group == hook::GROUP {
            return Vec::new();
        }
        let mut configurations = self.lookup.list(hook::GROUP, stage.resource(), None);
        configurations.sort_by(|a, b| {
            a["metadata"]["name"]
                .as_str()
                .cmp(&b["metadata"]["name"].as_str())
        });
        let hooks = configurations.iter().flat_map(Hook::all);
        hooks.filter(|hook| hook.covers(input)).collect()
    }

    /// Calls one webhook if its selectors and conditions match. `None`: it did not match, or it failed and may.
    async fn ask(
        &self,
        hook: &Hook,
        input: &AdmissionInput,
    ) -> Result<Option<review::Answer>, ApiError> {
        if !hook.selects(self.lookup.as_ref(), input) {
            return Ok(None);
        }
        let request = review::request(input);
        match hook.conditions_hold(&request, |source| self.condition(source)) {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            Err(_) if hook.may_fail => return Ok(None),
            Err(why) => {
                let name = &input.name;
                return Err(ApiError::forbidden(
                    &input.resource.group,
                    &input.resource.resource,
                    name,
                    &why,
                ));
            }
        }
        if input.dry_run && !hook.dry_run {
            let why = format!(
                "admission webhook \"{}\" does not support dry run",
                hook.name
            );
            return Err(ApiError::bad_request(why));
        }
        let outcome = match self
            .connector
            .call(self.lookup.as_ref(), hook, &review::envelope(&request))
            .await
        {
            Ok(bytes) => review::Answer::read(&hook.name, &bytes, &request),
            Err(error) => Err(ApiError::webhook_failed(&hook.name, &error.to_string())),
        };
        match outcome {
            Err(error) if hook.may_fail => {
                tracing::warn!(webhook = hook.name, %error, "webhook failed; its failurePolicy lets the request pass");
                Ok(None)
            }
            outcome => outcome.map(Some),
        }
    }

    fn condition(&self, source: &str) -> Arc<Result<Expression, String>> {
        let mut conditions = self.conditions.lock();
        if let Some(known) = conditions.get(source) {
            return known.clone();
        }
        if conditions.len() >= MOST_CACHED {
            conditions.clear();
        }
        let compiled = Arc::new(Expression::compile(
            source,
            &["object", "oldObject", "request"],
        ));
        conditions.insert(source.to_owned(), compiled.clone());
        compiled
    }
}

/// Runs the mutating webhooks over `input.object`. Returns warnings for the client. Those with
/// `reinvocationPolicy: IfNeeded` are asked once more when a later one changed the object.
pub async fn mutate(
    webhooks: &Webhooks,
    input: &mut AdmissionInput,
) -> Result<Vec<String>, ApiError> {
    let hooks = webhooks.hooks(Stage::Mutating, input);
    let mut warnings = Vec::new();
    let mut again = Vec::new();
    for hook in &hooks {
        let Some(answer) = webhooks.ask(hook, input).await? else {
            continue;
        };
        warnings.extend(answer.admit(&hook.name, input)?);
        if hook.reinvoke {
            again.push((hook, input.object.clone()));
        }
    }
    for (hook, seen) in again {
        if seen != input.object
            && let Some(answer) = webhooks.ask(hook, input).await?
        {
            warnings.extend(answer.admit(&hook.name, input)?);
        }
    }
    Ok(warnings)
}

/// Runs the validating webhooks, all at the same time. Returns warnings for the client; a refusal is that of the
/// first in the order of configuration names.
pub async fn validate(
    webhooks: &Webhooks,
    input: &AdmissionInput,
) -> Result<Vec<String>, ApiError> {
    let hooks = webhooks.hooks(Stage::Validating, input);
    let answers =
        futures::future::join_all(hooks.iter().map(|hook| webhooks.ask(hook, input))).await;
    let mut warnings = Vec::new();
    for (hook, answer) in hooks.iter().zip(answers) {
        if let Some(answer) = answer? {
            warnings.extend(answer.verdict(&hook.name)?);
        }
    }
    Ok(warnings)
}

impl Operation {
    /// `CREATE`, `UPDATE`, …
    pub fn name(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        }
    }

    /// Kind of the options object in the admission request.
    fn options(self) -> Option<&'static str> {
        match self {
            Self::Create => Some("CreateOptions"),
            Self::Update => Some("UpdateOptions"),
            Self::Delete => Some("DeleteOptions"),
            Self::Connect => None,
        }
    }
}

#[cfg(test)]
mod tests;
