//! Probes: one check of a container (command, HTTP, TCP, gRPC), and the rhythm of checks with thresholds.
//! Checks over the network run from the node to the pod's address, as a kubelet's do.

mod grpc;
mod http;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::exec;
use super::handle::{PodHandle, Run};
use super::machine::Machine;

pub(crate) use http::get as http_get;

/// What a probe is for: it decides what its verdicts mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Until it succeeds once, the others wait.
    Startup,
    /// Whether the container takes traffic.
    Readiness,
    /// Whether the container should be restarted.
    Liveness,
}

/// A verdict that changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Enough successes in a row.
    Good,
    /// Enough failures in a row, and the last one's sentence.
    Bad(String),
}

/// Counts successes and failures against a probe's thresholds. Pure: the caller says when.
#[derive(Debug)]
pub(crate) struct Rhythm {
    period: Duration,
    successes_needed: u32,
    failures_needed: u32,
    successes: u32,
    failures: u32,
    /// When a failure was last counted.
    counted: Option<Instant>,
    verdict: Option<bool>,
    quick: Duration,
}

/// Before the first success a container is checked more often than its period, so that it is ready when it
/// is ready and not up to a period later; failures still count once per period.
const QUICK: Duration = Duration::from_millis(50);

impl Rhythm {
    /// The rhythm of a probe with Kubernetes' defaults.
    pub(crate) fn new(probe: &Probe) -> Self {
        let number = |value: Option<i32>, default: u32| {
            value
                .and_then(|n| u32::try_from(n).ok())
                .filter(|n| *n > 0)
                .unwrap_or(default)
        };
        Self {
            period: Duration::from_secs(u64::from(number(probe.period_seconds, 10))),
            successes_needed: number(probe.success_threshold, 1),
            failures_needed: number(probe.failure_threshold, 3),
            successes: 0,
            failures: 0,
            counted: None,
            verdict: None,
            quick: QUICK,
        }
    }

    /// Takes a check's result; returns a verdict when it is a new one.
    pub(crate) fn observe(&mut self, result: Result<(), String>, now: Instant) -> Option<Verdict> {
        match result {
            Ok(()) => {
                self.failures = 0;
                self.counted = None;
                self.successes += 1;
                let new = self.successes >= self.successes_needed && self.verdict != Some(true);
                new.then(|| {
                    self.verdict = Some(true);
                    Verdict::Good
                })
            }
            Err(message) => {
                self.successes = 0;
                if self.counted.is_some_and(|last| now < last + self.period) {
                    return None;
                }
                self.counted = Some(now);
                self.failures += 1;
                let new = self.failures >= self.failures_needed && self.verdict != Some(false);
                new.then(|| {
                    self.verdict = Some(false);
                    Verdict::Bad(message)
                })
            }
        }
    }

    /// How long to wait before the next check.
    pub(crate) fn pause(&mut self) -> Duration {
        if self.verdict == Some(true) {
            return self.period;
        }
        let pause = self.quick.min(self.period);
        self.quick = (self.quick * 3 / 2).min(self.period);
        pause
    }
}

/// Checks a container again and again; `verdict` hears of each change. Never returns by itself.
pub(crate) async fn watch(
    machine: &Machine,
    pod: &PodHandle,
    container: &Container,
    (probe, kind, run): (&Probe, Kind, &Run),
    mut verdict: impl FnMut(Verdict),
) {
    let seconds = |n: Option<i32>| u64::try_from(n.unwrap_or_default()).unwrap_or_default();
    tokio::time::sleep(Duration::from_secs(seconds(probe.initial_delay_seconds))).await;
    let mut rhythm = Rhythm::new(probe);
    let mut told = false;
    loop {
        let result = check(machine, pod, container, probe, run).await;
        match &result {
            Err(message) if !told => {
                tracing::debug!(
                    pod = pod.name,
                    container = container.name,
                    ?kind,
                    message,
                    "probe failed"
                );
            }
            _ => {}
        }
        told = result.is_err();
        if let Some(change) = rhythm.observe(result, Instant::now()) {
            verdict(change);
        }
        tokio::time::sleep(rhythm.pause()).await;
    }
}

/// One check.
async fn check(
    machine: &Machine,
    pod: &PodHandle,
    container: &Container,
    probe: &Probe,
    run: &Run,
) -> Result<(), String> {
    let seconds = u64::try_from(probe.timeout_seconds.unwrap_or(1)).unwrap_or(1);
    let most = Duration::from_secs(seconds.max(1));
    let address = pod
        .network()
        .map(|n| n.address)
        .ok_or("the pod has no address")?;
    if let Some(action) = &probe.exec {
        let command = action.command.clone().unwrap_or_default();
        let answer = exec::run_to_end(&machine.reaper, run, command, most).await?;
        return match answer.code {
            0 => Ok(()),
            code if answer.output.is_empty() => Err(format!("command exited with {code}")),
            _ => Err(answer.output),
        };
    }
    if let Some(action) = &probe.http_get {
        return http::get(container, address, action, most).await;
    }
    if let Some(action) = &probe.tcp_socket {
        let port = port(container, &action.port)?;
        let host = host(action.host.as_deref(), address)?;
        return connect((host, port).into(), most).await.map(drop);
    }
    if let Some(action) = &probe.grpc {
        let port = u16::try_from(action.port).map_err(|_| "invalid port".to_owned())?;
        let service = action.service.as_deref().unwrap_or_default();
        return grpc::check((IpAddr::V4(address), port).into(), service, most).await;
    }
    Err("the probe has no action; give it one of exec, httpGet, tcpSocket and grpc".into())
}

async fn connect(to: SocketAddr, most: Duration) -> Result<TcpStream, String> {
    match timeout(most, TcpStream::connect(to)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(e)) => Err(format!("dial tcp {to}: {e}")),
        Err(_) => Err(format!("dial tcp {to}: i/o timeout")),
    }
}

/// A port by number or by the name the container gives it.
fn port(container: &Container, port: &IntOrString) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => match name.parse() {
            Ok(number) => number,
            Err(_) => container
                .ports
                .iter()
                .flatten()
                .find(|p| p.name.as_ref() == Some(name))
                .map(|p| p.container_port)
                .ok_or_else(|| {
                    format!(
                        "port \"{name}\" is not named in container \"{}\"",
                        container.name
                    )
                })?,
        },
    };
    u16::try_from(number).map_err(|_| format!("invalid port number: {number}"))
}

fn host(host: Option<&str>, pod: Ipv4Addr) -> Result<IpAddr, String> {
    match host.filter(|h| !h.is_empty()) {
        None => Ok(IpAddr::V4(pod)),
        Some(name) => name
            .parse()
            .map_err(|_| format!("host \"{name}\" of a probe must be an IP address here")),
    }
}

#[cfg(test)]
mod tests;
