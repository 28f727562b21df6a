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

    /// Whether pods that it is for are gateways.
    pub(crate) fn is_of_gateway(&self) -> bool {
        matches!(self.by, By::Gateway(_))
    }

    /// Tells the pods that it is for; absent: those of every gateway.
    pub(crate) fn pods(&self) -> Option<impl Fn(&Pod) -> bool + Send + use<>> {
        let (of, selector) = match &self.by {
            By::Gateway(selector) => (None, selector.clone()),
            By::Gateways => return None,
            By::Workloads(of, selector) => (Some(Str::clone(of)), selector.clone()),
        };
        Some(move |pod: &Pod| {
            let near = of.as_ref().is_none_or(|of| *of == pod.namespace);
            near && !selector.is_empty() && labels_match(&selector, &pod.labels)
        })
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

/// What pods that an object is for need of what it asks for.
pub(crate) fn of<'a>(ask: &Ask, pods: impl Iterator<Item = (&'a Id, &'a Pod)>) -> Needs {
    let mut needs = Needs::new();
    for (id, pod) in pods {
        let account = match &*pod.service_account {
            "" => "default".into(),
            _ => Str::clone(&pod.service_account),
        };
        for name in &ask.names {
            let name = match name.split_once('/') {
                None => Str::clone(name),
                Some((of, name)) if *of == *id.namespace => name.into(),
                // Nobody reads another namespace's secrets.
                Some(_) => continue,
            };
            let id = Id {
                namespace: Str::clone(&id.namespace),
                name,
            };
            needs.entry(id).or_default().insert(Str::clone(&account));
        }
    }
    needs
}

/// All needs, from those of single objects.
pub(crate) fn all<'a>(needs: impl Iterator<Item = &'a Needs>) -> Needs {
    let mut all = Needs::new();
    for (id, accounts) in needs.flatten() {
        let known = all.entry(id.clone()).or_default();
        known.extend(accounts.iter().cloned());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use lateen_translate::pod::Words;

    #[test]
    fn a_secret_may_be_named_with_the_namespace_that_it_is_in_anyway() {
        let ask = Ask {
            by: By::Gateways,
            names: ["a", "default/b", "other/c"].map(Str::from).into(),
        };
        let pod = serde_json::from_value(serde_json::json!({ "spec": { "containers": [] } }));
        let pod = Pod::of(&pod.expect("a pod"), &mut Words::default());
        let needs = of(&ask, [(&Id::new("default", "p"), &pod)].into_iter());
        let needs = all([&needs].into_iter());
        let ids: Vec<_> = needs.keys().map(|id| &*id.name).collect();
        assert_eq!(ids, ["a", "b"]);
        assert!(needs.keys().all(|id| &*id.namespace == "default"));
    }
}
