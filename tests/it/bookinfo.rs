//! What a newcomer does: one command, the page, 2/2 pods, traffic shifted with Istio's YAML.

use crate::mesh::{Mesh, eventually};
use anyhow::{Result, ensure};

const NETWORKING: &str = "samples/bookinfo/networking";

/// `../shared/…`-free: only the project's own samples.
fn sample(name: &str) -> String {
    format!("{NETWORKING}/{name}")
}

fn stars(page: &str) -> &'static str {
    if page.contains("red stars") {
        "red"
    } else if page.contains("black stars") {
        "black"
    } else {
        "none"
    }
}

#[test]
fn one_command_opens_the_page_through_the_mesh_and_yaml_shifts_it() -> Result<()> {
    let mesh = Mesh::up(&["--demo", "bookinfo"])?;
    let (status, page) = mesh.curl("/productpage", &[])?;
    ensure!(
        status == 200 && page.contains("<title>Simple Bookstore App</title>"),
        "{status}\n{page}"
    );

    let pods = mesh.kubectl(&["get", "pods", "--no-headers"])?;
    ensure!(pods.lines().count() == 6, "six pods expected:\n{pods}");
    for line in pods.lines() {
        ensure!(line.contains("2/2") && line.contains("Running"), "{line}");
    }
    let title = mesh.exec(
        "deploy/ratings-v1",
        "ratings",
        &["curl", "-sS", "-m", "10", "productpage:9080/productpage"],
    )?;
    ensure!(
        title.contains("<title>Simple Bookstore App</title>"),
        "{title}"
    );

    analysis(&mesh)?;
    mesh.kubectl(&["apply", "-f", &sample("destination-rule-all.yaml")])?;
    mesh.kubectl(&["apply", "-f", &sample("virtual-service-reviews-v3.yaml")])?;
    eventually("every page shows red stars", 5, || {
        Ok((0..10).all(|_| {
            mesh.curl("/productpage", &[])
                .is_ok_and(|(_, page)| stars(&page) == "red")
        }))
    })?;
    split_is_ninety_to_ten(&mesh)?;
    jason_sees_black_stars(&mesh)?;

    let bench = mesh.lateen(&["bench", "propagation", "--changes", "10"])?;
    println!("{}", String::from_utf8_lossy(&bench.stdout));
    ensure!(
        bench.status.success(),
        "{}",
        String::from_utf8_lossy(&bench.stderr)
    );
    logs_and_metrics_tell_of_it(&mesh)
}

fn split_is_ninety_to_ten(mesh: &Mesh) -> Result<()> {
    mesh.kubectl(&["apply", "-f", &sample("virtual-service-reviews-90-10.yaml")])?;
    eventually("nobody shows red stars any more", 5, || {
        Ok((0..10).all(|_| {
            mesh.curl("/productpage", &[])
                .is_ok_and(|(_, page)| stars(&page) != "red")
        }))
    })?;
    let loop_in_pod =
        "for i in $(seq 2000); do curl -s -m 10 http://reviews:9080/reviews/0; echo; done";
    let answers = mesh.exec(
        "deploy/productpage-v1",
        "productpage",
        &["sh", "-c", loop_in_pod],
    )?;
    let count = |version: &str| {
        answers
            .matches(&format!("\"version\": \"{version}\""))
            .count()
    };
    let (v1, v2) = (count("v1"), count("v2"));
    println!("90/10 split over 2000 requests: v1 {v1}, v2 {v2}");
    ensure!(v1 + v2 == 2000, "2000 answers expected: v1 {v1}, v2 {v2}");
    ensure!(
        (160..=240).contains(&v2),
        "10% within two points: {v2} of 2000 went to v2"
    );
    Ok(())
}

fn jason_sees_black_stars(mesh: &Mesh) -> Result<()> {
    mesh.kubectl(&[
        "apply",
        "-f",
        &sample("virtual-service-reviews-test-v2.yaml"),
    ])?;
    let as_jason = ["-H", "cookie: session=jason"];
    eventually("jason always sees black stars, others none", 5, || {
        let jason = (0..10).all(|_| {
            mesh.curl("/productpage", &as_jason)
                .is_ok_and(|(_, p)| stars(&p) == "black")
        });
        let others = (0..10).all(|_| {
            mesh.curl("/productpage", &[])
                .is_ok_and(|(_, p)| stars(&p) == "none")
        });
        Ok(jason && others)
    })
}

/// Nothing is wrong; a file that needs another one first is told of before it is applied.
fn analysis(mesh: &Mesh) -> Result<()> {
    let said = mesh.lateen(&["analyze"])?;
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    let fine = "✔ No validation issues found when analyzing namespace: default.\n";
    ensure!(said.status.code() == Some(0) && text == fine, "{said:?}");
    let file = sample("virtual-service-reviews-v3.yaml");
    let said = mesh.lateen(&["analyze", &file])?;
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    let start = format!("Error [IST0101] (VirtualService default/reviews {file}:13)");
    ensure!(
        said.status.code() == Some(79) && text.starts_with(&start),
        "{said:?}"
    );
    Ok(())
}

fn logs_and_metrics_tell_of_it(mesh: &Mesh) -> Result<()> {
    let log = mesh.kubectl(&[
        "logs",
        "deploy/productpage-v1",
        "-c",
        "istio-proxy",
        "--tail=200",
    ])?;
    ensure!(
        log.contains("outbound|9080|v2|reviews.default.svc.cluster.local"),
        "access log names the cluster:\n{log}"
    );
    let metrics = mesh.exec(
        "deploy/productpage-v1",
        "productpage",
        &["curl", "-sS", "localhost:15020/stats/prometheus"],
    )?;
    let wanted = "destination_service=\"reviews.default.svc.cluster.local\"";
    let line = metrics
        .lines()
        .find(|l| l.starts_with("istio_requests_total") && l.contains(wanted));
    ensure!(
        line.is_some_and(|l| l.contains("reporter=\"source\"")),
        "no series for reviews:\n{metrics}"
    );
    let status = mesh.lateen(&["sandbox", "status"])?;
    println!("{}", String::from_utf8_lossy(&status.stdout));
    let plan = mesh.lateen(&[
        "simulate",
        "--from",
        "deploy/productpage-v1",
        "--to",
        "http://reviews:9080/reviews/0",
        "-H",
        "end-user: jason",
    ])?;
    let plan = String::from_utf8_lossy(&plan.stdout).into_owned();
    ensure!(
        plan.contains("VirtualService default/reviews") && plan.contains("|v2|"),
        "{plan}"
    );
    Ok(())
}
