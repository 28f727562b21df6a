//! What a request asks for: verb, resource and query, read from method and path as Kubernetes does.
//! It does not know which resources exist.

use http::Method;
use percent_encoding::percent_decode_str;

/// A request's aim. Empty strings and absent names mean "not part of the path".
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Target {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; for paths that are no
    /// resource the HTTP method in lower case.
    pub verb: &'static str,
    /// API group; empty for core.
    pub group: String,
    /// Version such as `v1`.
    pub version: String,
    /// Plural resource; empty when the path is no resource.
    pub resource: String,
    /// Such as `status`.
    pub subresource: String,
    /// Namespace of the path.
    pub namespace: Option<String>,
    /// Object's name of the path.
    pub name: Option<String>,
    /// The whole path.
    pub path: String,
}

impl Target {
    /// Reads method, path and query.
    pub fn parse(method: &Method, path: &str, query: &Query) -> Self {
        let parts: Vec<String> = path
            .split('/')
            .filter(|part| !part.is_empty())
            .map(|part| percent_decode_str(part).decode_utf8_lossy().into_owned())
            .collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let mut target = Self {
            path: path.to_owned(),
            ..Self::default()
        };
        let rest = match parts.as_slice() {
            ["api", version, rest @ ..] if !rest.is_empty() => {
                target.version = (*version).to_owned();
                rest
            }
            ["apis", group, version, rest @ ..] if !rest.is_empty() => {
                target.group = (*group).to_owned();
                target.version = (*version).to_owned();
                rest
            }
            _ => &[],
        };
        target.place(rest);
        target.verb = verb(method, &target, query);
        target
    }

    fn place(&mut self, rest: &[&str]) {
        let own = |text: &str| Some(text.to_owned());
        let rest = match rest {
            ["namespaces"] => {
                self.resource = "namespaces".to_owned();
                return;
            }
            ["namespaces", name] => {
                (self.resource, self.name, self.namespace) =
                    ("namespaces".to_owned(), own(name), own(name));
                return;
            }
            ["namespaces", name, sub @ ("status" | "finalize")] if self.group.is_empty() => {
                (self.resource, self.name, self.namespace) =
                    ("namespaces".to_owned(), own(name), own(name));
                self.subresource = (*sub).to_owned();
                return;
            }
            ["namespaces", namespace, rest @ ..] => {
                self.namespace = own(namespace);
                rest
            }
            rest => rest,
        };
        let mut rest = rest.iter();
        self.resource = rest
            .next()
            .map(|text| (*text).to_owned())
            .unwrap_or_default();
        self.name = rest.next().map(|text| (*text).to_owned());
        self.subresource = rest.copied().collect::<Vec<_>>().join("/");
    }

    /// Whether the path names a resource at all.
    pub fn is_resource(&self) -> bool {
        !self.resource.is_empty()
    }
}

fn verb(method: &Method, target: &Target, query: &Query) -> &'static str {
    let named = target.name.is_some();
    match method.as_str() {
        "GET" | "HEAD" if !target.is_resource() => "get",
        "GET" | "HEAD" if query.flag("watch") && target.subresource.is_empty() => "watch",
        "GET" | "HEAD" if named => "get",
        "GET" | "HEAD" => "list",
        "POST" if target.is_resource() => "create",
        "POST" => "post",
        "PUT" if target.is_resource() => "update",
        "PUT" => "put",
        "PATCH" => "patch",
        "DELETE" if target.is_resource() && !named => "deletecollection",
        "DELETE" => "delete",
        _ => "options",
    }
}

/// Decoded query parameters in their order.
#[derive(Debug, Clone, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Decodes a raw query string (without `?`).
    pub fn parse(raw: Option<&str>) -> Self {
        let decode = |text: &str| {
            percent_decode_str(&text.replace('+', " "))
                .decode_utf8_lossy()
                .into_owned()
        };
        let pairs = raw
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty())
            .take(256);
        Self(
            pairs
                .map(|pair| {
                    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decode(key), decode(value))
                })
                .collect(),
        )
    }

    /// First non-empty value of a parameter.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(name, value)| name == key && !value.is_empty())
            .map(|(_, value)| value.as_str())
    }

    /// Every value of a parameter.
    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(name, _)| name == key)
            .map(|(_, value)| value.as_str())
    }

    /// Whether a boolean parameter is set to true.
    pub fn flag(&self, key: &str) -> bool {
        matches!(self.text(key), Some("true" | "1" | "True" | "TRUE" | "t"))
    }

    /// A number, when given and well-formed.
    pub fn number(&self, key: &str) -> Option<u64> {
        self.text(key)?.parse().ok()
    }
}
