//! create, update and patch: the way of an object from a request body into the store.
//!
//! Order, as Kubernetes has it: decode, field checks, metadata, defaults, built-in admission, mutating webhooks,
//! field ownership, validation, validating webhooks, store.

use crate::admission::Operation;
use crate::api::{Api, Call};
use crate::error::{ApiError, Cause};
use crate::meta;
use crate::store::{Expect, Refused, revision_of};
use crate::verbs::accept::{accept, check_rules, fill};
use crate::verbs::keep::{count_generation, keep_server_fields};
use crate::verbs::{delete, read};
use crate::{admit, builtin, crd, patch};
use http::HeaderMap;
use serde_json::{Value, json};
use std::sync::Arc;

/// What a write came to.
pub struct Outcome {
    /// HTTP code: 201 when something was created.
    pub code: u16,
    /// The stored object.
    pub object: Arc<Value>,
    /// Warnings for the client.
    pub warnings: Vec<String>,
}

/// Which part of the object an update may touch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// All but the status of kinds that have a status subresource.
    Main,
    /// Only the status.
    Status,
    /// Everything at once (finalizing namespaces, binding, ephemeral containers).
    Whole,
}

/// How often an update that names no revision is tried again when others write in between.
const TRIES: usize = 10;

/// Creates the object of a request body.
///
/// # Errors
/// Everything that validation and admission refuse; 409 when the name is taken.
pub async fn create(api: &Api, call: &Call, body: Value) -> Result<Outcome, ApiError> {
    let mut object = body;
    let mut warnings = accept(call, &mut object)?;
    prepare_new(api, call, &mut object)?;
    let manager_time = meta::now();
    warnings.extend(admit_new(api, call, &mut object).await?);
    patch::own_changes(call, None, &mut object, &manager_time);
    store_new(api, call, object, warnings).await
}

/// The last steps of a create, from finished object to stored one.
async fn store_new(
    api: &Api,
    call: &Call,
    mut object: Value,
    mut warnings: Vec<String>,
) -> Result<Outcome, ApiError> {
    let kind = &call.kind;
    let services = call.kind.is("", "services");
    let _held = if services {
        Some(api.allocation.lock().await)
    } else {
        None
    };
    if services {
        builtin::addresses::allocate(api, &mut object, None)?;
    }
    warnings.extend(check_rules(call, &object, None)?);
    warnings.extend(admit::validate(api, call, Operation::Create, Some(&object), None).await?);
    let name = meta::text(&object, "name").to_owned();
    if call.dry_run {
        if api.store.object(&call.key(&name)).is_some() {
            return Err(ApiError::already_exists(&kind.group, &kind.plural, &name));
        }
        return Ok(Outcome {
            code: 201,
            object: Arc::new(object),
            warnings,
        });
    }
    let committed = api
        .store
        .put(&call.key(&name), Expect::Absent, object)
        .map_err(|_| ApiError::already_exists(&kind.group, &kind.plural, &name))?;
    let object = committed.durable().await?;
    after_write(api, call, &object);
    Ok(Outcome {
        code: 201,
        object,
        warnings,
    })
}

/// Sets what a new object has from the server, checks its name and place.
fn prepare_new(api: &Api, call: &Call, object: &mut Value) -> Result<(), ApiError> {
    let kind = &call.kind;
    if !matches!(meta::text(object, "resourceVersion"), "" | "0") {
        return Err(ApiError::bad_request(
            "resourceVersion should not be set on objects to be created",
        ));
    }
    if meta::text(object, "name").is_empty() {
        let prefix = meta::text(object, "generateName");
        if prefix.is_empty() {
            let cause = meta::required("metadata.name", "name or generateName is required");
            return Err(ApiError::invalid(&kind.group, &kind.kind, "", vec![cause]));
        }
        // Kubernetes: the prefix is cut so that the name fits 63 characters.
        let prefix: String = prefix.chars().take(58).collect();
        object["metadata"]["name"] = json!(format!("{prefix}{}", meta::random_suffix()));
    }
    if kind.namespaced {
        place_in_namespace(api, call, object)?;
    }
    let metadata = &mut object["metadata"];
    for field in [
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "selfLink",
        "generation",
        "resourceVersion",
    ] {
        if let Some(map) = metadata.as_object_mut() {
            map.remove(field);
        }
    }
    metadata["uid"] = json!(meta::new_uid());
    metadata["creationTimestamp"] = json!(meta::now());
    if builtin::has_generation(kind) {
        metadata["generation"] = json!(1);
    }
    if kind.serves("status")
        && let Some(map) = object.as_object_mut()
    {
        map.remove("status");
    }
    Ok(())
}

fn place_in_namespace(api: &Api, call: &Call, object: &mut Value) -> Result<(), ApiError> {
    let namespace = call.namespace();
    if namespace.is_empty() {
        return Err(ApiError::bad_request(
            "an empty namespace may not be set during creation",
        ));
    }
    object["metadata"]["namespace"] = json!(namespace);
    let key = crate::store::Key {
        resource: crate::store::Resource::new("", "namespaces"),
        namespace: String::new(),
        name: namespace.to_owned(),
    };
    match api.store.object(&key) {
        None => Err(ApiError::not_found("", "namespaces", namespace)),
        Some(found) if meta::is_deleting(&found) => {
            let why = format!(
                "unable to create new content in namespace {namespace} because it is being terminated"
            );
            let mut error = ApiError::forbidden(
                &call.kind.group,
                &call.kind.plural,
                meta::text(object, "name"),
                &why,
            );
            if let Some(details) = &mut error.details {
                let message = format!("namespace {namespace} is being terminated");
                details.causes.push(Cause::new(
                    "NamespaceTerminating",
                    "metadata.namespace",
                    message,
                ));
            }
            Err(error)
        }
        Some(_) => Ok(()),
    }
}

async fn admit_new(api: &Api, call: &Call, object: &mut Value) -> Result<Vec<String>, ApiError> {
    fill(call, object, None)?;
    builtin::admit(api, call, object)?;
    let warnings = admit::mutate(api, call, Operation::Create, object, None).await?;
    fill(call, object, None)?;
    Ok(warnings)
}

/// Replaces an object by the request body.
///
/// # Errors
/// 404, 409 for an outdated `resourceVersion`, and everything that validation and admission refuse.
pub async fn update(api: &Api, call: &Call, body: Value, part: Part) -> Result<Outcome, ApiError> {
    let mut object = body;
    let warnings = accept(call, &mut object)?;
    let name = call.name()?;
    let given = meta::text(&object, "name");
    if given.is_empty() {
        object["metadata"]["name"] = json!(name);
    } else if given != name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({given}) does not match the name on the URL ({name})"
        )));
    }
    let expected = read::given_revision(&object)?;
    let mut outcome = modify(api, call, part, |old| {
        if expected.is_some_and(|expected| expected != revision_of(old)) {
            return Err(ApiError::modified(
                &call.kind.group,
                &call.kind.plural,
                name,
            ));
        }
        Ok((object.clone(), Ownership::Changes))
    })
    .await?;
    outcome.warnings.splice(0..0, warnings);
    Ok(outcome)
}

/// How `managedFields` follow from a change.
pub enum Ownership {
    /// The manager owns what it changed.
    Changes,
    /// Already worked out (server-side apply).
    Done,
}

/// Answers `patch`.
///
/// # Errors
/// 415 for an unknown patch type, 400 or 422 for a bad patch, and what an update refuses.
pub async fn patch(
    api: &Api,
    call: &Call,
    (headers, body): (&HeaderMap, &[u8]),
    part: Part,
) -> Result<Outcome, ApiError> {
    let name = call.name()?;
    let patch = patch::Patch::parse(call, headers, body)?;
    if api.store.object(&call.key(name)).is_none()
        && let patch::Patch::Apply(applied) = &patch
    {
        if part != Part::Main {
            return Err(call.not_found(name));
        }
        match create_applied(api, call, applied.clone()).await {
            // Somebody else created it in between: it is merged with theirs.
            Err(error) if error.reason == "AlreadyExists" => {}
            result => return result,
        }
    }
    let mut warnings = Vec::new();
    let mut outcome = modify(api, call, part, |old| {
        let (object, ownership, told) = patched(call, old, &patch, part)?;
        warnings = told;
        Ok((object, ownership))
    })
    .await?;
    outcome.warnings.splice(0..0, warnings);
    Ok(outcome)
}

/// The stored object as a patch makes it, who owns the changes, and warnings.
fn patched(
    call: &Call,
    old: &Arc<Value>,
    patch: &patch::Patch,
    part: Part,
) -> Result<(Value, Ownership, Vec<String>), ApiError> {
    let kind = &call.kind;
    let name = meta::text(old, "name");
    let check = |given: &Value| match read::given_revision(given)? {
        Some(given) if given != revision_of(old) => {
            Err(ApiError::modified(&kind.group, &kind.plural, name))
        }
        _ => same_name(call, given, name),
    };
    let patch::Patch::Apply(applied) = patch else {
        let mut object = patch.change(call, old)?;
        let warnings = accept(call, &mut object)?;
        check(&object)?;
        return Ok((object, Ownership::Changes, warnings));
    };
    let mut applied = applied.clone();
    let warnings = accept(call, &mut applied)?;
    if !meta::text(&applied, "name").is_empty() {
        check(&applied)?;
    }
    let mut object = patch::apply(call, old, applied, part)?;
    accept(call, &mut object)?;
    Ok((object, Ownership::Done, warnings))
}

fn same_name(call: &Call, object: &Value, name: &str) -> Result<(), ApiError> {
    let given = meta::text(object, "name");
    if given == name {
        return Ok(());
    }
    let cause = meta::invalid("metadata.name", given, "field is immutable");
    Err(ApiError::invalid(
        &call.kind.group,
        &call.kind.kind,
        name,
        vec![cause],
    ))
}

async fn create_applied(api: &Api, call: &Call, applied: Value) -> Result<Outcome, ApiError> {
    let mut object = applied;
    let mut warnings = accept(call, &mut object)?;
    if meta::text(&object, "name").is_empty() {
        object["metadata"]["name"] = json!(call.name()?);
    }
    same_name(call, &object, call.name()?)?;
    if call.kind.serves("status")
        && let Some(map) = object.as_object_mut()
    {
        map.remove("status");
    }
    let only_applied = object.clone();
    prepare_new(api, call, &mut object)?;
    warnings.extend(admit_new(api, call, &mut object).await?);
    patch::own_applied(call, &only_applied, &mut object);
    store_new(api, call, object, warnings).await
}

/// Changes an object by a function of its stored state, trying again when others write in between and the function
/// does not mind.
///
/// # Errors
/// 404, and whatever the function, validation and admission refuse.
pub async fn modify<F>(
    api: &Api,
    call: &Call,
    part: Part,
    mut change: F,
) -> Result<Outcome, ApiError>
where
    F: FnMut(&Arc<Value>) -> Result<(Value, Ownership), ApiError>,
{
    let name = call.name()?.to_owned();
    let key = call.key(&name);
    for _ in 0..TRIES {
        let old = api
            .store
            .object(&key)
            .ok_or_else(|| call.not_found(&name))?;
        let (object, ownership) = change(&old)?;
        match store_changed(api, call, part, (&old, object, ownership)).await {
            Ok(Some(outcome)) => return Ok(outcome),
            Ok(None) => {}
            Err(error) => return Err(error),
        }
    }
    Err(ApiError::modified(
        &call.kind.group,
        &call.kind.plural,
        &name,
    ))
}

/// Stores a changed object; absent when somebody wrote in between.
async fn store_changed(
    api: &Api,
    call: &Call,
    part: Part,
    (old, mut object, ownership): (&Arc<Value>, Value, Ownership),
) -> Result<Option<Outcome>, ApiError> {
    let kind = &call.kind;
    keep_server_fields(call, old, &mut object, part)?;
    fill(call, &mut object, Some(old))?;
    let mut warnings = admit::mutate(api, call, Operation::Update, &mut object, Some(old)).await?;
    fill(call, &mut object, Some(old))?;
    let _held = if kind.is("", "services") {
        Some(api.allocation.lock().await)
    } else {
        None
    };
    if kind.is("", "services") {
        builtin::addresses::allocate(api, &mut object, Some(old))?;
    }
    if matches!(ownership, Ownership::Changes) {
        patch::own_changes(call, Some((old, part)), &mut object, &meta::now());
    }
    count_generation(call, old, &mut object);
    warnings.extend(check_rules(call, &object, Some(old))?);
    warnings.extend(admit::validate(api, call, Operation::Update, Some(&object), Some(old)).await?);
    if same_but_for_times(old, &object) {
        return Ok(Some(Outcome {
            code: 200,
            object: old.clone(),
            warnings,
        }));
    }
    if call.dry_run {
        return Ok(Some(Outcome {
            code: 200,
            object: Arc::new(object),
            warnings,
        }));
    }
    let name = meta::text(old, "name");
    let freed = meta::is_deleting(&object)
        && !meta::has_finalizers(&object)
        && delete::may_go(kind, &object);
    let expect = Expect::Revision(revision_of(old));
    let committed = match api.store.put(&call.key(name), expect, object) {
        Ok(committed) => committed,
        Err(Refused::Missing) => return Err(call.not_found(name)),
        Err(Refused::Changed | Refused::Exists) => return Ok(None),
    };
    let mut object = committed.durable().await?;
    if freed {
        object = delete::remove_now(api, call, &object).await?;
    } else {
        after_write(api, call, &object);
    }
    Ok(Some(Outcome {
        code: 200,
        object,
        warnings,
    }))
}

fn same_but_for_times(old: &Value, new: &Value) -> bool {
    fn bare(object: &Value) -> Value {
        let mut object = object.clone();
        for entry in object["metadata"]["managedFields"]
            .as_array_mut()
            .into_iter()
            .flatten()
        {
            entry["time"] = Value::Null;
        }
        object
    }
    old == new || bare(old) == bare(new)
}

fn after_write(api: &Api, call: &Call, object: &Value) {
    if call
        .kind
        .is("apiextensions.k8s.io", "customresourcedefinitions")
    {
        crd::serve(api, object);
    }
    if meta::is_deleting(object) || !object["metadata"]["ownerReferences"].is_null() {
        api.collect.notify_one();
    }
}
