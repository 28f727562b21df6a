//! Settings of the mesh.

use super::parts::{
    Read, Within, bad, duration, each, known, named, narrow, optional, pairs, port, read_duration,
    read_pairs, required, strs, text, texts,
};
use super::{scope, tls, traffic};
use lateen_model::mesh::{
    AuthzBody, AuthzProtocol, AuthzProvider, ForwardClientCert, MeshSettings, PathNormalization,
    TrafficDefaults,
};
use lateen_proto::mesh as proto;

pub(super) fn encode(from: &MeshSettings) -> proto::MeshSettings {
    proto::MeshSettings {
        outbound: scope::mode(Some(from.outbound)),
        access_log: from.access_log,
        access_log_format: optional(&from.access_log_format),
        domain: text(&from.domain),
        root_namespace: text(&from.root_namespace),
        trust_domain: text(&from.trust_domain),
        trust_domain_aliases: texts(&from.trust_domain_aliases),
        auto_mtls: from.auto_mtls,
        mesh_tls_min: tls::version(from.mesh_tls_min),
        path_normalization: match from.path_normalization {
            PathNormalization::None => proto::PathNormalization::None,
            PathNormalization::Base => proto::PathNormalization::Base,
            PathNormalization::MergeSlashes => proto::PathNormalization::MergeSlashes,
            PathNormalization::DecodeAndMergeSlashes => {
                proto::PathNormalization::DecodeAndMergeSlashes
            }
        }
        .into(),
        trusted_proxies: from.trusted_proxies,
        proxy_protocol: from.proxy_protocol,
        forward_client_cert: match from.forward_client_cert {
            ForwardClientCert::Sanitize => proto::ForwardClientCert::Sanitize,
            ForwardClientCert::ForwardOnly => proto::ForwardClientCert::ForwardOnly,
            ForwardClientCert::AppendForward => proto::ForwardClientCert::AppendForward,
            ForwardClientCert::SanitizeSet => proto::ForwardClientCert::SanitizeSet,
            ForwardClientCert::AlwaysForwardOnly => proto::ForwardClientCert::AlwaysForwardOnly,
        }
        .into(),
        authz_providers: from.authz_providers.iter().map(encode_provider).collect(),
        traffic: Some(encode_traffic(&from.traffic)),
    }
}

fn encode_traffic(from: &TrafficDefaults) -> proto::TrafficDefaults {
    proto::TrafficDefaults {
        locality: Some(traffic::encode_locality(&from.locality)),
        connect_timeout: duration(Some(from.connect_timeout)),
        keepalive: from.keepalive.map(traffic::encode_keepalive),
        h2_upgrade: from.h2_upgrade,
        pool: from.pool.as_ref().map(traffic::encode_pool),
        outlier: from.outlier.as_ref().map(traffic::encode_outlier),
    }
}

// A control plane of before sends none.
fn decode_traffic(from: Option<proto::TrafficDefaults>) -> Read<TrafficDefaults> {
    let usual = TrafficDefaults::default();
    let Some(from) = from else {
        return Ok(usual);
    };
    let outlier = from.outlier.map(traffic::decode_outlier).transpose();
    Ok(TrafficDefaults {
        locality: from
            .locality
            .map_or(usual.locality, traffic::decode_locality),
        connect_timeout: read_duration(from.connect_timeout).unwrap_or(usual.connect_timeout),
        keepalive: from.keepalive.map(traffic::decode_keepalive),
        h2_upgrade: from.h2_upgrade,
        pool: from.pool.map(traffic::decode_pool),
        outlier: outlier.within("outlier")?,
    })
}

fn encode_provider(from: &AuthzProvider) -> proto::AuthzProvider {
    proto::AuthzProvider {
        name: text(&from.name),
        host: text(&from.host),
        port: from.port.into(),
        timeout: duration(Some(from.timeout)),
        fail_open: from.fail_open,
        status_on_error: from.status_on_error.into(),
        body: from.body.map(|b| proto::AuthzBody {
            max_bytes: b.max_bytes,
            allow_partial: b.allow_partial,
            as_bytes: b.as_bytes,
        }),
        clear_route_cache: from.clear_route_cache,
        protocol: Some(match &from.protocol {
            AuthzProtocol::Grpc => proto::authz_provider::Protocol::Grpc(proto::AuthzGrpc {}),
            AuthzProtocol::Http {
                path_prefix,
                request_headers,
                additional_headers,
                upstream_on_allow,
                downstream_on_deny,
                downstream_on_allow,
            } => proto::authz_provider::Protocol::Http(proto::AuthzHttp {
                path_prefix: text(path_prefix),
                request_headers: texts(request_headers),
                additional_headers: pairs(additional_headers),
                upstream_on_allow: texts(upstream_on_allow),
                downstream_on_deny: texts(downstream_on_deny),
                downstream_on_allow: texts(downstream_on_allow),
            }),
        }),
    }
}

pub(super) fn decode(from: proto::MeshSettings) -> Read<MeshSettings> {
    let paths = match from.path_normalization() {
        proto::PathNormalization::Unspecified => None,
        proto::PathNormalization::None => Some(PathNormalization::None),
        proto::PathNormalization::Base => Some(PathNormalization::Base),
        proto::PathNormalization::MergeSlashes => Some(PathNormalization::MergeSlashes),
        proto::PathNormalization::DecodeAndMergeSlashes => {
            Some(PathNormalization::DecodeAndMergeSlashes)
        }
    };
    let forward = match from.forward_client_cert() {
        proto::ForwardClientCert::Unspecified => None,
        proto::ForwardClientCert::Sanitize => Some(ForwardClientCert::Sanitize),
        proto::ForwardClientCert::ForwardOnly => Some(ForwardClientCert::ForwardOnly),
        proto::ForwardClientCert::AppendForward => Some(ForwardClientCert::AppendForward),
        proto::ForwardClientCert::SanitizeSet => Some(ForwardClientCert::SanitizeSet),
        proto::ForwardClientCert::AlwaysForwardOnly => Some(ForwardClientCert::AlwaysForwardOnly),
    };
    let outbound = scope::read_mode(from.outbound)?;
    Ok(MeshSettings {
        outbound: known(outbound, from.outbound, "outbound")?,
        access_log: from.access_log,
        access_log_format: from.access_log_format.map(Into::into),
        domain: named(&from.domain, "domain")?,
        root_namespace: named(&from.root_namespace, "root_namespace")?,
        trust_domain: named(&from.trust_domain, "trust_domain")?,
        trust_domain_aliases: strs(from.trust_domain_aliases),
        auto_mtls: from.auto_mtls,
        mesh_tls_min: tls::read_version(from.mesh_tls_min, "mesh_tls_min")?,
        path_normalization: known(paths, from.path_normalization, "path_normalization")?,
        trusted_proxies: from.trusted_proxies,
        proxy_protocol: from.proxy_protocol,
        forward_client_cert: known(forward, from.forward_client_cert, "forward_client_cert")?,
        authz_providers: each(from.authz_providers, "authz_providers", decode_provider)?,
        traffic: decode_traffic(from.traffic).within("traffic")?,
    })
}

fn decode_provider(from: proto::AuthzProvider) -> Read<AuthzProvider> {
    let status: u16 = narrow(from.status_on_error, "status_on_error")?;
    if !(100..=599).contains(&status) {
        let reason = format!("{status} is no HTTP status");
        return Err(bad("status_on_error", reason));
    }
    Ok(AuthzProvider {
        name: named(&from.name, "name")?,
        host: named(&from.host, "host")?,
        port: port(from.port, "port")?,
        timeout: required(read_duration(from.timeout), "timeout")?,
        fail_open: from.fail_open,
        status_on_error: status,
        body: from.body.map(|b| AuthzBody {
            max_bytes: b.max_bytes,
            allow_partial: b.allow_partial,
            as_bytes: b.as_bytes,
        }),
        clear_route_cache: from.clear_route_cache,
        protocol: match required(from.protocol, "protocol")? {
            proto::authz_provider::Protocol::Grpc(_) => AuthzProtocol::Grpc,
            proto::authz_provider::Protocol::Http(http) => decode_http(http).within("http")?,
        },
    })
}

fn decode_http(from: proto::AuthzHttp) -> Read<AuthzProtocol> {
    Ok(AuthzProtocol::Http {
        path_prefix: from.path_prefix.into(),
        request_headers: strs(from.request_headers),
        additional_headers: read_pairs(from.additional_headers, "additional_headers")?,
        upstream_on_allow: strs(from.upstream_on_allow),
        downstream_on_deny: strs(from.downstream_on_deny),
        downstream_on_allow: strs(from.downstream_on_allow),
    })
}
