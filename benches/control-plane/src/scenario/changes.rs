//! The parts in which something changes while proxies are connected.

use super::Bench;
use crate::api::Api;
use crate::fleet::{Fleet, SHARED};
use crate::mesh::{self, Sizes};
use crate::process::Process;
use anyhow::{Result, ensure};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Wait between two changes of a route at rest: long enough that each is pushed alone.
const APART: Duration = Duration::from_millis(120);
/// Edits of metadata.
const EDITS: usize = 50;

/// How long a change took until proxies had it, in milliseconds.
#[derive(Default)]
struct Times {
    /// Each proxy for itself.
    each: Vec<f64>,
    /// The last of all proxies.
    last: Vec<f64>,
}

impl Bench {
    /// Changes routes while nothing else changes.
    pub(super) async fn idle(&mut self, process: &Process, fleet: &mut Fleet) -> Result<()> {
        let (before, counts) = (process.used()?, fleet.counts());
        let times = self.routes(fleet, APART, 0).await?;
        let (after, now) = (process.used()?, fleet.counts());
        let changes = self.run.changes as f64;
        let proxies = self.run.proxies as f64;
        let report = &mut self.report;
        report.add_times(
            "idle",
            "change of a route until a proxy has it",
            &times.each,
        );
        report.add_times(
            "idle",
            "change of a route until every proxy has it",
            &times.last,
        );
        report.add(
            "idle",
            "CPU for each change",
            (after.cpu - before.cpu) * 1e3 / changes,
            "ms",
        );
        let bytes = (now.bytes - counts.bytes) as f64 / changes / proxies;
        report.add("idle", "bytes for each change and proxy", bytes, "B");
        let sent = (now.resources - counts.resources) as f64 / changes / proxies;
        report.add("idle", "resources for each change and proxy", sent, "");
        Ok(())
    }

    /// Edits what means nothing: nothing may be sent.
    pub(super) async fn metadata(&mut self, process: &Process, fleet: &Fleet) -> Result<()> {
        let (before, counts) = (process.used()?, fleet.counts());
        for edit in 0..EDITS {
            let note = format!("edit {edit}");
            let at = edit % self.sizes.services;
            self.api.put(mesh::service(at, &note));
            if at < self.sizes.routes {
                self.api.put(mesh::route(at, 1_000, &note));
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        let first = fleet.counts();
        // The routes' timeouts differ from before only at the first edit of each.
        for edit in 0..EDITS {
            let note = format!("edit {edit} again");
            let at = edit % self.sizes.services;
            self.api.put(mesh::service(at, &note));
            if at < self.sizes.routes {
                self.api.put(mesh::route(at, 1_000, &note));
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        let (after, now) = (process.used()?, fleet.counts());
        ensure!(
            first.resources > counts.resources,
            "routes that changed were sent"
        );
        let sent = (now.resources + now.removed - first.resources - first.removed) as f64;
        self.report.add(
            "metadata",
            "resources sent for 50 edits of metadata",
            sent,
            "",
        );
        let bytes = (now.bytes - first.bytes) as f64;
        self.report
            .add("metadata", "bytes sent for them to all proxies", bytes, "B");
        let cpu = (after.cpu - before.cpu) * 1e3 / 2.0 / EDITS as f64;
        self.report.add("metadata", "CPU for each", cpu, "ms");
        Ok(())
    }

    /// Changes routes while endpoints come and go.
    pub(super) async fn churn(&mut self, process: &Process, fleet: &mut Fleet) -> Result<()> {
        let stop = CancellationToken::new();
        let (api, sizes, rate) = (self.api.clone(), self.sizes, self.run.churn);
        let churned = tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
            churn(&api, sizes, rate).await;
        }));
        tokio::time::sleep(Duration::from_secs(1)).await;
        let (before, counts, began) = (process.used()?, fleet.counts(), Instant::now());
        let times = self.routes(fleet, APART, 1).await?;
        let (after, now, took) = (
            process.used()?,
            fleet.counts(),
            began.elapsed().as_secs_f64(),
        );
        stop.cancel();
        let _ = churned.await;
        let changes = took * self.run.churn as f64;
        let proxies = self.run.proxies as f64;
        let report = &mut self.report;
        report.add_times(
            "churn",
            "change of a route until a proxy has it",
            &times.each,
        );
        report.add_times(
            "churn",
            "change of a route until every proxy has it",
            &times.last,
        );
        report.add(
            "churn",
            "CPU of the control plane",
            (after.cpu - before.cpu) / took * 100.0,
            "%",
        );
        let bytes = (now.bytes - counts.bytes) as f64 / proxies / changes;
        report.add(
            "churn",
            "bytes for each endpoint change and proxy",
            bytes,
            "B",
        );
        let messages = (now.messages - counts.messages) as f64 / proxies / took;
        report.add("churn", "responses for each proxy", messages, "/s");
        Ok(())
    }

    /// Changes as many routes as asked for, each once the one before has come to every proxy.
    async fn routes(&self, fleet: &mut Fleet, apart: Duration, round: usize) -> Result<Times> {
        let mut times = Times::default();
        let mut routes = self.sizes.routes.min(self.sizes.services);
        if let Some(uses) = self.run.uses {
            routes = routes.min(uses).min(SHARED);
        }
        ensure!(routes > 0, "there are no routes to change");
        for change in 0..self.run.changes {
            let at = change * 7 % routes;
            let name = format!("{}/{}", mesh::namespace(at), mesh::service_name(at));
            fleet.watch_for(&name);
            let began = Instant::now();
            let seconds = 2 + round * self.run.changes + change;
            self.api.put(mesh::route(at, seconds, ""));
            let arrivals = fleet.arrivals().await;
            ensure!(
                arrivals.len() == self.run.proxies,
                "change {change} came to {} of {} proxies within 10 s",
                arrivals.len(),
                self.run.proxies
            );
            let after = arrivals
                .iter()
                .map(|at| at.duration_since(began).as_secs_f64() * 1e3);
            let after: Vec<f64> = after.collect();
            times.last.push(after.iter().copied().fold(0.0, f64::max));
            times.each.extend(after);
            tokio::time::sleep(apart).await;
        }
        Ok(times)
    }
}

/// Lets pods become unready and ready again, so many each second, as kubelets and controllers tell it: the pod first,
/// then its EndpointSlice.
async fn churn(api: &Api, sizes: Sizes, rate: usize) {
    let rate = u32::try_from(rate.max(1)).unwrap_or(u32::MAX);
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate);
    for number in 0.. {
        ticks.tick().await;
        let service = (number / 2 * 13 + 5) % sizes.services;
        let ready = number % 2 == 1;
        api.put(mesh::pod(service, 0, sizes.endpoints, ready));
        let of_slice = |pod: usize| pod != 0 || ready;
        api.put(mesh::slice(service, sizes.endpoints, &of_slice));
    }
}
