//! Addresses of names that ServiceEntries give (resolution `DNS`), through the system's resolver, kept for a while.

use lateen_base::Str;
use lateen_model::decide::cluster::NamedEndpoint;
use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::Instant;

/// How long an answer is used. The system's resolver does not tell the record's own time to live.
const KEEP: Duration = Duration::from_secs(30);
/// How soon a failed name is asked again.
const KEEP_FAILURE: Duration = Duration::from_secs(2);
/// Bound on asking.
const PATIENCE: Duration = Duration::from_secs(5);
/// Names kept: a bound, not a tuning.
const MOST: usize = 1024;

/// A worker's resolved names.
#[derive(Debug, Default)]
pub(super) struct Names(RefCell<HashMap<Str, Answer>>);

#[derive(Debug, Clone)]
struct Answer {
    addresses: Vec<SocketAddr>,
    until: Instant,
}

impl Names {
    /// Addresses of every host with its port, and whose they are; a host that does not resolve adds none. A stale answer
    /// is used while the name cannot be resolved anew.
    pub(super) async fn resolve<'h>(
        &self,
        hosts: &'h [NamedEndpoint],
    ) -> Vec<(SocketAddr, &'h NamedEndpoint)> {
        let mut all = Vec::new();
        for named in hosts {
            for mut address in self.one(&named.host).await {
                address.set_port(named.port);
                all.push((address, named));
            }
        }
        all
    }

    async fn one(&self, host: &Str) -> Vec<SocketAddr> {
        let held = self.0.borrow().get(host).cloned();
        if let Some(answer) = held.as_ref().filter(|a| a.until > Instant::now()) {
            return answer.addresses.clone();
        }
        let found = tokio::time::timeout(PATIENCE, tokio::net::lookup_host((&**host, 0))).await;
        let answer = match found {
            Ok(Ok(addresses)) => Answer {
                addresses: addresses.collect(),
                until: Instant::now() + KEEP,
            },
            failed => {
                let reason = match failed {
                    Ok(Err(error)) => error.to_string(),
                    _ => "no answer in time".to_owned(),
                };
                tracing::warn!("cannot resolve {host}: {reason}");
                let addresses = held.map(|a| a.addresses).unwrap_or_default();
                Answer {
                    addresses,
                    until: Instant::now() + KEEP_FAILURE,
                }
            }
        };
        let mut names = self.0.borrow_mut();
        if names.len() >= MOST {
            names.clear();
        }
        names.insert(host.clone(), answer.clone());
        answer.addresses
    }
}
