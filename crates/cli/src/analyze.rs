//! `lateen analyze`: what is wrong with configuration, in the cluster, in files, or in the cluster as if the files were
//! applied. What it says is what the control plane says of the same objects.

mod gather;
mod pods;
mod print;
mod suppress;

use crate::args::{AnalyzeArgs, Level};
use anyhow::{Context as _, Result};
use gather::Gathered;
use lateen_api::mesh_config;
use lateen_api::notice::{Notice, Severity};
use lateen_translate::mesh::Mesh;
use lateen_translate::review::{Inputs, review};
use std::process::ExitCode;
use suppress::Suppressions;

/// Exit code when something was found (Istio: `istioctl analyze`).
const FOUND: u8 = 79;

/// Analyzers by name, for `--list-analyzers`.
const ANALYZERS: [(&str, &str); 7] = [
    (
        "validation",
        "each object by itself: fields, values, what has no effect",
    ),
    (
        "references",
        "hosts, subsets, ports, gateways and providers that do not exist",
    ),
    (
        "conflicts",
        "VirtualServices, Sidecars and Gateways that claim the same",
    ),
    (
        "exposure",
        "Gateways that no pod or Service makes reachable",
    ),
    (
        "security",
        "policies without workloads, without effect, or in each other's way",
    ),
    (
        "rate-limits",
        "RateLimitPolicies without workloads or service",
    ),
    ("injection", "namespaces and pods without sidecars"),
];

/// Looks at everything and prints what is found.
///
/// # Errors
/// A file or the cluster cannot be read.
pub async fn run(args: &AnalyzeArgs) -> Result<ExitCode> {
    if args.list_analyzers {
        for (name, what) in ANALYZERS {
            println!("{name:12} {what}");
        }
        return Ok(ExitCode::SUCCESS);
    }
    let suppressions = Suppressions::parse(&args.suppress)?;
    let mut gathered = Gathered::within(args.connection.namespace.as_deref());
    if args.use_kube {
        gathered.read_cluster(&args.connection).await?;
    }
    for file in &args.files {
        gathered.read_files(file, args.recursive)?;
    }
    let mesh = mesh_of(args, &mut gathered)?;
    let found = look(&gathered, &mesh, args, &suppressions);
    let shown = |notice: &&Notice| notice.severity >= args.output_threshold.severity();
    let shown: Vec<&Notice> = found.iter().filter(shown).collect();
    let place = described(args, &gathered);
    print!("{}", print::text(&args.output, &shown, &place)?);
    let failed = found
        .iter()
        .any(|notice| notice.severity >= args.failure_threshold.severity());
    if failed {
        eprintln!("Error: analyzers found issues when analyzing {place}.");
        return Ok(ExitCode::from(FOUND));
    }
    Ok(ExitCode::SUCCESS)
}

/// MeshConfig from the file given, else from the ConfigMap that was found.
fn mesh_of(args: &AnalyzeArgs, gathered: &mut Gathered) -> Result<Mesh> {
    let text = match &args.mesh_config_file {
        Some(path) => std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?,
        None => gathered.mesh_config().unwrap_or_default(),
    };
    let (config, told) = mesh_config::parse(&text);
    gathered.notices.extend(told);
    Ok(Mesh {
        config: config.unwrap_or_default(),
        ..Mesh::default()
    })
}

/// Everything that is found and to be told, worst first.
fn look(
    gathered: &Gathered,
    mesh: &Mesh,
    args: &AnalyzeArgs,
    suppressions: &Suppressions,
) -> Vec<Notice> {
    let objects = gathered.objects();
    let services: Vec<_> = gathered.services.iter().collect();
    let workloads = gathered.workloads();
    let workloads: Vec<_> = workloads
        .iter()
        .map(|(ns, labels)| (&**ns, labels))
        .collect();
    let mut found = gathered.notices.clone();
    found.extend(review(&Inputs {
        mesh,
        objects: &objects,
        services: &services,
        workloads: args.use_kube.then_some(&workloads),
    }));
    found.extend(pods::injection(gathered));
    gathered.place(&mut found);
    let namespace = (!args.all_namespaces).then_some(&*gathered.namespace);
    found.retain(|notice| {
        let here = namespace.is_none_or(|own| gathered.is_of(notice, own));
        here && !suppressions.cover(notice) && !gathered.is_suppressed(notice)
    });
    found.sort_by(|a, b| b.severity.cmp(&a.severity).then_with(|| a.cmp(b)));
    found.dedup();
    found
}

/// What was looked at, as part of a sentence.
fn described(args: &AnalyzeArgs, gathered: &Gathered) -> String {
    let names: Vec<_> = args
        .files
        .iter()
        .map(|file| file.display().to_string())
        .collect();
    match (names.is_empty(), args.use_kube, args.all_namespaces) {
        (false, false, _) => names.join(", "),
        (_, _, true) => "all namespaces".to_owned(),
        (true, _, false) => format!("namespace: {}", gathered.namespace),
        (false, true, false) => format!(
            "namespace: {} with {}",
            gathered.namespace,
            names.join(", ")
        ),
    }
}

impl Level {
    fn severity(self) -> Severity {
        match self {
            Self::Info => Severity::Info,
            Self::Warning => Severity::Warning,
            Self::Error => Severity::Error,
        }
    }
}

#[cfg(test)]
mod tests;
