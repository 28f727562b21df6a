//! Every way to look at objects, and what is refused.

use crate::mesh::{Mesh, text};
use anyhow::{Result, ensure};
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

/// Every way to look.
pub(super) fn reads(mesh: &Mesh) -> Result<()> {
    for (arguments, expected) in [
        ("get all", "deployment.apps/web"),
        ("get pods -A -o wide", "NOMINATED NODE"),
        ("get pods --show-labels --sort-by=.metadata.name", "app=web"),
        (
            "get pods -l app=web --field-selector=status.phase=Running -o name",
            "pod/web-",
        ),
        (
            "get deploy -o custom-columns=REPLICAS:.spec.replicas",
            "REPLICAS",
        ),
        ("get deploy web -o yaml", "progressDeadlineSeconds: 600"),
        ("get nodes -o wide", "CONTAINER-RUNTIME"),
        (
            "get ns,sa,cm,secret,svc,ep,endpointslice",
            "configmap/kube-root-ca.crt",
        ),
        ("get events --sort-by=.lastTimestamp", "ScalingReplicaSet"),
        ("events --for deploy/web", "ScalingReplicaSet"),
        ("describe pod -l app=web", "QoS Class:"),
        ("describe rs -l app=web", "Controlled By:  Deployment/web"),
        ("describe svc web", "Endpoints:  "),
        ("describe node lateen", "KubeletReady"),
        ("describe ns default", "Status:       Active"),
        ("describe sa default", "Name:"),
        ("describe cm kube-root-ca.crt", "BEGIN CERTIFICATE"),
        (
            "describe endpointslice -l kubernetes.io/service-name=web",
            "AddressType:  IPv4",
        ),
        ("api-resources", "deployments"),
        ("api-versions", "apps/v1"),
        ("cluster-info", "control plane"),
        ("explain deployment.spec.strategy", "rollingUpdate"),
        ("explain pod --recursive", "terminationGracePeriodSeconds"),
        ("auth whoami", "kubernetes-admin"),
        ("auth can-i delete pods", "yes"),
        ("get --raw /readyz", "ok"),
        ("wait --for=condition=Available deploy/web", "condition met"),
        ("logs -l app=web --prefix --tail=1", "listening on port"),
        (
            "logs deploy/web --all-containers --timestamps",
            "Z listening on port",
        ),
    ] {
        let words: Vec<&str> = arguments.split(' ').collect();
        let shown = mesh.kubectl(&words)?;
        ensure!(
            shown.contains(expected),
            "kubectl {arguments} shows no {expected:?}:\n{shown}"
        );
    }
    watched(mesh)
}

/// `get -w` tells of every change.
fn watched(mesh: &Mesh) -> Result<()> {
    let mut watch = mesh
        .kubectl_command(&["get", "cm", "-w", "--output-watch-events"])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(watch.stdout.take().expect("piped")).lines();
    let mut until = |expected: [&str; 2]| -> Result<()> {
        for line in lines.by_ref() {
            let line = line?;
            if line
                .split_whitespace()
                .zip(expected)
                .filter(|(a, b)| a == b)
                .count()
                == 2
            {
                return Ok(());
            }
        }
        anyhow::bail!("the watch ended without {expected:?}")
    };
    until(["ADDED", "kube-root-ca.crt"])?;
    mesh.kubectl(&["create", "cm", "watched"])?;
    until(["ADDED", "watched"])?;
    mesh.kubectl(&["delete", "cm", "watched"])?;
    until(["DELETED", "watched"])?;
    watch.kill()?;
    watch.wait()?;
    Ok(())
}

/// What cannot work here says so.
pub(super) fn refusals(mesh: &Mesh) -> Result<()> {
    mesh.kubectl(&["create", "deployment", "d", "--image=pause"])?;
    let said = mesh.kubectl_fails(&["autoscale", "deploy", "d", "--max=3"])?;
    ensure!(
        said.contains("nothing in this cluster measures load"),
        "{said}"
    );
    ensure!(mesh.kubectl(&["get", "hpa", "-o", "name"])?.is_empty());
    ensure!(
        mesh.kubectl_fails(&["top", "pods"])?
            .contains("Metrics API not available")
    );
    let idle = mesh
        .kubectl_command(&["create", "quota", "q", "--hard=pods=1"])
        .output()?;
    ensure!(
        text(&idle.stderr).contains("no limit is enforced"),
        "{}",
        text(&idle.stderr)
    );
    let wrong =
        mesh.kubectl_fails(&["scale", "deploy/d", "--replicas=2", "--current-replicas=7"])?;
    ensure!(
        wrong.contains("Expected replicas to be 7, was 1"),
        "{wrong}"
    );
    ensure!(
        mesh.kubectl_fails(&["exec", "deploy/d", "-c", "other", "--", "ls"])?
            .contains("is not valid for pod")
    );
    mesh.kubectl(&["delete", "deploy", "d"])?;
    Ok(())
}
