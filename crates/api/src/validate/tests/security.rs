//! Cases of the security kinds.

use super::check;
use expect_test::expect;

#[test]
fn good_policies_say_nothing() {
    check(
        "PeerAuthentication",
        "{selector: {matchLabels: {app: a}}, mtls: {mode: STRICT}, portLevelMtls: {8080: {mode: DISABLE}}}",
        expect![[r#""#]],
    );
    check("PeerAuthentication", "{}", expect![[r#""#]]);
    check(
        "RequestAuthentication",
        "{jwtRules: [{issuer: 'https://a.b'}, {issuer: b, jwksUri: 'https://a.b/keys', fromHeaders: [{name: X-Token, prefix: 'T '}], fromCookies: [t], outputClaimToHeaders: [{header: x-sub, claim: sub}], timeout: 5s}, {issuer: 'https://a.b', audiences: [x]}]}",
        expect![[r#""#]],
    );
    check(
        "AuthorizationPolicy",
        "{selector: {matchLabels: {app: a}}, rules: [{from: [{source: {principals: [cluster.local/ns/x/sa/y, '*'], ipBlocks: [10.0.0.1, '10.0.0.0/8', '::1/128']}}, {source: {serviceAccounts: [a, b/c]}}], to: [{operation: {hosts: ['*.a.b'], ports: ['80'], methods: [GET], paths: [/a*, '*/b', '/x/{*}/y/{**}', '*']}}], when: [{key: 'request.headers[X-A]', values: [b]}, {key: 'request.auth.claims[a][b]', notValues: [c]}, {key: source.ip, values: [10.0.0.0/8]}, {key: connection.sni, values: ['*.x']}, {key: destination.port, values: ['80']}]}]}",
        expect![[r#""#]],
    );
    check("AuthorizationPolicy", "{}", expect![[r#""#]]);
    check(
        "AuthorizationPolicy",
        "{action: DENY, rules: [{}]}",
        expect![[r#""#]],
    );
    check(
        "AuthorizationPolicy",
        "{action: CUSTOM, provider: {name: p}, rules: [{to: [{operation: {paths: [/a]}}]}], targetRefs: [{kind: Service, name: a}]}",
        expect![[r#""#]],
    );
}

#[test]
fn peer_authentications() {
    check(
        "PeerAuthentication",
        "{portLevelMtls: {http: {mode: STRICT}, 0: {}, 70000: {}}}",
        expect![[r#"
            Error IST0106 spec.portLevelMtls: needs a selector: ports belong to workloads, name them by their labels
            Error IST0106 spec.portLevelMtls.0: "0" is not a port; use the workload's port number, 1 to 65535
            Error IST0106 spec.portLevelMtls.70000: "70000" is not a port; use the workload's port number, 1 to 65535
            Error IST0106 spec.portLevelMtls.http: "http" is not a port; use the workload's port number, 1 to 65535
        "#]],
    );
    check(
        "PeerAuthentication",
        "{selector: {matchLabels: {app: 'a*', '*': b}}}",
        expect![[r#"
            Error IST0106 spec.selector.matchLabels["*"]: is not a label: give its full key
            Error IST0106 spec.selector.matchLabels.app: wildcards do not work in selectors
        "#]],
    );
}

#[test]
fn token_rules() {
    check(
        "RequestAuthentication",
        "{selector: {matchLabels: {a: b}}, targetRefs: [{kind: Pod, name: a}, {kind: Gateway, group: gateway.networking.k8s.io, name: a, namespace: other}], jwtRules: [{}, {issuer: a, jwks: '{}', jwksUri: 'ftp://a'}, {issuer: a, jwksUri: 'https://u:p@a/b'}, {issuer: a, jwksUri: 'https://'}, {issuer: a}]}",
        expect![[r#"
            Error IST0106 spec: selector, targetRef and targetRefs exclude each other: keep one of them
            Error IST0106 spec.targetRefs[0]: "Pod" of group "" cannot have policies; use Gateway or GatewayClass of gateway.networking.k8s.io, Service, or ServiceEntry of networking.istio.io
            Error IST0106 spec.targetRefs[1].namespace: is another namespace: a policy is for objects of its own; leave it out
            Error IST0106 spec.jwtRules[0].issuer: is missing: name the issuer as in the claim "iss" (it may be left out beside jwksUri only)
            Error IST0106 spec.jwtRules[1]: jwks and jwksUri exclude each other: keep one of them
            Error IST0106 spec.jwtRules[1].jwksUri: "ftp://a" is not an address of keys: it begins with https:// or http://
            Error IST0106 spec.jwtRules[1].jwks: is not a key set: it needs a list "keys"
            Error IST0106 spec.jwtRules[2].jwksUri: carries a password: addresses of keys are public
            Error IST0106 spec.jwtRules[3].jwksUri: "https://" names no host
            Warning - spec.jwtRules[4].jwksUri: no key can be found: jwks and jwksUri are missing, and the issuer "a" is not an address of keys: it begins with https:// or http://
        "#]],
    );
    check(
        "RequestAuthentication",
        r#"{jwtRules: [{issuer: a, jwks: '{"keys":[{"kty":"oct","k":"AAAA"}]}'}, {issuer: a, jwks: 'no'}, {issuer: a, jwksUri: 'https://a', outputClaimToHeaders: [{header: 'a b', claim: c}, {header: x, claim: c}, {header: X, claim: d}], outputPayloadToHeader: 'a:b', fromHeaders: [{name: ':path'}]}]}"#,
        expect![[r#"
            Error IST0106 spec.jwtRules[0].jwks: has no key that can verify a token: keys[0] is symmetric: whoever verifies with it could forge tokens; use RSA, EC or OKP
            Error IST0106 spec.jwtRules[1].jwks: is not JSON: expected ident at line 1 column 2
            Error IST0106 spec.jwtRules[2].fromHeaders[0].name: ":path" is not a name of a header
            Error IST0106 spec.jwtRules[2].outputPayloadToHeader: "a:b" is not a name of a header
            Error IST0106 spec.jwtRules[2].outputClaimToHeaders[0].header: "a b" is not a header: use letters, digits, - and _
            Error IST0106 spec.jwtRules[2].outputClaimToHeaders[2].header: "X" gets another claim already: use another
        "#]],
    );
}

#[test]
fn authorization_policies() {
    check(
        "AuthorizationPolicy",
        "{action: CUSTOM, rules: []}",
        expect![[r#"
            Error IST0106 spec.provider.name: is missing: CUSTOM asks a provider; name one of extensionProviders
            Error IST0106 spec.rules: is empty, so the policy would never match: add rules; one empty rule, [{}], matches everything
        "#]],
    );
    check(
        "AuthorizationPolicy",
        "{action: DENY, provider: {name: a}}",
        expect![[r#"
            Error IST0106 spec.provider: is for action CUSTOM only: remove it or change the action
            Error IST0106 spec.rules: is empty, so the policy would never match: add rules; one empty rule, [{}], matches everything
        "#]],
    );
    check(
        "AuthorizationPolicy",
        "{rules: [{from: [{}, {source: {}}, {source: {principals: [''], serviceAccounts: ['a*', 'a/b/c'], ipBlocks: [10.0.0.0/, 10.0.0.0/33, x]}}], to: [{}, {operation: {ports: ['0', http], paths: ['/{**}/a', '/a{*}', '/{*}/*', '/{x}']}}]}]}",
        expect![[r#"
            Error IST0106 spec.rules[0].from[0].source: is empty: say who calls, or remove from to match everybody
            Error IST0106 spec.rules[0].from[1].source: is empty: say who calls, or remove from to match everybody
            Error IST0106 spec.rules[0].from[2].source.principals[0]: is empty: give it a value or remove it
            Error IST0106 spec.rules[0].from[2].source.ipBlocks[0]: "10.0.0.0/" is neither an address nor a range such as 10.0.0.0/8
            Error IST0106 spec.rules[0].from[2].source.ipBlocks[1]: "10.0.0.0/33" is neither an address nor a range such as 10.0.0.0/8
            Error IST0106 spec.rules[0].from[2].source.ipBlocks[2]: "x" is neither an address nor a range such as 10.0.0.0/8
            Error IST0106 spec.rules[0].from[2].source.serviceAccounts[0]: "a*" has a wildcard: accounts are written out; use principals for patterns
            Error IST0106 spec.rules[0].from[2].source.serviceAccounts[1]: "a/b/c" is not a service account; use name or namespace/name
            Error IST0106 spec.rules[0].from[2].source.serviceAccounts: excludes principals and namespaces: an account says both; keep one of them
            Error IST0106 spec.rules[0].to[0].operation: is empty: say what is called, or remove to to match everything
            Error IST0106 spec.rules[0].to[1].operation.paths[1]: "/a{*}": braces are for {*} and {**} only, each a whole part between slashes
            Error IST0106 spec.rules[0].to[1].operation.paths[2]: "/{*}/*": a template has no other * than {*} and {**}
            Warning - spec.rules[0].to[1].operation.paths[3]: "/{x}" is compared as it stands: only {*} and {**} stand for something else
            Error IST0106 spec.rules[0].to[1].operation.ports[0]: "0" is not a port; use 1 to 65535
            Error IST0106 spec.rules[0].to[1].operation.ports[1]: "http" is not a port; use 1 to 65535
        "#]],
    );
    check(
        "AuthorizationPolicy",
        "{rules: [{when: [{key: source.ip}, {key: source.ip, values: [10.0.0.0/]}, {key: '', values: [a]}, {key: source.adress, values: [a]}, {key: 'request.headers', values: [a]}, {key: 'request.headers[a', values: [a]}, {key: 'request.auth.claims[]', values: [a]}, {key: destination.port, values: [http]}, {key: source.namespace, notValues: ['']}]}]}",
        expect![[r#"
            Error IST0106 spec.rules[0].when[0]: has neither values nor notValues: give at least one of them
            Error IST0106 spec.rules[0].when[1].values[0]: "10.0.0.0/" is neither an address nor a range such as 10.0.0.0/8
            Error IST0106 spec.rules[0].when[2].key: is empty: name an attribute, such as source.ip
            Error IST0106 spec.rules[0].when[3].key: "source.adress" is not an attribute; use one of source.ip, remote.ip, source.namespace, source.serviceAccount, source.trustDomain, source.principal, request.auth.principal, request.auth.audiences, request.auth.presenter, destination.ip, destination.port, connection.sni, request.headers[…] and request.auth.claims[…]
            Error IST0106 spec.rules[0].when[4].key: "request.headers" names no header: write request.headers[name]
            Error IST0106 spec.rules[0].when[5].key: "request.headers[a" has brackets that are empty or not closed
            Error IST0106 spec.rules[0].when[6].key: "request.auth.claims[]" has brackets that are empty or not closed
            Error IST0106 spec.rules[0].when[7].values[0]: "http" is not a port; use 1 to 65535
            Error IST0106 spec.rules[0].when[8].notValues[0]: is empty: give it a value or remove it
        "#]],
    );
}

#[test]
fn tls_of_gateways_and_single_ports() {
    let server = |tls: &str| {
        format!(
            "{{selector: {{a: b}}, servers: [{{port: {{number: 443, name: x, protocol: HTTPS}}, hosts: ['*'], tls: {tls}}}]}}"
        )
    };
    check(
        "Gateway",
        &server(
            "{mode: SIMPLE, credentialNames: [a, b, c], credentialName: 'sds://x', minProtocolVersion: TLSV1_3, maxProtocolVersion: TLSV1_2, verifyCertificateHash: [ab], verifyCertificateSpki: [ab]}",
        ),
        expect![[r#"
            Error IST0106 spec.servers[0].tls: credentialName, credentialNames, tlsCertificates and serverCertificate exclude each other: keep one of them
            Error IST0106 spec.servers[0].tls.credentialNames: has 3 entries; two are allowed, with keys of different types
            Error IST0106 spec.servers[0].tls.credentialName: "sds://x" is not a secret: name one of the gateway's namespace
            Error IST0106 spec.servers[0].tls.maxProtocolVersion: is lower than minProtocolVersion: no client could connect
            Error IST0106 spec.servers[0].tls.verifyCertificateHash[0]: "ab" is not a SHA-256 hash: it has 64 hexadecimal digits
            Error IST0106 spec.servers[0].tls.verifyCertificateSpki[0]: "ab" is not a SHA-256 hash in base64
        "#]],
    );
    check(
        "Gateway",
        &server("{mode: MUTUAL, serverCertificate: /c, privateKey: /k}"),
        expect![[r#"
            Error IST0106 spec.servers[0].tls.caCertificates: is missing: clients' certificates could not be verified
        "#]],
    );
    check(
        "Gateway",
        &server("{credentialName: a}"),
        expect![[r#"
        Warning - spec.servers[0].tls: PASSTHROUGH, the mode when none is given, uses no certificate: set mode SIMPLE to end TLS here
    "#]],
    );
    check(
        "DestinationRule",
        "{host: a, trafficPolicy: {portLevelSettings: [{port: {number: 80}}, {port: {number: 80}}]}}",
        expect![[r#"
            Warning - spec.trafficPolicy.portLevelSettings[1].port.number: has settings already, and the first ones count: merge the two
        "#]],
    );
}

#[test]
fn headers_of_conditions() {
    check(
        "AuthorizationPolicy",
        "{rules: [{when: [{key: 'request.headers[:path]', values: [a]}, {key: 'request.headers[:Authority]', values: [a]}, {key: 'request.headers[x y]', values: [a]}, {key: 'request.headers[:status]', values: [a]}]}]}",
        expect![[r#"
            Error IST0106 spec.rules[0].when[2].key: "request.headers[x y]" names no header that a request can have: use a name such as x-token, or one of :path, :method, :authority, :scheme
            Error IST0106 spec.rules[0].when[3].key: "request.headers[:status]" names no header that a request can have: use a name such as x-token, or one of :path, :method, :authority, :scheme
        "#]],
    );
}

#[test]
fn a_token_rule_for_any_issuer_is_told() {
    check(
        "RequestAuthentication",
        "{jwtRules: [{jwksUri: 'https://a.b/keys'}]}",
        expect![[r#"
            Warning - spec.jwtRules[0].issuer: is missing: a token counts whoever its claim "iss" names, so whoever signs with these keys can speak for every issuer
        "#]],
    );
}
