//! Identity of peers and of requests.

use super::{labels, name, origin, port, text, visibility};
use lateen_model::resource::Resource;
use lateen_model::security::*;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

pub fn resource() -> impl Strategy<Value = Resource> {
    prop_oneof![
        peer().prop_map(Resource::PeerAuthentication),
        request().prop_map(Resource::RequestAuthentication),
        bundle().prop_map(Resource::TrustBundle),
        credential().prop_map(Resource::Credential),
    ]
}

fn mode() -> impl Strategy<Value = Option<MtlsMode>> {
    option::of(select(vec![
        MtlsMode::Disable,
        MtlsMode::Permissive,
        MtlsMode::Strict,
    ]))
}

fn peer() -> impl Strategy<Value = PeerAuthentication> {
    let ports = btree_map(port(), mode(), 0..3);
    (origin(), labels(), mode(), ports).prop_map(|(origin, selector, mode, ports)| {
        PeerAuthentication {
            origin,
            selector,
            mode,
            ports,
        }
    })
}

pub fn selection() -> impl Strategy<Value = Selection> {
    let target = (name(), name()).prop_map(|(kind, name)| TargetRef { kind, name });
    (labels(), vec(target, 0..3)).prop_map(|(labels, targets)| Selection { labels, targets })
}

fn request() -> impl Strategy<Value = RequestAuthentication> {
    (origin(), selection(), visibility(), vec(rule(), 0..3)).prop_map(
        |(origin, selection, visibility, rules)| RequestAuthentication {
            origin,
            selection,
            visibility,
            rules,
        },
    )
}

fn rule() -> impl Strategy<Value = JwtRule> {
    let keys = prop_oneof![
        text().prop_map(JwtKeys::Inline),
        (text(), text()).prop_map(|(uri, reason)| JwtKeys::Unavailable { uri, reason }),
    ];
    let header = (name(), text()).prop_map(|(name, prefix)| TokenHeader { name, prefix });
    let claim = (name(), name()).prop_map(|(header, claim)| ClaimHeader { header, claim });
    let names = || vec(text(), 0..3);
    (
        (option::of(text()), names(), keys, vec(header, 0..3)),
        (names(), names(), any::<bool>(), option::of(name())),
        (vec(claim, 0..3), names()),
    )
        .prop_map(|(a, b, c)| JwtRule {
            issuer: a.0,
            audiences: a.1,
            keys: a.2,
            from_headers: a.3,
            from_params: b.0,
            from_cookies: b.1,
            forward_original: b.2,
            payload_header: b.3,
            claim_headers: c.0,
            space_delimited: c.1,
        })
}

fn bundle() -> impl Strategy<Value = TrustBundle> {
    (name(), name(), text()).prop_map(|(trust_domain, roots, crls)| TrustBundle {
        trust_domain,
        roots,
        crls,
    })
}

fn credential() -> impl Strategy<Value = Credential> {
    let pair = option::of((name(), name())).prop_map(Option::unwrap_or_default);
    (origin(), pair, text(), text(), vec(name(), 0..3)).prop_map(
        |(origin, (chain, key), ca, crl, readers)| Credential {
            origin,
            chain,
            key: Secret::new(&key),
            ca,
            crl,
            readers,
        },
    )
}
