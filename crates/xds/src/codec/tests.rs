//! Every resource comes back as it was sent; what cannot be meant is refused with a sentence.

mod any;

use super::{decode, encode, kind_of, type_url};
use lateen_model::resource::Kind;
use lateen_proto::mesh as proto;
use proptest::prelude::*;
use prost::Message;

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn what_is_encoded_comes_back(resource in any::resource()) {
        let bytes = encode(&resource);
        let url = type_url(resource.key().kind);
        prop_assert_eq!(decode(url, &bytes), Ok(resource.clone()));
        prop_assert_eq!(encode(&resource.clone()), bytes, "equal values have equal bytes");
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0..Kind::ALL.len()) {
        let _ = decode(type_url(Kind::ALL[kind]), &bytes);
    }

    #[test]
    fn no_damage_panics(resource in any::resource(), at in any::<prop::sample::Index>(), byte: u8) {
        let mut bytes = encode(&resource).to_vec();
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let _ = decode(type_url(resource.key().kind), &bytes);
    }
}

#[test]
fn kinds_and_type_urls() {
    for kind in Kind::ALL {
        assert_eq!(kind_of(type_url(kind)), Some(kind));
    }
    assert_eq!(
        kind_of("type.googleapis.com/envoy.config.cluster.v3.Cluster"),
        None
    );
}

#[track_caller]
fn check(kind: Kind, message: &impl Message, want: &str) {
    let error = decode(type_url(kind), &message.encode_to_vec()).expect_err(want);
    assert_eq!(error.to_string(), want);
}

fn table(http: proto::HttpRoute) -> proto::RouteTable {
    proto::RouteTable {
        origin: Some(proto::Origin {
            kind: "VirtualService".into(),
            namespace: "shop".into(),
            name: "web".into(),
            created: 1,
        }),
        http: vec![proto::HttpRoute::default(), http],
        ..proto::RouteTable::default()
    }
}

fn redirect(status: u32) -> Option<proto::http_route::Action> {
    let redirect = proto::Redirect {
        status,
        ..proto::Redirect::default()
    };
    Some(proto::http_route::Action::Redirect(redirect))
}

#[test]
fn refusals_name_resource_and_field() {
    check(
        Kind::Service,
        &proto::Service::default(),
        "Service, field key: it is missing",
    );
    let key = proto::ServiceKey {
        namespace: "a".into(),
        hostname: "b.c".into(),
    };
    let mut service = proto::Service {
        key: Some(key),
        name: "b".into(),
        origin: table(proto::HttpRoute::default()).origin,
        resolution: 9,
        location: 1,
        ..proto::Service::default()
    };
    check(
        Kind::Service,
        &service,
        "Service a/b.c, field resolution: value 9 is not known to this version",
    );
    service.resolution = 1;
    service.addresses = vec![proto::Address {
        ip: vec![1, 2, 3],
        prefix: 8,
    }];
    check(
        Kind::Service,
        &service,
        "Service a/b.c, field addresses[0].ip: an address has 4 or 16 bytes, not 3",
    );
    service.addresses[0] = proto::Address {
        ip: vec![1, 2, 3, 4],
        prefix: 33,
    };
    check(
        Kind::Service,
        &service,
        "Service a/b.c, field addresses[0].prefix: 33 is over 32",
    );
    service.addresses.clear();
    service.ports = vec![proto::Port {
        number: 70_000,
        protocol: 1,
        ..proto::Port::default()
    }];
    check(
        Kind::Service,
        &service,
        "Service a/b.c, field ports[0].number: 70000 is out of range",
    );
}

#[test]
fn refusals_inside_routes() {
    let mut routes = table(proto::HttpRoute {
        action: redirect(302),
        ..proto::HttpRoute::default()
    });
    check(
        Kind::RouteTable,
        &routes,
        "RouteTable shop/web, field http[0].action: it is missing",
    );
    routes.http[0].action = redirect(301);
    routes.http[1].matches = vec![proto::HttpMatch {
        uri: Some(proto::StringMatch {
            kind: Some(proto::string_match::Kind::Regex("(".into())),
        }),
        ..proto::HttpMatch::default()
    }];
    let error = decode(type_url(Kind::RouteTable), &routes.encode_to_vec()).expect_err("regex");
    assert_eq!(error.field, "http[1].matches[0].uri");
    assert!(error.reason.contains("not valid RE2 syntax"), "{error}");
    routes.http.truncate(1);
    routes.http[0].action = redirect(99);
    check(
        Kind::RouteTable,
        &routes,
        "RouteTable shop/web, field http[0].redirect.status: 99 is not in 300..=399",
    );
}

#[test]
fn unknown_types_and_garbage() {
    let error = decode("type.googleapis.com/lateen.mesh.v1.Tomorrow", &[]).expect_err("unknown");
    assert_eq!(
        error.to_string(),
        "type.googleapis.com/lateen.mesh.v1.Tomorrow: this version does not know the type: upgrade the proxy"
    );
    let error = decode(type_url(Kind::Gateway), &[0xff; 4]).expect_err("garbage");
    assert!(
        error.to_string().starts_with("Gateway: not a message: "),
        "{error}"
    );
}
