//! Rules that another object stands in for.

use super::table_text;
use crate::mesh::Mesh;
use crate::virtual_service::{Inputs, virtual_service};
use expect_test::{Expect, expect};
use lateen_api::object::Object;
use lateen_model::resource::Resource;
use std::fmt::Write;

/// Translates the first VirtualService, which is `root` of namespace `a`, with the others, each `namespace/name: spec`.
fn check(root: &str, others: &[(&str, &str)], want: Expect) {
    let object = |name: &str, spec: &str| {
        let (namespace, name) = name.split_once('/').expect("namespace/name");
        let text = format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
        );
        let document = lateen_api::yaml::parse("f", &text).remove(0);
        match document.object {
            Some(Object::VirtualService(config)) => config,
            other => panic!("{other:?}"),
        }
    };
    let config = object("a/root", root);
    let others: Vec<_> = others
        .iter()
        .map(|(name, spec)| object(name, spec))
        .collect();
    let (resources, notices) = virtual_service(Inputs {
        config: &config,
        mesh: &Mesh::default(),
        delegates: Some(&others.iter().collect::<Vec<_>>()),
    });
    let mut said = String::new();
    for resource in resources {
        if let Resource::RouteTable(table) = resource {
            said.push_str(&table_text(&table));
        }
    }
    for n in notices {
        writeln!(said, "{}: {}: {}", n.severity, n.field, n.message).expect("text");
    }
    want.assert_eq(&said);
}

const ROOT: &str = "{hosts: [shop.com], gateways: [g], http: [{name: pages, match: [{uri: {prefix: /pages}}], delegate: {name: pages, namespace: b}, timeout: 9s}, {route: [{destination: {host: rest}}]}]}";

#[test]
fn the_others_rules_stand_in_the_roots_place() {
    check(
        ROOT,
        &[(
            "b/pages",
            "{http: [{name: one, match: [{uri: {exact: /pages/1}, method: {exact: GET}}], route: [{destination: {host: web}}]}, {match: [{uri: {prefix: /other}}], route: [{destination: {host: web}}]}, {route: [{destination: {host: web, subset: v2}}], timeout: 3s}]}",
        )],
        expect![[r#"
            hosts ["shop.com"] gateways ["a/g"] Public
            http "pages-one"
              if HttpMatch { uri: Some(Exact("/pages/1")), method: Some(Exact("GET")),  }
              to web.b.svc.cluster.local weight 1 HeaderEdit { set: [], add: [], remove: [] }
              timeout 9s
              written in pages#0 for #0
            http "pages"
              if HttpMatch { uri: Some(Prefix("/pages")),  }
              to web.b.svc.cluster.local/v2 weight 1 HeaderEdit { set: [], add: [], remove: [] }
              timeout 3s
              written in pages#2 for #0
            http ""
              to rest.a.svc.cluster.local weight 1 HeaderEdit { set: [], add: [], remove: [] }
              written in root#1 for #1
        "#]],
    );
}

#[test]
fn conditions_are_joined_or_exclude_each_other() {
    check(
        "{hosts: [a.com], gateways: [g], http: [{match: [{headers: {x: {prefix: ab}}, port: 80}, {queryParams: {q: {exact: '1'}}, sourceNamespace: s}], delegate: {name: d}}]}",
        &[(
            "a/d",
            "{http: [{match: [{headers: {x: {exact: abc}, y: {}}}, {headers: {x: {regex: a.*}}, port: 81}], route: [{destination: {host: web}}]}]}",
        )],
        expect![[r#"
            hosts ["a.com"] gateways ["a/g"] Public
            http ""
              if HttpMatch { headers: {"x": Exact("abc"), "y": Present}, port: Some(80),  }
              if HttpMatch { headers: {"x": Exact("abc"), "y": Present}, query: {"q": Exact("1")}, source_namespace: Some("s"),  }
              if HttpMatch { headers: {"x": Regex(Pattern { source: "a.*", compiled: Regex("^(?:a.*)$") })}, query: {"q": Exact("1")}, port: Some(81), source_namespace: Some("s"),  }
              to web.a.svc.cluster.local weight 1 HeaderEdit { set: [], add: [], remove: [] }
              written in d#0 for #0
        "#]],
    );
}

#[test]
fn a_root_without_a_delegate_takes_nothing_and_says_why() {
    check(
        ROOT,
        &[],
        expect![[r#"
            hosts ["shop.com"] gateways ["a/g"] Public
            http ""
              to rest.a.svc.cluster.local weight 1 HeaderEdit { set: [], add: [], remove: [] }
              written in root#1 for #1
            Warning: spec.http[0].delegate: VirtualService b/pages does not exist or is broken: create it, or correct name and namespace; until then this rule takes no request
        "#]],
    );
    check(
        ROOT,
        &[(
            "b/pages",
            "{hosts: [x.com], http: [{route: [{destination: {host: web}}]}]}",
        )],
        expect![[r#"
            hosts ["shop.com"] gateways ["a/g"] Public
            http ""
              to rest.a.svc.cluster.local weight 1 HeaderEdit { set: [], add: [], remove: [] }
              written in root#1 for #1
            Warning: spec.http[0].delegate: VirtualService b/pages has hosts of its own, so it cannot be delegated to: remove its hosts; until then this rule takes no request
        "#]],
    );
    check(
        ROOT,
        &[(
            "b/pages",
            "{exportTo: ['.'], http: [{route: [{destination: {host: web}}]}]}",
        )],
        expect![[r#"
            hosts ["shop.com"] gateways ["a/g"] Public
            http ""
              to rest.a.svc.cluster.local weight 1 HeaderEdit { set: [], add: [], remove: [] }
              written in root#1 for #1
            Warning: spec.http[0].delegate: VirtualService b/pages is not exported to a: add that to its exportTo; until then this rule takes no request
        "#]],
    );
    check(
        ROOT,
        &[(
            "b/pages",
            "{http: [{delegate: {name: root, namespace: a}}]}",
        )],
        expect![[r#"
            hosts ["shop.com"] gateways ["a/g"] Public
            http ""
              to rest.a.svc.cluster.local weight 1 HeaderEdit { set: [], add: [], remove: [] }
              written in root#1 for #1
            Warning: spec.http[0].delegate: VirtualService b/pages only delegates further, which goes one level deep: put the rules there; until then this rule takes no request
        "#]],
    );
    check(
        ROOT,
        &[(
            "b/pages",
            "{http: [{match: [{uri: {regex: '/pages/.*'}}], route: [{destination: {host: web}}]}]}",
        )],
        expect![[r#"
            hosts ["shop.com"] gateways ["a/g"] Public
            http ""
              to rest.a.svc.cluster.local weight 1 HeaderEdit { set: [], add: [], remove: [] }
              written in root#1 for #1
            Warning: spec.http[0].delegate: no rule of VirtualService b/pages can match together with this rule's match, so it takes no request: its matches must be narrower than these
        "#]],
    );
}
