//! Who needs which credential, from Gateways, DestinationRules and pods. Pure; the graph calls it.

use super::Needs;
use crate::source::Id;
use lateen_base::Str;
use lateen_model::matching::labels_match;
use lateen_model::resource::Resource;
use lateen_model::tls::ClientTls;
use lateen_model::traffic::TrafficPolicy;
use lateen_translate::pod::Pod;
use std::collections::{BTreeMap, BTreeSet};

/// What one Gateway or DestinationRule asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ask {
    /// Which pods it is for.
    by: By,
    /// Names of credentials.
    names: BTreeSet<Str>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum By {
    /// Pods with these labels in any namespace: a Gateway's.
    Gateway(BTreeMap<Str, Str>),
    /// Every gateway's pods: a DestinationRule without a workload selector (Istio: sidecars need one).
    Gateways,
    /// Pods with these labels in one namespace: a DestinationRule's.
    Workloads(Str, BTreeMap<Str, Str>),
}

impl Ask {
    /// Names of the credentials that are asked for.
    pub(crate) fn names(&self) -> impl Iterator<Item = &Str> {
        self.names.iter()
    }
}

/// What a resource asks for; Gateways ask even for nothing, because they tell which pods are gateways.
pub(crate) fn ask(resource: &Resource) -> Option<Ask> {
    match resource {
        Resource::Gateway(gateway) => {
            let tls = gateway
                .servers
                .iter()
                .filter_map(|server| server.tls.as_ref());
            let names = tls.flat_map(|tls| tls.credentials.iter().chain(&tls.ca_credential));
            Some(Ask {
                names: names.cloned().collect(),
                by: By::Gateway(gateway.selector.clone()),
            })
        }
        Resource::TrafficPolicy(policy) => {
            let names: BTreeSet<Str> = client_tls(policy)
                .filter_map(|tls| tls.credential.clone())
                .collect();
            let by = match policy.workload_selector.is_empty() {
                true => By::Gateways,
                false => By::Workloads(
                    Str::clone(&policy.origin.namespace),
                    policy.workload_selector.clone(),
                ),
            };
            (!names.is_empty()).then_some(Ask { by, names })
        }
        _ => None,
    }
}

fn client_tls(policy: &TrafficPolicy) -> impl Iterator<Item = &ClientTls> {
    let subsets = policy.subsets.iter().map(|subset| &subset.settings);
    [&policy.settings]
        .into_iter()
        .chain(subsets)
        .flat_map(|settings| {
            let ports = settings.ports.values().filter_map(|port| port.tls.as_ref());
            settings.tls.iter().chain(ports)
        })
}

/// The credentials that a pod needs, and its service account.
pub(crate) fn of_pod<'a>(
    pod: &Pod,
    asks: impl Iterator<Item = &'a Ask> + Clone,
) -> (BTreeSet<Str>, Str) {
    let account = match &*pod.service_account {
        "" => "default".into(),
        _ => Str::clone(&pod.service_account),
    };
    let carries =
        |selector: &BTreeMap<Str, Str>| !selector.is_empty() && labels_match(selector, &pod.labels);
    let is_gateway = asks
        .clone()
        .any(|ask| matches!(&ask.by, By::Gateway(s) if carries(s)));
    let meant = asks.filter(|ask| match &ask.by {
        By::Gateway(selector) => carries(selector),
        By::Gateways => is_gateway,
        By::Workloads(of, selector) => *of == pod.namespace && carries(selector),
    });
    let names = meant.flat_map(|ask| ask.names.iter().cloned()).collect();
    (names, account)
}

/// All needs, from those of single pods.
pub(crate) fn all<'a>(pods: impl Iterator<Item = (&'a Id, &'a (BTreeSet<Str>, Str))>) -> Needs {
    let mut needs = Needs::new();
    for (pod, (names, account)) in pods {
        for name in names {
            let name = match name.split_once('/') {
                None => Str::clone(name),
                Some((of, name)) if *of == *pod.namespace => name.into(),
                // Nobody reads another namespace's secrets.
                Some(_) => continue,
            };
            let id = Id {
                namespace: Str::clone(&pod.namespace),
                name,
            };
            needs.entry(id).or_default().insert(Str::clone(account));
        }
    }
    needs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_may_be_named_with_the_namespace_that_it_is_in_anyway() {
        let names = ["a", "default/b", "other/c"].map(Str::from);
        let pod = (Id::new("default", "p"), (names.into(), Str::from("web")));
        let needs = all([(&pod.0, &pod.1)].into_iter());
        let ids: Vec<_> = needs.keys().map(|id| &*id.name).collect();
        assert_eq!(ids, ["a", "b"]);
        assert!(needs.keys().all(|id| &*id.namespace == "default"));
    }
}
