//! A name to its addresses, with the time that they hold (RFC 1034 §5.3, RFC 1035 §7).

use super::settings::hosts;
use super::{AskError, Forwarder, Settings};
use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use std::net::IpAddr;
use std::time::Duration;

/// Addresses of one name that are used; more are left out.
const MOST_ADDRESSES: usize = 64;
/// Aliases that are followed.
const MOST_ALIASES: usize = 16;
/// How long what a file says is held to be true.
const OF_FILE: Duration = Duration::from_secs(5);
/// Bounds on what servers say of an answer's time: a name that changes all the time must not be asked for every request,
/// and a mistake must end at some time.
const TIMES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));
/// Questions of one resolver under way at a time.
const ROOM: usize = 128;

/// Resolves names.
#[derive(Debug)]
pub struct Resolver {
    settings: Settings,
    forwarder: Forwarder,
}

/// What a name resolves to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The addresses in the answer's order, IPv4 first; never empty.
    pub addresses: Vec<IpAddr>,
    /// How long they hold, from now.
    pub ttl: Duration,
}

/// A name has no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// The text is no name.
    #[error("{0:?} is no DNS name")]
    NotAName(String),
    /// There is no such name, or it has no address.
    #[error("the name has no address")]
    NoAddress,
    /// It is not known whether there is.
    #[error(transparent)]
    Unknown(#[from] AskError),
    /// A server failed.
    #[error("the DNS server says {0}")]
    Server(ResponseCode),
}

impl Resolver {
    /// One that resolves as `settings` say.
    pub fn new(settings: Settings) -> Self {
        let forwarder = Forwarder::new(&settings, ROOM);
        Self {
            settings,
            forwarder,
        }
    }

    /// The addresses of a name or literal address. A name with a dot is tried as it is before the domains to search, one
    /// that ends with a dot only as it is.
    ///
    /// # Errors
    /// It is no name, has no address, or nobody tells.
    pub async fn lookup(&self, text: &str) -> Result<Found, LookupError> {
        if let Ok(ip) = text.parse() {
            return Ok(Found {
                addresses: vec![ip],
                ttl: TIMES.1,
            });
        }
        let bare = text.trim_end_matches('.').to_ascii_lowercase();
        let listed = hosts(&self.settings.hosts, &bare);
        if !listed.is_empty() {
            return Ok(Found {
                addresses: listed,
                ttl: OF_FILE,
            });
        }
        let mut trouble = LookupError::NoAddress;
        for candidate in self.candidates(text, &bare) {
            match self.absolute(&candidate).await {
                Ok(found) => return Ok(found),
                Err(LookupError::NoAddress) => {}
                // Another domain must not answer for one that could not be asked.
                Err(error @ LookupError::Unknown(_)) => return Err(error),
                Err(error) => trouble = error,
            }
        }
        Err(trouble)
    }

    fn candidates(&self, text: &str, bare: &str) -> Vec<String> {
        let searched = self.settings.search.iter().map(|d| format!("{bare}.{d}."));
        let own = format!("{bare}.");
        match (text.ends_with('.'), bare.contains('.')) {
            (true, _) => vec![own],
            (false, true) => std::iter::once(own).chain(searched).collect(),
            (false, false) => searched.chain(std::iter::once(own)).collect(),
        }
    }

    async fn absolute(&self, name: &str) -> Result<Found, LookupError> {
        let name = Name::from_ascii(name).map_err(|_| LookupError::NotAName(name.to_owned()))?;
        let (v4, v6) = tokio::join!(
            self.one(&name, RecordType::A),
            self.one(&name, RecordType::AAAA)
        );
        match (v4, v6) {
            (Ok(mut v4), Ok(v6)) => {
                v4.addresses.extend(v6.addresses);
                v4.ttl = v4.ttl.min(v6.ttl);
                Ok(v4)
            }
            (Ok(found), Err(_)) | (Err(LookupError::NoAddress), Ok(found)) => Ok(found),
            (Err(_), Ok(found)) => Ok(found),
            (Err(LookupError::NoAddress), Err(error)) | (Err(error), Err(_)) => Err(error),
        }
    }

    async fn one(&self, name: &Name, kind: RecordType) -> Result<Found, LookupError> {
        let mut question = Message::query();
        question.metadata.recursion_desired = true;
        question.add_query(Query::query(name.clone(), kind));
        let not_a_name = |_| LookupError::NotAName(name.to_string());
        let bytes = question.to_vec().map_err(not_a_name)?;
        let mut answer = self.read(&bytes, false).await?;
        if answer.metadata.truncation {
            answer = self.read(&bytes, true).await?;
        }
        match answer.metadata.response_code {
            ResponseCode::NoError => addresses(&answer, name),
            ResponseCode::NXDomain => Err(LookupError::NoAddress),
            code => Err(LookupError::Server(code)),
        }
    }

    async fn read(&self, question: &[u8], over_tcp: bool) -> Result<Message, LookupError> {
        let bytes = self.forwarder.ask(question, over_tcp).await?;
        Message::from_vec(&bytes).map_err(|_| LookupError::Server(ResponseCode::FormErr))
    }
}

/// Addresses of `name` and of what it is an alias for; others that a server adds do not count.
fn addresses(answer: &Message, name: &Name) -> Result<Found, LookupError> {
    let mut owner = name.clone();
    let mut ttl = u32::MAX;
    for _ in 0..MOST_ALIASES {
        let mut found = Vec::new();
        let mut alias = None;
        for record in answer.answers.iter().filter(|r| r.name == owner) {
            match &record.data {
                RData::A(a) => found.push(IpAddr::V4(a.0)),
                RData::AAAA(a) => found.push(IpAddr::V6(a.0)),
                RData::CNAME(to) => alias = Some(to.0.clone()),
                _ => continue,
            }
            ttl = ttl.min(record.ttl);
        }
        if !found.is_empty() {
            found.truncate(MOST_ADDRESSES);
            let ttl = Duration::from_secs(ttl.into());
            return Ok(Found {
                addresses: found,
                ttl: ttl.clamp(TIMES.0, TIMES.1),
            });
        }
        match alias {
            Some(next) => owner = next,
            None => break,
        }
    }
    Err(LookupError::NoAddress)
}
