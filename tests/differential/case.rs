//! Cases as they are written in `cases/*.yaml`, with their defaults.

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Every case, and the services of all of them.
pub struct Cases {
    pub all: Vec<Case>,
    pub services: BTreeMap<String, Service>,
}

/// One file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    services: BTreeMap<String, Service>,
    cases: Vec<Case>,
}

/// One behaviour.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// Unique; also the host that is called: `NAME.test`.
    pub name: String,
    /// The feature that Lateen does not have yet. Envoy is given the case's routes all the same, Lateen is not.
    pub not_yet: Option<String>,
    /// Hosts of the VirtualService and of Envoy's virtual host; none: `NAME.test`.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// The rules of a VirtualService: `http`.
    pub istio: Value,
    /// The routes of Envoy's virtual host.
    pub envoy: Value,
    /// Further fields of Envoy's virtual host.
    #[serde(default)]
    pub envoy_host: Map<String, Value>,
    /// How what was seen is compared.
    #[serde(default)]
    pub compare: Compare,
    /// Lines that chance decides, such as `request 1 x-envoy-attempt-count`: not compared.
    #[serde(default)]
    pub ignore: Vec<String>,
    /// What is sent.
    pub calls: Vec<Call>,
}

/// How what both sides saw is compared.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Compare {
    /// Each call by itself.
    #[default]
    Each,
    /// Each call by itself, endpoints by the order in which the case met them.
    Order,
    /// Whether each call, repeated, meets one endpoint or several.
    Sticky,
    /// Percent of the requests that each upstream gets, 17 more or fewer (of 400 requests seven standard deviations).
    Shares(BTreeMap<String, f64>),
}

/// One request, or the same one several times.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    #[serde(default = "get")]
    pub method: String,
    #[serde(default = "slash")]
    pub path: String,
    /// Authority; none: the case's host.
    pub host: Option<String>,
    /// A value, or several lines of one name.
    #[serde(default)]
    pub headers: BTreeMap<String, Lines>,
    #[serde(default)]
    pub body: String,
    #[serde(default)]
    pub http2: bool,
    /// What the upstreams do, request after request; the last step repeats.
    #[serde(default)]
    pub upstream: Vec<Step>,
    #[serde(default = "one")]
    pub repeat: usize,
    /// Requests that reach upstreams, waited for: mirrored ones come when they come.
    pub requests: Option<usize>,
    /// Whether it took at least so many milliseconds is compared, too. A tenth less than configured: Envoy counts by
    /// whole milliseconds, from the last one that it looked at the clock.
    pub at_least: Option<u64>,
}

/// One line of a header, or several.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Lines {
    One(String),
    Several(Vec<String>),
}

/// What an upstream does with one request.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Step {
    pub status: u16,
    pub headers: BTreeMap<String, Lines>,
    pub body: String,
    /// Ends the connection without an answer.
    pub close: bool,
    /// Answers once the caller has its answer, and that is after the case is over for this call.
    pub hang: bool,
}

/// What requests may be sent to.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Service {
    pub endpoints: usize,
    /// Protocol of the port: `HTTP` or `HTTP2`.
    pub protocol: String,
    /// At so many of them, the first, nobody listens.
    pub dead: usize,
    /// `spec` of a DestinationRule without its host.
    pub destination_rule: Option<Map<String, Value>>,
    /// What Istio makes of it: fields of Envoy's cluster.
    pub cluster: Map<String, Value>,
    /// The feature that its DestinationRule needs.
    pub not_yet: Option<String>,
}

fn get() -> String {
    "GET".to_owned()
}

fn slash() -> String {
    "/".to_owned()
}

fn one() -> usize {
    1
}

impl Default for Step {
    fn default() -> Self {
        Self {
            status: 200,
            headers: BTreeMap::new(),
            body: "ok".to_owned(),
            close: false,
            hang: false,
        }
    }
}

impl Default for Service {
    fn default() -> Self {
        Self {
            endpoints: 1,
            protocol: "HTTP".to_owned(),
            dead: 0,
            destination_rule: None,
            cluster: Map::new(),
            not_yet: None,
        }
    }
}

impl Lines {
    pub fn all(&self) -> &[String] {
        match self {
            Self::One(line) => std::slice::from_ref(line),
            Self::Several(lines) => lines,
        }
    }
}

impl Case {
    /// Hosts that it is for.
    pub fn hosts(&self) -> Vec<String> {
        if self.hosts.is_empty() {
            vec![format!("{}.test", self.name)]
        } else {
            self.hosts.clone()
        }
    }

    /// The authority of a call.
    pub fn authority(&self, call: &Call) -> String {
        call.host
            .clone()
            .unwrap_or_else(|| self.hosts().swap_remove(0))
    }
}

impl Cases {
    /// Every file of a folder, in the order of names.
    pub fn read(folder: &Path) -> Result<Self> {
        let mut files: Vec<_> = std::fs::read_dir(folder)?
            .map(|entry| entry.map(|e| e.path()))
            .collect::<Result<_, _>>()?;
        files.sort();
        let mut cases = Self {
            all: Vec::new(),
            services: BTreeMap::new(),
        };
        for path in files {
            let text = std::fs::read_to_string(&path)?;
            let file: File =
                serde_saphyr::from_str(&text).with_context(|| format!("{}", path.display()))?;
            for (name, service) in file.services {
                if cases.services.insert(name.clone(), service).is_some() {
                    bail!("{}: service {name} is there twice", path.display());
                }
            }
            cases.all.extend(file.cases);
        }
        let names: BTreeSet<_> = cases.all.iter().map(|case| &case.name).collect();
        ensure!(
            names.len() == cases.all.len(),
            "two cases have the same name"
        );
        Ok(cases)
    }
}
