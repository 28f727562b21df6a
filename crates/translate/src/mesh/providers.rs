//! Providers of external authorization: extension providers as written → the model's, with Istio's defaults.

use super::{Mesh, root_namespace};
use crate::names::full_host;
use lateen_api::fields::DurationText;
use lateen_api::mesh_config::providers::{ExtAuthzGrpc, ExtAuthzHttp, RequestBody};
use lateen_base::Str;
use lateen_model::mesh::{AuthzBody, AuthzProtocol, AuthzProvider};
use std::time::Duration;

/// Bound on one check (Istio: 600 s).
const TIMEOUT: Duration = Duration::from_secs(600);

/// Status of the answer when a provider cannot be asked (Istio: 403).
const STATUS: u16 = 403;

/// The providers of external authorization; those of other kinds have no effect.
pub(super) fn providers(mesh: &Mesh) -> Vec<AuthzProvider> {
    let written = mesh.config.extension_providers.iter();
    written
        .filter_map(|provider| {
            let name: Str = provider.name.as_str().into();
            match (
                &provider.envoy_ext_authz_http,
                &provider.envoy_ext_authz_grpc,
            ) {
                (Some(http), _) => Some(by_http(name, http, mesh)),
                (None, Some(grpc)) => Some(by_grpc(name, grpc, mesh)),
                (None, None) => None,
            }
        })
        .collect()
}

fn by_grpc(name: Str, from: &ExtAuthzGrpc, mesh: &Mesh) -> AuthzProvider {
    AuthzProvider {
        name,
        host: host(&from.service, mesh),
        port: port(from.port),
        timeout: timeout(from.timeout.as_ref()),
        fail_open: from.fail_open == Some(true),
        status_on_error: status(from.status_on_error.as_deref()),
        body: from.include_request_body_in_check.map(body),
        clear_route_cache: from.clear_route_cache == Some(true),
        protocol: AuthzProtocol::Grpc,
    }
}

fn by_http(name: Str, from: &ExtAuthzHttp, mesh: &Mesh) -> AuthzProvider {
    let names = |list: &[String]| -> Vec<Str> {
        let lower = list.iter().map(|text| text.to_ascii_lowercase());
        lower.map(Str::from).collect()
    };
    let request = match from.include_request_headers_in_check.is_empty() {
        true => &from.include_headers_in_check,
        false => &from.include_request_headers_in_check,
    };
    let additional = from.include_additional_headers_in_check.iter();
    AuthzProvider {
        name,
        host: host(&from.service, mesh),
        port: port(from.port),
        timeout: timeout(from.timeout.as_ref()),
        fail_open: from.fail_open == Some(true),
        status_on_error: status(from.status_on_error.as_deref()),
        body: from.include_request_body_in_check.map(body),
        clear_route_cache: from.clear_route_cache == Some(true),
        protocol: AuthzProtocol::Http {
            path_prefix: from.path_prefix.as_deref().unwrap_or_default().into(),
            request_headers: names(request),
            additional_headers: additional
                .map(|(name, value)| (name.to_ascii_lowercase().into(), value.as_str().into()))
                .collect(),
            upstream_on_allow: names(&from.headers_to_upstream_on_allow),
            downstream_on_deny: names(&from.headers_to_downstream_on_deny),
            downstream_on_allow: names(&from.headers_to_downstream_on_allow),
        },
    }
}

/// A service's full host. `namespace/` before it says in which namespace a short name is, `name.namespace` and
/// `name.namespace.svc` are short forms; a name alone is one of the root namespace.
fn host(written: &str, mesh: &Mesh) -> Str {
    let root = root_namespace(&mesh.config);
    let (namespace, host) = written.split_once('/').unwrap_or((root, written));
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    match host.strip_suffix(".svc") {
        Some(_) => format!("{host}.{}", mesh.domain).into(),
        None => full_host(&host, namespace, &mesh.domain),
    }
}

/// The port; reading the configuration has refused what is none.
fn port(number: u32) -> u16 {
    u16::try_from(number).unwrap_or_default()
}

fn timeout(written: Option<&DurationText>) -> Duration {
    written
        .and_then(|text| text.parse().ok())
        .unwrap_or(TIMEOUT)
}

fn status(written: Option<&str>) -> u16 {
    written.and_then(|text| text.parse().ok()).unwrap_or(STATUS)
}

fn body(from: RequestBody) -> AuthzBody {
    AuthzBody {
        max_bytes: from.max_request_bytes,
        allow_partial: from.allow_partial_message == Some(true),
        as_bytes: from.pack_as_bytes == Some(true),
    }
}
