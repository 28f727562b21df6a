//! Which rules a simulated request meets, by its host.

use super::Case;
use crate::decide::plan::Direction;
use crate::decide::routes::Rules;
use crate::decide::{gateway, outbound};

/// Rules in force for the host, and a sentence on how they were found.
pub(super) fn rules_of<'s>(
    case: &Case<'s>,
    host: &str,
    steps: &mut Vec<String>,
) -> Option<&'s Rules> {
    let (snapshot, facts) = (case.snapshot, &case.facts);
    let number = facts.destination.port();
    let (text, rules) = match facts.direction {
        Direction::Inbound => ("the application's port, no routes".to_owned(), None),
        Direction::Gateway => {
            let opened = gateway::port(snapshot, facts).map(|(opened, _)| opened);
            match opened.and_then(|o| gateway::hosts(o, &case.peer, host).ok()?.find(host)) {
                Some(served) => ("served by the gateway".to_owned(), Some(&served.rules)),
                None => (
                    "no server or VirtualService of the gateway has it".to_owned(),
                    None,
                ),
            }
        }
        Direction::Outbound => match outbound::virtual_host(snapshot, facts, host) {
            Some(found) => {
                let rules = found.rules.as_deref();
                let text = match rules.and_then(|r| r.first()) {
                    Some(rule) => format!("{}, {}", found.domain, rule.table.origin),
                    None => format!("{}, no VirtualService", found.domain),
                };
                (text, rules)
            }
            None => {
                let mode = snapshot.outbound_mode();
                (format!("nobody declares it; outbound mode {mode:?}"), None)
            }
        },
    };
    steps.push(format!("Host {host:?} on port {number}: {text}."));
    rules
}
