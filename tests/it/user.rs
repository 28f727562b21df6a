//! The same walk-through as root and as an ordinary user, twice in a row, and after everything was killed.

use crate::mesh::{As, Mesh, eventually};
use anyhow::{Result, ensure};

fn page_opens(mesh: &Mesh) -> Result<()> {
    let (status, page) = mesh.curl("/productpage", &[])?;
    ensure!(
        status == 200 && page.contains("<title>Simple Bookstore App</title>"),
        "{status}\n{page}"
    );
    Ok(())
}

/// Links and nftables tables of the host that a sandbox might have made.
fn traces_on_host() -> String {
    let links = std::fs::read_dir("/sys/class/net")
        .into_iter()
        .flatten()
        .flatten();
    let mut links: Vec<String> = links
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    links.sort();
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mounts = mounts
        .lines()
        .filter(|line| line.contains("lateen-e2e"))
        .count();
    format!("links {links:?}, mounts {mounts}")
}

/// Processes that run the binary with `home` in their environment.
fn processes_of(mesh: &Mesh) -> usize {
    let needle = format!("LATEEN_HOME={}", mesh.home.display());
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter(|entry| {
            let environ = std::fs::read(entry.path().join("environ")).unwrap_or_default();
            String::from_utf8_lossy(&environ).contains(&needle)
        })
        .count()
}

fn twice_and_after_a_kill(user: As) -> Result<()> {
    let before = traces_on_host();
    let mut mesh = Mesh::up_as(user, &["--demo", "bookinfo"])?;
    page_opens(&mesh)?;
    mesh.interrupt()?;
    ensure!(processes_of(&mesh) == 0, "Ctrl-C leaves no process");
    ensure!(
        traces_on_host() == before,
        "Ctrl-C leaves nothing on the host: {before} → {}",
        traces_on_host()
    );

    mesh.start_again(&["--demo", "bookinfo"])?;
    page_opens(&mesh)?;
    mesh.kill()?;
    eventually("kill -9 leaves no process", 10, || {
        Ok(processes_of(&mesh) == 0)
    })?;
    ensure!(
        traces_on_host() == before,
        "kill -9 leaves nothing on the host: {before} → {}",
        traces_on_host()
    );

    mesh.start_again(&["--demo", "bookinfo"])?;
    page_opens(&mesh)?;
    let down = mesh.lateen(&["sandbox", "down"])?;
    ensure!(
        down.status.success(),
        "{}",
        String::from_utf8_lossy(&down.stderr)
    );
    eventually(
        "down leaves no process",
        10,
        || Ok(processes_of(&mesh) == 0),
    )?;
    ensure!(
        traces_on_host() == before,
        "down leaves nothing on the host"
    );
    Ok(())
}

#[test]
fn as_the_caller() -> Result<()> {
    twice_and_after_a_kill(As::Caller)
}

#[test]
fn as_an_ordinary_user() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        println!("the tests already run as an ordinary user: as_the_caller covers it");
        return Ok(());
    }
    twice_and_after_a_kill(As::Nobody)
}
