//! Gateways.

use super::parts::{
    Read, Within, bad, each, ip, known, labels, map, named, optional, origin, port, read_ip,
    read_origin, text,
};
use super::tls;
use lateen_model::gateway::{Gateway, Server, ServerHost, ServerProtocol};
use lateen_proto::mesh as proto;

pub(super) fn encode(from: &Gateway) -> proto::Gateway {
    proto::Gateway {
        origin: origin(&from.origin),
        selector: map(&from.selector),
        servers: from.servers.iter().map(encode_server).collect(),
    }
}

fn encode_server(from: &Server) -> proto::Server {
    proto::Server {
        name: text(&from.name),
        port: from.port.into(),
        port_name: text(&from.port_name),
        protocol: match from.protocol {
            ServerProtocol::Http => proto::ServerProtocol::Http,
            ServerProtocol::Tcp => proto::ServerProtocol::Tcp,
            ServerProtocol::TlsPassthrough => proto::ServerProtocol::TlsPassthrough,
            ServerProtocol::TlsTerminate => proto::ServerProtocol::TlsTerminate,
            ServerProtocol::Https => proto::ServerProtocol::Https,
            ServerProtocol::TlsAutoPassthrough => proto::ServerProtocol::TlsAutoPassthrough,
        }
        .into(),
        hosts: from
            .hosts
            .iter()
            .map(|h| proto::ServerHost {
                namespace: optional(&h.namespace),
                host: text(&h.host),
            })
            .collect(),
        https_redirect: from.https_redirect,
        tls: from.tls.as_ref().map(tls::encode_server),
        bind: from.bind.map(ip).unwrap_or_default(),
    }
}

pub(super) fn decode(from: proto::Gateway) -> Read<Gateway> {
    if from.selector.is_empty() {
        return Err(bad("selector", "it is empty: it would select every proxy"));
    }
    Ok(Gateway {
        origin: read_origin(from.origin)?,
        selector: labels(from.selector),
        servers: each(from.servers, "servers", decode_server)?,
    })
}

fn decode_server(from: proto::Server) -> Read<Server> {
    let protocol = match from.protocol() {
        proto::ServerProtocol::Unspecified => None,
        proto::ServerProtocol::Http => Some(ServerProtocol::Http),
        proto::ServerProtocol::Tcp => Some(ServerProtocol::Tcp),
        proto::ServerProtocol::TlsPassthrough => Some(ServerProtocol::TlsPassthrough),
        proto::ServerProtocol::TlsTerminate => Some(ServerProtocol::TlsTerminate),
        proto::ServerProtocol::Https => Some(ServerProtocol::Https),
        proto::ServerProtocol::TlsAutoPassthrough => Some(ServerProtocol::TlsAutoPassthrough),
    };
    let protocol = known(protocol, from.protocol, "protocol")?;
    let ends_tls = matches!(
        protocol,
        ServerProtocol::Https | ServerProtocol::TlsTerminate
    );
    if ends_tls != from.tls.is_some() {
        return Err(bad("tls", "it is there exactly when TLS ends here"));
    }
    Ok(Server {
        protocol,
        name: from.name.into(),
        port: port(from.port, "port")?,
        port_name: from.port_name.into(),
        hosts: each(from.hosts, "hosts", |h| {
            Ok(ServerHost {
                namespace: h.namespace.map(Into::into),
                host: named(&h.host, "host")?,
            })
        })?,
        https_redirect: from.https_redirect,
        bind: match &from.bind[..] {
            [] => None,
            bytes => Some(read_ip(bytes, "bind")?),
        },
        tls: from.tls.map(tls::decode_server).transpose().within("tls")?,
    })
}
