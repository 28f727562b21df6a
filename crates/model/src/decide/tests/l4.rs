//! Connections: addresses, protocols, TCP and TLS routes.

use super::check;

#[test]
fn protocol_of_the_addressed_port() {
    check(
        "
service default/mixed 10.96.0.1 http:80 tcp:3306 tls:443 any:7000 grpc:9000 udp:53
pod default/p 10.244.0.5 serves=mixed
",
        &[
            ("open 10.96.0.1:80", "http"),
            ("open 10.96.0.1:9000", "http"),
            ("open 10.96.0.1:3306", "tcp outbound|3306||mixed.default"),
            ("open 10.96.0.1:443", "sni outbound|443||mixed.default"),
            ("open 10.96.0.1:7000", "detect outbound|7000||mixed.default"),
            ("open 10.96.0.1:53", "tcp PassthroughCluster"),
            ("open 10.96.0.1:1", "tcp PassthroughCluster"),
            // Port 80 speaks HTTP somewhere: what is HTTP is routed by Host, the rest passes.
            ("open 203.0.113.1:80", "detect PassthroughCluster"),
            ("open 203.0.113.1:3306", "tcp PassthroughCluster"),
        ],
    );
}

#[test]
fn an_address_wins_over_the_http_port() {
    check(
        "
service default/web 10.96.0.1 http:80
service default/raw 10.96.0.2 tcp:80
pod default/p 10.244.0.5 serves=web,raw
",
        &[
            ("open 10.96.0.1:80", "http"),
            ("open 10.96.0.2:80", "tcp outbound|80||raw.default"),
        ],
    );
}

#[test]
fn undeclared_ports_know_their_own_service_only() {
    check(
        "
service default/a 10.96.0.1 any:7000
service default/b 10.96.0.2 any:7000
pod default/p 10.244.0.5 serves=a,b
",
        &[
            (
                "GET http://a/ to=10.96.0.1:7000",
                "outbound|7000||a.default (default)",
            ),
            (
                "GET http://b/ to=10.96.0.1:7000",
                "PassthroughCluster (allow_any)",
            ),
        ],
    );
}

#[test]
fn ranges_by_longest_prefix() {
    check(
        "
entry default/wide.example 10.0.0.0/8 tcp:5000 none
entry default/near.example 10.1.0.0/16 tcp:5000 none
entry default/only.example 10.1.2.3 tcp:5000 none
",
        &[
            (
                "open 10.9.9.9:5000",
                "tcp outbound|5000||wide.example @original",
            ),
            (
                "open 10.1.9.9:5000",
                "tcp outbound|5000||near.example @original",
            ),
            (
                "open 10.1.2.3:5000",
                "tcp outbound|5000||only.example @original",
            ),
            ("open 11.1.2.3:5000", "tcp PassthroughCluster"),
        ],
    );
}

#[test]
fn a_tcp_entry_without_address_takes_nothing() {
    let entries = "
entry default/db.example - tcp:5432 dns
entry default/any.example - tcp:5433 none
";
    check(
        entries,
        &[
            ("open 203.0.113.1:5432", "tcp PassthroughCluster"),
            ("open 203.0.113.1:5433", "tcp PassthroughCluster"),
        ],
    );
    check(
        &format!("mesh registry-only\n{entries}"),
        &[(
            "open 203.0.113.1:5432",
            "tcp NotInRegistry 203.0.113.1:5432",
        )],
    );
}

#[test]
fn allocated_addresses_are_exact() {
    check(
        "
entry default/db.example - tcp:5432 dns vip=240.240.0.7,2001:2::7
entry default/later.example - tcp:5432 dns vip=240.240.0.8,2001:2::8
entry default/api.example - tls:443 dns vip=240.240.0.9,2001:2::9
entry default/web.example - http:80 dns vip=240.240.0.10,2001:2::a
",
        &[
            ("open 240.240.0.7:5432", "tcp outbound|5432||db.example"),
            ("open [2001:2::8]:5432", "tcp outbound|5432||later.example"),
            ("open 240.240.0.9:5432", "tcp PassthroughCluster"),
            ("open 203.0.113.1:5432", "tcp PassthroughCluster"),
            ("open 240.240.0.9:443", "sni outbound|443||api.example"),
            // Clients that resolve the host themselves are known by what they ask for.
            (
                "sni api.example 203.0.113.1:443",
                "outbound|443||api.example",
            ),
            (
                "GET http://web.example/ to=203.0.113.1:80",
                "outbound|80||web.example (default)",
            ),
            (
                "GET http://240.240.0.10/",
                "outbound|80||web.example (default)",
            ),
        ],
    );
}

#[test]
fn names_as_asked_for() {
    check(
        "
mesh registry-only
entry default/*.example.com - http:80 tls:443 tcp:5432 dynamic
entry default/*.at.example.com 192.0.2.1 tls:8443 tcp:5432 dynamic
",
        &[
            (
                "GET http://a.example.com/ to=203.0.113.1:80",
                "outbound|80||*.example.com @asked (default)",
            ),
            (
                "sni a.example.com 203.0.113.1:443",
                "outbound|443||*.example.com @asked",
            ),
            (
                "sni example.org 203.0.113.1:443",
                "NotInRegistry 203.0.113.1:443",
            ),
            (
                "sni a.at.example.com 192.0.2.1:8443",
                "outbound|8443||*.at.example.com @asked",
            ),
            // Bytes ask for nobody.
            (
                "open 203.0.113.1:5432",
                "tcp NotInRegistry 203.0.113.1:5432",
            ),
            ("open 192.0.2.1:5432", "tcp NotInRegistry 192.0.2.1:5432"),
        ],
    );
}

#[test]
fn unknown_http_hosts_by_dynamic_dns() {
    check(
        "
mesh dynamic
service default/web 10.96.0.1 http:80
",
        &[
            (
                "GET http://example.com/ to=203.0.113.1:80",
                "AllowAnyDynamicDNSCluster @asked (allow_any_dynamic_dns)",
            ),
            ("sni example.com 203.0.113.1:443", "PassthroughCluster"),
            ("open 203.0.113.1:80", "detect PassthroughCluster"),
        ],
    );
}

#[test]
fn both_families() {
    check(
        "
service default/web 10.96.0.1,fd00:10:96::1 http:80 tcp:5432 any:7000
pod default/web-0 fd00:10:244::5 serves=web
entry default/db.example 192.0.2.1,2001:db8::1 tcp:5432 none
entry default/near.example 2001:db8:1::/48 tcp:5432 none
",
        &[
            (
                "open [fd00:10:96::1]:5432",
                "tcp outbound|5432||web.default",
            ),
            ("open 10.96.0.1:5432", "tcp outbound|5432||web.default"),
            (
                "open [fd00:10:96::1]:7000",
                "detect outbound|7000||web.default",
            ),
            (
                "GET http://web/ to=[fd00:10:96::1]:80",
                "outbound|80||web.default (default)",
            ),
            (
                "GET http://[fd00:10:96::1]/",
                "outbound|80||web.default (default)",
            ),
            (
                "open [fd00:10:244::5]:5432",
                "tcp outbound|5432||web.default @original",
            ),
            (
                "open [2001:db8::1]:5432",
                "tcp outbound|5432||db.example @original",
            ),
            (
                "open [2001:db8:1:2::9]:5432",
                "tcp outbound|5432||near.example @original",
            ),
        ],
    );
}

#[test]
fn server_names_without_address() {
    check(
        "
mesh registry-only
entry default/api.example.com - tls:443 dns
entry default/*.wild.example.com - tls:443 none
",
        &[
            ("open 203.0.113.1:443", "sni NotInRegistry 203.0.113.1:443"),
            (
                "sni api.example.com 203.0.113.1:443",
                "outbound|443||api.example.com",
            ),
            (
                "sni API.example.com 203.0.113.1:443",
                "outbound|443||api.example.com",
            ),
            (
                "sni x.wild.example.com 203.0.113.1:443",
                "outbound|443||*.wild.example.com @original",
            ),
            (
                "sni other.example.com 203.0.113.1:443",
                "NotInRegistry 203.0.113.1:443",
            ),
            (
                "sni api.example.com 203.0.113.1:444",
                "NotInRegistry 203.0.113.1:444",
            ),
        ],
    );
}

const DB: &str = "
service default/db 10.96.0.1 tcp:3306 tcp:3307
pod default/db-v1 10.244.0.5 serves=db version=v1
pod default/db-v2 10.244.0.6 serves=db version=v2
policy default/db host=db subset=v1:version=v1 subset=v2:version=v2
";

#[test]
fn tcp_routes() {
    let config = format!(
        "{DB}
routes default/db hosts=db
  tcp port=3307 source:app=other -> db/v2
  tcp port=3306 -> db/v1=80 db/v2=20
  tcp subnet=10.97.0.0/16 -> db/v9"
    );
    check(
        &config,
        &[
            (
                "open 10.96.0.1:3306 dice=79",
                "tcp outbound|3306|v1|db.default by db",
            ),
            (
                "open 10.96.0.1:3306 dice=80",
                "tcp outbound|3306|v2|db.default by db",
            ),
            ("open 10.96.0.1:3307", "tcp outbound|3307||db.default"),
        ],
    );
    let config = format!("{DB}routes default/db hosts=db\n  tcp -> db/v9\n");
    check(
        &config,
        &[(
            "open 10.96.0.1:3306",
            "tcp NoSubset outbound|3306|v9|db.default by db",
        )],
    );
}

#[test]
fn tls_routes_by_most_specific_name() {
    check(
        "
entry default/a.example.com - tls:443 dns
entry default/b.example.com - tls:443 dns
routes default/wide hosts=*.example.com
  tls sni=*.example.com port=443 -> b.example.com:443
routes default/exact hosts=a.example.com
  tls sni=a.example.com port=443 -> a.example.com:443
",
        &[
            (
                "sni a.example.com 203.0.113.1:443",
                "outbound|443||a.example.com by exact",
            ),
            (
                "sni c.example.com 203.0.113.1:443",
                "outbound|443||b.example.com by wide",
            ),
            ("sni c.example.com 203.0.113.1:8443", "PassthroughCluster"),
        ],
    );
}

#[test]
fn nothing_ready() {
    check(
        "
service default/db 10.96.0.1 tcp:3306 http:80
pod default/db-v1 10.244.0.5 serves=db unready
",
        &[
            (
                "open 10.96.0.1:3306",
                "tcp NoEndpoint outbound|3306||db.default",
            ),
            ("GET http://db/", "503 NoEndpoint outbound|80||db.default"),
        ],
    );
}
