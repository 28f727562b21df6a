//! Who may do what.

use super::super::check;

const OWN: &str = "
me sidecar default/web-1 10.244.0.5 app=web
service default/web 10.96.0.10 http:80>8080 tcp:3306
pod default/web-1 10.244.0.5 serves=web app=web
";

const SLEEP: &str = "as=cluster.local/ns/default/sa/sleep";

/// Cases are `METHOD URL …` (a request to port 8080) or `bytes …` (to port 3306), after `mesh`-wide settings and
/// policies.
#[track_caller]
pub(super) fn may(config: &str, cases: &[(&str, &str)]) {
    let cases: Vec<_> = cases
        .iter()
        .map(|(call, want)| {
            let call = call.replace("SLEEP", SLEEP);
            let call = match call.strip_prefix("bytes") {
                Some(rest) => format!("inbound admit 10.244.0.5:3306{rest}"),
                None => format!("inbound may {call} to=10.244.0.5:8080"),
            };
            (call, *want)
        })
        .collect();
    let cases: Vec<_> = cases.iter().map(|(call, want)| (&**call, *want)).collect();
    check(&format!("{OWN}{config}"), &cases);
}

#[test]
fn the_productpage_viewer_of_istios_documents() {
    let all = "allow default/allow-nothing";
    may(
        &format!("{all}\n"),
        &[
            (
                "GET http://web/ SLEEP",
                "deny: the only ALLOW policy, default/allow-nothing, does not match",
            ),
            (
                "bytes SLEEP",
                "deny: the only ALLOW policy, default/allow-nothing, does not match",
            ),
        ],
    );
    let viewer = "allow default/productpage-viewer select=app=web
  rule from principals=cluster.local/ns/default/sa/sleep to methods=GET";
    may(
        &format!("{all}\n{viewer}"),
        &[
            ("GET http://web/ SLEEP", "allow"),
            (
                "POST http://web/ SLEEP",
                "deny: none of the 2 ALLOW policies matches (default/allow-nothing, default/productpage-viewer)",
            ),
            (
                "GET http://web/ as=cluster.local/ns/default/sa/other",
                "deny: none of the 2 ALLOW policies matches (default/allow-nothing, default/productpage-viewer)",
            ),
            (
                "GET http://web/",
                "deny: none of the 2 ALLOW policies matches (default/allow-nothing, default/productpage-viewer)",
            ),
            (
                "bytes SLEEP",
                "deny: none of the 2 ALLOW policies matches (default/allow-nothing, default/productpage-viewer)",
            ),
        ],
    );
    may(
        "allow default/l4 select=app=web
  rule from principals=cluster.local/ns/default/sa/sleep",
        &[
            ("bytes SLEEP", "allow"),
            ("GET http://web/ SLEEP", "allow"),
            (
                "bytes as=cluster.local/ns/default/sa/x",
                "deny: the only ALLOW policy, default/l4, does not match",
            ),
        ],
    );
}

#[test]
fn custom_then_deny_then_allow() {
    let config = "mesh provider=opa provider=web:http
custom default/ask provider=opa
  rule to paths=/ask/*
custom default/http provider=web
  rule to paths=/ask/http,/web
deny default/deny
  rule to paths=/ask/deny
  rule to paths=/deny/*
allow default/allow
  rule to paths=/ask/*,/web
  rule to paths=/ok";
    may(
        config,
        &[
            ("GET http://web/ok", "allow"),
            ("GET http://web/deny/x", "deny by deny#1"),
            ("GET http://web/ask/deny", "deny by deny#0"),
            (
                "GET http://web/other",
                "deny: the only ALLOW policy, default/allow, does not match",
            ),
            ("GET http://web/ask/me", "ask opa"),
            ("GET http://web/ask/http", "ask opa,web"),
            ("GET http://web/web", "ask web"),
        ],
    );
}

#[test]
fn a_provider_that_cannot_be_asked_denies() {
    may(
        "mesh provider=web:http provider=grpc
custom default/gone provider=nobody
  rule to paths=/gone
custom default/web provider=web
  rule from namespaces=a
custom default/grpc provider=grpc
  rule from namespaces=b",
        &[
            ("GET http://web/gone", "deny by gone#0"),
            ("GET http://web/ as=td/ns/a/sa/x", "ask web"),
            // What a CUSTOM rule says of HTTP is left out for bytes: more is asked, never less.
            ("bytes", "deny by gone#0"),
        ],
    );
    may(
        "mesh provider=web:http provider=grpc
custom default/web provider=web
  rule from namespaces=a
custom default/grpc provider=grpc
  rule from namespaces=b",
        &[
            ("bytes", "allow"),
            ("bytes as=td/ns/a/sa/x", "deny by web#0"),
            ("bytes as=td/ns/b/sa/x", "ask grpc"),
        ],
    );
}

#[test]
fn nothing_and_everything() {
    may("", &[("GET http://web/", "allow"), ("bytes", "allow")]);
    may(
        "allow default/all\n rule",
        &[("GET http://web/", "allow"), ("bytes", "allow")],
    );
    may("deny default/none", &[("GET http://web/", "allow")]);
    may(
        "deny default/all\n rule",
        &[
            ("GET http://web/", "deny by all#0"),
            ("bytes", "deny by all#0"),
        ],
    );
}

#[test]
fn whom_a_policy_is_for() {
    may(
        "deny other/near\n rule
deny default/label select=app=other\n rule
deny istio-system/root select=app=other\n rule
deny default/gateway target=Gateway/gw\n rule
deny default/waypoint target=Service/web\n rule",
        &[("GET http://web/", "allow")],
    );
    may(
        "deny istio-system/root select=app=web\n rule",
        &[("GET http://web/", "deny by root#0")],
    );
    let gateway = |ns: &str, config: &str, want: &str| {
        let me = format!(
            "me gateway {ns}/gw-1 10.244.0.50 gateway.networking.k8s.io/gateway-name=gw\n{config}"
        );
        check(
            &me,
            &[("gateway may GET http://x/ to=10.244.0.50:80", want)],
        );
    };
    let policy = "deny default/p target=Gateway/gw\n rule";
    gateway("default", policy, "deny by p#0");
    gateway("other", policy, "allow");
    gateway(
        "default",
        "deny default/p target=Gateway/no\n rule",
        "allow",
    );
    gateway("default", "deny default/p\n rule", "deny by p#0");
}

#[test]
fn what_goes_out_is_not_authorized() {
    check(
        &format!("{OWN}deny default/all\n rule"),
        &[
            ("may GET http://web/", "allow"),
            ("admit 10.96.0.10:80", "allow"),
        ],
    );
}

#[test]
fn http_where_there_is_none() {
    may(
        "deny default/d\n rule from namespaces=bad to methods=GET",
        &[
            ("bytes as=td/ns/bad/sa/x", "deny by d#0"),
            ("bytes as=td/ns/good/sa/x", "allow"),
            ("POST http://web/ as=td/ns/bad/sa/x", "allow"),
        ],
    );
    may(
        "deny default/d\n rule to paths=/admin",
        &[("bytes", "deny by d#0"), ("GET http://web/", "allow")],
    );
    may(
        "allow default/a\n rule from namespaces=good to notMethods=GET
                            rule from namespaces=plain to ports=3306",
        &[
            (
                "bytes as=td/ns/good/sa/x",
                "deny: the only ALLOW policy, default/a, does not match",
            ),
            ("bytes as=td/ns/plain/sa/x", "allow"),
        ],
    );
}

#[test]
fn audit_and_dry_run() {
    may(
        "audit default/note\n rule to methods=POST
audit default/all\n rule\n rule
deny default/dry dry\n rule to paths=/secret
allow default/try dry\n rule to paths=/open",
        &[
            ("GET http://web/", "allow audit all dry deny -"),
            (
                "POST http://web/open",
                "allow audit note audit all dry allow try#0",
            ),
            ("GET http://web/secret", "allow audit all dry deny dry#0"),
        ],
    );
    may(
        "deny default/dry dry\n rule to paths=/secret",
        &[("GET http://web/", "allow dry allow -")],
    );
}

/// `config` is one DENY rule; calls after `+` are denied by it, calls after `-` are not.
#[track_caller]
pub(super) fn denies(mesh: &str, rule: &str, calls: &str) {
    for call in calls.lines().map(str::trim).filter(|c| !c.is_empty()) {
        let (sign, call) = call.split_at(1);
        let want = if sign == "+" { "deny by d#0" } else { "allow" };
        let config = format!("{mesh}\ndeny default/d\n rule {rule}");
        may(&config, &[(call.trim(), want)]);
    }
}

#[test]
fn sources() {
    denies(
        "",
        "from namespaces=foo*,bar serviceAccounts=foo1/a,bar/b",
        "+ GET http://web/ as=td/ns/foo1/sa/a
         + bytes as=td/ns/bar/sa/b
         - GET http://web/ as=td/ns/foo1/sa/b
         - GET http://web/ as=td/ns/xfoo1/sa/a
         - GET http://web/",
    );
    denies(
        "",
        "from notPrincipals=*",
        "+ GET http://web/
         - GET http://web/ SLEEP",
    );
    denies(
        "",
        "from principals=* trustDomains=td",
        "+ GET http://web/ as=td/ns/a/sa/b
         - GET http://web/ SLEEP
         - GET http://web/",
    );
    denies(
        "",
        "from ipBlocks=10.0.0.0/8,2001:db8::/32 notIpBlocks=10.1.0.0/16",
        "+ GET http://web/ ip=10.2.0.1
         + GET http://web/ ip=::ffff:10.2.0.1
         + GET http://web/ ip=2001:db8::1
         - GET http://web/ ip=10.1.2.3
         - GET http://web/ ip=11.0.0.1",
    );
    denies(
        "",
        "from ipBlocks=::ffff:10.0.0.0/104",
        "+ GET http://web/ ip=10.2.0.1
         - GET http://web/ ip=11.2.0.1",
    );
    denies(
        "",
        "from requestPrincipals=iss/*",
        "+ GET http://web/ jwt=iss/me
         - GET http://web/ jwt=other/me
         - GET http://web/",
    );
    denies(
        "",
        "from notRequestPrincipals=* to paths=/admin",
        "+ GET http://web/admin
         - GET http://web/admin jwt=iss/me",
    );
}

#[test]
fn trust_domains_and_their_aliases() {
    let mesh = "mesh domain=td1 aliases=td2,old";
    for written in ["td1", "td2", "cluster.local", "*d2"] {
        denies(
            mesh,
            &format!("from principals={written}/ns/a/sa/b"),
            "+ bytes as=td1/ns/a/sa/b
             + bytes as=td2/ns/a/sa/b
             + bytes as=old/ns/a/sa/b
             - bytes as=td1/ns/a/sa/c
             - bytes as=td4/ns/a/sa/b",
        );
    }
    denies(
        mesh,
        "from principals=cluster.local/ns/a/*",
        "+ bytes as=old/ns/a/sa/b
         - bytes as=cluster.local/ns/a/sa/b",
    );
    denies(
        mesh,
        "from principals=foreign/ns/a/sa/b,*/ns/x/sa/y",
        "+ bytes as=foreign/ns/a/sa/b
         + bytes as=any/ns/x/sa/y
         - bytes as=td1/ns/a/sa/b",
    );
}

#[test]
fn hosts_are_compared_in_one_form() {
    denies(
        "",
        "to hosts=Secret.example,*.wide.example.,prefix.*",
        "+ GET http://SECRET.example/
         + GET http://secret.example.:8080/
         + GET http://a.wide.EXAMPLE:80/
         + GET http://prefix.org/
         - GET http://wide.example/
         - GET http://secret.example.org/",
    );
    denies(
        "",
        "to hosts=a.example:8080,*:9090,b.example:80,c.example:*,[::1]:80",
        "+ GET http://A.example.:8080/
         + GET http://x.example:9090/
         + GET http://b.example/
         + GET http://c.example:1/
         + GET http://c.example/
         + GET http://[::1]/
         - GET http://[::2]/
         - GET http://a.example/
         - GET https://b.example/",
    );
    denies("", "to hosts=[::1]", "+ GET http://[::1]:8080/");
}

#[test]
fn paths_are_compared_in_one_form() {
    denies(
        "",
        "to paths=/admin,/api/*,*.txt",
        "+ GET http://web/admin
         + GET http://web/admin?x=1
         + GET http://web/x/../admin
         + GET http://web/%61dmin
         + GET http://web/x\\..\\admin
         + GET http://web/api/x
         + GET http://web/a/b.txt?y
         - GET http://web/Admin
         - GET http://web/x?/admin
         - GET http://web//admin
         - GET http://web/x%2f..%2fadmin",
    );
    denies(
        "mesh paths=merge",
        "to paths=/admin",
        "+ GET http://web//admin",
    );
    denies(
        "mesh paths=decode",
        "to paths=/admin",
        "+ GET http://web/x%2f..%2Fadmin",
    );
    denies(
        "",
        "to paths=/a%2fb",
        "+ GET http://web/a%2Fb
         + GET http://web/a%2fb",
    );
    may(
        "allow default/a\n rule",
        &[(
            "GET http://web/a%zz",
            "deny: policies cannot be applied to a path with a broken percent-encoding",
        )],
    );
}

#[test]
fn path_templates() {
    denies(
        "",
        "to paths=/foo/{*}/bar,/v/{*},/all/{**},/dir/{**}/,/x/{*}/y/{**}/z",
        "+ GET http://web/foo/1/bar
         + GET http://web/v/1
         + GET http://web/all/1/2/3.txt
         + GET http://web/all/
         + GET http://web/dir/a/b/
         + GET http://web/x/1/y/2/3/z
         - GET http://web/foo/1/2/bar
         - GET http://web/foo//bar
         - GET http://web/v/1/2
         - GET http://web/v/
         - GET http://web/all
         - GET http://web/dir/a/b
         - GET http://web/x/1/y/2/3",
    );
}

#[test]
fn methods_and_ports() {
    denies(
        "",
        "to methods=GET,P* ports=8080 notPorts=3306",
        "+ GET http://web/
         + PATCH http://web/
         - DELETE http://web/
         - bytes",
    );
}

#[test]
fn conditions() {
    denies(
        "",
        "when request.headers[X-Token]=evil,pre*",
        "+ GET http://web/ x-token:evil
         + GET http://web/ x-token:good X-Token:evil
         + GET http://web/ x-token:prefix
         - GET http://web/ x-token:good,evil
         - GET http://web/",
    );
    denies(
        "",
        "when !request.headers[x-ok]=yes !source.namespace=default",
        "+ GET http://web/
         + GET http://web/ x-ok:no
         - GET http://web/ x-ok:yes
         - GET http://web/ SLEEP",
    );
    denies(
        "",
        "when request.headers[x]=*",
        "+ GET http://web/ x:1
         - GET http://web/ y:1",
    );
    denies(
        "",
        "when request.auth.claims[groups]=admin request.auth.claims[realm][role]=r*",
        r#"+ GET http://web/ claim:groups=["user","admin"] claim:realm={"role":"root"}
           + GET http://web/ claim:groups=admin claim:realm={"role":["x","r"]}
           - GET http://web/ claim:groups=["user"] claim:realm={"role":"root"}
           - GET http://web/ claim:groups=admin claim:realm=root
           - GET http://web/ claim:groups=7
           - GET http://web/"#,
    );
    denies(
        "",
        "when !request.auth.claims[groups]=admin",
        "+ GET http://web/
         + GET http://web/ claim:groups=user
         - GET http://web/ claim:groups=admin",
    );
    denies(
        "",
        "when source.ip=10.1.0.0/16,192.0.2.7 destination.port=8080 destination.ip=10.244.0.5",
        "+ GET http://web/ ip=10.1.2.3
         + GET http://web/ ip=192.0.2.7
         - GET http://web/ ip=192.0.2.8
         - bytes ip=10.1.2.3",
    );
    denies(
        "",
        "when connection.sni=*.example source.trustDomain=td",
        "+ bytes over=a.example as=td/ns/a/sa/b
         - bytes over=a.org as=td/ns/a/sa/b
         - bytes as=td/ns/a/sa/b",
    );
}

#[test]
fn what_cannot_be_read_never_opens_the_door() {
    denies("", "when source.ip=10.0.0.0/99", "+ bytes");
    denies("", "when !source.ip=10.0.0.0/99", "+ bytes");
    may(
        "allow default/a\n rule when source.ip=10.0.0.0/99
         \n rule when !source.ip=nonsense",
        &[(
            "bytes",
            "deny: the only ALLOW policy, default/a, does not match",
        )],
    );
}

#[test]
fn what_is_compiled_is_kept_while_it_is_the_same() {
    use super::super::mesh::{Mesh, parse};
    use crate::decide::snapshot::Snapshot;
    use std::sync::Arc;
    let build = |config: &str, old: Option<&Snapshot>| {
        let Mesh { set, scope } = parse(&format!("{OWN}{config}"));
        Snapshot::build_from(&set, &scope, old)
    };
    let same = |a: &Snapshot, b: &Snapshot| Arc::ptr_eq(&a.security.authz, &b.security.authz);
    let policy = "allow default/a\n rule to methods=GET";
    let old = build(policy, None);
    assert!(same(
        &old,
        &build(&format!("{policy}\npod default/x 10.244.0.7"), Some(&old))
    ));
    assert!(!same(
        &old,
        &build(&format!("{policy}\nmesh domain=td"), Some(&old))
    ));
    assert!(!same(&old, &build(&format!("{policy},POST"), Some(&old))));
}
