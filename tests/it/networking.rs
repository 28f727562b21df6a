//! Istio's own networking samples, file by file: each does to bookinfo what its name says, and is taken away again.
//! The samples lie beside the project, in `../shared/istio`.
//!
//! `LATEEN_NETWORKING=text` walks only the files whose names contain it, after the gateway's.

mod faults;
mod gateways;
mod rules;
mod shifts;

use crate::mesh::{Mesh, eventually, root};
use anyhow::{Context as _, Result, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// What a file does, looked at from outside; the file is applied.
type Check = fn(&Walk) -> Result<()>;

/// Every file, in the order of the walk. The gateway's is not taken away: the others need it.
const FILES: &[(&str, Check)] = &[
    ("bookinfo-gateway", gateways::opens_the_page),
    ("certmanager-gateway", gateways::answers_challenges),
    ("destination-rule-all", rules::has_subsets),
    ("destination-rule-all-mtls", rules::wants_mutual_tls),
    ("destination-rule-reviews", rules::balances_at_random),
    ("egress-rule-google-apis", gateways::lets_google_out),
    ("fault-injection-details-v1", faults::details_abort),
    ("virtual-service-all-v1", shifts::all_are_v1),
    ("virtual-service-details-v2", shifts::details_are_v2),
    ("virtual-service-ratings-db", shifts::ratings_are_v2),
    ("virtual-service-ratings-mysql", shifts::ratings_are_mysql),
    ("virtual-service-ratings-mysql-vm", shifts::ratings_are_a_vm),
    ("virtual-service-ratings-test-abort", faults::ratings_abort),
    ("virtual-service-ratings-test-delay", faults::ratings_wait),
    ("virtual-service-reviews-50-v3", shifts::half_are_v3),
    ("virtual-service-reviews-80-20", shifts::a_fifth_is_v2),
    ("virtual-service-reviews-90-10", shifts::a_tenth_is_v2),
    (
        "virtual-service-reviews-jason-v2-v3",
        shifts::jason_v2_others_v3,
    ),
    (
        "virtual-service-reviews-test-v2",
        shifts::jason_v2_others_v1,
    ),
    ("virtual-service-reviews-v2-v3", shifts::half_v2_half_v3),
    ("virtual-service-reviews-v3", shifts::all_are_v3),
];

/// What pages with ratings hold.
const RATED: &str = "class=\"stars\"";

/// Bookinfo in a sandbox, seen from the product page's pod and through the gateway.
struct Walk {
    mesh: Mesh,
}

/// One request from a pod: what was answered.
#[derive(Debug)]
struct Answer {
    status: u16,
    body: String,
    seconds: f64,
}

#[test]
fn istios_networking_samples_do_what_their_names_say() -> Result<()> {
    let there: BTreeSet<String> = std::fs::read_dir(folder())
        .with_context(|| format!("{}: the samples belong there", folder().display()))?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    let walked = FILES.iter().map(|(name, _)| format!("{name}.yaml"));
    ensure!(
        there == walked.collect(),
        "each file has its check: {there:?}"
    );

    let walk = Walk {
        mesh: Mesh::up(&["--demo", "bookinfo"])?,
    };
    walk.mesh
        .kubectl(&["delete", "gateways,virtualservices", "--all"])?;
    eventually("the gateway is closed", 10, || {
        Ok(!walk
            .mesh
            .curl("/productpage", &[])
            .is_ok_and(|(status, _)| status == 200))
    })?;
    let only = std::env::var("LATEEN_NETWORKING").unwrap_or_default();
    let chosen = |(name, _): &&(&str, Check)| name.contains(&only) || *name == FILES[0].0;
    for (name, check) in FILES.iter().filter(chosen) {
        walk.file(name, *check)
            .with_context(|| format!("{name}.yaml"))?;
        println!("{name}.yaml does what it says");
    }
    Ok(())
}

fn folder() -> PathBuf {
    root().join("../shared/istio/bookinfo/networking")
}

fn sample(name: &str) -> String {
    folder()
        .join(format!("{name}.yaml"))
        .to_string_lossy()
        .into_owned()
}

impl Walk {
    fn file(&self, name: &str, check: Check) -> Result<()> {
        self.apply(name)?;
        check(self)?;
        match name {
            "bookinfo-gateway" => Ok(()),
            _ => self.delete(name),
        }
    }

    fn apply(&self, name: &str) -> Result<()> {
        self.mesh.kubectl(&["apply", "-f", &sample(name)])?;
        Ok(())
    }

    fn delete(&self, name: &str) -> Result<()> {
        self.mesh
            .kubectl(&["delete", "--ignore-not-found", "-f", &sample(name)])?;
        Ok(())
    }

    /// `check` while another file is in force, too.
    fn with(&self, name: &str, check: impl FnOnce() -> Result<()>) -> Result<()> {
        self.apply(name)?;
        check()?;
        self.delete(name)
    }

    /// A request from the product page's pod.
    fn get(&self, url: &str, headers: &[&str]) -> Result<Answer> {
        let mut curl = vec!["curl", "-sS", "-m", "20"];
        curl.extend(["-w", "\n%{http_code} %{time_total}", url]);
        curl.extend(headers.iter().flat_map(|header| ["-H", header]));
        let said = self.inside(&curl)?;
        let (body, figures) = said.rsplit_once('\n').context("curl's figures")?;
        let (status, seconds) = figures.split_once(' ').context("curl's figures")?;
        Ok(Answer {
            status: status.parse()?,
            body: body.to_owned(),
            seconds: seconds.parse()?,
        })
    }

    /// A command in the product page's pod.
    fn inside(&self, command: &[&str]) -> Result<String> {
        self.mesh
            .exec("deploy/productpage-v1", "productpage", command)
    }

    /// Which versions of reviews answer so many requests, and how often.
    fn reviews(&self, count: usize, header: &str) -> Result<BTreeMap<String, usize>> {
        let url = format!("http://reviews:9080/reviews/[1-{count}]");
        let said = self.inside(&["curl", "-sS", "-m", "60", "-H", header, &url])?;
        let mut versions = BTreeMap::new();
        for version in said.split("\"version\": \"").skip(1) {
            let version = version.split('"').next().unwrap_or_default();
            *versions.entry(version.to_owned()).or_default() += 1;
        }
        Ok(versions)
    }

    /// Waits until nobody but these versions of reviews answers.
    fn only(&self, header: &str, wanted: &[&str]) -> Result<()> {
        let what = format!("reviews {wanted:?} and no others, with {header}");
        eventually(&what, 10, || {
            let versions = self.reviews(60, header)?;
            let all: usize = versions.values().sum();
            Ok(all == 60
                && versions
                    .keys()
                    .map(String::as_str)
                    .eq(wanted.iter().copied()))
        })
    }

    /// The page of a user; none: of nobody.
    fn page(&self, user: Option<&str>) -> Result<String> {
        let cookie = user.map(|user| format!("cookie: session={user}"));
        let header: Vec<&str> = cookie.iter().flat_map(|c| ["-H", c.as_str()]).collect();
        let (status, page) = self.mesh.curl("/productpage", &header)?;
        ensure!(status == 200, "the page: {status}\n{page}");
        Ok(page)
    }

    /// Waits until ten pages in a row hold this, and not that.
    fn pages(&self, user: Option<&str>, this: &str, not_that: &str) -> Result<()> {
        eventually(&format!("{user:?} sees {this:?}"), 10, || {
            let mut pages = (0..10).map(|_| self.page(user));
            pages.try_fold(true, |so_far, page| {
                let page = page?;
                Ok(so_far
                    && page.contains(this)
                    && (not_that.is_empty() || !page.contains(not_that)))
            })
        })
    }

    /// A Deployment like the first version's, with its Pods ready; `labels`: those that differ.
    fn copy(&self, service: &str, version: &str, labels: &[(&str, &str)]) -> Result<()> {
        let mut object = self.mesh.object(&["deploy", &format!("{service}-v1")])?;
        let name = format!("{service}-{version}");
        object["metadata"] = serde_json::json!({"name": name});
        object["spec"]["selector"]["matchLabels"]["version"] = version.into();
        let template = &mut object["spec"]["template"]["metadata"]["labels"];
        for (label, value) in [("version", version)].iter().chain(labels) {
            template[label] = (*value).into();
        }
        if let Some(object) = object.as_object_mut() {
            object.remove("status");
        }
        self.mesh.apply(&object.to_string())?;
        let deployment = format!("deploy/{name}");
        self.mesh
            .kubectl(&["rollout", "status", &deployment, "--timeout=60s"])?;
        Ok(())
    }

    /// Takes a copy away, and waits until no Pod of it is left.
    fn without(&self, service: &str, version: &str) -> Result<()> {
        let deployment = format!("deploy/{service}-{version}");
        self.mesh.kubectl(&["delete", &deployment])?;
        let labels = format!("app={service},version={version}");
        self.mesh.kubectl(&[
            "wait",
            "pod",
            "-l",
            &labels,
            "--for=delete",
            "--timeout=60s",
        ])?;
        Ok(())
    }

    /// The last lines that the product page's proxy logged.
    fn log(&self) -> Result<String> {
        let proxy = ["deploy/productpage-v1", "-c", "istio-proxy"];
        self.mesh
            .kubectl(&[&["logs"], &proxy[..], &["--tail=20"]].concat())
    }
}
