//! Where a workload's certificate comes from, and its renewal: asked of the mesh's CA, handed over by the SPIFFE
//! Workload API, or found in files. The newest is published; a valid one stays in use for as long as no newer one can be had.

mod authority;
mod cache;
mod files;
mod workload_api;

pub use authority::AuthorityOptions;
pub use files::Files;

use crate::svid::Svid;
use crate::trust::TrustBundles;
use lateen_model::security::TrustBundle;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// Less than this share of a certificate's lifetime left means that renewals have failed for long: an alarm.
const ALARM_SHARE: u32 = 4;

/// Where certificates come from and how they are kept.
pub struct Options {
    /// Who gives them.
    pub origin: Origin,
    /// Directory of the private cache (`svid.pem`, readable by its owner only); absent: nothing is kept on disk.
    pub cache: Option<PathBuf>,
    /// Told: renew at once. Roots that changed, or a command.
    pub renew: Arc<Notify>,
    /// Whom the workload itself believes; a certificate that is not believed any more by that measure is renewed at
    /// once. Absent: never for that reason.
    pub believed: Option<watch::Receiver<TrustBundles>>,
    /// The clock.
    pub clock: Clock,
}

/// Who gives certificates.
pub enum Origin {
    /// The mesh's CA.
    Authority(AuthorityOptions),
    /// The SPIFFE Workload API (SPIRE) on a Unix socket.
    WorkloadApi(PathBuf),
    /// Files that somebody else renews.
    Files(Files),
}

/// What is known of the workload's identity.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// The certificate in use; absent: there was none yet.
    pub svid: Option<Arc<Svid>>,
    /// Roots that came with it, as PEM; empty: none yet.
    pub roots: String,
    /// Bundles that came with it, from the Workload API only.
    pub bundles: Vec<Arc<TrustBundle>>,
    /// Why the last renewal failed; absent: it did not.
    pub last_error: Option<String>,
    /// Renewals that failed since the last one that succeeded.
    pub failures: u64,
    /// Certificates received since the start, without the one from the cache.
    pub renewals: u64,
}

/// A certificate is about to end, or has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alarm {
    /// It could not be renewed for long.
    Expiring,
    /// It is over: others refuse it.
    Expired,
}

impl State {
    /// When the certificate in use ends; absent: there is none.
    pub fn not_after(&self) -> Option<SystemTime> {
        self.svid.as_ref().map(|svid| svid.not_after)
    }

    /// Whether somebody must look after the certificate in use. The second value is a sentence for them.
    pub fn alarm(&self, now: SystemTime) -> Option<(Alarm, String)> {
        let svid = self.svid.as_ref()?;
        let left = svid.remaining(now);
        let why = self
            .last_error
            .as_deref()
            .unwrap_or("it was not renewed in time");
        let until = crate::certificate::show(svid.not_after);
        if left.is_zero() {
            let text = format!("the certificate of {} expired at {until}: {why}", svid.id);
            Some((Alarm::Expired, text))
        } else if left < svid.lifetime() / ALARM_SHARE {
            let text = format!("the certificate of {} expires at {until}: {why}", svid.id);
            Some((Alarm::Expiring, text))
        } else {
            None
        }
    }
}

/// Tells the time of day. Steps of the machine's clock count; tests follow tokio's paused clock instead.
#[derive(Clone, Copy, Default)]
pub struct Clock(Option<(SystemTime, Instant)>);

impl Clock {
    /// The machine's clock.
    pub fn machine() -> Self {
        Self(None)
    }

    /// A clock that shows `start` now and moves with tokio's, also when that is paused.
    pub fn following_tokio(start: SystemTime) -> Self {
        Self(Some((start, Instant::now())))
    }

    /// The time of day.
    pub fn now(&self) -> SystemTime {
        match self.0 {
            None => SystemTime::now(),
            Some((start, since)) => start + since.elapsed(),
        }
    }
}

/// Obtains certificates and renews them until the last receiver of `state` is gone. What is in the cache and still
/// valid is published at once.
pub async fn run(options: Options, state: watch::Sender<State>) {
    let Options {
        origin,
        cache,
        renew,
        believed,
        clock,
    } = options;
    match origin {
        Origin::Authority(authority) => {
            let renewal = authority::Renewal {
                ask: authority::over(authority.connector),
                token: authority.token,
                lifetime: authority.lifetime,
                key: authority.key,
                cache: cache.map(cache::Cache::new),
                renew,
                believed,
                clock,
                state: &state,
            };
            tokio::select! {
                () = renewal.run() => {}
                () = state.closed() => {}
            }
        }
        Origin::WorkloadApi(socket) => {
            tokio::select! {
                () = workload_api::follow(&socket, &renew, &state) => {}
                () = state.closed() => {}
            }
        }
        Origin::Files(files) => {
            tokio::select! {
                () = files::follow(&files, &renew, &state) => {}
                () = state.closed() => {}
            }
        }
    }
}

/// How long to wait before a certificate is renewed: until half of its lifetime (its beginning included) is over, a
/// little earlier at random so that many workloads do not come at once. Zero: at once.
fn renewal_delay(svid: &Svid, now: SystemTime) -> Duration {
    let early = 0.1 * fastrand::f64();
    let due = svid.not_before + svid.lifetime().mul_f64(0.5 - early);
    due.duration_since(now).unwrap_or_default()
}

#[cfg(test)]
mod tests;
