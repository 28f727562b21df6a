//! How single attributes are compared: issuers and subjects, parts of the head, namespaces, hosts with their ports.

use super::authz::{denies, may};

#[test]
fn issuers_and_subjects_are_compared_apart() {
    for rule in [
        "from requestPrincipals=https://a/*",
        "when request.auth.principal=https://a/*",
    ] {
        denies(
            "",
            rule,
            "+ GET http://web/ jwt=https://a/ann
             - GET http://web/ jwt=https://a/b/ann
             - GET http://web/ jwt=https://ab/ann
             - GET http://web/",
        );
    }
    denies(
        "",
        "from requestPrincipals=*",
        "+ GET http://web/ jwt=https://a/b/ann
         - GET http://web/",
    );
    denies(
        "",
        "from requestPrincipals=*/ann,*.org/bob",
        "+ GET http://web/ jwt=https://a/b/ann
         + GET http://web/ jwt=https://x.org/bob
         - GET http://web/ jwt=https://x.com/bob
         - GET http://web/ jwt=https://a/joann
         - GET http://web/ jwt=ann/x",
    );
    denies(
        "",
        "from requestPrincipals=*nn,me*,https://a/a*",
        "+ GET http://web/ jwt=https://x/ann
         + GET http://web/ jwt=me.org/x
         + GET http://web/ jwt=https://a/al
         - GET http://web/ jwt=nn.org/x
         - GET http://web/ jwt=https://a/b/al
         - GET http://web/ jwt=x/me",
    );
    // A value without a slash names an issuer of tokens without a subject: of those is no principal (Istio).
    denies(
        "",
        "from requestPrincipals=ann",
        "- GET http://web/ jwt=https://a/ann
         - GET http://web/ jwt=ann/x",
    );
}

#[test]
fn parts_of_the_head_are_headers_too() {
    denies(
        "",
        "when request.headers[:path]=/admin*",
        "+ GET http://web/admin?x=1
         + GET http://web/x/../admin
         - GET http://web/public",
    );
    denies(
        "",
        "when request.headers[:path]=*?debug=%2f,/a%2fb",
        "+ GET http://web/x?debug=%2f
         + GET http://web/a%2fb
         - GET http://web/x",
    );
    denies(
        "",
        "when request.headers[:method]=P*",
        "+ POST http://web/
         - GET http://web/",
    );
    for name in [":authority", "Host"] {
        denies(
            "",
            &format!("when request.headers[{name}]=evil.example"),
            "+ GET http://EVIL.example/
             + GET http://evil.example:8080/
             - GET http://web/",
        );
    }
    denies(
        "",
        "when request.headers[:scheme]=https",
        "+ GET https://web/
         - GET http://web/",
    );
    denies("", "when !request.headers[:scheme]=https", "+ bytes");
}

#[test]
fn each_star_of_a_namespace_stands_for_anything() {
    for rule in ["from namespaces=a*b", "when source.namespace=a*b"] {
        denies(
            "",
            rule,
            "+ GET http://web/ as=td/ns/ab/sa/x
             + GET http://web/ as=td/ns/axxb/sa/x
             - GET http://web/ as=td/ns/a/sa/b
             - GET http://web/ as=td/ns/axbc/sa/x",
        );
    }
    denies(
        "",
        "from namespaces=*mid*",
        "+ bytes as=td/ns/a-mid-b/sa/x
         + bytes as=td/ns/mid/sa/x
         - bytes as=td/ns/other/sa/mid",
    );
    denies(
        "",
        "from namespaces=a*b*ab",
        "+ bytes as=td/ns/a-b-ab/sa/x
         - bytes as=td/ns/a-bab-b/sa/x
         - bytes as=td/ns/aab/sa/x",
    );
}

/// Istio compares the authority with its port, so a host without one opens the door for no other port.
#[test]
fn a_port_that_nobody_named_opens_no_door() {
    let denied = "deny: the only ALLOW policy, default/a, does not match";
    may(
        "allow default/a\n rule to hosts=a.example,*.wide,prefix.*,b.example:8080,c.example:*",
        &[
            ("GET http://a.example/", "allow"),
            ("GET http://A.example.:80/", "allow"),
            ("GET https://a.example:443/", "allow"),
            ("GET http://a.example:9999/", denied),
            ("GET http://a.example:443/", denied),
            ("GET http://x.wide/", "allow"),
            ("GET http://x.wide:9999/", denied),
            ("GET http://prefix.org:9999/", "allow"),
            ("GET http://b.example:8080/", "allow"),
            ("GET http://b.example/", denied),
            ("GET http://c.example:9999/", "allow"),
        ],
    );
    may(
        "allow default/a\n rule to notHosts=a.example",
        &[
            ("GET http://b.example:9999/", "allow"),
            ("GET http://a.example:9999/", denied),
        ],
    );
    denies(
        "",
        "to notHosts=a.example",
        "+ GET http://a.example:9999/
         - GET http://a.example/",
    );
    denies("", "to hosts=a.example", "+ GET http://a.example:9999/");
}
