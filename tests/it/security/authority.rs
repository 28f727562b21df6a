//! The CA's own life: roots that change under load, a CA that is away, one that is plugged in, and alarms.

use super::{LEGACY, SLEEP, bookinfo_with_callers, call};
use crate::mesh::{Mesh, eventually};
use anyhow::{Context as _, Result, ensure};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A load of `rate` requests a second through the gateway; it ends by itself.
fn load(mesh: &Mesh, rate: u32, seconds: u64) -> Result<Child> {
    let binary = std::env::var_os("LATEEN_BIN").context("LATEEN_BIN")?;
    let url = format!("http://127.0.0.1:{}/productpage", mesh.http_port);
    let child = Command::new(binary)
        .args(["bench", "load", &url, "--rate", &rate.to_string()])
        .args(["--seconds", &seconds.to_string()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    Ok(child)
}

/// How long and how hard; `cargo xtask soak` sets more than the suite has time for.
struct Soak {
    seconds: u64,
    rate: u32,
    /// Lifetime of certificates, such as `20s`.
    lifetime: String,
    /// How long the CA is away, in seconds.
    away: u64,
}

impl Soak {
    fn of_environment() -> Self {
        let given = |name: &str| std::env::var(name).ok();
        let number = |name, default| given(name).and_then(|t| t.parse().ok()).unwrap_or(default);
        Self {
            seconds: number("LATEEN_SOAK_SECONDS", 30),
            rate: number("LATEEN_SOAK_RATE", 100) as u32,
            lifetime: given("LATEEN_SOAK_LIFETIME").unwrap_or_else(|| "20s".to_owned()),
            away: number("LATEEN_SOAK_AWAY_SECONDS", 8),
        }
    }

    /// Time between two events of a soak that shall not come at once.
    fn pause(&self) {
        std::thread::sleep(Duration::from_secs(
            self.seconds.saturating_sub(self.away) / 6,
        ));
    }
}

/// Serial numbers of the certificates that productpage's proxy holds.
fn serial(mesh: &Mesh) -> Result<String> {
    let shown = mesh.lateen(&[
        "proxy-config",
        "secret",
        "deploy/productpage-v1",
        "-o",
        "json",
    ])?;
    let value: serde_json::Value = serde_json::from_slice(&shown.stdout)
        .with_context(|| String::from_utf8_lossy(&shown.stderr).into_owned())?;
    let serial = value["certificates"][0]["cert_chain"][0]["serial_number"].as_str();
    Ok(serial.context("a serial number")?.to_owned())
}

fn root_of(mesh: &Mesh, namespace: &str) -> Result<String> {
    let map = mesh.object(&["configmap", "istio-ca-root-cert", "-n", namespace])?;
    let root = map["data"]["root-cert.pem"].as_str();
    Ok(root.context("root-cert.pem")?.to_owned())
}

/// Short-lived certificates, the root rotated twice, and the CA away for a while: nobody notices.
#[test]
fn rotation_and_an_absent_authority_lose_no_request() -> Result<()> {
    let soak = Soak::of_environment();
    let mesh = bookinfo_with_callers()?;
    short_lives(&mesh, &soak)?;
    let (first, root) = (serial(&mesh)?, root_of(&mesh, "default")?);
    let running = load(&mesh, soak.rate, soak.seconds)?;
    for _ in 0..2 {
        let before = root_of(&mesh, "default")?;
        let rotated = mesh.lateen(&["ca", "rotate"])?;
        ensure!(
            rotated.status.success(),
            "{}",
            String::from_utf8_lossy(&rotated.stderr)
        );
        eventually("the new root reaches every namespace", 20, || {
            let now = root_of(&mesh, "legacy")?;
            Ok(now != before && now.matches("BEGIN CERTIFICATE").count() >= 2)
        })?;
        soak.pause();
    }
    let scale =
        |replicas: &str| mesh.kubectl(&["scale", "-n", "istio-system", "deploy/istiod", replicas]);
    scale("--replicas=0")?;
    // The time that the CA is away is part of what is tested, not a wait for something.
    std::thread::sleep(Duration::from_secs(soak.away));
    scale("--replicas=1")?;
    let done = running.wait_with_output()?;
    println!("{}", String::from_utf8_lossy(&done.stdout));
    ensure!(
        done.status.success(),
        "{}{}",
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr)
    );
    ensure!(serial(&mesh)? != first, "certificates were renewed");
    ensure!(root_of(&mesh, "default")? != root, "the root is another");
    Ok(())
}

/// Has the CA sign certificates of the soak's lifetime, and every workload of bookinfo get one.
fn short_lives(mesh: &Mesh, soak: &Soak) -> Result<()> {
    let set = ["set", "env", "-n", "istio-system", "deploy/istiod"];
    let lifetime = format!("DEFAULT_WORKLOAD_CERT_TTL={}", soak.lifetime);
    let settings = [&*lifetime, "LATEEN_CA_TAKEOVER_TIME=3s"];
    mesh.kubectl(&[&set[..], &settings[..]].concat())?;
    let status = ["rollout", "status", "--timeout=60s"];
    let of = |what: &[&str]| mesh.kubectl(&[&status[..], what].concat());
    of(&["-n", "istio-system", "deploy/istiod"])?;
    mesh.kubectl(&["rollout", "restart", "deploy"])?;
    let gateway = ["-n", "istio-system", "deploy/istio-ingressgateway"];
    mesh.kubectl(&[&["rollout", "restart"], &gateway[..]].concat())?;
    for name in [
        "productpage-v1",
        "details-v1",
        "ratings-v1",
        "reviews-v1",
        "reviews-v2",
        "reviews-v3",
        "sleep",
    ] {
        of(&[&format!("deploy/{name}")])?;
    }
    of(&gateway)?;
    Ok(())
}

#[test]
fn check_tells_of_the_authority_and_of_its_end() -> Result<()> {
    let mesh = bookinfo_with_callers()?;
    let checked = mesh.lateen(&["check"])?;
    println!("{}", String::from_utf8_lossy(&checked.stdout));
    ensure!(
        checked.status.success(),
        "a sound mesh passes:\n{}{}",
        String::from_utf8_lossy(&checked.stdout),
        String::from_utf8_lossy(&checked.stderr)
    );
    // A threshold beyond the root's ten years makes it due.
    let alarmed = mesh.lateen(&["check", "--expiry-threshold", "96000h"])?;
    ensure!(!alarmed.status.success(), "check fails a pipeline");
    let said = String::from_utf8_lossy(&alarmed.stdout).into_owned();
    ensure!(said.contains("ca rotate"), "and says what to do:\n{said}");
    roots_are_repaired(&mesh)?;
    a_bad_plugged_in_authority_changes_nothing(&mesh)?;
    nobody_gets_a_certificate_without_a_token(&mesh)
}

fn roots_are_repaired(mesh: &Mesh) -> Result<()> {
    let root = root_of(mesh, "legacy")?;
    mesh.kubectl(&["delete", "configmap", "istio-ca-root-cert", "-n", "legacy"])?;
    eventually("a deleted root comes back", 10, || {
        Ok(root_of(mesh, "legacy").is_ok_and(|now| now == root))
    })?;
    mesh.kubectl(&["create", "namespace", "fresh"])?;
    eventually("a new namespace gets the root", 10, || {
        Ok(root_of(mesh, "fresh").is_ok_and(|now| now == root))
    })
}

fn a_bad_plugged_in_authority_changes_nothing(mesh: &Mesh) -> Result<()> {
    let script = "cd \"$1\" && for n in a b; do openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
                  -days 30 -subj /O=$n/CN=$n -out $n.pem -keyout $n.key 2>/dev/null; done";
    let folder = mesh.home.join("plugged");
    std::fs::create_dir(&folder)?;
    let folder_text = folder.to_str().context("path is UTF-8")?;
    let made = Command::new("sh")
        .args(["-c", script, "sh", folder_text])
        .status()?;
    ensure!(made.success(), "openssl makes certificates");
    let root = root_of(mesh, "default")?;
    let file = |name: &str, path: &str| format!("--from-file={name}={folder_text}/{path}");
    mesh.kubectl(&[
        "create",
        "secret",
        "generic",
        "cacerts",
        "-n",
        "istio-system",
        &file("ca-cert.pem", "a.pem"),
        &file("ca-key.pem", "b.key"),
        &file("root-cert.pem", "a.pem"),
        &file("cert-chain.pem", "a.pem"),
    ])?;
    eventually("the mismatch is told", 10, || {
        let log = mesh.kubectl(&["logs", "-n", "istio-system", "deploy/istiod"])?;
        Ok(log.contains("cacerts") && log.contains("key"))
    })?;
    ensure!(root_of(mesh, "default")? == root, "the last good one stays");
    let page = call(
        mesh,
        SLEEP,
        &["http://productpage.default:9080/productpage"],
    )?;
    ensure!(page.status() == 200, "{page:?}");
    Ok(())
}

fn nobody_gets_a_certificate_without_a_token(mesh: &Mesh) -> Result<()> {
    // An empty message in gRPC's frame.
    let script = "printf '\\0\\0\\0\\0\\0' | curl -sS -k --http2 -D - -m 10 -H 'content-type: application/grpc' -H 'te: trailers' \
                  --data-binary @- https://istiod.istio-system:15012/istio.v1.auth.IstioCertificateService/CreateCertificate";
    let target = ["exec", "-n", "legacy", "deploy/sleep", "--", "sh", "-c"];
    let shown = mesh.kubectl(&[&target[..], &[script]].concat())?;
    ensure!(
        shown.contains("grpc-status: 16"),
        "unauthenticated: {shown}"
    );
    let plain = call(mesh, LEGACY, &["http://istiod.istio-system:15010/"])?;
    ensure!(plain.status() == 0, "plaintext xDS is closed: {plain:?}");
    let debug = call(
        mesh,
        LEGACY,
        &["http://istiod.istio-system:15014/debug/config_dump"],
    )?;
    ensure!(
        matches!(debug.status(), 401 | 403),
        "debug pages want a token: {debug:?}"
    );
    Ok(())
}
