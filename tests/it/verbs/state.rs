//! Kept state: what was acknowledged outlives a kill, and a full disk says so.

use crate::mesh::{As, Mesh, eventually};
use anyhow::{Result, ensure};

#[test]
fn objects_outlive_a_kill() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let state = folder.path().join("state");
    let up = ["--no-mesh", "--state", state.to_str().expect("UTF-8")];
    let mut mesh = Mesh::up(&up)?;
    mesh.kubectl(&[
        "create",
        "deployment",
        "web",
        "--image=lateen/httpbin",
        "--port=8080",
    ])?;
    mesh.kubectl(&["rollout", "status", "deploy/web", "--timeout=30s"])?;
    for number in 0..20 {
        mesh.kubectl(&[
            "create",
            "cm",
            &format!("kept-{number}"),
            "--from-literal=a=1",
        ])?;
    }
    let before = mesh.object(&["cm", "kept-19"])?;
    mesh.kill()?;
    mesh.start_again(&up)?;
    ensure!(
        mesh.object(&["cm", "kept-19"])? == before,
        "the last write before the kill is there, unchanged"
    );
    ensure!(
        mesh.kubectl(&["get", "cm", "-o", "name"])?
            .matches("kept-")
            .count()
            == 20
    );
    eventually("the pod runs again and answers", 30, || {
        Ok(mesh
            .exec(
                "deploy/web",
                "httpbin",
                &["curl", "-sS", "-m", "2", "http://127.0.0.1:8080/json"],
            )?
            .contains("slideshow"))
    })?;
    let count = "jsonpath={.items[0].status.containerStatuses[0].restartCount}";
    let restarts = mesh.kubectl(&["get", "pods", "-l", "app=web", "-o", count])?;
    ensure!(
        restarts == "1",
        "the lost run counts as a restart: {restarts}"
    );
    Ok(())
}

#[test]
fn a_full_disk_is_told_and_reads_go_on() -> Result<()> {
    let mesh = Mesh::up_as(As::OnSmallDisk, &["--no-mesh", "--state", Mesh::SMALL_DISK])?;
    let big = mesh.home.join("big");
    std::fs::write(&big, "x".repeat(700_000))?;
    let from = format!("--from-file=a={}", big.display());
    let mut refused = None;
    for number in 0..8 {
        let output = mesh
            .kubectl_command(&["create", "cm", &format!("big-{number}"), &from])
            .output()?;
        if !output.status.success() {
            refused = Some(crate::mesh::text(&output.stderr));
            break;
        }
    }
    let said = refused.unwrap_or_default();
    ensure!(
        said.contains("No space left on device") && said.trim().lines().count() == 1,
        "{said}"
    );
    ensure!(
        mesh.kubectl(&["get", "cm", "-o", "name"])?
            .contains("big-0"),
        "reads go on"
    );
    Ok(())
}
