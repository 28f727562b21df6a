//! Security as users set it up: mutual TLS, who may call whom, tokens, gateways' certificates, and the CA's own life.

mod authority;
mod custom;
mod gateway;
mod mtls;
mod policies;
mod tokens;

use crate::mesh::Mesh;
use anyhow::Result;

/// bookinfo with a caller in the mesh (`sleep`), another (`notsleep`), and one outside (`sleep` in namespace `legacy`).
fn bookinfo_with_callers() -> Result<Mesh> {
    let mesh = Mesh::up(&["--demo", "bookinfo"])?;
    mesh.kubectl(&[
        "apply",
        "-f",
        "samples/sleep/sleep.yaml",
        "-f",
        "samples/sleep/notsleep.yaml",
    ])?;
    mesh.kubectl(&["create", "namespace", "legacy"])?;
    mesh.kubectl(&["apply", "-n", "legacy", "-f", "samples/sleep/sleep.yaml"])?;
    for (namespace, name) in [
        ("default", "sleep"),
        ("default", "notsleep"),
        ("legacy", "sleep"),
    ] {
        let deployment = format!("deploy/{name}");
        mesh.kubectl(&[
            "rollout",
            "status",
            "-n",
            namespace,
            "--timeout=60s",
            &deployment,
        ])?;
    }
    Ok(mesh)
}

/// What a caller's curl came to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    /// An answer: status and body.
    Answer(u16, String),
    /// curl's exit code: 52 nothing came back, 56 reset.
    Exit(String),
}

impl Outcome {
    fn status(&self) -> u16 {
        match self {
            Self::Answer(status, _) => *status,
            Self::Exit(_) => 0,
        }
    }

    /// Whether the connection ended without an answer.
    fn is_reset(&self) -> bool {
        matches!(self, Self::Exit(code) if code == "52" || code == "56" || code == "35")
    }
}

/// curl in `namespace`'s pod of deployment and container `who`.
fn call(mesh: &Mesh, (namespace, who): (&str, &str), arguments: &[&str]) -> Result<Outcome> {
    let target = format!("deploy/{who}");
    let fixed = ["exec", "-n", namespace, &target, "-c", who, "--", "curl"];
    let format = ["-sS", "-m", "10", "-w", "\n%{http_code}"];
    let output = mesh
        .kubectl_command(&[&fixed[..], &format[..], arguments].concat())
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if let Some(code) = said.split("exit code ").nth(1) {
        let code = code.split_whitespace().next().unwrap_or_default();
        return Ok(Outcome::Exit(code.to_owned()));
    }
    anyhow::ensure!(output.status.success(), "kubectl exec: {said}");
    let all = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, status) = all.rsplit_once('\n').unwrap_or(("", "0"));
    Ok(Outcome::Answer(
        status.parse().unwrap_or_default(),
        body.to_owned(),
    ))
}

const SLEEP: (&str, &str) = ("default", "sleep");
const NOTSLEEP: (&str, &str) = ("default", "notsleep");
const LEGACY: (&str, &str) = ("legacy", "sleep");
