//! Calls as a server's sidecar and a gateway hear them: from objects as users write them to sentences.

use super::*;
use crate::simulate::Story;
use lateen_model::decide::resources::ResourceSet;
use lateen_model::mesh::{Role, Scope};

/// Two tokens of `ann` by the key in [`TOKENS`]: one that never ends, and one that has ended.
const GOOD: &str = "eyJhbGciOiJFZERTQSJ9.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlIiwic3ViIjoiYW5uIn0.Gdt4x-Fr6swPqVse78P39LazkHSnyRnygVXN2fB7p49F124Q7BTvPe5U4fpmPLpPSu_JnZ2OHizgPafo1ZvvAg";
const ENDED: &str = "eyJhbGciOiJFZERTQSJ9.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlIiwic3ViIjoiYW5uIiwiZXhwIjoxfQ.bAOQ7T9YwsH02hOgBByLCaEFedcOA53fX6t4LGVsZaAzFpmlSwwQDf_rKITVBIsUX17G8b_IQCrQYX7l8AVgCg";

const TOKENS: &str = r#"---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: tokens, namespace: default}
spec:
  jwtRules:
    - issuer: https://issuer.example
      jwks: '{"keys":[{"kty":"OKP","crv":"Ed25519","x":"3o8LcCF5psduAk6iEg-B9uyQsS_pT2F0PPZEwgsBZ_k"}]}'
"#;

fn policy(action: &str, rules: &str) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: p, namespace: default}}\n\
         spec: {{action: {action}, rules: {rules}}}\n"
    )
}

fn snapshot(role: Role, yaml: &str) -> Snapshot {
    let file = tempfile::NamedTempFile::with_suffix(".yaml").expect("a file");
    std::fs::write(file.path(), yaml).expect("written");
    let resources = crate::local::resources(file.path()).expect("in order");
    let scope = Scope {
        on_demand: false,
        role,
        pod: "web-1".into(),
        namespace: "default".into(),
        labels: Default::default(),
        addresses: vec![IpAddr::from([10, 244, 0, 5])],
        service_account: "web".into(),
        workload_name: "web".into(),
        canonical_name: "web".into(),
        canonical_revision: "latest".into(),
        cluster: "Kubernetes".into(),
        domain: "cluster.local".into(),
    };
    Snapshot::build(&ResourceSet::of(resources), &scope)
}

fn call(url: &str, headers: &[(&'static str, &str)]) -> Request {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let value = HeaderValue::from_str(value).expect("value");
        map.append(HeaderName::from_static(name), value);
    }
    Request::new(Direction::Outbound, Method::GET, url, map)
}

/// Who calls from `10.244.0.9`, as a member of the mesh or not.
fn sender(member: bool) -> Sender {
    let id = SpiffeId::parse("spiffe://cluster.local/ns/default/sa/sleep").expect("id");
    Sender {
        identity: member.then_some(id),
        address: Some(IpAddr::from([10, 244, 0, 9])),
        server_name: String::new(),
    }
}

/// How a call ends at a server's sidecar with these objects.
#[track_caller]
fn ends(yaml: &str, request: Request, member: bool, want: &str) {
    let snapshot = snapshot(Role::Sidecar, yaml);
    let mut request = request.at_server(None, 8080, sender(member));
    let story = Story::of(&snapshot, &mut request).expect("URL");
    assert_eq!(story.outcome(), want, "{:?}", story.simulation.steps);
}

const TAKEN: &str = "Sent, and taken by the application's proxy.";
const DENIED: &str = "Refused: RBAC: access denied: AuthorizationPolicy default/p denies it by its rule 1 (AuthorizationPolicy default/p)";

#[test]
fn bytes_that_are_denied_are_refused() {
    let deny = policy("DENY", "[{to: [{operation: {ports: ['8080']}}]}]");
    ends(&deny, call("tcp://db:3306", &[]), true, DENIED);
    ends("", call("tcp://db:3306", &[]), true, TAKEN);
}

#[test]
fn the_server_sees_the_authority_that_was_called() {
    let deny = policy(
        "DENY",
        "[{to: [{operation: {hosts: ['web:9080'], ports: ['8080']}}]}]",
    );
    ends(&deny, call("http://web:9080/a?b=1", &[]), true, DENIED);
    ends(&deny, call("http://web/a", &[]), true, TAKEN);
}

#[test]
fn tokens_are_verified() {
    let required = policy(
        "DENY",
        "[{from: [{source: {notRequestPrincipals: ['https://issuer.example/*']}}]}]",
    );
    let yaml = format!("{TOKENS}{required}");
    let with = |token: &str| {
        call(
            "http://web/",
            &[("authorization", &format!("Bearer {token}"))],
        )
    };
    ends(&yaml, with(GOOD), true, TAKEN);
    ends(&yaml, call("http://web/", &[]), true, DENIED);
    ends(
        &yaml,
        with(ENDED),
        true,
        "Refused: the token is not accepted: Jwt is expired (RequestAuthentication default/tokens)",
    );
    let in_query = format!("http://web/p?access_token={GOOD}&a=1");
    let snapshot = snapshot(Role::Sidecar, &yaml);
    let mut request = call(&in_query, &[]).at_server(None, 8080, sender(true));
    let story = Story::of(&snapshot, &mut request).expect("URL");
    assert_eq!(
        story.notes,
        ["The token is good: https://issuer.example/ann."]
    );
    assert_eq!(request.borrow().url, "http://web/p?a=1");
    // Where nobody takes tokens, none is believed.
    ends(&required, with(GOOD), true, DENIED);
    // Bytes carry none.
    ends(
        TOKENS,
        call("tcp://db:1", &[("authorization", "Bearer x")]),
        true,
        TAKEN,
    );
}

#[test]
fn the_clients_address_is_what_members_and_trusted_proxies_tell() {
    let deny = policy(
        "DENY",
        "[{from: [{source: {remoteIpBlocks: [192.0.2.0/24]}}]}]",
    );
    let told = || {
        call(
            "http://web/",
            &[("x-forwarded-for", "198.51.100.1, 192.0.2.7")],
        )
    };
    ends(&deny, told(), true, DENIED);
    ends(&deny, told(), false, TAKEN);
    let ingress = |trusted: u32| {
        let mesh = format!(
            "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\n\
             data:\n  mesh: 'defaultConfig: {{gatewayTopology: {{numTrustedProxies: {trusted}}}}}'\n"
        );
        let snapshot = snapshot(Role::Gateway, &mesh);
        let headers = [("x-forwarded-for", "192.0.2.7")];
        let mut request = call("http://web/", &headers);
        request.direction = Direction::Gateway;
        request.received_by(&snapshot);
        request
    };
    // What a gateway believes is what it tells the server.
    ends(&deny, ingress(1), true, DENIED);
    ends(&deny, ingress(0), true, TAKEN);
}
