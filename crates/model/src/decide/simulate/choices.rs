//! What traffic can go to, with its share.

use super::words::sentence;
use crate::decide::cluster::{Cluster, Discovery};
use crate::decide::clusters::Target;
use crate::decide::routes::{Action, Rule};
use crate::workload::Health;
use lateen_base::Str;
use std::sync::Arc;

/// One weighted destination.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// Cluster name.
    pub cluster: Str,
    /// Share in percent.
    pub percent: f64,
    /// Where it leads: endpoint addresses with workload and state, or a sentence.
    pub endpoints: Vec<String>,
    /// Why it cannot be used, when it cannot.
    pub problem: Option<String>,
}

impl Choice {
    /// A cluster that gets this share.
    pub(super) fn of(cluster: &Arc<Cluster>, percent: f64) -> Self {
        let problem = Target::Cluster(cluster.clone()).usable(None).err();
        let endpoints = match &cluster.discovery {
            Discovery::Endpoints(list) => list
                .iter()
                .map(|e| {
                    let state = match e.health {
                        Health::Ready => "",
                        Health::Draining => " (draining)",
                        Health::Unready => " (not ready)",
                    };
                    format!("{} {}{state}", e.address, e.workload.name)
                })
                .collect(),
            Discovery::OriginalDestination => vec!["the address that the client chose".to_owned()],
            Discovery::Dns(names) => names
                .iter()
                .map(|named| format!("{}:{} by DNS", named.host, named.port))
                .collect(),
            Discovery::DnsFirst(named) => {
                vec![format!(
                    "{}:{} by DNS, its first address",
                    named.host, named.port
                )]
            }
            Discovery::DynamicDns(port) => {
                let port = port.map_or_else(|| "the same port".to_owned(), |p| format!("port {p}"));
                vec![format!("the name that the client asks for, by DNS, {port}")]
            }
            Discovery::Fixed(address) => vec![address.to_string()],
        };
        Self {
            cluster: cluster.name.clone(),
            percent,
            endpoints,
            problem: problem.map(|fault| sentence(&fault)),
        }
    }
}

/// Every weighted destination of a rule; none when it answers itself.
pub(super) fn choices(rule: &Rule) -> Vec<Choice> {
    let Action::Forward(list) = &rule.action else {
        return Vec::new();
    };
    let mut choices = Vec::new();
    let total: f64 = list.iter().map(|w| f64::from(w.weight)).sum();
    for choice in list {
        let percent = match (list.len(), total > 0.0) {
            (1, _) => 100.0,
            (_, true) => 100.0 * f64::from(choice.weight) / total,
            (_, false) => 0.0,
        };
        let made = match &choice.target {
            Target::Cluster(cluster) => Choice::of(cluster, percent),
            Target::Missing { subject, .. } => Choice {
                cluster: subject.as_str().into(),
                percent,
                endpoints: Vec::new(),
                problem: choice
                    .target
                    .usable(None)
                    .err()
                    .map(|fault| sentence(&fault)),
            },
        };
        choices.push(made);
    }
    choices
}
