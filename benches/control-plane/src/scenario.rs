//! The parts of a measurement, one after the other.

mod changes;

use crate::api::Api;
use crate::arguments::Run;
use crate::fleet::{Fleet, Known, Shape};
use crate::mesh::{self, Sizes};
use crate::process::{self, Process, Use};
use crate::report::{Machine, Report};
use anyhow::Result;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Time in which what is left of a part settles.
const SETTLE: Duration = Duration::from_secs(2);

/// Everything that the parts work with.
struct Bench {
    run: Run,
    sizes: Sizes,
    api: Api,
    kubeconfig: PathBuf,
    ports: Vec<u16>,
    report: Report,
}

/// Measures what `run` asks for and writes the results.
///
/// # Errors
/// The control plane cannot be started, or does not do what it must.
pub async fn run(run: &Run) -> Result<()> {
    let machine = Machine::now();
    let api = Api::default();
    let sizes = Sizes {
        services: run.services,
        endpoints: run.endpoints,
        routes: run.routes,
    };
    mesh::fill(&api, sizes);
    let address = api.serve().await?;
    let kubeconfig =
        std::env::temp_dir().join(format!("bench-control-plane-{}", std::process::id()));
    std::fs::write(&kubeconfig, config(&address.to_string()))?;
    println!(
        "{} services, {} workloads, {} routes: {} MB of JSON at the API server",
        run.services,
        run.services * run.endpoints,
        run.routes,
        api.size() / 1_000_000
    );
    let mut bench = Bench {
        run: run.clone(),
        sizes,
        api,
        kubeconfig,
        ports: process::ports()?,
        report: Report::default(),
    };
    let done = bench.all().await;
    let _ = std::fs::remove_file(&bench.kubeconfig);
    done?;
    match &run.out {
        Some(name) => bench.report.write(run, name, &machine),
        None => Ok(()),
    }
}

fn config(address: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: bench\nclusters:\n- name: bench\n  cluster: {{ server: \
         \"http://{address}\" }}\ncontexts:\n- name: bench\n  context: {{ cluster: bench, user: bench }}\nusers:\n\
         - name: bench\n  user: {{}}\n"
    )
}

impl Bench {
    fn shape(&self) -> Shape {
        Shape {
            size: self.run.proxies,
            services: self.run.services,
            uses: self.run.uses,
        }
    }

    fn skips(&self, part: &str) -> bool {
        self.run.skip.iter().any(|name| name == part)
    }

    /// Waits for Enter when profilers are to be attached.
    fn pause(&self, process: &Process, next: &str) {
        if self.run.pause {
            println!("process {}: Enter begins {next}", process.id());
            let _ = std::io::stdin().read_line(&mut String::new());
        }
    }

    async fn all(&mut self) -> Result<()> {
        let mut process = self.cold().await?;
        let alone = process.used()?;
        self.pause(&process, "connecting");
        let mut fleet = self.connect(&process, alone).await?;
        if !self.skips("idle") {
            self.pause(&process, "changes of routes");
            self.idle(&process, &mut fleet).await?;
        }
        if !self.skips("metadata") {
            self.metadata(&process, &fleet).await?;
        }
        if !self.skips("churn") {
            self.pause(&process, "churn");
            self.churn(&process, &mut fleet).await?;
        }
        if !self.skips("reconnect") {
            self.pause(&process, "reconnecting");
            let known = fleet.stop().await;
            tokio::time::sleep(SETTLE).await;
            fleet = self.again("reconnect", &process, known).await?;
        }
        if !self.skips("restart") {
            let known = fleet.stop().await;
            drop(process);
            process = Process::start(&self.run, &self.kubeconfig, &self.ports)?;
            fleet = self.again("restart", &process, known).await?;
        }
        self.report
            .add("all", "streams lost", fleet.lost() as f64, "");
        let used = process.used()?;
        self.report
            .add("all", "memory at the end", used.memory, "MB");
        Ok(())
    }

    /// Starts the control plane and waits until it is ready.
    async fn cold(&mut self) -> Result<Process> {
        let began = Instant::now();
        let mut process = Process::start(&self.run, &self.kubeconfig, &self.ports)?;
        process.ready().await?;
        let took = began.elapsed().as_secs_f64();
        let at_ready = process.used()?;
        tokio::time::sleep(SETTLE).await;
        let settled = process.used()?;
        let report = &mut self.report;
        report.add("start", "from start to ready", took, "s");
        report.add("start", "CPU until ready", at_ready.cpu, "s");
        report.add("start", "memory without proxies", settled.memory, "MB");
        report.add("start", "most memory until then", settled.peak, "MB");
        Ok(process)
    }

    /// Connects every proxy at once.
    async fn connect(&mut self, process: &Process, alone: Use) -> Result<Fleet> {
        process.reset_peak();
        let before = process.used()?;
        let fleet = Fleet::start(self.shape(), process.discovery(), Known::new());
        let took = fleet.synced().await?;
        tokio::time::sleep(SETTLE).await;
        let after = process.used()?;
        let counts = fleet.counts();
        let proxies = self.run.proxies as f64;
        let report = &mut self.report;
        report.add(
            "connect",
            "until every proxy has everything",
            took.as_secs_f64(),
            "s",
        );
        report.add(
            "connect",
            "CPU for each proxy",
            (after.cpu - before.cpu) * 1e3 / proxies,
            "ms",
        );
        report.add(
            "connect",
            "resources for each proxy",
            counts.resources as f64 / proxies,
            "",
        );
        report.add(
            "connect",
            "bytes for each proxy",
            counts.bytes as f64 / proxies / 1e6,
            "MB",
        );
        report.add(
            "connect",
            "largest response",
            counts.largest as f64 / 1e6,
            "MB",
        );
        let held = (after.memory - alone.memory) / proxies;
        report.add("connect", "memory for each proxy, afterwards", held, "MB");
        let most = (after.peak - alone.memory) / proxies;
        report.add("connect", "memory for each proxy, at most", most, "MB");
        Ok(fleet)
    }

    /// Connects every proxy at once with what it has.
    async fn again(
        &mut self,
        part: &'static str,
        process: &Process,
        known: Known,
    ) -> Result<Fleet> {
        process.reset_peak();
        let before = process.used()?;
        let began = Instant::now();
        let fleet = Fleet::start(self.shape(), process.discovery(), known);
        fleet.synced().await?;
        let took = began.elapsed();
        tokio::time::sleep(SETTLE).await;
        let after = process.used()?;
        let counts = fleet.counts();
        let proxies = self.run.proxies as f64;
        let report = &mut self.report;
        report.add(
            part,
            "until every proxy is up to date",
            took.as_secs_f64(),
            "s",
        );
        report.add(
            part,
            "CPU for each proxy",
            (after.cpu - before.cpu) * 1e3 / proxies,
            "ms",
        );
        report.add(
            part,
            "resources for each proxy",
            counts.resources as f64 / proxies,
            "",
        );
        report.add(
            part,
            "bytes for each proxy",
            counts.bytes as f64 / proxies / 1e3,
            "kB",
        );
        report.add(part, "largest response", counts.largest as f64 / 1e6, "MB");
        report.add(part, "most memory", after.peak, "MB");
        report.add(part, "memory afterwards", after.memory, "MB");
        Ok(fleet)
    }
}
