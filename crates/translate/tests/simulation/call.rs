//! The language of calls.
//!
//! ```text
//! [inbound] GET http://host[:port]/path      tcp://host:port      tls://host[:port]
//! ```
//! and after it any of `header:value`, `dice=N`, `as=PRINCIPAL` (what the caller's certificate proves), `ip=ADDRESS` (of
//! the caller), `claim:NAME=VALUE` (of its verified token; the value may be JSON) and `port=N` (the port that is called
//! where it is not the URL's). `https://` is what `tls://` is, with a method: HTTP inside of TLS.

use lateen_model::decide::authz::Token;
use lateen_model::decide::plan::Direction;
use lateen_model::decide::simulate::{Call, Caller};
use lateen_model::identity::SpiffeId;
use lateen_model::mesh::Role;
use std::net::IpAddr;

/// A call in its parts.
pub struct Spoken {
    pub direction: Direction,
    pub method: http::Method,
    pub url: String,
    port: Option<u16>,
    headers: http::HeaderMap,
    dice: Option<u64>,
    identity: Option<SpiffeId>,
    address: Option<IpAddr>,
    token: Option<Token>,
}

impl Spoken {
    pub fn read(text: &str, role: Role) -> Self {
        let mut words = text.split_whitespace().peekable();
        let inbound = words.next_if_eq(&"inbound").is_some();
        let method = words.next_if(|word| !word.contains("://")).unwrap_or("GET");
        let url = words.next().unwrap_or_else(|| panic!("{text}: no URL"));
        let mut call = Self {
            direction: match role {
                Role::Gateway => Direction::Gateway,
                Role::Sidecar if inbound => Direction::Inbound,
                Role::Sidecar => Direction::Outbound,
            },
            method: method.parse().expect("a method"),
            url: url.replace("tls://", "https://"),
            port: None,
            headers: http::HeaderMap::new(),
            dice: None,
            identity: None,
            address: None,
            token: None,
        };
        for word in words {
            call.word(word);
        }
        call
    }

    fn word(&mut self, word: &str) {
        if let Some(number) = word.strip_prefix("dice=") {
            self.dice = Some(number.parse().expect("a number"));
        } else if let Some(number) = word.strip_prefix("port=") {
            self.port = Some(number.parse().expect("a port"));
        } else if let Some(principal) = word.strip_prefix("as=") {
            let id = SpiffeId::parse(&format!("spiffe://{principal}"));
            self.identity = Some(id.expect("an identity"));
        } else if let Some(address) = word.strip_prefix("ip=") {
            self.address = Some(address.parse().expect("an address"));
        } else if let Some(claim) = word.strip_prefix("claim:") {
            let (name, value) = claim.split_once('=').expect("name=value");
            let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
            let token = self.token.get_or_insert_default();
            token.claims.insert(name.to_owned(), value);
        } else {
            let (name, value) = word
                .split_once(':')
                .unwrap_or_else(|| panic!("{word}: what is it?"));
            let name: http::HeaderName = name.parse().expect("a header's name");
            self.headers
                .append(name, value.parse().expect("a header's value"));
        }
    }

    /// As the simulation takes it.
    pub fn call(&self) -> Call<'_> {
        Call {
            direction: self.direction,
            method: &self.method,
            url: &self.url,
            port: self.port,
            headers: &self.headers,
            dice: self.dice,
            caller: Caller {
                identity: self.identity.clone(),
                address: self.address,
                token: self.token.as_ref(),
                ..Caller::default()
            },
        }
    }
}
