//! Strategies for any valid route table.

use super::{duration, labels, name, origin, port, string_match, text, visibility};
use lateen_model::matching::Replacement;
use lateen_model::route::*;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use std::time::Duration;

pub(super) fn http_match() -> impl Strategy<Value = HttpMatch> {
    let one = || option::of(string_match());
    let all = || btree_map(name(), string_match(), 0..2);
    (
        (text(), one(), any::<bool>(), one(), one(), one()),
        (all(), all(), all(), option::of(port())),
        (labels(), option::of(text()), vec(name(), 0..2)),
        vec(claim(), 0..2),
    )
        .prop_map(|(a, b, c, claims)| HttpMatch {
            name: a.0,
            uri: a.1,
            ignore_uri_case: a.2,
            scheme: a.3,
            method: a.4,
            authority: a.5,
            headers: b.0,
            without_headers: b.1,
            query: b.2,
            port: b.3,
            source_labels: c.0,
            source_namespace: c.1,
            gateways: c.2,
            claims,
        })
}

fn claim() -> impl Strategy<Value = ClaimMatch> {
    (vec(name(), 1..3), string_match(), any::<bool>()).prop_map(|(path, wanted, not)| ClaimMatch {
        path,
        wanted,
        not,
    })
}

fn edit() -> impl Strategy<Value = HeaderEdit> {
    let pairs = || vec((name(), text()), 0..2);
    (pairs(), pairs(), vec(text(), 0..2)).prop_map(|(set, add, remove)| HeaderEdit {
        set,
        add,
        remove,
    })
}

fn operations() -> impl Strategy<Value = HeaderOperations> {
    (edit(), edit()).prop_map(|(request, response)| HeaderOperations { request, response })
}

pub(super) fn destination() -> impl Strategy<Value = Destination> {
    (name(), option::of(text()), option::of(port())).prop_map(|(host, subset, port)| Destination {
        host,
        subset,
        port,
    })
}

fn action() -> impl Strategy<Value = HttpAction> {
    let weighted =
        (destination(), any::<u32>(), operations()).prop_map(|(destination, weight, headers)| {
            HttpDestination {
                destination,
                weight,
                headers,
            }
        });
    let part = || option::of(text());
    let redirect_port = prop_oneof![
        Just(RedirectPort::Kept),
        Just(RedirectPort::Request),
        port().prop_map(RedirectPort::Number),
    ];
    let parts = (part(), part(), part(), part());
    let redirect =
        (parts, redirect_port, 300..=399u16).prop_map(|(parts, port, status)| Redirect {
            uri: parts.0,
            prefix: parts.1,
            authority: parts.2,
            scheme: parts.3,
            port,
            status,
        });
    let direct = (200..=599u16, vec(any::<u8>(), 0..9))
        .prop_map(|(status, body)| DirectResponse { status, body });
    prop_oneof![
        vec(weighted, 0..3).prop_map(HttpAction::Forward),
        redirect.prop_map(HttpAction::Redirect),
        direct.prop_map(HttpAction::Direct),
    ]
}

fn share() -> impl Strategy<Value = Share> {
    (0..=1_000_000u32).prop_map(Share::millionths)
}

fn rewrite() -> impl Strategy<Value = Rewrite> {
    let regex = select(vec![("a", "b"), ("(a)(b)?", "\\2\\\\\\0")])
        .prop_map(|(p, s)| Replacement::new(p, s).expect("valid"));
    (option::of(text()), option::of(text()), option::of(regex)).prop_map(
        |(uri, authority, regex)| Rewrite {
            uri,
            authority,
            regex,
        },
    )
}

fn retries() -> impl Strategy<Value = RetryPolicy> {
    (
        (any::<u32>(), duration(), vec(text(), 0..2)),
        (duration(), any::<bool>(), any::<bool>(), any::<bool>()),
    )
        .prop_map(|(a, b)| RetryPolicy {
            attempts: a.0,
            per_try_timeout: a.1,
            retry_on: a.2,
            backoff: b.0,
            ignore_previous_hosts: b.1,
            remote_localities: b.2,
            careful: b.3,
        })
}

fn fault() -> impl Strategy<Value = FaultInjection> {
    let delay = (share(), any::<u32>()).prop_map(|(share, ms)| FaultDelay {
        share,
        delay: Duration::from_millis(ms.into()),
    });
    let status = prop_oneof![
        (200..=599u16).prop_map(AbortStatus::Http),
        (0..=16u16).prop_map(AbortStatus::Grpc),
    ];
    let abort = (share(), status).prop_map(|(share, status)| FaultAbort { share, status });
    (option::of(delay), option::of(abort))
        .prop_map(|(delay, abort)| FaultInjection { delay, abort })
}

fn cors() -> impl Strategy<Value = CorsPolicy> {
    (
        (
            vec(string_match(), 0..3),
            vec(text(), 0..2),
            vec(text(), 0..2),
        ),
        (vec(text(), 0..2), duration()),
        (option::of(any::<bool>()), any::<bool>()),
    )
        .prop_map(|(a, b, c)| CorsPolicy {
            allow_origins: a.0,
            allow_methods: a.1,
            allow_headers: a.2,
            expose_headers: b.0,
            max_age: b.1,
            allow_credentials: c.0,
            forward_unmatched: c.1,
        })
}

fn http() -> impl Strategy<Value = HttpRoute> {
    let mirror =
        (destination(), share()).prop_map(|(destination, share)| Mirror { destination, share });
    let delegated = (origin(), 0..9usize, 0..9usize).prop_map(|(origin, index, root)| Delegated {
        origin,
        index,
        root,
    });
    (
        (text(), vec(http_match().boxed(), 0..3), action().boxed()),
        (
            option::of(rewrite().boxed()),
            duration(),
            option::of(retries().boxed()),
        ),
        operations(),
        (option::of(fault().boxed()), vec(mirror, 0..2)),
        (option::of(cors().boxed()), option::of(delegated)),
    )
        .prop_map(|(a, b, headers, c, d)| HttpRoute {
            name: a.0,
            matches: a.1,
            action: a.2,
            rewrite: b.0,
            timeout: b.1,
            retries: b.2,
            headers,
            fault: c.0,
            mirrors: c.1,
            cors: d.0,
            delegated: d.1,
        })
}

fn l4() -> impl Strategy<Value = (Vec<L4Match>, Vec<WeightedDestination>)> {
    let one = (
        (vec(name(), 0..2), vec(text(), 0..2), option::of(port())),
        (labels(), option::of(text()), vec(name(), 0..2)),
        option::of(text()),
    )
        .prop_map(|(a, b, source_subnet)| L4Match {
            sni_hosts: a.0,
            destination_subnets: a.1,
            port: a.2,
            source_labels: b.0,
            source_namespace: b.1,
            gateways: b.2,
            source_subnet,
        });
    let to = (destination(), any::<u32>()).prop_map(|(destination, weight)| WeightedDestination {
        destination,
        weight,
    });
    (vec(one, 0..3), vec(to, 0..3))
}

pub(super) fn table() -> impl Strategy<Value = RouteTable> {
    let tls = l4().prop_map(|(matches, destinations)| TlsRoute {
        matches,
        destinations,
    });
    let tcp = l4().prop_map(|(matches, destinations)| TcpRoute {
        matches,
        destinations,
    });
    (
        (origin(), vec(text(), 0..3), vec(name(), 0..3), visibility()),
        (vec(http().boxed(), 0..3), vec(tls, 0..2), vec(tcp, 0..2)),
    )
        .prop_map(|(a, b)| RouteTable {
            origin: a.0,
            hosts: a.1,
            gateways: a.2,
            visibility: a.3,
            http: b.0,
            tls: b.1,
            tcp: b.2,
        })
}
