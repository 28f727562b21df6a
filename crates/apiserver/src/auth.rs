//! Who asks (certificate, bearer token, impersonation) and whether they may (RBAC, see [`rbac`]).
//! It signs nothing: tokens are made and checked in [`crate::token`], certificates in [`crate::tls`].

pub mod rbac;
pub mod review;

use crate::error::ApiError;
use crate::lookup::Lookup;
use crate::token::Tokens;
use http::HeaderMap;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Group of everybody who showed valid credentials.
pub const AUTHENTICATED: &str = "system:authenticated";
/// Group of everybody who showed none.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// Group that may do everything, whatever RBAC says.
pub const MASTERS: &str = "system:masters";

/// A client, as authentication found it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    /// User name; service accounts are `system:serviceaccount:<namespace>:<name>`.
    pub name: String,
    /// Uid; empty when the credential has none.
    pub uid: String,
    /// Groups.
    pub groups: Vec<String>,
    /// Further facts, such as the pod a token is bound to.
    pub extra: BTreeMap<String, Vec<String>>,
}

/// What a client wants to do.
#[derive(Debug, Clone, Copy, Default)]
pub struct Attributes<'a> {
    /// `get`, `list`, `create`, …; for plain paths the lower-case HTTP method.
    pub verb: &'a str,
    /// API group; empty for the core group.
    pub group: &'a str,
    /// API version; RBAC ignores it.
    pub version: &'a str,
    /// Resource (plural); empty for plain paths.
    pub resource: &'a str,
    /// Subresource; empty for none.
    pub subresource: &'a str,
    /// Namespace; absent for cluster scope and for lists over all namespaces.
    pub namespace: Option<&'a str>,
    /// Object name; absent for collections and unnamed creates.
    pub name: Option<&'a str>,
    /// The path, when `resource` is empty.
    pub path: &'a str,
}

/// Finds out who a client is.
pub struct Authenticator {
    lookup: Arc<dyn Lookup>,
    tokens: Arc<Tokens>,
}

// === impl User ===

impl User {
    /// Everybody without credentials.
    pub fn anonymous() -> Self {
        Self {
            name: "system:anonymous".into(),
            groups: vec![UNAUTHENTICATED.into()],
            ..Self::default()
        }
    }

    /// A service account, with the groups that Kubernetes gives it.
    pub fn service_account(namespace: &str, name: &str, uid: &str) -> Self {
        Self {
            name: format!("system:serviceaccount:{namespace}:{name}"),
            uid: uid.into(),
            groups: service_account_groups(namespace),
            extra: BTreeMap::new(),
        }
    }

    /// `userInfo` as reviews and admission requests carry it (`authentication.k8s.io/v1` UserInfo).
    pub fn info(&self) -> Value {
        let mut info = json!({"username": self.name, "groups": self.groups});
        if !self.uid.is_empty() {
            info["uid"] = json!(self.uid);
        }
        if !self.extra.is_empty() {
            info["extra"] = json!(self.extra);
        }
        info
    }

    /// Whether the user is in a group.
    pub fn has_group(&self, group: &str) -> bool {
        self.groups.iter().any(|one| one == group)
    }

    fn join(&mut self, group: &str) {
        if !self.has_group(group) {
            self.groups.push(group.into());
        }
    }
}

// === impl Authenticator ===

impl Authenticator {
    /// An authenticator that checks service-account tokens against `tokens` and the stored accounts.
    pub fn new(lookup: Arc<dyn Lookup>, tokens: Arc<Tokens>) -> Self {
        Self { lookup, tokens }
    }

    /// The user behind a connection and its `Authorization: Bearer` token. `peer_cert_der` must have been verified
    /// by TLS. Anonymous when there is neither; 401 when a credential is there and is no good, so that a client
    /// with an expired token is told so instead of being treated as nobody.
    pub fn authenticate(
        &self,
        peer_cert_der: Option<&[u8]>,
        bearer: Option<&str>,
    ) -> Result<User, ApiError> {
        // Kubernetes: the certificate wins over the token when both are shown.
        if let Some(der) = peer_cert_der {
            let mut user = crate::tls::certificate_user(der).ok_or_else(ApiError::unauthorized)?;
            user.join(AUTHENTICATED);
            return Ok(user);
        }
        let Some(token) = bearer else {
            return Ok(User::anonymous());
        };
        let verified = self
            .tokens
            .verify(self.lookup.as_ref(), token, &[])
            .map_err(|error| {
                tracing::info!(%error, "refused a bearer token");
                ApiError::unauthorized()
            })?;
        let mut user = verified.user;
        user.join(AUTHENTICATED);
        Ok(user)
    }
}

/// Text of the `Authorization: Bearer …` header; absent when there is none or it is of another scheme.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = text.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// RBAC's answer: `Ok`, or the 403 with Kubernetes' sentence.
pub fn authorize(
    lookup: &dyn Lookup,
    user: &User,
    attributes: &Attributes<'_>,
) -> Result<(), ApiError> {
    rbac::decide(lookup, user, attributes)
        .map(|_| ())
        .map_err(|why| {
            let name = attributes.name.unwrap_or_default();
            if attributes.resource.is_empty() {
                ApiError::forbidden_path(&why)
            } else {
                ApiError::forbidden(attributes.group, attributes.resource, name, &why)
            }
        })
}

/// The user that a request acts as: `user` itself, or whom its `Impersonate-*` headers name if `user` may do that.
/// `Impersonate-Extra-*` keys are percent-decoded as in Kubernetes.
pub fn impersonate(lookup: &dyn Lookup, user: User, headers: &HeaderMap) -> Result<User, ApiError> {
    let texts = |name: &str| -> Vec<String> {
        headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .map(str::to_owned)
            .collect()
    };
    let name = texts("impersonate-user")
        .into_iter()
        .next()
        .filter(|name| !name.is_empty());
    let groups = texts("impersonate-group");
    let uid = texts("impersonate-uid").into_iter().next();
    let extra = impersonated_extra(headers);
    let Some(name) = name else {
        if groups.is_empty() && uid.is_none() && extra.is_empty() {
            return Ok(user);
        }
        return Err(ApiError::internal(
            "requested groups, uid or extra without impersonating a user",
        ));
    };

    let may =
        |group: &str, resource: &str, subresource: &str, namespace: Option<&str>, name: &str| {
            let attributes = Attributes {
                verb: "impersonate",
                group,
                version: "v1",
                resource,
                subresource,
                namespace,
                name: Some(name),
                path: "",
            };
            authorize(lookup, &user, &attributes)
        };
    let account = name
        .strip_prefix("system:serviceaccount:")
        .and_then(|rest| rest.split_once(':'));
    match account {
        Some((namespace, account)) => may("", "serviceaccounts", "", Some(namespace), account)?,
        None => may("", "users", "", None, &name)?,
    }
    for group in &groups {
        may("", "groups", "", None, group)?;
    }
    if let Some(uid) = &uid {
        may("authentication.k8s.io", "uids", "", None, uid)?;
    }
    for (key, values) in &extra {
        for value in values {
            may("authentication.k8s.io", "userextras", key, None, value)?;
        }
    }

    let mut other = User {
        uid: uid.unwrap_or_default(),
        groups,
        extra,
        name,
    };
    if let (Some((namespace, _)), true) = (account_of(&other.name), other.groups.is_empty()) {
        other.groups = service_account_groups(namespace);
    }
    match other.name.as_str() {
        "system:anonymous" => other.join(UNAUTHENTICATED),
        _ => other.join(AUTHENTICATED),
    }
    Ok(other)
}

/// Namespace and name of a service-account user name.
fn account_of(user: &str) -> Option<(&str, &str)> {
    user.strip_prefix("system:serviceaccount:")?.split_once(':')
}

fn service_account_groups(namespace: &str) -> Vec<String> {
    vec![
        "system:serviceaccounts".into(),
        format!("system:serviceaccounts:{namespace}"),
    ]
}

fn impersonated_extra(headers: &HeaderMap) -> BTreeMap<String, Vec<String>> {
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in headers {
        let (Some(key), Ok(value)) = (
            name.as_str().strip_prefix("impersonate-extra-"),
            value.to_str(),
        ) else {
            continue;
        };
        let key = percent_encoding::percent_decode_str(key)
            .decode_utf8_lossy()
            .into_owned();
        extra.entry(key).or_default().push(value.to_owned());
    }
    extra
}

#[cfg(test)]
pub(crate) mod tests;
