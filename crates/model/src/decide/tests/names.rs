//! What DNS tells an application of the mesh.

use super::check;

#[test]
fn every_name_of_a_service() {
    let config = "
me sidecar default/sleep 10.244.0.99
service default/web 10.96.0.1,fd00:10:96::1 http:80
service other/web 10.96.0.2 http:80
service other/secret 10.96.0.3 http:80 export=other
";
    let own = "10.96.0.1 fd00:10:96::1";
    check(
        config,
        &[
            ("who web", own),
            ("who web.default", own),
            ("who web.default.svc", own),
            ("who web.default.svc.cluster.local", own),
            ("who web.other", "10.96.0.2"),
            ("who web.other.svc.cluster.local", "10.96.0.2"),
            // What a resolver tries first, by its domains.
            (
                "who web.other.default.svc.cluster.local",
                "web.other: 10.96.0.2",
            ),
            (
                "who web.other.svc.cluster.local.cluster.local",
                "web.other.svc.cluster.local: 10.96.0.2",
            ),
            ("who secret.other", "-"),
            ("who example.com", "-"),
            ("who other", "-"),
        ],
    );
    check(
        &config.replace("default/sleep", "other/sleep"),
        &[("who web", "10.96.0.2"), ("who secret", "10.96.0.3")],
    );
    let narrow = format!("{config}scope default/own egress=default/*\n");
    check(&narrow, &[("who web", own), ("who web.other", "-")]);
    check(
        &config.replace("me sidecar", "me gateway"),
        &[("who web", "-")],
    );
}

#[test]
fn headless_services_and_their_pods() {
    check(
        "
service default/db - tcp:5432
pod default/db-1 10.244.0.6 serves=db named
pod default/db-0 10.244.0.5 serves=db named
pod default/db-2 10.244.0.7 serves=db named unready
pod default/other 10.244.0.8 serves=db
service default/empty - tcp:1
service default/web 10.96.0.1 http:80
pod default/web-0 10.244.0.9 serves=web named
",
        &[
            ("who db", "10.244.0.5 10.244.0.6 10.244.0.8"),
            ("who db-0.db", "10.244.0.5"),
            ("who db-1.db.default.svc.cluster.local", "10.244.0.6"),
            ("who db-2.db", "-"),
            ("who other.db", "-"),
            ("who empty", "-"),
            ("who web-0.web", "-"),
        ],
    );
}

#[test]
fn service_entries() {
    let config = "
me sidecar default/sleep 10.244.0.99
entry default/db.example - tcp:5432 dns vip=240.240.0.7,2001:2::7
entry default/two.example 192.0.2.1,192.0.2.2 tcp:5432
entry default/*.wild.example 192.0.2.3 tcp:5432
entry default/net.example 192.0.2.0/24 tcp:5432 none
entry default/none.example - http:80 none
entry default/*.none.example - http:80 dynamic
";
    check(
        config,
        &[
            ("who db.example", "240.240.0.7"),
            (
                "who db.example.default.svc.cluster.local",
                "db.example: 240.240.0.7",
            ),
            ("who two.example", "192.0.2.1 192.0.2.2"),
            ("who a.wild.example", "192.0.2.3"),
            ("who wild.example", "-"),
            ("who net.example", "-"),
            ("who none.example", "-"),
            ("who a.none.example", "-"),
        ],
    );
    // Who has no address of a version is not told one that it cannot call.
    let both = config.replace("10.244.0.99", "10.244.0.99 fd00::99");
    check(&both, &[("who db.example", "240.240.0.7 2001:2::7")]);
}
