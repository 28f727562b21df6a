//! Policies on requests: who is turned away, in which words, and that nobody gets around them.

use super::guarded::*;
use super::member::{Ca, Pair, id};
use super::*;
use lateen_model::mesh::PathNormalization;
use lateen_model::security::{Action, Attribute, Condition, Operation, Rule, Source};
use lateen_model::service::Protocol;

const DENIED: &str = "RBAC: access denied";

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n")
}

#[test]
fn refusals_name_their_policy() {
    run(async {
        let app = mirror("127.1.0.1").await;
        let deny = policy(
            "no-admin",
            Action::Deny,
            vec![paths(&["/x"]), paths(&["/admin*"])],
        );
        let readers = to(Operation {
            methods: strs(&["GET"]),
            ..Operation::default()
        });
        let allow = policy("readers", Action::Allow, vec![readers]);
        let policies = [deny, allow].map(Resource::AuthorizationPolicy);
        let bench = sidecar(app, policies.to_vec()).await;
        let answer = call(&bench, &get("/public?x=/admin")).await;
        assert_eq!(outcome(&answer).0, "200", "{answer}");
        for request in [
            get("/admin/x"),
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n".into(),
        ] {
            let answer = call(&bench, &request).await;
            assert_eq!(outcome(&answer), ("403", DENIED), "{request}");
            assert!(answer.contains("content-type: text/plain\r\n"), "{answer}");
        }
        let grpc = "POST /s/m HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc\r\ncontent-length: 0\r\n\r\n";
        let answer = call(&bench, grpc).await;
        assert!(
            answer.starts_with("HTTP/1.1 200")
                && answer.contains("grpc-status: 7\r\n")
                && answer.contains(&format!("grpc-message: {DENIED}\r\n")),
            "{answer}"
        );
        let lines = bench.log.lines(4).await;
        assert!(
            lines[1].contains(
                " 403 - rbac_access_denied_matched_policy[ns[default]-policy[no-admin]-rule[1]] "
            ),
            "{}",
            lines[1]
        );
        assert!(
            lines[2].contains(" 403 - rbac_access_denied_matched_policy[none] "),
            "{}",
            lines[2]
        );
    });
}

#[test]
fn principals_are_those_of_certificates() {
    run(async {
        let ca = Ca::new();
        let app = mirror("127.1.0.1").await;
        let viewer = Rule {
            from: vec![Source {
                principals: strs(&[id("sleep").principal()]),
                ..Source::default()
            }],
            to: vec![Operation {
                methods: strs(&["GET"]),
                ..Operation::default()
            }],
            ..Rule::default()
        };
        let policies = vec![Resource::AuthorizationPolicy(policy(
            "viewer",
            Action::Allow,
            vec![viewer],
        ))];
        let pair = Pair::new(&ca, Protocol::Http, app, policies).await;
        let answer = pair.client.bench.ask(&get("/")).await;
        assert_eq!(outcome(&answer).0, "200", "{answer}");
        let post = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(outcome(&pair.client.bench.ask(post).await), ("403", DENIED));
        // The same from somebody who shows no certificate, whatever he says of himself.
        let claimed = "GET / HTTP/1.1\r\nhost: a\r\n\
                       x-forwarded-client-cert: URI=spiffe://cluster.local/ns/default/sa/sleep\r\n\r\n";
        assert_eq!(
            outcome(&call(&pair.server.bench, claimed).await),
            ("403", DENIED)
        );
    });
}

#[test]
fn policies_change_under_a_connection_that_stays() {
    run(async {
        let ca = Ca::new();
        let app = mirror("127.1.0.1").await;
        let pair = Pair::new(&ca, Protocol::Http, app, Vec::new()).await;
        let mut stream = pair.server.bench.inbound("127.1.0.9").await;
        assert_eq!(
            outcome(&exchange(&mut stream, &get("/late")).await).0,
            "200"
        );
        let deny = policy("late", Action::Deny, vec![paths(&["/late"])]);
        pair.server
            .apply(vec![Resource::AuthorizationPolicy(deny)])
            .await;
        loop {
            let answer = exchange(&mut stream, &get("/late")).await;
            if outcome(&answer) == ("403", DENIED) {
                break;
            }
            assert_eq!(outcome(&answer).0, "200", "{answer}");
        }
        assert_eq!(outcome(&exchange(&mut stream, &get("/")).await).0, "200");
    });
}

#[test]
fn audits_and_dry_runs_are_written_and_refuse_nobody() {
    run(async {
        let app = mirror("127.1.0.1").await;
        let audit = policy("watch", Action::Audit, vec![paths(&["/seen"])]);
        let mut dry = policy("tried", Action::Deny, vec![paths(&["/seen"])]);
        dry.dry_run = true;
        let policies = [audit, dry].map(Resource::AuthorizationPolicy);
        let bench = sidecar(app, policies.to_vec()).await;
        for path in ["/other", "/seen?q=secret"] {
            assert_eq!(outcome(&call(&bench, &get(path)).await).0, "200");
        }
        let lines = bench.log.lines(4).await;
        let notes: Vec<serde_json::Value> = lines
            .iter()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        let [audit, dry] = &notes[..] else {
            panic!("{lines:?}");
        };
        assert_eq!(
            (&audit["log"], &audit["policy"]),
            (&"audit".into(), &"default/watch".into())
        );
        assert_eq!(
            (&dry["log"], &dry["policy"]),
            (&"dry-run".into(), &"default/tried".into())
        );
        assert_eq!(
            (&audit["path"], &audit["method"]),
            (&"/seen".into(), &"GET".into())
        );
        assert_eq!(
            (&audit["source"], &dry["allowed"]),
            (&"127.1.0.9".into(), &false.into())
        );
    });
}

/// The target that the application sees for a target that a client sends; a refusal otherwise.
async fn seen(bench: &Bench, target: &str) -> Result<String, String> {
    let answer = call(bench, &get(target)).await;
    match outcome(&answer) {
        ("200", head) => Ok(head.split(' ').nth(1).unwrap().to_owned()),
        (status, _) => Err(status.to_owned()),
    }
}

#[test]
fn no_spelling_of_a_path_gets_around_a_policy() {
    let plain = ["/admin", "/admin/", "/admin/x", "/admin?x", "/admin%3Fx"];
    let base = [
        "/./admin",
        "/x/../admin",
        "/%61dmin",
        "/x/%2e%2E/admin",
        "/x\\..\\admin",
    ];
    let merged = ["//admin", "///admin//x", "/x/..//admin", "/\\admin"];
    let decoded = ["/x/..%2fadmin", "/x%2F..%5Cadmin", "/%2Fadmin"];
    let else_: [&str; 5] = [
        "/administrator",
        "/Admin",
        "/x/admin",
        "/%2561dmin",
        "/x?a=/../admin",
    ];
    let broken = ["/%zz", "/admin%00", "/%", "admin", "\\admin"];
    let levels: [(PathNormalization, usize); 3] = [
        (PathNormalization::Base, 2),
        (PathNormalization::MergeSlashes, 3),
        (PathNormalization::DecodeAndMergeSlashes, 4),
    ];
    run(async move {
        let app = mirror("127.1.0.1").await;
        for (mode, level) in levels {
            let exact = policy(
                "no-admin",
                Action::Deny,
                vec![paths(&["/admin", "/admin/*", "/admin%3Fx"])],
            );
            let resources = vec![
                Resource::AuthorizationPolicy(exact),
                settings(|mesh| mesh.path_normalization = mode),
            ];
            let bench = sidecar(app, resources).await;
            for tricks in &[&plain[..], &base, &merged, &decoded][..level] {
                for trick in *tricks {
                    assert_eq!(
                        seen(&bench, trick).await,
                        Err("403".to_owned()),
                        "{mode:?} {trick}"
                    );
                }
            }
            // What passes is no other path for the application than it was for the policy.
            for target in merged.iter().chain(&decoded).chain(&else_) {
                if let Ok(path) = seen(&bench, target).await {
                    let path = path.split('?').next().unwrap();
                    assert!(
                        path != "/admin" && !path.starts_with("/admin/"),
                        "{mode:?} {target}: {path}"
                    );
                    assert_eq!(
                        seen(&bench, path).await.as_deref(),
                        Ok(path),
                        "{mode:?} {target}"
                    );
                }
            }
            for target in else_ {
                assert!(seen(&bench, target).await.is_ok(), "{mode:?} {target}");
            }
            for target in broken {
                assert_eq!(
                    seen(&bench, target).await,
                    Err("400".to_owned()),
                    "{mode:?} {target}"
                );
            }
        }
    });
}

#[test]
fn no_spelling_of_a_host_gets_around_a_policy() {
    run(async {
        let app = mirror("127.1.0.1").await;
        let secret = to(Operation {
            hosts: strs(&["secret.example.com"]),
            ..Operation::default()
        });
        let deny = policy("no-secret", Action::Deny, vec![secret]);
        let bench = sidecar(app, vec![Resource::AuthorizationPolicy(deny)]).await;
        for (head, want) in [
            ("GET / HTTP/1.1\r\nhost: public.example.com\r\n", "200"),
            ("GET / HTTP/1.1\r\nhost: secret.example.com\r\n", "403"),
            ("GET / HTTP/1.1\r\nHOST: SECRET.example.COM\r\n", "403"),
            ("GET / HTTP/1.1\r\nhost: secret.example.com:8080\r\n", "403"),
            ("GET / HTTP/1.1\r\nhost: secret.example.com.\r\n", "403"),
            ("GET / HTTP/1.1\r\nhost: secret.example.com.:443\r\n", "403"),
            (
                "GET http://secret.example.com/ HTTP/1.1\r\nhost: public.example.com\r\n",
                "403",
            ),
            (
                "GET http://x@secret.example.com/ HTTP/1.1\r\nhost: a\r\n",
                "400",
            ),
            ("GET / HTTP/1.1\r\nhost: x@secret.example.com\r\n", "400"),
            (
                "GET / HTTP/1.1\r\nhost: public.example.com, secret.example.com\r\n",
                "400",
            ),
            (
                "GET / HTTP/1.1\r\nhost: public.example.com\r\nhost: secret.example.com\r\n",
                "400",
            ),
            ("GET / HTTP/1.1\r\nhost:\r\n", "400"),
            ("GET / HTTP/1.1\r\nhost: secret.example.com..\r\n", "400"),
            ("GET / HTTP/1.1\r\nhost: a b\r\n", "400"),
            ("GET / HTTP/1.1\r\n", "400"),
        ] {
            let answer = call(&bench, &format!("{head}\r\n")).await;
            assert_eq!(outcome(&answer).0, want, "{head}");
        }
    });
}

#[test]
fn each_value_of_a_header_is_looked_at() {
    run(async {
        let app = mirror("127.1.0.1").await;
        let bad = Rule {
            when: vec![Condition {
                attribute: Attribute::RequestHeader("x-role".into()),
                values: strs(&["admin"]),
                not_values: Vec::new(),
            }],
            ..Rule::default()
        };
        let deny = policy("no-role", Action::Deny, vec![bad]);
        let bench = sidecar(app, vec![Resource::AuthorizationPolicy(deny)]).await;
        for (headers, want) in [
            ("x-role: user\r\n", "200"),
            ("x-role: admin\r\n", "403"),
            ("X-ROLE: admin\r\n", "403"),
            ("x-role: user\r\nx-role: admin\r\n", "403"),
            ("x-role: admin\r\nx-role: user\r\n", "403"),
        ] {
            let answer = call(
                &bench,
                &format!("GET / HTTP/1.1\r\nhost: a\r\n{headers}\r\n"),
            )
            .await;
            assert_eq!(outcome(&answer).0, want, "{headers}");
        }
        // Several values arrive as they were sent.
        let answer = call(
            &bench,
            "GET / HTTP/1.1\r\nhost: a\r\nx-role: a\r\nx-role: b\r\nx_under: 1\r\n\r\n",
        )
        .await;
        assert!(
            answer.contains("x-role: a\r\nx-role: b\r\n") && answer.contains("x_under: 1\r\n"),
            "{answer}"
        );
    });
}
