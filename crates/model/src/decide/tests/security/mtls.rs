//! Which ports want mutual TLS, and which endpoints are called by it.

use super::super::{check, snapshot};
use crate::decide::cluster::{ClusterTls, Discovery};
use crate::decide::snapshot::Snapshot;

const OWN: &str = "
me sidecar default/web-1 10.244.0.5 app=web
service default/web 10.96.0.10 http:80>8080 tcp:3306 any:7000
pod default/web-1 10.244.0.5 serves=web app=web
";

#[track_caller]
fn modes(config: &str, cases: &[(u16, &str)]) {
    for (port, want) in cases {
        let call = format!("inbound mode 10.244.0.5:{port}");
        check(&format!("{OWN}{config}"), &[(&call, want)]);
    }
}

#[test]
fn port_before_workload_before_namespace_before_mesh() {
    modes("", &[(8080, "Permissive")]);
    modes(
        "peers istio-system/mesh strict",
        &[(8080, "Strict by mesh")],
    );
    modes(
        "peers istio-system/mesh strict
         peers default/ns permissive",
        &[(8080, "Permissive by ns")],
    );
    modes(
        "peers istio-system/mesh strict
         peers default/ns permissive
         peers default/web disable select=app=web at=8080:strict at=7000:unset",
        &[
            (8080, "Strict by web"),
            (3306, "Disable by web"),
            (7000, "Disable by web"),
        ],
    );
}

#[test]
fn what_is_unset_is_inherited() {
    modes(
        "peers istio-system/mesh strict
         peers default/ns unset
         peers default/web unset select=app=web at=7000:disable",
        &[(8080, "Strict by mesh"), (7000, "Disable by web")],
    );
    modes("peers istio-system/mesh unset", &[(8080, "Permissive")]);
}

#[test]
fn the_oldest_of_one_level_counts() {
    modes(
        "peers default/b strict select=app=web
         peers default/a disable select=app=web
         peers other/c disable",
        &[(8080, "Strict by b")],
    );
}

#[test]
fn what_does_not_count() {
    modes(
        "peers istio-system/selects strict select=app=web
         peers default/other strict select=app=other
         peers default/ports permissive at=8080:strict",
        &[(8080, "Permissive by ports")],
    );
}

#[test]
fn gateways_and_what_goes_out_are_not_concerned() {
    check(
        &format!("{OWN}peers istio-system/mesh strict"),
        &[
            ("mode 10.244.0.5:80", "Disable"),
            ("gateway mode 10.244.0.5:80", "Disable"),
        ],
    );
}

#[test]
fn after_mutual_tls_the_port_decides_then_alpn() {
    check(
        OWN,
        &[
            ("inbound secured istio-http/1.1 10.244.0.5:7000", "http"),
            ("inbound secured istio-h2 10.244.0.5:7000", "http"),
            ("inbound secured h2 10.244.0.5:7000", "http"),
            ("inbound secured http/1.0 10.244.0.5:9999", "http"),
            (
                "inbound secured istio 10.244.0.5:7000",
                "detect inbound|7000|| @10.244.0.5:7000",
            ),
            (
                "inbound secured istio-http/1.1 10.244.0.5:3306",
                "tcp inbound|3306|| @10.244.0.5:3306",
            ),
            ("inbound secured istio 10.244.0.5:8080", "http"),
            (
                "inbound secured istio 10.244.0.5:15006",
                "tcp NoRoute the proxy's own port 15006",
            ),
        ],
    );
}

const CLIENT: &str = "
service default/web 10.96.0.1 http:80>8080 tcp:81>3306
pod default/a 10.244.0.1 serves=web sa=web version=v1
pod default/b 10.244.0.2 serves=web plain version=v2
";

/// `mesh NAME [required] [sans]` or what else the TLS is, then each endpoint with its identity.
fn called(snapshot: &Snapshot, cluster: &str) -> String {
    let cluster = snapshot.cluster(cluster).expect("cluster");
    let mut text = match &cluster.tls {
        ClusterTls::Plain => "plain".to_owned(),
        ClusterTls::Origin(tls) => format!("{:?} {}", tls.mode, tls.sni.as_deref().unwrap_or("-")),
        ClusterTls::Mesh {
            server_name,
            sans,
            required,
        } => format!(
            "mesh {}{}{}",
            server_name.replace(".default.svc.cluster.local", ""),
            if *required { " required" } else { "" },
            sans.iter().map(|s| format!(" {s}")).collect::<String>()
        ),
    };
    if let Discovery::Endpoints(list) = &cluster.discovery {
        for endpoint in list.iter() {
            let id = endpoint.identity.as_ref();
            let nobody = if endpoint.mutual { "any" } else { "-" };
            let id = id.map_or(nobody.to_owned(), |id| id.principal().to_owned());
            text += &format!(" {}={id}", endpoint.workload.name);
        }
    }
    if let Discovery::Dns(list) = &cluster.discovery {
        for named in list {
            let id = named.identity.as_ref().map_or("any", |id| id.principal());
            text += &format!(" {}={}", named.host, if named.mutual { id } else { "-" });
        }
    }
    text
}

#[track_caller]
fn calls(config: &str, cases: &[(&str, &str)]) {
    let snapshot = snapshot(&format!("{CLIENT}{config}"));
    for (part, want) in cases {
        let name = format!("outbound|{part}|web.default.svc.cluster.local");
        assert_eq!(called(&snapshot, &name), *want, "{part} in\n{config}");
    }
}

const AUTO: &str = "mesh outbound_.80_._.web a=cluster.local/ns/default/sa/web b=-";

#[test]
fn mutual_tls_where_the_endpoint_takes_it() {
    calls("", &[("80|", AUTO)]);
    calls(
        "mesh plain",
        &[("80|", "plain a=- b=-"), ("81|", "plain a=- b=-")],
    );
    calls(
        "mesh domain=td1",
        &[("80|", &AUTO.replace("cluster.local/", "td1/"))],
    );
    calls(
        "peers default/no strict select=version=v1 at=8080:disable",
        &[
            ("80|", "mesh outbound_.80_._.web a=- b=-"),
            (
                "81|",
                "mesh outbound_.81_._.web a=cluster.local/ns/default/sa/web b=-",
            ),
        ],
    );
}

#[test]
fn a_destination_rule_says_otherwise() {
    calls(
        "policy default/p host=web tls=disable subset=v1:version=v1 subset=v2:version=v2:tls=istio",
        &[
            ("80|", "plain a=- b=-"),
            ("80|v1", "plain a=-"),
            (
                "80|v2",
                "mesh outbound_.80_.v2_.web required b=cluster.local/ns/default/sa/default",
            ),
        ],
    );
    calls(
        "policy default/p host=web tls=simple sni=web.example",
        &[("80|", "Simple web.example a=- b=-")],
    );
    calls(
        "policy default/p host=web tls=istio sni=other san=spiffe://td/ns/x/sa/y",
        &[(
            "80|",
            "mesh other required spiffe://td/ns/x/sa/y a=cluster.local/ns/default/sa/web b=cluster.local/ns/default/sa/default",
        )],
    );
}

#[test]
fn an_unknown_account_is_no_reason_for_plain_text() {
    let config = "service default/web 10.96.0.20 http:80>8080
pod default/x 10.244.0.7 serves=web sa= app=web";
    let snapshot = snapshot(config);
    let called = called(&snapshot, "outbound|80||web.default.svc.cluster.local");
    assert_eq!(called, "mesh outbound_.80_._.web x=any");
    let found = snapshot.identity_at("10.244.0.7:8080".parse().expect("address"));
    let found = found.map(|(id, name)| (id.is_none(), name.to_string()));
    assert_eq!(
        found,
        Some((true, "outbound_.8080_._.x.default".to_owned()))
    );
}

#[test]
fn endpoints_by_name_take_mutual_tls_as_others_do() {
    let config = "entry default/ext.example.com - http:80>8080 dns inside
pod default/x a.example.com serves=ext.example.com
pod default/y b.example.com serves=ext.example.com plain";
    let of = |config: &str| called(&snapshot(config), "outbound|80||ext.example.com");
    // Istio: what is outside of the mesh is called without, whatever account it has.
    let outside = of(&config.replace(" inside", ""));
    assert_eq!(outside, "plain a.example.com=- b.example.com=-");
    assert_eq!(
        of(config),
        "mesh outbound_.80_._.ext.example.com a.example.com=cluster.local/ns/default/sa/default b.example.com=-"
    );
}

#[test]
fn port_settings_replace_all_others() {
    calls(
        "policy default/p host=web tls=disable at=80:none at=81:mutual",
        &[("80|", AUTO), ("81|", "Mutual - a=- b=-")],
    );
}

#[test]
fn subsets_build_upon_what_the_host_says_for_the_port() {
    // The subset says nothing of TLS: the host's own say for the port counts, and its general one elsewhere.
    calls(
        "policy default/p host=web tls=disable at=80:mutual subset=v1:version=v1",
        &[("80|v1", "Mutual - a=-"), ("81|v1", "plain a=-")],
    );
    // The subset's TLS goes over both.
    calls(
        "policy default/p host=web tls=disable at=80:mutual subset=v1:version=v1:tls=istio",
        &[(
            "80|v1",
            "mesh outbound_.80_.v1_.web required a=cluster.local/ns/default/sa/web",
        )],
    );
}

#[test]
fn known_workloads_are_recognised_by_address() {
    let found = |config: &str, address: &str| {
        let snapshot = snapshot(&format!("{CLIENT}{config}"));
        let found = snapshot.identity_at(address.parse().expect("address"));
        found.map(|(id, name)| {
            let id = id.as_ref().map_or("any", |id| id.principal());
            format!("{id} {name}")
        })
    };
    let want = "cluster.local/ns/default/sa/web outbound_.8080_._.a.default";
    assert_eq!(found("", "10.244.0.1:8080").as_deref(), Some(want));
    assert_eq!(found("", "10.244.0.2:8080"), None, "it has no proxy");
    assert_eq!(found("", "192.0.2.1:8080"), None, "nobody knows it");
    assert_eq!(found("mesh plain", "10.244.0.1:8080"), None);
    assert_eq!(found("peers default/no disable", "10.244.0.1:8080"), None);
    let pass = snapshot(CLIENT);
    let pass = pass.clusters().find(|c| &*c.name == "PassthroughCluster");
    assert!(matches!(
        pass.expect("always there").tls,
        ClusterTls::Mesh { .. }
    ));
}

#[test]
fn tokens_keep_their_reference_while_they_are_the_same() {
    use super::super::mesh::{Mesh, parse};
    use crate::decide::plan::{ConnectionFacts, Direction};
    use std::sync::Arc;
    let facts = |direction| ConnectionFacts {
        direction,
        source: ([10, 244, 0, 9], 1).into(),
        destination: ([10, 244, 0, 5], 8080).into(),
    };
    let config = format!(
        "{OWN}tokens default/a issuer=one select=app=web
tokens istio-system/b issuer=two
tokens default/c issuer=three select=app=other
tokens other/d issuer=four"
    );
    let Mesh { set, scope } = parse(&config);
    let old = Snapshot::build(&set, &scope);
    let Mesh { set, scope } = parse(&format!("{config}\npod default/x 10.244.0.7"));
    let new = Snapshot::build_from(&set, &scope, Some(&old));
    let of = |s: &Snapshot, direction| s.jwt_rules(&facts(direction)).clone();
    let rules = of(&new, Direction::Inbound);
    let issuers: Vec<_> = rules
        .rules
        .iter()
        .filter_map(|r| r.issuer.clone())
        .collect();
    assert_eq!(issuers, ["one".into(), "two".into()]);
    assert_eq!(&*rules.origins[1].name, "b");
    assert!(Arc::ptr_eq(&rules, &of(&old, Direction::Inbound)));
    assert!(of(&new, Direction::Outbound).rules.is_empty());
}
