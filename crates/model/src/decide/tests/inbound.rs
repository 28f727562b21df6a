//! What comes to the application.

use super::check;

const OWN: &str = "
me sidecar default/reviews-v1 10.244.0.5
service default/reviews 10.96.0.10 http:80>9080 tcp:3306 any:7000 tls:8443
service default/also 10.96.0.11 any:81>9080
pod default/reviews-v1 10.244.0.5 serves=reviews,also
routes default/reviews hosts=reviews
  http -> direct code=418
";

#[test]
fn by_port_and_the_strongest_declaration() {
    check(
        OWN,
        &[
            ("inbound open 10.244.0.5:9080", "http"),
            (
                "inbound open 10.244.0.5:3306",
                "tcp inbound|3306|| @10.244.0.5:3306",
            ),
            (
                "inbound open 10.244.0.5:8443",
                "tcp inbound|8443|| @10.244.0.5:8443",
            ),
            (
                "inbound open 10.244.0.5:7000",
                "detect inbound|7000|| @10.244.0.5:7000",
            ),
            (
                "inbound open 10.244.0.5:9999",
                "detect InboundPassthroughCluster",
            ),
            (
                "inbound open 10.244.0.5:15006",
                "tcp NoRoute the proxy's own port 15006",
            ),
            (
                "inbound sni x.example 10.244.0.5:8443",
                "inbound|8443|| @10.244.0.5:8443",
            ),
        ],
    );
}

#[test]
fn requests_go_to_the_application_whatever_their_host() {
    check(
        OWN,
        &[
            (
                "inbound GET http://reviews/ to=10.244.0.5:9080",
                "inbound|9080|| @10.244.0.5:9080 (default)",
            ),
            (
                "inbound GET http://anything/ to=10.244.0.5:9080",
                "inbound|9080|| @10.244.0.5:9080 (default)",
            ),
            (
                "inbound GET http://x/ to=10.244.0.5:9999",
                "InboundPassthroughCluster (default)",
            ),
            // An address that the proxy was not told of, such as the other family's.
            (
                "inbound GET http://x/ to=[fd00::5]:9080",
                "inbound|9080|| @[fd00::5]:9080 (default)",
            ),
        ],
    );
}

#[test]
fn a_sidecar_object_says_where_the_application_is() {
    let config = "
        me sidecar default/reviews-v1 10.244.0.5
        service default/reviews 10.96.0.10 http:80>9080 tcp:3306
        pod default/reviews-v1 10.244.0.5 serves=reviews
        scope default/own in=http:9080>127.0.0.1:8080,tcp:6379>6380,http2:7000";
    check(
        config,
        &[
            ("inbound open 10.244.0.5:9080", "http"),
            (
                "inbound GET http://reviews/ to=10.244.0.5:9080",
                "inbound|9080|| @127.0.0.1:8080 (default)",
            ),
            (
                "inbound open 10.244.0.5:6379",
                "tcp inbound|6379|| @10.244.0.5:6380",
            ),
            (
                "inbound GET http://x/ to=10.244.0.5:7000",
                "inbound|7000|| @10.244.0.5:7000 (default)",
            ),
            // Declared by the service alone: passed through.
            (
                "inbound open 10.244.0.5:3306",
                "detect InboundPassthroughCluster",
            ),
        ],
    );
}

#[test]
fn limits_on_what_comes_in() {
    let limit = |config: &str, port: u16| {
        let mesh = super::mesh::snapshot(config);
        let name = format!("inbound|{port}||");
        let cluster = mesh.clusters().find(|c| *c.name == *name);
        cluster.expect(&name).settings.pool.max_connections
    };
    let own = "
        me sidecar default/reviews-v1 10.244.0.5
        service default/reviews 10.96.0.10 http:80>9080
        pod default/reviews-v1 10.244.0.5 serves=reviews
        policy default/reviews host=reviews conns=7";
    assert_eq!(limit(own, 9080), Some(7), "the DestinationRule's");
    let scoped = format!("{own}\nscope default/own conns=3");
    assert_eq!(limit(&scoped, 9080), Some(3), "the Sidecar object's");
    let declared = format!("{own}\nscope default/own conns=3 in=http:7000");
    assert_eq!(limit(&declared, 7000), Some(3));
    let declared = format!("{own}\nscope default/own in=http:9080");
    assert_eq!(
        limit(&declared, 9080),
        Some(7),
        "declared, without limits of its own"
    );
}
