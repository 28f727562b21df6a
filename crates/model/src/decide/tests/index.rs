//! Random rules and requests: the index finds the rule that trying one after the other finds.

use super::mesh;
use crate::decide::plan::RequestHead;
use crate::decide::snapshot::Snapshot;
use http::{HeaderMap, Method};
use proptest::prelude::*;
use std::ptr::eq;

/// Segments that share beginnings.
const SEGMENTS: [&str; 7] = ["/a", "/ab", "/b", "/A", "/a/", "/", "/%C3%A9"];

fn path() -> impl Strategy<Value = String> {
    let segment = prop::sample::select(&SEGMENTS[..]);
    prop::collection::vec(segment, 1..4).prop_map(|parts| parts.concat())
}

/// One alternative in the mesh language.
fn alternative() -> impl Strategy<Value = String> {
    let uri = prop_oneof![
        3 => path().prop_map(|path| format!("uri={path}")),
        3 => path().prop_map(|path| format!("uri^{path}")),
        1 => path().prop_map(|path| format!("uri={path} nocase")),
        1 => path().prop_map(|path| format!("uri^{path} nocase")),
        1 => path().prop_map(|path| format!("uri~{path}.*")),
        1 => Just("uri*".to_owned()),
        1 => Just(String::new()),
    ];
    let others = prop::sample::select(&["", "", "header:x=1", "!header:x*", "method=POST"][..]);
    (uri, others).prop_map(|(uri, others)| format!("{uri} {others}"))
}

fn rules() -> impl Strategy<Value = Vec<String>> {
    let alternatives = prop::collection::vec(alternative(), 1..4);
    let rule = alternatives.prop_map(|all| format!("http {} -> web", all.join(" | ")));
    prop::collection::vec(rule, 0..40)
}

fn request() -> impl Strategy<Value = (String, bool, bool)> {
    let query = prop::sample::select(&["", "?q=/a", "/x"][..]);
    let target = (path(), query).prop_map(|(path, query)| path + query);
    (target, any::<bool>(), any::<bool>())
}

const MESH: &str = "
service default/web 10.96.0.1 http:80
pod default/web-1 10.244.0.1 serves=web
routes default/web hosts=web
";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_index_finds_what_a_walk_finds(
        rules in rules(),
        requests in prop::collection::vec(request(), 1..20),
    ) {
        let config = format!("{MESH}{}\n", rules.join("\n"));
        let mesh::Mesh { set, scope } = mesh::parse(&config);
        let snapshot = Snapshot::build(&set, &scope);
        let host = snapshot.hosts[&80].find("web.default.svc.cluster.local").expect("the host");
        let Some(rules) = &host.rules else {
            return Ok(());
        };
        for (target, is_post, has_header) in &requests {
            let mut headers = HeaderMap::new();
            if *has_header {
                headers.insert("x", http::HeaderValue::from_static("1"));
            }
            let head = RequestHead {
                token: None,
                method: if *is_post { &Method::POST } else { &Method::GET },
                authority: "web",
                path: target,
                scheme: "http",
                headers: &headers,
            };
            let (found, walked) = (rules.find(&head), rules.walk(&head));
            let same = match (&found, &walked) {
                (None, None) => true,
                (Some(found), Some(walked)) => {
                    found.0.index == walked.0.index
                        && match (found.1, walked.1) {
                            (None, None) => true,
                            (Some(found), Some(walked)) => eq(found, walked),
                            _ => false,
                        }
                }
                _ => false,
            };
            let number = |found: &Option<crate::decide::routes::Found<'_>>| {
                found.as_ref().map(|(rule, _, _)| rule.index)
            };
            prop_assert!(
                same,
                "{target}: the index finds {:?}, a walk {:?} in\n{config}",
                number(&found),
                number(&walked)
            );
        }
    }
}
