//! Files that say which versions requests go to.

use super::{RATED, Walk};
use crate::mesh::eventually;
use anyhow::{Result, ensure};

const NOBODY: &str = "end-user: nobody";
const JASON: &str = "end-user: jason";
const RULES: &str = "destination-rule-all";

/// Requests of one split.
const MANY: usize = 1000;

pub(super) fn all_are_v1(walk: &Walk) -> Result<()> {
    walk.with(RULES, || {
        walk.only(NOBODY, &["v1"])?;
        walk.pages(None, "Reviews served by", RATED)?;
        for service in ["details", "ratings"] {
            let answer = walk.get(&format!("http://{service}:9080/{service}/0"), &[])?;
            ensure!(answer.status == 200, "{service}: {answer:?}");
        }
        let log = walk.log()?;
        for cluster in ["|v1|details.", "|v1|ratings.", "|v1|reviews."] {
            ensure!(log.contains(cluster), "{cluster} is not in\n{log}");
        }
        Ok(())
    })
}

pub(super) fn all_are_v3(walk: &Walk) -> Result<()> {
    walk.with(RULES, || {
        walk.only(NOBODY, &["v3"])?;
        walk.only(JASON, &["v3"])?;
        walk.pages(None, "red stars", "black stars")
    })
}

pub(super) fn half_are_v3(walk: &Walk) -> Result<()> {
    split(walk, ("v1", 50), ("v3", 50))
}

pub(super) fn a_fifth_is_v2(walk: &Walk) -> Result<()> {
    split(walk, ("v1", 80), ("v2", 20))
}

pub(super) fn a_tenth_is_v2(walk: &Walk) -> Result<()> {
    split(walk, ("v1", 90), ("v2", 10))
}

pub(super) fn half_v2_half_v3(walk: &Walk) -> Result<()> {
    split(walk, ("v2", 50), ("v3", 50))
}

/// Two versions by weight, eight points more or fewer (five standard deviations of a half).
fn split(walk: &Walk, one: (&str, usize), other: (&str, usize)) -> Result<()> {
    walk.with(RULES, || {
        walk.only(NOBODY, &[one.0, other.0])?;
        let versions = walk.reviews(MANY, NOBODY)?;
        println!("{one:?} and {other:?} of {MANY}: {versions:?}");
        for (version, percent) in [one, other] {
            let found = versions.get(version).copied().unwrap_or_default();
            let wanted = MANY * percent / 100;
            ensure!(
                found.abs_diff(wanted) <= MANY * 8 / 100,
                "{version}: {found} of {MANY}, not {percent}%"
            );
        }
        ensure!(versions.values().sum::<usize>() == MANY, "{versions:?}");
        Ok(())
    })
}

pub(super) fn jason_v2_others_v1(walk: &Walk) -> Result<()> {
    walk.with(RULES, || {
        walk.only(JASON, &["v2"])?;
        walk.only(NOBODY, &["v1"])?;
        walk.pages(Some("jason"), "black stars", "red stars")?;
        walk.pages(None, "Reviews served by", RATED)
    })
}

pub(super) fn jason_v2_others_v3(walk: &Walk) -> Result<()> {
    walk.with(RULES, || {
        walk.only(JASON, &["v2"])?;
        walk.only(NOBODY, &["v3"])?;
        walk.pages(Some("jason"), "black stars", "red stars")?;
        walk.pages(Some("ann"), "red stars", "black stars")
    })
}

pub(super) fn details_are_v2(walk: &Walk) -> Result<()> {
    walk.with(RULES, || version(walk, "details", "v2"))
}

pub(super) fn ratings_are_v2(walk: &Walk) -> Result<()> {
    rated(walk, "v2")
}

pub(super) fn ratings_are_mysql(walk: &Walk) -> Result<()> {
    rated(walk, "v2-mysql")
}

pub(super) fn ratings_are_a_vm(walk: &Walk) -> Result<()> {
    rated(walk, "v2-mysql-vm")
}

/// Reviews are v3, and ask a version of ratings.
fn rated(walk: &Walk, ratings: &str) -> Result<()> {
    walk.with(RULES, || {
        walk.only(NOBODY, &["v3"])?;
        walk.pages(None, "Ratings service is currently unavailable", RATED)?;
        walk.copy("ratings", ratings, &[])?;
        walk.pages(None, "red stars", "currently unavailable")?;
        walk.without("ratings", ratings)?;
        version(walk, "ratings", ratings)
    })
}

/// All requests to a service go to a version of it: while there is none, nowhere; then there.
fn version(walk: &Walk, service: &str, version: &str) -> Result<()> {
    let url = format!("http://{service}:9080/{service}/0");
    let refused = || {
        eventually(&format!("there is no {service} {version}"), 10, || {
            let answer = walk.get(&url, &[])?;
            Ok(answer.status == 503 && answer.body == "no healthy upstream")
        })
    };
    refused()?;
    let log = walk.log()?;
    let told = log.contains(&format!(
        "|{version}|{service}.default.svc.cluster.local has no endpoint"
    ));
    ensure!(
        told && log.contains("503 UH no_healthy_upstream"),
        "the log tells of it:\n{log}"
    );
    walk.copy(service, version, &[])?;
    eventually(&format!("{service} {version} answers"), 10, || {
        Ok(walk.get(&url, &[])?.status == 200)
    })?;
    walk.without(service, version)?;
    refused()
}
