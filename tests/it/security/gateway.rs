//! Certificates at the gateway: from secrets, reloaded without a dropped connection, never from another namespace.

use crate::mesh::{Mesh, eventually, free_port};
use anyhow::{Context as _, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A self-signed certificate for `host`, made by openssl: paths of certificate and key.
fn certificate(folder: &Path, name: &str, host: &str) -> Result<(PathBuf, PathBuf)> {
    let (cert, key) = (
        folder.join(format!("{name}.crt")),
        folder.join(format!("{name}.key")),
    );
    let output = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
        ])
        .args([
            "-nodes",
            "-days",
            "30",
            "-subj",
            &format!("/O={name}/CN={host}"),
        ])
        .args(["-addext", &format!("subjectAltName=DNS:{host}")])
        .arg("-out")
        .arg(&cert)
        .arg("-keyout")
        .arg(&key)
        .output()
        .context("cannot start openssl")?;
    ensure!(
        output.status.success(),
        "openssl: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok((cert, key))
}

fn put_secret(mesh: &Mesh, namespace: &str, (cert, key): &(PathBuf, PathBuf)) -> Result<()> {
    let file = |path: &Path| path.display().to_string();
    let made = mesh.kubectl(&[
        "create",
        "secret",
        "tls",
        "bookinfo-credential",
        "-n",
        namespace,
        "--cert",
        &file(cert),
        "--key",
        &file(key),
        "--dry-run=client",
        "-o",
        "yaml",
    ])?;
    mesh.apply(&made)?;
    Ok(())
}

const GATEWAY: &str = "
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: secure, namespace: default}
spec:
  selector: {istio: ingressgateway}
  servers:
    - port: {number: 443, name: https, protocol: HTTPS}
      hosts: [bookinfo.example.com]
      tls: {mode: SIMPLE, credentialName: bookinfo-credential}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: secure, namespace: default}
spec:
  hosts: [bookinfo.example.com]
  gateways: [secure]
  http:
    - route: [{destination: {host: productpage, port: {number: 9080}}}]
";

/// curl over HTTPS to the gateway, trusting `authority`: status, or curl's error.
fn https(port: u16, authority: &Path) -> Result<String> {
    let output = Command::new("curl")
        .args([
            "-sS",
            "-m",
            "10",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code} %{http_version}",
        ])
        .args([
            "--resolve",
            &format!("bookinfo.example.com:{port}:127.0.0.1"),
        ])
        .arg("--cacert")
        .arg(authority)
        .arg(format!("https://bookinfo.example.com:{port}/productpage"))
        .output()?;
    Ok(format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    ))
}

#[test]
fn https_with_a_secret_that_is_replaced_under_load() -> Result<()> {
    let port = free_port();
    let publish = format!("{port}=istio-system/istio-ingressgateway:443");
    let mesh = Mesh::up(&["--demo", "bookinfo", "--publish", &publish])?;
    let folder = mesh.home.clone();
    let first = certificate(&folder, "first", "bookinfo.example.com")?;
    let second = certificate(&folder, "second", "bookinfo.example.com")?;

    // A secret of the same name elsewhere must not be taken: the gateway runs in istio-system.
    put_secret(&mesh, "default", &second)?;
    mesh.apply(GATEWAY)?;
    eventually(
        "the missing secret shows in the Gateway's status",
        10,
        || {
            let object = mesh.object(&["gateways.networking.istio.io", "secure"])?;
            Ok(object["status"].to_string().contains("bookinfo-credential"))
        },
    )?;
    ensure!(!https(port, &second.0)?.starts_with("200"));

    put_secret(&mesh, "istio-system", &first)?;
    eventually("the page opens over HTTPS", 10, || {
        Ok(https(port, &first.0)?.starts_with("200 2"))
    })?;
    ensure!(!https(port, &second.0)?.starts_with("200"));

    put_secret(&mesh, "istio-system", &second)?;
    eventually("the new certificate is served", 10, || {
        Ok(https(port, &second.0)?.starts_with("200"))
    })?;
    a_broken_secret_leaves_the_last_good_one(&mesh, port, &second, &first)
}

fn a_broken_secret_leaves_the_last_good_one(
    mesh: &Mesh,
    port: u16,
    good: &(PathBuf, PathBuf),
    other: &(PathBuf, PathBuf),
) -> Result<()> {
    // kubectl itself checks pairs of `create secret tls`, so the mismatch is written into the object.
    let key = std::fs::read_to_string(&other.1)?;
    let patch = serde_json::json!({"stringData": {"tls.key": key}}).to_string();
    mesh.kubectl(&[
        "patch",
        "secret",
        "bookinfo-credential",
        "-n",
        "istio-system",
        "-p",
        &patch,
    ])?;
    eventually("the mismatch shows in the Gateway's status", 10, || {
        let object = mesh.object(&["gateways.networking.istio.io", "secure"])?;
        Ok(object["status"].to_string().contains("key"))
    })?;
    let answer = https(port, &good.0)?;
    ensure!(answer.starts_with("200"), "{answer}");
    Ok(())
}
