//! Gateway → model gateway.

use crate::names::{labels, origin};
use crate::{NOT_YET, Translated};
use lateen_api::gateway::{Gateway as Written, Server as WrittenServer, ServerTlsMode};
use lateen_api::meta::Config;
use lateen_api::notice::{Notice, Subject, any_error};
use lateen_api::validate;
use lateen_model::gateway::{Gateway, Server, ServerHost, ServerProtocol};
use lateen_model::resource::Resource;

/// What a Gateway is translated from.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// The Gateway.
    pub config: &'a Config<Written>,
}

/// Translates a Gateway. Servers that end TLS are kept, but open nothing yet: a notice says so.
pub fn gateway(inputs: Inputs<'_>) -> Translated {
    let Inputs { config } = inputs;
    let mut notices = validate::gateway(config);
    if any_error(&notices) {
        return (Vec::new(), notices);
    }
    let subject = Subject::new("Gateway", &config.meta);
    let servers = config
        .spec
        .servers
        .iter()
        .enumerate()
        .filter_map(|(i, one)| {
            let field = format!("spec.servers[{i}]");
            for (name, is_given) in [
                ("bind", one.bind.is_some()),
                ("defaultEndpoint", one.default_endpoint.is_some()),
            ] {
                if is_given {
                    notices.push(Notice::warning(&subject, format!("{field}.{name}"), NOT_YET));
                }
            }
            let protocol = protocol(one);
            if protocol == ServerProtocol::TlsTerminate {
                let message = "TLS cannot be ended here yet, so this server opens no port: use protocol HTTP, or mode PASSTHROUGH";
                notices.push(Notice::warning(&subject, format!("{field}.tls"), message));
            }
            server(one, &config.meta.namespace, protocol)
        })
        .collect();
    let gateway = Gateway {
        origin: origin("Gateway", &config.meta),
        selector: labels(&config.spec.selector),
        servers,
    };
    crate::done(Resource::Gateway(gateway), notices)
}

/// A server; absent without a port, which validation has refused.
fn server(server: &WrittenServer, namespace: &str, protocol: ServerProtocol) -> Option<Server> {
    let port = server.port.as_ref()?;
    let tls = server.tls.as_ref();
    Some(Server {
        name: server.name.as_deref().unwrap_or_default().into(),
        port: port.number.and_then(|number| u16::try_from(number).ok())?,
        port_name: port.name.as_deref().unwrap_or_default().into(),
        protocol,
        hosts: server.hosts.iter().map(|h| host(h, namespace)).collect(),
        https_redirect: protocol == ServerProtocol::Http
            && tls.is_some_and(|tls| tls.https_redirect == Some(true)),
    })
}

fn protocol(server: &WrittenServer) -> ServerProtocol {
    let written = server.port.as_ref().and_then(|p| p.protocol.as_deref());
    match &*written.unwrap_or_default().to_ascii_uppercase() {
        "HTTPS" | "TLS" => match server.tls.as_ref().and_then(|tls| tls.mode) {
            None | Some(ServerTlsMode::Passthrough) => ServerProtocol::TlsPassthrough,
            // AUTO_PASSTHROUGH routes by names that only other meshes' gateways send: not opened either.
            Some(_) => ServerProtocol::TlsTerminate,
        },
        "TCP" | "MONGO" => ServerProtocol::Tcp,
        _ => ServerProtocol::Http,
    }
}

/// `[namespace/]host`.
fn host(text: &str, namespace: &str) -> ServerHost {
    let (from, name) = text.split_once('/').unwrap_or(("*", text));
    ServerHost {
        namespace: match from {
            "*" => None,
            "." => Some(namespace.into()),
            name => Some(name.into()),
        },
        host: name.trim_end_matches('.').to_ascii_lowercase().into(),
    }
}

#[cfg(test)]
mod tests;
