//! What tells checks apart.

use super::*;

fn check(principal: &str, headers: &[(&str, &str)]) -> CheckRequest {
    let http = HttpRequest {
        headers: headers
            .iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
            .collect(),
        ..HttpRequest::default()
    };
    CheckRequest {
        attributes: Some(AttributeContext {
            source: Some(Peer {
                principal: principal.to_owned(),
                ..Peer::default()
            }),
            request: Some(Request {
                time: None,
                http: Some(http),
            }),
            ..AttributeContext::default()
        }),
    }
}

#[test]
fn two_callers_never_share_an_answer_and_passing_headers_do_not_part_them() {
    let print = |check: &CheckRequest| fingerprint(check, vec![b"judge"]);
    let ann = print(&check("ann", &[]));
    assert_ne!(ann, print(&check("bob", &[])));
    assert_ne!(ann, fingerprint(&check("ann", &[]), vec![b"other"]));
    for name in PASSING {
        assert_eq!(ann, print(&check("ann", &[(name, "1")])), "{name}");
    }
    let with = |value| print(&check("ann", &[("authorization", value)]));
    assert_ne!(ann, with("a"));
    assert_ne!(with("a"), with("b"));
    let apart = print(&check("ann", &[("a", "b"), ("c", "d")]));
    assert_ne!(apart, print(&check("ann", &[("a", "bc"), ("", "d")])));
}
