//! Faults, mirrors, CORS, retries, rewrites, claims.

use super::check;
use expect_test::expect;

#[test]
fn faults() {
    check(
        "{hosts: [a], http: [{route: [{destination: {host: a}}], fault: {delay: {percentage: {value: 0.1}, fixedDelay: 5s}, abort: {percentage: {value: 100}, httpStatus: 503}}}]}",
        expect![[r#"
            hosts ["a.ns.svc.cluster.local"] gateways ["mesh"] Public
            http ""
              to a.ns.svc.cluster.local weight 1 HeaderEdit { set: [], add: [], remove: [] }
              FaultInjection { delay: Some(FaultDelay { share: Share(1000), delay: 5s }), abort: Some(FaultAbort { share: Share(1000000), status: Http(503) }) }
        "#]],
    );
    check(
        "{hosts: [a], http: [{route: [{destination: {host: a}}], fault: {delay: {percent: 50, fixedDelay: 2s}, abort: {percentage: {value: 10}, grpcStatus: UNAVAILABLE}}}]}",
        expect![[r#"
            hosts ["a.ns.svc.cluster.local"] gateways ["mesh"] Public
            http ""
              to a.ns.svc.cluster.local weight 1 HeaderEdit { set: [], add: [], remove: [] }
              FaultInjection { delay: Some(FaultDelay { share: Share(500000), delay: 2s }), abort: Some(FaultAbort { share: Share(100000), status: Grpc(14) }) }
            Warning: spec.http[0].fault.delay.percent: is deprecated: use percentage.value
        "#]],
    );
}

#[test]
fn mirrors() {
    check(
        "{hosts: [a], http: [{match: [{}], route: [{destination: {host: a}}], mirror: {host: b, subset: v2}, mirrorPercentage: {value: 12.5}}, {match: [{}], route: [{destination: {host: a}}], mirror: {host: b}}, {match: [{}], route: [{destination: {host: a}}], mirror: {host: b}, mirrorPercent: 3}, {route: [{destination: {host: a}}], mirrors: [{destination: {host: c, port: {number: 80}}, percentage: {value: 1}}, {destination: {host: d}}, {destination: {host: e}, percentage: {value: 0}}]}]}",
        expect![[r#"
            hosts ["a.ns.svc.cluster.local"] gateways ["mesh"] Public
            http ""
              if HttpMatch {  }
              to a.ns.svc.cluster.local weight 1 HeaderEdit { set: [], add: [], remove: [] }
              mirror b.ns.svc.cluster.local/v2 Share(125000)
            http ""
              if HttpMatch {  }
              to a.ns.svc.cluster.local weight 1 HeaderEdit { set: [], add: [], remove: [] }
              mirror b.ns.svc.cluster.local Share(1000000)
            http ""
              if HttpMatch {  }
              to a.ns.svc.cluster.local weight 1 HeaderEdit { set: [], add: [], remove: [] }
              mirror b.ns.svc.cluster.local Share(30000)
            http ""
              to a.ns.svc.cluster.local weight 1 HeaderEdit { set: [], add: [], remove: [] }
              mirror c.ns.svc.cluster.local:80 Share(10000)
              mirror d.ns.svc.cluster.local Share(1000000)
            Warning: spec.http[2].mirrorPercent: is deprecated: use mirrorPercentage
        "#]],
    );
}

#[test]
fn cors() {
    check(
        "{hosts: [a], http: [{route: [{destination: {host: a}}], corsPolicy: {allowOrigin: [https://old], allowOrigins: [{exact: https://a}, {prefix: https://b.}, {regex: '.*c'}], allowMethods: [GET], allowHeaders: [x], exposeHeaders: [yy], maxAge: 24h, allowCredentials: false, unmatchedPreflights: IGNORE}}]}",
        expect![[r#"
            hosts ["a.ns.svc.cluster.local"] gateways ["mesh"] Public
            http ""
              to a.ns.svc.cluster.local weight 1 HeaderEdit { set: [], add: [], remove: [] }
              CorsPolicy { allow_origins: [Exact("https://old"), Exact("https://a"), Prefix("https://b."), Regex(Pattern { source: ".*c", compiled: Regex("^(?:.*c)$") })], allow_methods: ["GET"], allow_headers: ["x"], expose_headers: ["yy"], max_age: Some(86400s), allow_credentials: Some(false), forward_unmatched: false }
        "#]],
    );
}

#[test]
fn retries_and_rewrites() {
    check(
        "{hosts: [a], http: [{route: [{destination: {host: a}}], retries: {attempts: 3, backoff: 100ms, retryRemoteLocalities: true, retryIgnorePreviousHosts: false, retryOn: 5xx}, rewrite: {uriRegexRewrite: {match: '^/a/(.*)', rewrite: '/\\1'}}}]}",
        expect![[r#"
            hosts ["a.ns.svc.cluster.local"] gateways ["mesh"] Public
            http ""
              to a.ns.svc.cluster.local weight 1 HeaderEdit { set: [], add: [], remove: [] }
              Rewrite { uri: None, authority: None, regex: Some(Replacement { pattern: "^/a/(.*)", substitution: "/\\1", compiled: Regex("^/a/(.*)"), template: "/${1}" }) }
              RetryPolicy { attempts: 3, per_try_timeout: None, retry_on: ["5xx"], backoff: Some(100ms), ignore_previous_hosts: false, remote_localities: true, careful: false }
        "#]],
    );
    check(
        "{hosts: [a], http: [{match: [{}], redirect: {prefixRewrite: /b, derivePort: FROM_REQUEST_PORT}}, {match: [{}], redirect: {uri: /, port: 8080}}, {redirect: {uri: /, derivePort: FROM_PROTOCOL_DEFAULT}}]}",
        expect![[r#"
            hosts ["a.ns.svc.cluster.local"] gateways ["mesh"] Public
            http ""
              if HttpMatch {  }
              Redirect(Redirect { uri: None, prefix: Some("/b"), authority: None, scheme: None, port: Request, status: 301 })
            http ""
              if HttpMatch {  }
              Redirect(Redirect { uri: Some("/"), prefix: None, authority: None, scheme: None, port: Number(8080), status: 301 })
            http ""
              Redirect(Redirect { uri: Some("/"), prefix: None, authority: None, scheme: None, port: Kept, status: 301 })
        "#]],
    );
}

#[test]
fn claims_and_hosts_of_destinations() {
    check(
        "{hosts: [a], gateways: [g], http: [{match: [{headers: {'@request.auth.claims.realm.roles': {exact: x}, h: {exact: yy}}, withoutHeaders: {'@request.auth.claims[a.b][c]': {prefix: z}}}], route: [{destination: {host: b}, headers: {request: {set: {Host: other.com}}}}]}]}",
        expect![[r#"
            hosts ["a.ns.svc.cluster.local"] gateways ["ns/g"] Public
            http ""
              if HttpMatch { headers: {"h": Exact("yy")}, claims: [ClaimMatch { path: ["realm", "roles"], wanted: Exact("x"), not: false }, ClaimMatch { path: ["a.b", "c"], wanted: Prefix("z"), not: true }] }
              to b.ns.svc.cluster.local weight 1 HeaderEdit { set: [("Host", "other.com")], add: [], remove: [] }
        "#]],
    );
}
