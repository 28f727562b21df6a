//! What users write, and what a descriptor meets.

use super::read::{Broken, read_file, read_texts};
use crate::stats::Stats;

const FILE: &str = r#"
domain: messages
descriptors:
  - key: kind
    value: marketing
    descriptors:
      - key: number
        rate_limit: { unit: day, requests_per_unit: 5 }
  - key: number
    rate_limit: { unit: day, requests_per_unit: 100 }
  - key: number
    value: "500"
    rate_limit: { unit: SECOND, requests_per_unit: 0 }
  - key: path
    value: /api/*
    rate_limit: { unit: minute, requests_per_unit: 7 }
  - key: free
    rate_limit: { unlimited: true }
"#;

fn requests(descriptor: &[(&str, &str)]) -> Option<u32> {
    let limits = read_file("x.yaml", FILE, &Stats::default()).expect("valid");
    let found = limits.find("messages", descriptor.iter().copied());
    found.map(|limit| limit.requests)
}

#[test]
fn a_value_comes_before_its_beginning_before_any() {
    assert_eq!(requests(&[("number", "1")]), Some(100));
    assert_eq!(requests(&[("number", "500")]), Some(0));
    assert_eq!(requests(&[("path", "/api/x")]), Some(7));
    assert_eq!(requests(&[("path", "/other")]), None);
}

#[test]
fn only_the_same_depth_counts() {
    assert_eq!(requests(&[("kind", "marketing")]), None);
    assert_eq!(requests(&[("kind", "marketing"), ("number", "1")]), Some(5));
    assert_eq!(requests(&[("number", "1"), ("kind", "marketing")]), None);
    assert_eq!(requests(&[("kind", "other"), ("number", "1")]), None);
}

fn broken(text: &str) -> Broken {
    read_file("limits.yaml", text, &Stats::default()).expect_err("broken")
}

#[test]
fn what_is_wrong_is_said_with_its_line_and_cure() {
    for (text, line, words) in [
        ("descriptors: []\n", 1, "give the domain a name"),
        ("domain: a\ndescriptors:\n- value: x\n", 3, "has no key"),
        (
            "domain: a\ndescriptors:\n- key: k\n  rate_limit:\n    unit: week\n    requests_per_unit: 1\n",
            5,
            "use second, minute, hour",
        ),
        (
            "domain: a\ndescriptors:\n- key: k\n  rate_limit:\n    unit: day\n    requests_per_unit: -1\n",
            6,
            "no number of requests",
        ),
        (
            "domain: a\ndescriptors:\n- key: k\n  rate_limits: {}\n",
            4,
            "no known field",
        ),
        (
            "domain: a\ndescriptors:\n- key: k\n- key: k\n",
            4,
            "remove one",
        ),
        (
            "domain: a\ndescriptors:\n- key: k\n  rate_limit: {unlimited: true, unit: day}\n",
            4,
            "no meaning where unlimited",
        ),
        ("domain: [\n", 1, "docs/rate-limits.md"),
    ] {
        let broken = broken(text);
        assert!(broken.message.contains(words), "{broken}");
        assert_eq!(broken.line, line, "{broken}");
        assert!(broken.to_string().starts_with("limits.yaml:"), "{broken}");
    }
}

#[test]
fn a_domain_is_in_one_file_only() {
    let text = |name: &str| (name.to_owned(), "domain: a\n".to_owned());
    let twice = read_texts(&[text("a.yaml"), text("b.yaml")], &Stats::default());
    let broken = twice.expect_err("twice");
    assert_eq!(broken.file, "b.yaml");
}
