//! What is told of a call is what the proxy would do with it.

use super::super::snapshot;
use crate::decide::plan::{ConnectionPlan, Direction, FaultReason, RequestPlan, TcpPlan};
use crate::decide::simulate::{Call, Caller, Simulation, simulate};
use crate::identity::SpiffeId;

const SERVER: &str = "me sidecar default/web-1 10.244.0.5
service default/web 10.96.0.10 http:80>8080 tcp:3306
pod default/web-1 10.244.0.5 serves=web";

const INGRESS: &str = "me gateway istio-system/ingress-1 10.244.0.50 istio=gw
service istio-system/ingress 10.96.9.9 any:80>8080 any:443>8443
pod istio-system/ingress-1 10.244.0.50 serves=ingress istio=gw
service default/web 10.96.0.10 http:80
pod default/web-1 10.244.0.5 serves=web
gateway default/gw istio=gw
  server http:80 hosts=*
  server tls:443 hosts=*
routes default/web hosts=* gateways=default/gw
  http -> web:80
  tls port=443 sni=a.example,b.example -> web:80";

#[track_caller]
fn told(config: &str, direction: Direction, url: &str, caller: Caller<'_>) -> Simulation {
    let call = Call {
        direction,
        method: &http::Method::GET,
        url,
        port: (direction == Direction::Inbound && url.starts_with("http:")).then_some(8080),
        headers: &http::HeaderMap::new(),
        dice: None,
        caller,
    };
    simulate(&snapshot(config), &call).expect("URL")
}

/// Why the call is refused; absent: it is not.
fn refused(simulation: &Simulation) -> Option<FaultReason> {
    match (&simulation.request, &simulation.connection) {
        (Some(RequestPlan::Refuse(fault)), _)
        | (None, ConnectionPlan::Tcp(TcpPlan::Refuse(fault))) => Some(fault.reason),
        _ => None,
    }
}

#[test]
fn bytes_that_are_denied_are_refused() {
    let url = "tcp://web:3306";
    let deny = format!("{SERVER}\ndeny default/d\n rule to ports=3306");
    let story = told(&deny, Direction::Inbound, url, Caller::default());
    assert_eq!(refused(&story), Some(FaultReason::Denied));
    let free = told(SERVER, Direction::Inbound, url, Caller::default());
    assert_eq!(refused(&free), None);
}

#[test]
fn the_authority_is_apart_from_the_port() {
    let allow = format!("{SERVER}\nallow default/a\n rule to hosts=web ports=8080");
    let story = |url| told(&allow, Direction::Inbound, url, Caller::default());
    assert_eq!(refused(&story("http://web/")), None);
    assert_eq!(
        refused(&story("http://web:8080/")),
        Some(FaultReason::Denied)
    );
}

#[test]
fn a_gateways_port_is_the_one_that_it_binds() {
    let policy = |port| {
        let config = format!("{INGRESS}\ndeny istio-system/d\n rule to ports={port}");
        let story = told(
            &config,
            Direction::Gateway,
            "http://a.example/",
            Caller::default(),
        );
        refused(&story)
    };
    assert_eq!(policy(8080), Some(FaultReason::Denied));
    assert_eq!(policy(80), None);
}

#[test]
fn the_server_name_is_known_where_tls_is_passed_through_and_where_it_is_mutual() {
    let passed = format!("{INGRESS}\ndeny istio-system/d\n rule when connection.sni=a.example");
    let story = |url| told(&passed, Direction::Gateway, url, Caller::default());
    assert_eq!(
        refused(&story("https://A.example/")),
        Some(FaultReason::Denied)
    );
    assert_eq!(refused(&story("https://b.example/")), None);
    let mutual = format!("{SERVER}\ndeny default/d\n rule when connection.sni=outbound_*");
    let story = |server_name| {
        let caller = Caller {
            identity: SpiffeId::parse("spiffe://cluster.local/ns/default/sa/sleep").ok(),
            server_name,
            ..Caller::default()
        };
        refused(&told(&mutual, Direction::Inbound, "tcp://web:3306", caller))
    };
    assert_eq!(
        story("outbound_.3306_._.web.default.svc.cluster.local"),
        Some(FaultReason::Denied)
    );
    assert_eq!(story(""), None);
}

#[test]
fn the_remote_address_is_what_trusted_proxies_tell() {
    let config = format!("{SERVER}\nallow default/a\n rule from remoteIpBlocks=192.0.2.0/24");
    let story = |remote: Option<&str>| {
        let caller = Caller {
            remote: remote.map(|ip| ip.parse().expect("address")),
            address: "10.244.0.9".parse().ok(),
            ..Caller::default()
        };
        refused(&told(&config, Direction::Inbound, "http://web/", caller))
    };
    assert_eq!(story(Some("192.0.2.7")), None);
    assert_eq!(story(None), Some(FaultReason::Denied));
}
