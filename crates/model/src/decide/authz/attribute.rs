//! What rules look at, and its values for one connection or request.

use super::{RequestFacts, Token};
use crate::decide::host::{canonical, port_of};
use crate::decide::matcher::split_path;
use crate::decide::plan::{ConnectionFacts, Peer};
use crate::security::Attribute;
use lateen_base::Str;
use serde_json::Value as Json;
use std::borrow::Cow;
use std::cell::OnceCell;
use std::net::IpAddr;

/// What is between issuer and subject: no claim has it, while issuers have slashes.
pub(super) const BETWEEN: char = '\0';

/// Something that rules test.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Attr {
    Principal,
    Namespace,
    /// As `namespace/name`.
    Account,
    TrustDomain,
    /// Issuer and subject with [`BETWEEN`] between them.
    RequestPrincipal,
    SourceIp,
    RemoteIp,
    DestinationIp,
    Port,
    Host,
    Method,
    Path,
    /// The path with its query.
    Target,
    Scheme,
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
                | Self::Target
                | Self::Scheme
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
            Attribute::RequestHeader(name) => match name.to_ascii_lowercase().as_str() {
                ":authority" | "host" => Self::Host,
                ":method" => Self::Method,
                ":path" => Self::Target,
                ":scheme" => Self::Scheme,
                name => Self::Header(name.into()),
            },
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
    Host(Host<'a>),
    Ip(IpAddr),
    Port(u16),
}

/// The host of a request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Host<'a> {
    /// Canonical.
    pub name: &'a str,
    /// With the port that was called.
    pub full: &'a str,
    /// Whether the port goes without saying: none is given, or the scheme's own.
    pub plain: bool,
}

/// A connection or request under examination.
pub(super) struct Facts<'a> {
    pub connection: &'a ConnectionFacts,
    pub peer: &'a Peer,
    /// Absent: bytes.
    pub request: Option<&'a RequestFacts<'a>>,
    /// The request's path with query, canonical.
    target: &'a str,
    account: OnceCell<Option<String>>,
    caller: OnceCell<Option<String>>,
    host: OnceCell<(Cow<'a, str>, String, bool)>,
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
            target,
            account: OnceCell::new(),
            caller: OnceCell::new(),
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
            Attr::RequestPrincipal => token.and_then(|t| self.caller(t)),
            Attr::Presenter => token.and_then(|t| t.presenter.as_deref()),
            Attr::Method => head.map(|h| h.method.as_str()),
            Attr::Path => head.map(|_| split_path(self.target).0),
            Attr::Target => head.map(|_| self.target),
            Attr::Scheme => head.map(|h| h.scheme),
            Attr::ServerName => Some(&*self.peer.server_name).filter(|name| !name.is_empty()),
            Attr::SourceIp => return test(Value::Ip(self.connection.source.ip())),
            Attr::DestinationIp => return test(Value::Ip(self.connection.destination.ip())),
            Attr::RemoteIp => {
                let source = self.connection.source.ip();
                return test(Value::Ip(self.request.map_or(source, |r| r.remote)));
            }
            Attr::Port => return test(Value::Port(self.connection.destination.port())),
            Attr::Host => {
                return head.is_some() && test(Value::Host(self.host()));
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
            Attr::Claim(path) => return token.is_some_and(|t| claim(t, path, test)),
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

    /// Issuer and subject.
    fn caller(&self, token: &Token) -> Option<&str> {
        let make = || {
            let (issuer, subject) = token.issuer_and_subject()?;
            Some(format!("{issuer}{BETWEEN}{subject}"))
        };
        self.caller.get_or_init(make).as_deref()
    }

    /// The host; its port is the given one, else the scheme's own.
    fn host(&self) -> Host<'_> {
        let make = || {
            let Some(head) = self.request.map(|r| r.head) else {
                return (Cow::Borrowed(""), String::new(), true);
            };
            let usual = if head.scheme == "https" { 443 } else { 80 };
            let host = canonical(head.authority);
            let port = port_of(head.authority).unwrap_or(usual);
            let full = match host.contains(':') {
                true => format!("[{host}]:{port}"),
                false => format!("{host}:{port}"),
            };
            (host, full, port == usual)
        };
        let (name, full, plain) = self.host.get_or_init(make);
        Host {
            name,
            full,
            plain: *plain,
        }
    }
}

/// Whether `test` says yes to a text of a claim, or to one of a list.
pub(super) fn claim(token: &Token, path: &[Str], mut test: impl FnMut(Value<'_>) -> bool) -> bool {
    let Some((first, rest)) = path.split_first() else {
        return false;
    };
    let found = token.claims.get(&**first);
    let deep = rest
        .iter()
        .try_fold(found, |at, name| Some(at?.as_object()?.get(&**name)));
    match deep.flatten() {
        Some(Json::String(text)) => test(Value::Text(text)),
        Some(Json::Array(all)) => {
            let mut texts = all.iter().filter_map(Json::as_str);
            texts.any(|text| test(Value::Text(text)))
        }
        _ => false,
    }
}
