//! What rules look at, and its values for one connection or request.

use super::RequestFacts;
use crate::decide::host::{canonical, port_of};
use crate::decide::matcher::split_path;
use crate::decide::plan::{ConnectionFacts, Peer};
use crate::security::Attribute;
use lateen_base::Str;
use serde_json::Value as Json;
use std::borrow::Cow;
use std::cell::OnceCell;
use std::net::IpAddr;

/// Something that rules test.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Attr {
    Principal,
    Namespace,
    /// As `namespace/name`.
    Account,
    TrustDomain,
    RequestPrincipal,
    SourceIp,
    RemoteIp,
    DestinationIp,
    Port,
    Host,
    Method,
    Path,
    /// Its name, lower case.
    Header(Str),
    Audience,
    Presenter,
    /// Names from the outermost on.
    Claim(Vec<Str>),
    ServerName,
}

impl Attr {
    /// Whether only HTTP requests have it. A connection's remote address is its source address.
    pub fn is_http(&self) -> bool {
        matches!(
            self,
            Self::RequestPrincipal
                | Self::Host
                | Self::Method
                | Self::Path
                | Self::Header(_)
                | Self::Audience
                | Self::Presenter
                | Self::Claim(_)
        )
    }

    pub fn is_address(&self) -> bool {
        matches!(self, Self::SourceIp | Self::RemoteIp | Self::DestinationIp)
    }
}

impl From<&Attribute> for Attr {
    fn from(attribute: &Attribute) -> Self {
        match attribute {
            Attribute::RequestHeader(name) => Self::Header(name.to_ascii_lowercase().into()),
            Attribute::SourceIp => Self::SourceIp,
            Attribute::RemoteIp => Self::RemoteIp,
            Attribute::SourceNamespace => Self::Namespace,
            Attribute::SourceServiceAccount => Self::Account,
            Attribute::SourceTrustDomain => Self::TrustDomain,
            Attribute::SourcePrincipal => Self::Principal,
            Attribute::RequestPrincipal => Self::RequestPrincipal,
            Attribute::RequestAudiences => Self::Audience,
            Attribute::RequestPresenter => Self::Presenter,
            Attribute::RequestClaim(path) => Self::Claim(path.clone()),
            Attribute::DestinationIp => Self::DestinationIp,
            Attribute::DestinationPort => Self::Port,
            Attribute::ServerName => Self::ServerName,
        }
    }
}

/// One value of an attribute.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value<'a> {
    Text(&'a str),
    /// Canonical, and with the port that was called.
    Host(&'a str, &'a str),
    Ip(IpAddr),
    Port(u16),
}

/// A connection or request under examination.
pub(super) struct Facts<'a> {
    pub connection: &'a ConnectionFacts,
    pub peer: &'a Peer,
    /// Absent: bytes.
    pub request: Option<&'a RequestFacts<'a>>,
    /// The request's path without query, canonical.
    path: &'a str,
    account: OnceCell<Option<String>>,
    host: OnceCell<(Cow<'a, str>, String)>,
}

impl<'a> Facts<'a> {
    /// `target` is the canonical path with query; any, without request.
    pub fn new(
        connection: &'a ConnectionFacts,
        peer: &'a Peer,
        request: Option<&'a RequestFacts<'a>>,
        target: &'a str,
    ) -> Self {
        Self {
            connection,
            peer,
            request,
            path: split_path(target).0,
            account: OnceCell::new(),
            host: OnceCell::new(),
        }
    }

    /// Whether `test` says yes to any value of `attr`.
    pub fn any(&self, attr: &Attr, mut test: impl FnMut(Value<'_>) -> bool) -> bool {
        let identity = self.peer.identity.as_ref();
        let head = self.request.map(|r| &r.head);
        let token = self.request.and_then(|r| r.token);
        let text = match attr {
            Attr::Principal => identity.map(|id| id.principal()),
            Attr::Namespace => identity.and_then(|id| id.namespace()),
            Attr::Account => self.account(),
            Attr::TrustDomain => identity.map(|id| id.trust_domain()),
            Attr::RequestPrincipal => token.and_then(|t| t.principal.as_deref()),
            Attr::Presenter => token.and_then(|t| t.presenter.as_deref()),
            Attr::Method => head.map(|h| h.method.as_str()),
            Attr::Path => head.map(|_| self.path),
            Attr::ServerName => Some(&*self.peer.server_name).filter(|name| !name.is_empty()),
            Attr::SourceIp => return test(Value::Ip(self.connection.source.ip())),
            Attr::DestinationIp => return test(Value::Ip(self.connection.destination.ip())),
            Attr::RemoteIp => {
                let source = self.connection.source.ip();
                return test(Value::Ip(self.request.map_or(source, |r| r.remote)));
            }
            Attr::Port => return test(Value::Port(self.connection.destination.port())),
            Attr::Host => {
                let (host, full) = self.host();
                return head.is_some() && test(Value::Host(host, full));
            }
            Attr::Header(name) => {
                let lines = head.map(|h| h.headers.get_all(&**name));
                let mut lines = lines.into_iter().flatten();
                return lines.any(|v| test(Value::Text(&String::from_utf8_lossy(v.as_bytes()))));
            }
            Attr::Audience => {
                let all = token.map_or(&[][..], |t| &t.audiences);
                return all.iter().any(|a| test(Value::Text(a)));
            }
            Attr::Claim(path) => {
                let Some((first, rest)) = path.split_first() else {
                    return false;
                };
                let found = token.and_then(|t| t.claims.get(&**first));
                let deep = rest
                    .iter()
                    .try_fold(found, |at, name| Some(at?.as_object()?.get(&**name)));
                return match deep.flatten() {
                    Some(Json::String(text)) => test(Value::Text(text)),
                    Some(Json::Array(all)) => {
                        let mut texts = all.iter().filter_map(Json::as_str);
                        texts.any(|text| test(Value::Text(text)))
                    }
                    _ => false,
                };
            }
        };
        text.is_some_and(|text| test(Value::Text(text)))
    }

    fn account(&self) -> Option<&str> {
        let make = || {
            let identity = self.peer.identity.as_ref()?;
            Some(format!(
                "{}/{}",
                identity.namespace()?,
                identity.service_account()?
            ))
        };
        self.account.get_or_init(make).as_deref()
    }

    /// The host, and the host with the port that was called: the given one, else the scheme's own.
    fn host(&self) -> (&str, &str) {
        let make = || {
            let Some(head) = self.request.map(|r| r.head) else {
                return (Cow::Borrowed(""), String::new());
            };
            let usual = if head.scheme == "https" { 443 } else { 80 };
            let host = canonical(head.authority);
            let port = port_of(head.authority).unwrap_or(usual);
            let full = match host.contains(':') {
                true => format!("[{host}]:{port}"),
                false => format!("{host}:{port}"),
            };
            (host, full)
        };
        let (host, full) = self.host.get_or_init(make);
        (host, full)
    }
}
