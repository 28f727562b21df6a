//! Traffic policies: what one DestinationRule says about a host and its subsets.

use crate::name::{Origin, Visibility};
use crate::tls::ClientTls;
use lateen_base::Str;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// One DestinationRule. The host is lower case and fully qualified, or `*.suffix`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrafficPolicy {
    /// The DestinationRule.
    pub origin: Origin,
    /// Host it applies to.
    pub host: Str,
    /// Who may see it.
    pub visibility: Visibility,
    /// Client workloads it is limited to; empty: all.
    pub workload_selector: BTreeMap<Str, Str>,
    /// Settings for the whole host.
    pub settings: TrafficSettings,
    /// Named subsets.
    pub subsets: Vec<Subset>,
}

/// A named group of a service's endpoints.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Subset {
    /// Name that routes use.
    pub name: Str,
    /// Labels that its endpoints carry.
    pub labels: BTreeMap<Str, Str>,
    /// Overrides of the host's settings, field by field.
    pub settings: TrafficSettings,
}

/// Settings that a subset may override; absent fields inherit.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct TrafficSettings {
    /// Load-balancing algorithm; absent: least request (Istio's default).
    pub balancer: Option<Balancer>,
    /// TCP connect timeout; absent: 10 s (Istio: `meshConfig.connectTimeout`).
    pub connect_timeout: Option<Duration>,
    /// TLS towards the endpoints; absent: mutual TLS where an endpoint has it (auto mTLS).
    pub tls: Option<ClientTls>,
    /// Settings of single service ports, which replace all of the above for that port: nothing is inherited
    /// (Istio: `portLevelSettings`). Their own `ports` are empty.
    pub ports: BTreeMap<u16, TrafficSettings>,
}

/// Load-balancing algorithms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Balancer {
    /// Two random choices, the less loaded wins.
    LeastRequest,
    /// In turn.
    RoundRobin,
    /// Evenly at random.
    Random,
    /// To the address that the client asked for.
    Passthrough,
}
