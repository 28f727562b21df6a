//! Whom to ask: `/etc/resolv.conf` and `/etc/hosts`, read as the C library reads them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Servers that are asked (resolv.conf(5): at most three).
const MOST_SERVERS: usize = 3;
/// Domains that are searched; more are left out (resolv.conf(5): six, newer C libraries any number).
const MOST_DOMAINS: usize = 16;

/// How names are resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Servers, in the order in which they are asked.
    pub servers: Vec<SocketAddr>,
    /// Domains that short names are tried in, in order, without dots at their ends.
    pub search: Vec<String>,
    /// How long one server may take.
    pub timeout: Duration,
    /// How often each server is asked.
    pub attempts: usize,
    /// File with names that need no server; missing: there are none.
    pub hosts: PathBuf,
}

impl Settings {
    /// The machine's settings.
    pub fn system() -> Self {
        let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        Self::parse(&text)
    }

    /// Settings by the text of a `resolv.conf`. Without a server in it, this machine's own is asked (resolv.conf(5)).
    pub fn parse(text: &str) -> Self {
        let mut settings = Self {
            servers: Vec::new(),
            search: Vec::new(),
            timeout: Duration::from_secs(2),
            attempts: 2,
            hosts: PathBuf::from("/etc/hosts"),
        };
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => settings.server(words.next()),
                Some("search" | "domain") => {
                    let domains = words.map(|w| w.trim_matches('.').to_ascii_lowercase());
                    let domains = domains.filter(|w| !w.is_empty()).take(MOST_DOMAINS);
                    settings.search = domains.collect();
                }
                Some("options") => words.for_each(|word| settings.option(word)),
                _ => {}
            }
        }
        if settings.servers.is_empty() {
            let own = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 53);
            settings.servers.push(own);
        }
        settings
    }

    fn server(&mut self, word: Option<&str>) {
        let ip = word.and_then(|word| word.parse::<IpAddr>().ok());
        if let Some(ip) = ip.filter(|_| self.servers.len() < MOST_SERVERS) {
            self.servers.push(SocketAddr::new(ip, 53));
        }
    }

    fn option(&mut self, word: &str) {
        let Some((name, value)) = word.split_once(':') else {
            return;
        };
        let Ok(value) = value.parse::<u8>() else {
            return;
        };
        match name {
            // What is longer than our own callers wait for helps nobody.
            "timeout" => self.timeout = Duration::from_secs(value.clamp(1, 5).into()),
            "attempts" => self.attempts = value.clamp(1, 5).into(),
            _ => {}
        }
    }
}

/// Addresses that a hosts file gives a name (in lower case, without dot at the end).
pub(super) fn hosts(file: &Path, name: &str) -> Vec<IpAddr> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let mut found = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_whitespace();
        let Some(Ok(ip)) = words.next().map(str::parse) else {
            continue;
        };
        if words.any(|word| word.eq_ignore_ascii_case(name)) && !found.contains(&ip) {
            found.push(ip);
        }
    }
    found
}
