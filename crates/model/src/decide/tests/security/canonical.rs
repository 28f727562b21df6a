//! Paths and hosts in one form.

use super::super::check;
use crate::decide::canonical::{host, path};
use crate::mesh::PathNormalization as Mode;
use proptest::prelude::*;

const MODES: [Mode; 4] = [
    Mode::None,
    Mode::Base,
    Mode::MergeSlashes,
    Mode::DecodeAndMergeSlashes,
];

/// A path and its forms in the four modes; one that begins with `!` is an error.
#[track_caller]
fn forms(given: &str, want: [&str; 4]) {
    for (mode, want) in MODES.into_iter().zip(want) {
        let got = match path(mode, given) {
            Ok(path) => path.into_owned(),
            Err(reason) => format!("!{reason}"),
        };
        assert_eq!(got, want, "{given} in {mode:?}");
    }
}

#[test]
fn the_four_modes() {
    let same = |text| [text; 4];
    forms("/a/b?x=/../%2f//", same("/a/b?x=/../%2f//"));
    forms("*", same("*"));
    forms("", same("/"));
    forms("/a;v=1/..;/b", same("/a;v=1/..;/b"));
    forms("/a/../b", ["/a/../b", "/b", "/b", "/b"]);
    forms("/a/%2e%2E/b/.", ["/a/%2e%2E/b/.", "/b/", "/b/", "/b/"]);
    forms("/../../a", ["/../../a", "/a", "/a", "/a"]);
    forms("/a\\..\\b", ["/a\\..\\b", "/b", "/b", "/b"]);
    forms("/a//b", ["/a//b", "/a//b", "/a/b", "/a/b"]);
    forms("/%61%2Db", ["/%61%2Db", "/a-b", "/a-b", "/a-b"]);
    forms("/a%2fb", ["/a%2fb", "/a%2Fb", "/a%2Fb", "/a/b"]);
    forms(
        "/x/%2e%2e%2Fadmin",
        [
            "/x/%2e%2e%2Fadmin",
            "/x/..%2Fadmin",
            "/x/..%2Fadmin",
            "/admin",
        ],
    );
    forms("/a%5c%5Cb", ["/a%5c%5Cb", "/a%5C%5Cb", "/a%5C%5Cb", "/a/b"]);
    forms("/a%252fb", same("/a%252fb"));
    forms("/é", ["/é", "/%C3%A9", "/%C3%A9", "/%C3%A9"]);
}

#[test]
fn what_is_ambiguous_is_refused() {
    let fragment = "!a path with a fragment (#)";
    let control = "!a path with a control character";
    let percent = "!a path with a broken percent-encoding";
    forms("/admin#x", [fragment; 4]);
    forms("/admin?a#x", [fragment; 4]);
    forms("/a\0b", [control; 4]);
    forms("/a b", [control; 4]);
    forms("/a%00b", ["/a%00b", control, control, control]);
    forms("/a%zz", ["/a%zz", percent, percent, percent]);
    forms("/a%4", ["/a%4", percent, percent, percent]);
    forms("/a%", ["/a%", percent, percent, percent]);
    forms("a/b", ["!a path that does not begin with a slash"; 4]);
}

#[test]
fn hosts() {
    for (given, want) in [
        ("Example.COM:80", "example.com"),
        ("example.com.", "example.com"),
        ("example.com.:8080", "example.com"),
        ("[::1]:80", "::1"),
        ("[::1]", "::1"),
        ("::1", "::1"),
        ("example.com:", "example.com"),
        ("*.example", "*.example"),
    ] {
        assert_eq!(host(given).as_deref(), Ok(want), "{given}");
    }
    for bad in [
        "",
        ":80",
        "a.example,b.example",
        "user@a.example",
        "a.example b.example",
        "a.example\0",
        "a.example/x",
        "a.example..",
        "a.example:80:81",
        "a.example:99999",
        "a.example:+80",
        "a.example:http",
        "[::1]evil",
        "[::1]evil:80",
        "[::1]:99999",
        "[::1",
        "[name]",
        "a%2eexample",
        "a]b",
    ] {
        assert!(host(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn routes_see_the_canonical_request() {
    let config = "service default/web 10.96.0.1 http:80
service default/admin 10.96.0.2 http:80
pod default/a 10.244.0.1 serves=web
pod default/b 10.244.0.2 serves=admin
routes default/web hosts=web
  http uri^/admin -> admin:80
  http -> web:80";
    let admin = "outbound|80||admin.default by web#0";
    check(
        config,
        &[
            ("GET http://web/admin/x", admin),
            (
                "GET http://web/x/..%2f/%61dmin",
                "outbound|80||web.default by web#1 path=/x/..%2F/admin",
            ),
            (
                "GET http://web/x/%2e%2e/%61dmin?q=%61",
                &format!("{admin} path=/admin?q=%61"),
            ),
            (
                "GET http://web/a%zz",
                "400 BadRequest a path with a broken percent-encoding",
            ),
            (
                "GET http://u@web/",
                "400 BadRequest a Host with user information (@)",
            ),
        ],
    );
    check(
        &format!("mesh paths=decode\n{config}"),
        &[(
            "GET http://web/x/..%2f/%61dmin",
            &format!("{admin} path=/admin"),
        )],
    );
}

/// Texts in which what matters is frequent.
fn targets() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "/", "//", ".", "..", "a", "B", "%2e", "%2E", "%2f", "%2F", "%5c", "\\", "%61", "%25", "%",
        "%4", ";p", "~", "é", "%c3%a9", "*", "%7e", "%00", "x.y", "%3f", "!",
    ]);
    let query = prop::option::of("[a-z/.%\\\\?=]{0,8}");
    (prop::collection::vec(piece, 0..12), query).prop_map(|(pieces, query)| {
        let query = query.map_or(String::new(), |q| format!("?{q}"));
        format!("/{}{query}", pieces.concat())
    })
}

proptest! {
    #![proptest_config(super::cases(2_000))]

    #[test]
    fn once_is_enough(target in targets(), mode in prop::sample::select(MODES.to_vec())) {
        if let Ok(once) = path(mode, &target) {
            let twice = path(mode, &once).map(|path| path.into_owned());
            prop_assert_eq!(twice.as_deref(), Ok(&*once));
            if mode != Mode::None {
                let (path, _) = once.split_once('?').unwrap_or((&once, ""));
                prop_assert!(!path.contains('\\') && path.is_ascii());
                let mut segments = path.split('/');
                prop_assert!(segments.all(|s| s != "." && s != ".."), "{}", path);
            }
            if matches!(mode, Mode::MergeSlashes | Mode::DecodeAndMergeSlashes) {
                prop_assert!(!once.split('?').next().unwrap_or_default().contains("//"));
            }
        }
    }
}
