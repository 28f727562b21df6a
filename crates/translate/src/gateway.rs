//! Gateway → model gateway.

use crate::names::{labels, origin};
use crate::{Translated, tls};
use lateen_api::gateway::{Gateway as Written, Server as WrittenServer, ServerTlsMode};
use lateen_api::meta::Config;
use lateen_api::notice::{Notice, Subject, any_error};
use lateen_api::validate;
use lateen_model::gateway::{Gateway, Server, ServerHost, ServerProtocol};
use lateen_model::resource::Resource;
use lateen_model::tls as tls_model;
use std::net::IpAddr;

/// What a Gateway is translated from.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// The Gateway.
    pub config: &'a Config<Written>,
}

/// Translates a Gateway. A server that cannot be opened is left out, with a notice.
pub fn gateway(inputs: Inputs<'_>) -> Translated {
    let Inputs { config } = inputs;
    let mut notices = validate::gateway(config);
    if any_error(&notices) {
        return (Vec::new(), notices);
    }
    let mut reading = Reading {
        subject: Subject::new("Gateway", &config.meta),
        notices: &mut notices,
    };
    let servers = config.spec.servers.iter().enumerate();
    let servers = servers
        .filter_map(|(i, one)| reading.server(one, &config.meta.namespace, i))
        .collect();
    let gateway = Gateway {
        origin: origin("Gateway", &config.meta),
        selector: labels(&config.spec.selector),
        servers,
    };
    crate::done(Resource::Gateway(gateway), notices)
}

struct Reading<'a> {
    subject: Subject,
    notices: &'a mut Vec<Notice>,
}

impl Reading<'_> {
    /// A server; absent when it opens nothing, or has no port, which validation has refused.
    fn server(&mut self, server: &WrittenServer, namespace: &str, at: usize) -> Option<Server> {
        let field = format!("spec.servers[{at}]");
        if server.default_endpoint.is_some() {
            let message = "has no effect, as in Istio: bind a VirtualService to the Gateway";
            self.warn(format!("{field}.defaultEndpoint"), message);
        }
        let bind = self.bind(server.bind.as_deref(), &field)?;
        let port = server.port.as_ref()?;
        let settings = server.tls.as_ref();
        let (protocol, mode) = protocol(server);
        let tls = settings.zip(mode).map(|(settings, mode)| {
            let field = format!("{field}.tls");
            tls::server(settings, mode, &field, &self.subject, self.notices)
        });
        Some(Server {
            name: server.name.as_deref().unwrap_or_default().into(),
            port: port.number.and_then(|number| u16::try_from(number).ok())?,
            port_name: port.name.as_deref().unwrap_or_default().into(),
            protocol,
            hosts: server.hosts.iter().map(|h| host(h, namespace)).collect(),
            https_redirect: protocol == ServerProtocol::Http
                && settings.is_some_and(|tls| tls.https_redirect == Some(true)),
            bind,
            tls,
        })
    }

    /// The address to listen on; outer `None`: the server cannot be opened.
    fn bind(&mut self, bind: Option<&str>, field: &str) -> Option<Option<IpAddr>> {
        let Some(text) = bind.filter(|text| !text.is_empty()) else {
            return Some(None);
        };
        match text.parse::<IpAddr>() {
            Ok(ip) if ip.is_unspecified() => Some(None),
            Ok(ip) => Some(Some(ip)),
            Err(_) => {
                let message = "is no IP address, so this server opens no port (sockets are not served): use an address of the gateway's pod";
                self.warn(format!("{field}.bind"), message);
                None
            }
        }
    }

    fn warn(&mut self, field: String, message: &str) {
        self.notices
            .push(Notice::warning(&self.subject, field, message));
    }
}

/// What a server speaks, and the mode when TLS ends there.
fn protocol(server: &WrittenServer) -> (ServerProtocol, Option<tls_model::ServerTlsMode>) {
    let written = server.port.as_ref().and_then(|p| p.protocol.as_deref());
    let mode = server.tls.as_ref().and_then(tls::server_mode);
    let settings = server.tls.as_ref();
    if settings.and_then(|tls| tls.mode) == Some(ServerTlsMode::AutoPassthrough) {
        return (ServerProtocol::TlsAutoPassthrough, None);
    }
    match (&*written.unwrap_or_default().to_ascii_uppercase(), mode) {
        ("HTTPS" | "TLS", None) => (ServerProtocol::TlsPassthrough, None),
        ("HTTPS", Some(mode)) => (ServerProtocol::Https, Some(mode)),
        ("TLS", Some(mode)) => (ServerProtocol::TlsTerminate, Some(mode)),
        ("TCP" | "MONGO", _) => (ServerProtocol::Tcp, None),
        _ => (ServerProtocol::Http, None),
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
