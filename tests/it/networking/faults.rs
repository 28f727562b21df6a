//! Files that make services fail or wait.

use super::{Answer, RATED, Walk};
use crate::mesh::eventually;
use anyhow::{Result, ensure};

const RATINGS: &str = "http://ratings:9080/ratings/0";
const JASON: &str = "end-user: jason";
const NOT_RATED: &str = "Ratings service is currently unavailable";

pub(super) fn details_abort(walk: &Walk) -> Result<()> {
    eventually("details answer 555", 10, || {
        let answer = walk.get("http://details:9080/details/0", &[])?;
        Ok(answer.status == 555 && answer.body == "fault filter abort")
    })?;
    let log = walk.log()?;
    ensure!(
        log.contains("555 FI fault_filter_abort"),
        "the access log tells of it:\n{log}"
    );
    walk.pages(None, "Error fetching product details!", "Publisher")
}

/// Jason's reviews are v2, which ask ratings; everybody else's are v1, which do not.
fn as_documented(walk: &Walk, check: impl FnOnce() -> Result<()>) -> Result<()> {
    walk.with("destination-rule-all", || {
        walk.with("virtual-service-reviews-test-v2", || {
            walk.only("end-user: nobody", &["v1"])?;
            check()
        })
    })
}

pub(super) fn ratings_abort(walk: &Walk) -> Result<()> {
    as_documented(walk, || {
        walk.only(JASON, &["v2"])?;
        eventually("jason's ratings fail", 10, || {
            let answer = walk.get(RATINGS, &[JASON])?;
            Ok(answer.status == 500 && answer.body == "fault filter abort")
        })?;
        let answer = walk.get(RATINGS, &[])?;
        ensure!(answer.status == 200, "everybody else's do not: {answer:?}");
        walk.pages(Some("jason"), NOT_RATED, RATED)?;
        walk.pages(None, "Reviews served by", NOT_RATED)
    })
}

pub(super) fn ratings_wait(walk: &Walk) -> Result<()> {
    as_documented(walk, || {
        let is_late = |answer: &Answer| answer.status == 200 && answer.seconds >= 7.0;
        eventually("jason's ratings wait for 7 s", 30, || {
            Ok(is_late(&walk.get(RATINGS, &[JASON])?))
        })?;
        let answer = walk.get(RATINGS, &[])?;
        ensure!(
            answer.status == 200 && answer.seconds < 3.0,
            "everybody else's do not: {answer:?}"
        );
        // The product page waits for reviews for 3 s, and reviews for ratings for 10 s: the known fault of the sample.
        let page = walk.page(Some("jason"))?;
        ensure!(
            page.contains("Error fetching product reviews!"),
            "reviews come too late for jason:\n{page}"
        );
        walk.pages(None, "Reviews served by", "Error fetching")
    })
}
