//! A container's environment: services, image, `envFrom`, `env`, with `$(NAME)` expanded. Reads objects from
//! the cache and decides nothing else.

use std::net::Ipv4Addr;

use indexmap::IndexMap;
use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, Pod, Service};

use super::cache::Cache;
use super::fields;

/// Variables in the order they were first set.
pub(crate) type Environment = IndexMap<String, String>;

/// Whose environment it is.
#[derive(Clone, Copy)]
pub(crate) struct Subject<'a> {
    /// Objects that it may refer to.
    pub cache: &'a Cache,
    /// The pod.
    pub pod: &'a Pod,
    /// The container.
    pub container: &'a Container,
    /// The pod's address.
    pub address: Ipv4Addr,
}

/// The environment of a container. `image` is what the image table sets.
///
/// # Errors
/// The sentence that Kubernetes shows with `CreateContainerConfigError`.
pub(crate) async fn resolve(
    subject: Subject<'_>,
    image: &std::collections::BTreeMap<String, String>,
) -> Result<Environment, String> {
    let Subject {
        cache,
        pod,
        container,
        ..
    } = subject;
    let mut all = Environment::new();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    all.insert("PATH".into(), PATH.into());
    all.insert(
        "HOSTNAME".into(),
        pod.metadata.name.clone().unwrap_or_default(),
    );
    let links = pod.spec.as_ref().and_then(|s| s.enable_service_links);
    for service in cache.services() {
        let home = service.metadata.namespace.as_deref();
        let kubernetes =
            home == Some("default") && service.metadata.name.as_deref() == Some("kubernetes");
        if kubernetes || (links != Some(false) && home == Some(namespace)) {
            service_variables(&service, &mut all);
        }
    }
    all.extend(image.iter().map(|(k, v)| (k.clone(), v.clone())));
    from_sources(cache, namespace, container, &mut all).await?;
    for variable in container.env.iter().flatten() {
        if let Some(value) = value_of(subject, variable, &all).await? {
            all.insert(variable.name.clone(), value);
        }
    }
    all.entry("HOME".into()).or_insert_with(|| "/root".into());
    Ok(all)
}

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

async fn from_sources(
    cache: &Cache,
    namespace: &str,
    container: &Container,
    all: &mut Environment,
) -> Result<(), String> {
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        if let Some(reference) = &source.config_map_ref {
            match cache.config_map(namespace, &reference.name).await? {
                Some(map) => {
                    for (key, value) in map.data.iter().flatten() {
                        all.insert(format!("{prefix}{key}"), value.clone());
                    }
                }
                None if reference.optional == Some(true) => {}
                None => return Err(format!("configmap \"{}\" not found", reference.name)),
            }
        }
        if let Some(reference) = &source.secret_ref {
            match cache.secret(namespace, &reference.name).await? {
                Some(secret) => {
                    for (key, value) in secret.data.iter().flatten() {
                        let value = String::from_utf8_lossy(&value.0).into_owned();
                        all.insert(format!("{prefix}{key}"), value);
                    }
                }
                None if reference.optional == Some(true) => {}
                None => return Err(format!("secret \"{}\" not found", reference.name)),
            }
        }
    }
    Ok(())
}

async fn value_of(
    subject: Subject<'_>,
    variable: &EnvVar,
    known: &Environment,
) -> Result<Option<String>, String> {
    match &variable.value_from {
        None => Ok(Some(expand(
            variable.value.as_deref().unwrap_or_default(),
            known,
        ))),
        Some(source) => referred(subject, source).await,
    }
}

async fn referred(subject: Subject<'_>, source: &EnvVarSource) -> Result<Option<String>, String> {
    let Subject {
        cache,
        pod,
        container,
        address,
    } = subject;
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    if let Some(reference) = &source.field_ref {
        return fields::field(pod, address, &reference.field_path).map(Some);
    }
    if let Some(reference) = &source.resource_field_ref {
        return fields::resource(container, reference).map(Some);
    }
    if let Some(reference) = &source.config_map_key_ref {
        let map = cache.config_map(namespace, &reference.name).await?;
        let value = map
            .as_ref()
            .and_then(|m| m.data.as_ref()?.get(&reference.key));
        return found(
            value.cloned(),
            map.is_some(),
            reference.optional,
            ("configmap", &reference.name, &reference.key, namespace),
        );
    }
    if let Some(reference) = &source.secret_key_ref {
        let secret = cache.secret(namespace, &reference.name).await?;
        let value = secret
            .as_ref()
            .and_then(|s| s.data.as_ref()?.get(&reference.key));
        return found(
            value.map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned()),
            secret.is_some(),
            reference.optional,
            ("secret", &reference.name, &reference.key, namespace),
        );
    }
    Ok(None)
}

fn found(
    value: Option<String>,
    object_exists: bool,
    optional: Option<bool>,
    (kind, name, key, namespace): (&str, &str, &str, &str),
) -> Result<Option<String>, String> {
    match value {
        Some(value) => Ok(Some(value)),
        None if optional == Some(true) => Ok(None),
        None if object_exists => Err(format!(
            "couldn't find key {key} in {kind} {namespace}/{name}"
        )),
        None => Err(format!("{kind} \"{name}\" not found")),
    }
}

/// Replaces `$(NAME)` by known values; `$$` stands for `$`; unknown names stay as they are.
pub(crate) fn expand(text: &str, known: &Environment) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest
            .strip_prefix('(')
            .and_then(|inner| inner.split_once(')'))
        {
            match known.get(name) {
                Some(value) => out.push_str(value),
                None => {
                    out.push_str("$(");
                    out.push_str(name);
                    out.push(')');
                }
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

/// The variables that Kubernetes sets for each service of the namespace.
fn service_variables(service: &Service, all: &mut Environment) {
    let Some(spec) = &service.spec else { return };
    let address = match spec.cluster_ip.as_deref() {
        None | Some("" | "None") => return,
        Some(address) => address,
    };
    let name = variable_name(service.metadata.name.as_deref().unwrap_or_default());
    let Some(first) = spec.ports.iter().flatten().next() else {
        return;
    };
    all.insert(format!("{name}_SERVICE_HOST"), address.to_owned());
    all.insert(format!("{name}_SERVICE_PORT"), first.port.to_string());
    for (at, port) in spec.ports.iter().flatten().enumerate() {
        if let Some(port_name) = &port.name {
            let key = format!("{name}_SERVICE_PORT_{}", variable_name(port_name));
            all.insert(key, port.port.to_string());
        }
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let lower = protocol.to_lowercase();
        let url = format!("{lower}://{address}:{}", port.port);
        if at == 0 {
            all.insert(format!("{name}_PORT"), url.clone());
        }
        let prefix = format!("{name}_PORT_{}_{protocol}", port.port);
        all.insert(prefix.clone(), url);
        all.insert(format!("{prefix}_PROTO"), lower);
        all.insert(format!("{prefix}_PORT"), port.port.to_string());
        all.insert(format!("{prefix}_ADDR"), address.to_owned());
    }
}

fn variable_name(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_expanded_as_kubernetes_does() {
        let known: Environment = [("A".to_owned(), "1".to_owned())].into_iter().collect();
        for (text, expected) in [
            ("x$(A)y", "x1y"),
            ("$(B)", "$(B)"),
            ("$$(A)", "$(A)"),
            ("$A $ $(A", "$A $ $(A"),
            ("$(A)$(A)", "11"),
        ] {
            assert_eq!(expand(text, &known), expected, "{text}");
        }
    }

    #[test]
    fn services_give_variables() {
        let service: Service = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "my-db"},
            "spec": {"clusterIP": "10.96.3.4", "ports": [{"name": "sql", "port": 3306}]}
        }))
        .expect("a service");
        let mut all = Environment::new();
        service_variables(&service, &mut all);
        assert_eq!(all["MY_DB_SERVICE_HOST"], "10.96.3.4");
        assert_eq!(all["MY_DB_SERVICE_PORT_SQL"], "3306");
        assert_eq!(all["MY_DB_PORT_3306_TCP"], "tcp://10.96.3.4:3306");
    }
}
