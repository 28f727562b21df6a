//! A gateway from a local file and nothing else of Lateen, for trying changes of the data plane against its peers
//! without building the whole program: it takes the arguments of `lateen proxy router` that the benchmark gives
//! (`LATEEN_BIN=…/lateen-alone`). It is slightly faster than the whole program, which is what counts.

#[path = "../../../../crates/cli/src/local.rs"]
mod local;

use anyhow::{Context as _, Result, bail};
use lateen_identity::source::Files;
use lateen_model::mesh::{Role, Scope};
use lateen_proxy::{Certificates, Config, Identity, Ports};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<()> {
    let mut given = std::env::args().skip(1);
    match given.next().as_deref() {
        Some("proxy") => {}
        Some("version") => {
            println!("lateen-alone {}", env!("CARGO_PKG_VERSION"));
            return Ok(());
        }
        _ => bail!("lateen-alone proxy router --config FILE …, as `lateen proxy router` takes it"),
    }
    given.next();
    let mut arguments = HashMap::new();
    while let (Some(name), Some(value)) = (given.next(), given.next()) {
        arguments.insert(name, value);
    }
    let text = |name: &str| {
        let value = arguments.get(name);
        value.with_context(|| format!("{name} is missing"))
    };
    let number = |name: &str| -> Result<u16> { Ok(text(name)?.parse()?) };
    let mut config = Config::new(scope());
    config.resources = Some(local::resources(Path::new(text("--config")?))?);
    config.identity = Some(Identity {
        certificates: Certificates::Files(Files {
            chain: text("--certificates")?.into(),
            key: text("--key")?.into(),
            roots: PathBuf::from(text("--roots")?),
        }),
        cache: None,
        control_plane: None,
    });
    config.ports = Ports {
        bind: text("--bind")?.parse()?,
        admin: number("--admin-port")?,
        merged: 0,
        ready: 0,
        metrics: 0,
        ..Ports::default()
    };
    config.concurrency = number("--concurrency")?.into();
    lateen_proxy::run(config)?;
    Ok(())
}

fn scope() -> Scope {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    Scope {
        on_demand: false,
        role: Role::Gateway,
        pod: variable("POD_NAME").into(),
        namespace: variable("POD_NAMESPACE").into(),
        labels: BTreeMap::from([("app".into(), "bench".into())]),
        addresses: variable("INSTANCE_IP").parse().into_iter().collect(),
        service_account: variable("SERVICE_ACCOUNT").into(),
        workload_name: "bench".into(),
        canonical_name: "bench".into(),
        canonical_revision: "latest".into(),
        cluster: "Kubernetes".into(),
        domain: "cluster.local".into(),
    }
}
