//! Lateen against Envoy: each case is Istio's YAML for Lateen, the routes that Istio makes of it for Envoy, and requests
//! that are played to both. What the client and the upstreams saw must be the same, but for the differences that
//! `known.yaml` lists with their reasons. One Lateen, one Envoy and one set of upstreams serve all cases.
//!
//! ```text
//! cases/*.yaml ─> case ─┬─> lateen ─> proxies ─┐
//!                       └─> envoy  ─> proxies ─┴─> client ─> (proxy ─> upstream) ─> seen ─> compare with known
//! ```
//!
//! `LATEEN_DIFFERENTIAL=text` plays only the cases whose names contain it.

mod case;
mod client;
mod compare;
mod envoy;
mod lateen;
mod proxies;
mod seen;
mod upstream;

use anyhow::{Context as _, Result, ensure};
use case::{Case, Cases};
use compare::Known;
use proxies::Proxies;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Fewest cases that the suite must have: a file that is not read would otherwise go unnoticed.
const FEWEST: usize = 120;

#[test]
fn requests_go_as_envoy_sends_them() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(compare_all())
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("differential")
}

async fn compare_all() -> Result<()> {
    let cases = Cases::read(&folder().join("cases"))?;
    let known = Known::read(&folder().join("known.yaml"))?;
    let only = std::env::var("LATEEN_DIFFERENTIAL").ok();
    ensure!(
        cases.all.len() >= FEWEST,
        "{} cases were read, {FEWEST} are expected",
        cases.all.len()
    );
    let chosen = |case: &&Case| only.as_deref().is_none_or(|only| case.name.contains(only));
    let upstreams = upstream::Upstreams::start(&cases).await?;
    let proxies = Proxies::start(&cases, &upstreams).await?;
    let mut report = compare::Report::new(&known);
    for case in cases.all.iter().filter(chosen) {
        if let Some(what) = &case.not_yet {
            println!("not yet: {}: {what}", case.name);
            continue;
        }
        let played = async {
            let (ours, theirs) = tokio::try_join!(
                client::play(case, proxies.lateen.port, &upstreams),
                client::play(case, proxies.envoy.port, &upstreams),
            )?;
            anyhow::Ok((ours, theirs))
        };
        let (ours, mut theirs) = played
            .await
            .with_context(|| format!("{}\n{}", case.name, proxies.logs()))?;
        seen::without_own_address(&mut theirs);
        report.case(case, &ours, &theirs);
    }
    let mut problems = report.problems;
    if only.is_none() {
        problems.extend(known.unused(&report.met));
    }
    println!(
        "{} cases, {} requests, {} known differences, {} not yet",
        report.cases,
        report.requests,
        report.met.len(),
        cases.all.iter().filter(|c| c.not_yet.is_some()).count()
    );
    let mut text = String::new();
    for problem in &problems {
        let _ = writeln!(text, "{problem}");
    }
    ensure!(problems.is_empty(), "Lateen and Envoy differ:\n{text}");
    Ok(())
}
