//! Cases of `validate`: text in, observable result out.

mod rate_limits;
mod security;

use super::*;
use expect_test::{Expect, expect};

/// Validates `spec` (YAML, flow or block) of `kind`, and compares what is said.
fn check(kind: &str, spec: &str, want: Expect) {
    let version = match kind {
        "RateLimitPolicy" => "networking.lateen.dev/v1alpha1",
        "AuthorizationPolicy" => "security.istio.io/v1",
        kind if kind.ends_with("Authentication") => "security.istio.io/v1",
        _ => "networking.istio.io/v1",
    };
    let text = format!(
        "apiVersion: {version}\nkind: {kind}\nmetadata: {{name: a, namespace: ns}}\nspec: {spec}\n"
    );
    let mut said = String::new();
    for document in crate::yaml::parse("f", &text) {
        assert!(document.notices.is_empty(), "{:?}", document.notices);
        for notice in validate(&document.object.expect("read")) {
            let code = notice.code.unwrap_or("-");
            said.push_str(&format!(
                "{} {code} {}: {}\n",
                notice.severity, notice.field, notice.message
            ));
        }
    }
    want.assert_eq(&said);
}

#[test]
fn good_objects_say_nothing() {
    check(
        "VirtualService",
        "{hosts: [a, '*.b.c', 10.0.0.1], gateways: [mesh, ns/g], http: [{match: [{uri: {prefix: /}, headers: {x: {}}}], route: [{destination: {host: a, subset: v1, port: {number: 80}}, weight: 90}, {destination: {host: a}, weight: 10}], timeout: 5s, retries: {attempts: 3, retryOn: '5xx,503'}}]}",
        expect![[r#""#]],
    );
    check(
        "ServiceEntry",
        "{hosts: [a.b], ports: [{number: 443, name: tls, protocol: TLS}], resolution: DNS, location: MESH_EXTERNAL}",
        expect![[r#""#]],
    );
    check(
        "Sidecar",
        "{egress: [{hosts: ['./*', 'istio-system/*']}]}",
        expect![[r#""#]],
    );
    check(
        "DestinationRule",
        "{host: a, subsets: [{name: v1, labels: {version: v1}}]}",
        expect![[r#""#]],
    );
    check(
        "Gateway",
        "{selector: {istio: ingressgateway}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]}",
        expect![[r#""#]],
    );
}

#[test]
fn hosts() {
    check(
        "VirtualService",
        "{hosts: ['', 'http://a', 'a:80', '*a.b', a_b, A, a, '*'], http: [{route: [{destination: {host: '*.a'}}]}]}",
        expect![[r#"
            Error IST0106 spec.hosts[0]: is empty: name a host
            Error IST0106 spec.hosts[1]: "http://a" is not a host name: leave out scheme, port and path
            Error IST0106 spec.hosts[2]: "a:80" is not a host name: leave out scheme, port and path
            Error IST0106 spec.hosts[3]: "*a.b" is not a host name: a wildcard may only be the whole first part, as in *.example.com
            Error IST0106 spec.hosts[4]: "a_b" is not a host name: use letters, digits and -, parted by dots
            Error IST0106 spec.hosts[6]: "a" is given twice: remove one
            Error IST0106 spec.hosts[7]: "*" is for gateways only: name the hosts, or bind to gateways without mesh
            Error IST0106 spec.http[0].route[0].destination.host: a destination cannot be a wildcard: name one host
        "#]],
    );
}

#[test]
fn actions_and_weights() {
    check(
        "VirtualService",
        "{hosts: [a], http: [{match: [{}]}, {match: [{}], route: [{destination: {host: a}}], redirect: {uri: /}}, {match: [{}], route: [{destination: {host: a}}, {destination: {host: b}}]}, {redirect: {}}, {directResponse: {status: 99}}]}",
        expect![[r#"
            Error IST0106 spec.http[0]: has no action: add route, redirect, directResponse or delegate
            Error IST0106 spec.http[1]: route and redirect exclude each other: keep one of them
            Error IST0106 spec.http[2].route: all weights are 0, so nothing would be sent: give weights that say who gets what share
            Error IST0106 spec.http[3].redirect: changes nothing, so clients would be sent in a circle: add uri, authority, scheme or port
            Error IST0106 spec.http[4].directResponse.status: is not a status; use 200 to 599
            Warning IST0130 spec.http[4]: never runs: spec.http[3] has no match and takes everything; move that rule to the end
        "#]],
    );
    check(
        "VirtualService",
        "{hosts: [a]}",
        expect![[r#"
        Error IST0106 spec: has no rule: add http, tls or tcp rules
    "#]],
    );
    check(
        "VirtualService",
        "{hosts: [a], tcp: [{match: [{destinationSubnets: [x], sourceSubnet: 10.0.0.0/8}]}], tls: [{match: [{sniHosts: [b.c]}], route: [{destination: {host: a}}]}, {match: [{sniHosts: []}], route: []}]}",
        expect![[r#"
            Error IST0106 spec.tls[1].match[0].sniHosts: is empty: name a server
            Error IST0106 spec.tls[1]: has no route: name a destination
            Error IST0106 spec.tcp[0].match[0].destinationSubnets[0]: "x" is neither an address nor a range such as 10.0.0.0/8
            Error IST0106 spec.tcp[0]: has no route: name a destination
        "#]],
    );
}

#[test]
fn expressions_and_conditions() {
    check(
        "VirtualService",
        "{hosts: [a], gateways: ['a/b/c', ''], http: [{match: [{uri: {regex: 'a('}, headers: {x: {exact: a, prefix: b}}, queryParams: {q: {regex: '((a{100}){100}){100}'}}}], route: [{destination: {host: a}}], retries: {attempts: 1, retryOn: '5xx,conect-failure'}, fault: {abort: {}, delay: {percent: 5}}, rewrite: {uriRegexRewrite: {match: '['}}}]}",
        expect![[r#"
            Error IST0106 spec.gateways[0]: "a/b/c" is not a gateway; use name, namespace/name or mesh
            Error IST0106 spec.gateways[1]: "" is not a gateway; use name, namespace/name or mesh
            Error IST0106 spec.http[0].match[0].uri.regex: "a(" is not a valid RE2 expression: unclosed group
            Error IST0106 spec.http[0].match[0].headers.x: exact, prefix and regex exclude each other: keep one of them
            Error IST0106 spec.http[0].match[0].queryParams.q.regex: "((a{100}){100}){100}" is not a valid RE2 expression: Compiled regex exceeds size limit of 1048576 bytes.
            Error IST0106 spec.http[0].retries.retryOn: "conect-failure" is not a condition for retries; did you mean "connect-failure"?
            Error IST0106 spec.http[0].fault.delay.fixedDelay: is missing: say how long
            Warning IST0002 spec.http[0].fault.delay.percent: is deprecated: use percentage.value
            Error IST0106 spec.http[0].fault.abort: needs exactly one of httpStatus and grpcStatus
            Error IST0106 spec.http[0].rewrite.uriRegexRewrite.match: "[" is not a valid RE2 expression: unclosed character class
        "#]],
    );
}

#[test]
fn destination_rules() {
    check(
        "DestinationRule",
        "{host: 'a b', subsets: [{name: v1}, {name: v1}, {name: ''}], trafficPolicy: {loadBalancer: {simple: RANDOM, consistentHash: {}}, tls: {mode: MUTUAL}, outlierDetection: {consecutiveErrors: 3, consecutiveLocalOriginFailures: 2}, portLevelSettings: [{port: {number: 0}}]}, exportTo: ['*', ns]}",
        expect![[r#"
            Error IST0106 spec.host: "a b" is not a host name: use letters, digits and -, parted by dots
            Error IST0106 spec.exportTo[0]: "*" excludes other entries: keep one
            Error IST0106 spec.trafficPolicy.loadBalancer: simple and consistentHash exclude each other: keep one of them
            Error IST0106 spec.trafficPolicy.loadBalancer.consistentHash: needs exactly one of httpHeaderName, httpCookie, useSourceIp and httpQueryParameterName
            Warning IST0002 spec.trafficPolicy.outlierDetection.consecutiveErrors: is deprecated and has no effect: use consecutive5xxErrors or consecutiveGatewayErrors
            Error IST0106 spec.trafficPolicy.outlierDetection.consecutiveLocalOriginFailures: works only with splitExternalLocalOriginErrors: true
            Error IST0106 spec.trafficPolicy.tls: MUTUAL needs clientCertificate and privateKey, or credentialName
            Error IST0106 spec.trafficPolicy.portLevelSettings[0].port.number: 0 is not a port; use 1 to 65535
            Error IST0106 spec.subsets[1].name: subset "v1" is defined twice: rename one
            Error IST0106 spec.subsets[2].name: "" is not a subset name: use letters, digits and -
        "#]],
    );
}

#[test]
fn gateways() {
    check(
        "Gateway",
        "{}",
        expect![[r#"
        Error IST0106 spec.servers: is empty: add a server with port and hosts
        Error IST0106 spec.selector: is empty: name the gateway's pods by their labels, such as istio: ingressgateway
    "#]],
    );
    check(
        "Gateway",
        "{selector: {a: b}, servers: [{port: {number: 443, name: x, protocol: HTTPS}, hosts: ['-/a']}, {port: {number: 443, name: x, protocol: TLS}, hosts: [], tls: {mode: SIMPLE}}, {port: {protocol: FTP}, hosts: [a]}]}",
        expect![[r#"
            Error IST0106 spec.servers[0].hosts[0]: "-" is not a namespace; use a name, "." or "*"
            Error IST0106 spec.servers[0].tls: is missing: HTTPS and TLS servers need TLS settings
            Error IST0106 spec.servers[1].hosts: is empty: name hosts, or "*" for all
            Error IST0106 spec.servers[1].tls: has no certificate: give credentialName, or serverCertificate and privateKey
            Error IST0106 spec.servers[1].port.name: is used by another server: port names must differ
            Error IST0106 spec.servers[2].port.number: is missing: give a port, 1 to 65535
            Error IST0106 spec.servers[2].port.protocol: "FTP" is not a protocol of gateways; use one of HTTP, HTTPS, GRPC, GRPC-WEB, HTTP2, MONGO, TCP, TLS
            Error IST0106 spec.servers[2].port.name: is missing: give the port a name
        "#]],
    );
}

#[test]
fn service_entries() {
    check(
        "ServiceEntry",
        "{hosts: ['*', '*.a.b'], addresses: [10.0.0.0/8, x], ports: [{number: 80, name: a}, {number: 80, name: a}, {number: 0}], resolution: DNS}",
        expect![[r#"
            Error IST0106 spec.hosts[0]: "*" would take every host: use *.suffix or full names
            Error IST0106 spec.hosts[1]: a wildcard cannot be resolved: give endpoints, or use resolution NONE
            Error IST0106 spec.addresses[0]: address ranges are for resolution NONE and STATIC only
            Error IST0106 spec.addresses[1]: "x" is neither an address nor a range such as 10.0.0.0/8
            Error IST0106 spec.ports[1].number: is used by another port: numbers must differ
            Error IST0106 spec.ports[1].name: is used by another port: names must differ
            Error IST0106 spec.ports[2].number: 0 is not a port; use 1 to 65535
            Error IST0106 spec.ports[2].name: is missing: give the port a name
        "#]],
    );
    check(
        "ServiceEntry",
        "{hosts: [a.b], ports: [{number: 80, name: http}], endpoints: [{address: a.b, ports: {https: 1}}, {}], workloadSelector: {labels: {a: b}}}",
        expect![[r#"
            Error IST0106 spec.endpoints: workloadSelector and endpoints exclude each other: keep one of them
            Error IST0106 spec.endpoints: resolution NONE cannot have endpoints: set resolution to STATIC or DNS, or remove the endpoints
            Error IST0106 spec.endpoints[0].ports.https: names no port of spec.ports: use one of their names
            Error IST0106 spec.endpoints[1].address: is missing: give an IP address or a name
        "#]],
    );
    check(
        "ServiceEntry",
        "{hosts: [a.b], ports: [{number: 80, name: http}], resolution: STATIC, endpoints: [{address: a.b}, {address: 'unix://x'}]}",
        expect![[r#"
            Error IST0106 spec.endpoints[0].address: "a.b" is not an IP address: use resolution DNS for names
            Error IST0106 spec.endpoints[1].address: is not an absolute path: write unix:///path
        "#]],
    );
    check(
        "WorkloadEntry",
        "{}",
        expect![[r#"
        Error IST0106 spec.address: is missing: give an IP address or a name
    "#]],
    );
}

#[test]
fn sidecars() {
    check(
        "Sidecar",
        "{egress: [{hosts: [a]}, {port: {number: 0}, hosts: ['A_/x', '~/*', '~ns/x']}], ingress: [{port: {number: 80}, defaultEndpoint: 'x:1'}]}",
        expect![[r#"
            Error IST0106 spec.egress[0].hosts[0]: "a" has no namespace: write namespace/host, such as */a
            Error IST0106 spec.egress[1].port.number: 0 is not a port; use 1 to 65535
            Error IST0106 spec.egress[1].hosts[0]: "A_" is not a namespace; use a name, ".", "*" or "~"
            Error IST0106 spec.egress: only the last listener may be without a port: it takes what the others leave
            Error IST0106 spec.ingress[0].defaultEndpoint: "x:1" is not 127.0.0.1:port, 0.0.0.0:port or a unix:// path
        "#]],
    );
}
