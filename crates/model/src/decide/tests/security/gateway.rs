//! Gateways that end TLS.

use super::super::check;

const INGRESS: &str = "
me gateway istio-system/ingress-1 10.244.0.50 istio=ingressgateway
service istio-system/istio-ingressgateway 10.96.9.9 any:80>8080 any:443>8443
pod istio-system/ingress-1 10.244.0.50 serves=istio-ingressgateway istio=ingressgateway
service default/one 10.96.0.1 http:80 tcp:81
service default/two 10.96.0.2 http:80
pod default/one-1 10.244.0.1 serves=one
pod default/two-1 10.244.0.2 serves=two
secret istio-system/one pair
secret istio-system/two pair ca
secret istio-system/empty
";

#[track_caller]
fn with(config: &str, cases: &[(&str, &str)]) {
    check(&format!("{INGRESS}{config}"), cases);
}

const SERVERS: &str = "
gateway default/gw istio=ingressgateway
  server https:443 hosts=one.example cred=one
  server https:443 hosts=two.example cred=two mutual
  server https:443 hosts=*.wide.example cred=one
  server ends:443 hosts=bytes.example cred=one
  server https:443 hosts=mesh.example mesh
  server tls:443 hosts=*.pass.example
routes default/one hosts=one.example,a.wide.example gateways=default/gw
  http -> one:80
routes default/two hosts=two.example gateways=default/gw
  http -> two:80
routes default/bytes hosts=bytes.example gateways=default/gw
  tcp -> one:81
routes default/pass hosts=a.pass.example gateways=default/gw
  tls sni=a.pass.example -> two:80
";

#[test]
fn servers_share_a_port_by_server_name() {
    with(
        SERVERS,
        &[
            (
                "gateway open 10.244.0.50:8443",
                "tls NoRoute gateway port 443: what came in is not TLS",
            ),
            (
                "gateway tls ONE.example. 10.244.0.50:8443",
                "Simple one Http by gw",
            ),
            (
                "gateway tls two.example 10.244.0.50:443",
                "Mutual two Http by gw",
            ),
            (
                "gateway tls x.wide.example 10.244.0.50:443",
                "Simple one Http by gw",
            ),
            (
                "gateway tls mesh.example 10.244.0.50:443",
                "IstioMutual  Http by gw",
            ),
            (
                "gateway tls bytes.example 10.244.0.50:443",
                "Simple one Tcp by gw",
            ),
            (
                "gateway inside bytes.example 10.244.0.50:443",
                "tcp outbound|81||one.default by bytes",
            ),
            ("gateway inside one.example 10.244.0.50:443", "http"),
            (
                "gateway tls a.pass.example 10.244.0.50:443",
                "pass outbound|80||two.default by pass",
            ),
            (
                "gateway tls b.pass.example 10.244.0.50:443",
                "NoRoute server name \"b.pass.example\" on port 443",
            ),
            (
                "gateway tls - 10.244.0.50:443",
                "NoRoute a ClientHello without server name on port 443",
            ),
            (
                "gateway inside nobody.example 10.244.0.50:443",
                "tcp NoRoute server name \"nobody.example\" on port 443",
            ),
        ],
    );
}

#[test]
fn a_host_belongs_to_the_server_of_its_name() {
    with(
        SERVERS,
        &[
            (
                "gateway GET https://one.example/ to=10.244.0.50:8443 over=one.example",
                "outbound|80||one.default by one#0",
            ),
            (
                "gateway GET https://ONE.example:443/ to=10.244.0.50:8443 over=one.example",
                "outbound|80||one.default by one#0",
            ),
            // Who shows no certificate must not get to the host that asks for one.
            (
                "gateway GET https://two.example/ to=10.244.0.50:8443 over=one.example",
                "421 Misdirected two.example on a connection for \"one.example\" by gw",
            ),
            (
                "gateway GET https://a.pass.example/ to=10.244.0.50:8443 over=one.example",
                "421 Misdirected a.pass.example on a connection for \"one.example\" by gw",
            ),
            (
                "gateway GET https://other.example/ to=10.244.0.50:8443 over=one.example",
                "404 NoRoute other.example",
            ),
            (
                "gateway GET https://a.wide.example/ to=10.244.0.50:8443 over=b.wide.example",
                "outbound|80||one.default by one#0",
            ),
            (
                "gateway GET http://one.example/ to=10.244.0.50:8443",
                "404 NoRoute port 443: the port takes TLS only",
            ),
        ],
    );
}

#[test]
fn a_server_of_every_host_takes_clients_without_server_name() {
    with(
        "gateway default/gw istio=ingressgateway
           server https:443 hosts=* cred=one
         routes default/one hosts=* gateways=default/gw
           http -> one:80",
        &[
            ("gateway tls - 10.244.0.50:443", "Simple one Http by gw"),
            (
                "gateway GET https://10.1.2.3/ to=10.244.0.50:443 over=-",
                "outbound|80||one.default by one#0",
            ),
        ],
    );
}

#[test]
fn what_is_missing_is_named() {
    let missing = |what: &str| {
        format!(
            "HandshakeFailed secret {what} is not there, or service account istio-system/default may not read it by gw"
        )
    };
    let pair = |name: &str| missing(&format!("{name} with a certificate and its key"));
    with(
        "gateway default/gw istio=ingressgateway
           server https:443 hosts=a.example cred=gone
           server https:443 hosts=b.example cred=empty,gone
           server https:443 hosts=c.example cred=gone,one
           server https:443 hosts=d.example cred=one mutual
           server https:443 hosts=e.example",
        &[
            (
                "gateway tls a.example 10.244.0.50:443",
                &pair("istio-system/gone"),
            ),
            (
                "gateway tls b.example 10.244.0.50:443",
                &pair("istio-system/empty or istio-system/gone"),
            ),
            (
                "gateway tls c.example 10.244.0.50:443",
                "Simple gone,one Http by gw",
            ),
            (
                "gateway tls d.example 10.244.0.50:443",
                &missing("istio-system/one with a CA to verify clients with"),
            ),
            (
                "gateway tls e.example 10.244.0.50:443",
                "HandshakeFailed the server names no certificate by gw",
            ),
        ],
    );
}

#[test]
fn a_ca_may_have_its_own_secret() {
    with(
        "secret istio-system/one-cacert ca
         gateway default/gw istio=ingressgateway
           server https:443 hosts=d.example cred=one mutual",
        &[(
            "gateway tls d.example 10.244.0.50:443",
            "Mutual one Http by gw",
        )],
    );
}

#[test]
fn the_oldest_gateway_has_a_name_and_the_port() {
    with(
        "gateway default/old istio=ingressgateway
           server https:443 hosts=a.example cred=one
         gateway default/new istio=ingressgateway
           server https:443 hosts=a.example,b.example cred=two
           server http:443 hosts=c.example",
        &[
            (
                "gateway tls a.example 10.244.0.50:443",
                "Simple one Http by old",
            ),
            (
                "gateway tls b.example 10.244.0.50:443",
                "Simple two Http by new",
            ),
            (
                "gateway GET http://c.example/ to=10.244.0.50:443",
                "404 NoRoute port 443: the port takes TLS only",
            ),
        ],
    );
}
