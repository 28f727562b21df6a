//! What a request's path and query mean.

/// The address of a collection or an object.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Target {
    pub plural: String,
    pub namespace: String,
    pub name: String,
    pub subresource: String,
}

impl Target {
    /// Reads `/api/v1/…` and `/apis/GROUP/VERSION/…`; none: another path.
    pub(super) fn of(path: &str) -> Option<Self> {
        let mut parts = path.trim_matches('/').split('/');
        match parts.next()? {
            "api" => parts.next()?,
            "apis" => parts.nth(1)?,
            _ => return None,
        };
        let rest: Vec<&str> = parts.collect();
        let (namespace, rest) = match rest[..] {
            ["namespaces", namespace, _, ..] => (namespace, &rest[2..]),
            _ => ("", &rest[..]),
        };
        let at = |index: usize| rest.get(index).copied().unwrap_or_default().to_owned();
        Some(Self {
            plural: at(0),
            namespace: namespace.to_owned(),
            name: at(1),
            subresource: at(2),
        })
    }

    /// Key within the collection.
    pub(super) fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// A parameter of a query, without escapes but those that clients of Kubernetes write.
pub(super) fn parameter(query: &str, name: &str) -> Option<String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let mut found = pairs.filter(|(key, _)| *key == name);
    let value = found.next()?.1;
    Some(value.replace("%3D", "=").replace("%2F", "/"))
}
