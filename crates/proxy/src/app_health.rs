//! The application's probes and hooks, made by the proxy on the kubelet's behalf: a kubelet has no certificate of
//! the mesh, so injection leads its probes here (Istio: `ISTIO_KUBE_APP_PROBERS`).
//!
//! ```text
//! kubelet -> :15020/app-health/<container>/readyz -> the application, on the pod's own address
//! ```
//! It calls only what injection wrote down; a request chooses among those and nothing else.

mod any_server;
mod call;

use http::StatusCode;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// Most probes that are read: five for each container of a large pod.
const MOST: usize = 500;

/// The application's own probes, by the path that each is asked for by. The default has none.
#[derive(Debug, Clone, Default)]
pub struct AppProbes(BTreeMap<String, Probe>);

/// The probes cannot be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum AppProbesError {
    /// Not JSON of that form.
    #[error("ISTIO_KUBE_APP_PROBERS is not what injection writes: {0}; inject the pod anew")]
    Unreadable(String),
    /// One probe has no usable action.
    #[error(
        "ISTIO_KUBE_APP_PROBERS: {path} is not an httpGet, tcpSocket or grpc probe with a port: {probe}; inject the \
         pod anew"
    )]
    BadProbe {
        /// Which.
        path: String,
        /// What is written there.
        probe: String,
    },
}

/// One probe.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Probe {
    action: Action,
    port: u16,
    /// Bound on the answer. Kubernetes: one second unless the probe says otherwise.
    timeout: Duration,
}

/// What it does.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Action {
    Http(HttpGet),
    Tcp,
    /// The name of the service asked for; empty: the server as a whole.
    Grpc(String),
}

/// A GET.
#[derive(Debug, Clone, PartialEq, Eq)]
struct HttpGet {
    path: String,
    secure: bool,
    headers: Vec<(String, String)>,
}

/// What a kubelet is told.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// The application's status, or one that stands for it.
    pub(crate) status: StatusCode,
    /// One line.
    pub(crate) text: String,
}

impl AppProbes {
    /// Reads what injection wrote.
    ///
    /// # Errors
    /// It is not JSON of that form, or a probe in it cannot be made.
    pub fn parse(text: &str) -> Result<Self, AppProbesError> {
        let read: BTreeMap<String, Value> =
            serde_json::from_str(text).map_err(|e| AppProbesError::Unreadable(e.to_string()))?;
        if read.len() > MOST {
            let why = format!("{} probes, at most {MOST} are taken", read.len());
            return Err(AppProbesError::Unreadable(why));
        }
        let probes = read.into_iter().map(|(path, probe)| {
            let read = Probe::read(&probe);
            let bad = || AppProbesError::BadProbe {
                path: path.clone(),
                probe: probe.to_string().chars().take(200).collect(),
            };
            read.ok_or_else(bad).map(|probe| (path.clone(), probe))
        });
        probes.collect::<Result<_, _>>().map(Self)
    }

    /// Makes the probe of a path; absent when there is none of that path.
    pub(crate) async fn check(&self, path: &str, application: IpAddr) -> Option<Outcome> {
        let probe = self.0.get(path)?;
        let call = call::call(probe, application);
        let outcome = match tokio::time::timeout(probe.timeout, call).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => failed(&error.to_string()),
            Err(_) => failed(&format!("no answer within {} s", probe.timeout.as_secs())),
        };
        Some(outcome)
    }
}

// Kubelets take any status from 400 on as a failure.
fn failed(why: &str) -> Outcome {
    Outcome {
        status: StatusCode::SERVICE_UNAVAILABLE,
        text: format!("the application's probe failed: {why}"),
    }
}

impl Probe {
    fn read(probe: &Value) -> Option<Self> {
        let port = |action: &Value| u16::try_from(action["port"].as_u64()?).ok();
        let (action, port) = if probe["httpGet"].is_object() {
            let get = &probe["httpGet"];
            (Action::Http(HttpGet::read(get)?), port(get)?)
        } else if probe["tcpSocket"].is_object() {
            (Action::Tcp, port(&probe["tcpSocket"])?)
        } else {
            let service = probe["grpc"]["service"].as_str().unwrap_or_default();
            (Action::Grpc(service.to_owned()), port(&probe["grpc"])?)
        };
        let seconds = probe["timeoutSeconds"].as_u64().unwrap_or(1);
        Some(Self {
            action,
            port,
            timeout: Duration::from_secs(seconds.clamp(1, 3600)),
        })
    }
}

impl HttpGet {
    fn read(get: &Value) -> Option<Self> {
        let path = get["path"].as_str().unwrap_or_default();
        let headers = get["httpHeaders"].as_array().into_iter().flatten();
        let headers = headers.map(|header| {
            let of = |field: &str| header[field].as_str().map(str::to_owned);
            Some((of("name")?, of("value").unwrap_or_default()))
        });
        Some(Self {
            path: match path.starts_with('/') {
                true => path.to_owned(),
                false => format!("/{path}"),
            },
            secure: get["scheme"]
                .as_str()
                .is_some_and(|scheme| scheme.eq_ignore_ascii_case("https")),
            headers: headers.collect::<Option<_>>()?,
        })
    }
}

#[cfg(test)]
mod tests;
