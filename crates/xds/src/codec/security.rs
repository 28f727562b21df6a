//! Identity of peers and of requests: PeerAuthentication, RequestAuthentication, trust bundles, credentials.

use super::parts::{
    Read, Within, bad, each, known, labels, map, named, narrow, optional, origin, read_origin,
    read_visibility, required, strs, text, texts, visibility,
};
use lateen_model::security::{
    ClaimHeader, Credential, JwtKeys, JwtRule, MtlsMode, PeerAuthentication, RequestAuthentication,
    Secret, Selection, TargetRef, TokenHeader, TrustBundle,
};
use lateen_proto::mesh as proto;

fn mode(from: Option<MtlsMode>) -> i32 {
    match from {
        None => proto::MtlsMode::Unspecified,
        Some(MtlsMode::Disable) => proto::MtlsMode::Disable,
        Some(MtlsMode::Permissive) => proto::MtlsMode::Permissive,
        Some(MtlsMode::Strict) => proto::MtlsMode::Strict,
    }
    .into()
}

fn read_mode(from: i32, field: &str) -> Read<Option<MtlsMode>> {
    let mode = match proto::MtlsMode::try_from(from).ok() {
        None => None,
        Some(proto::MtlsMode::Unspecified) => Some(None),
        Some(proto::MtlsMode::Disable) => Some(Some(MtlsMode::Disable)),
        Some(proto::MtlsMode::Permissive) => Some(Some(MtlsMode::Permissive)),
        Some(proto::MtlsMode::Strict) => Some(Some(MtlsMode::Strict)),
    };
    known(mode, from, field)
}

pub(super) fn encode_peer(from: &PeerAuthentication) -> proto::PeerAuthentication {
    let ports = from.ports.iter();
    proto::PeerAuthentication {
        origin: origin(&from.origin),
        selector: map(&from.selector),
        mode: mode(from.mode),
        ports: ports.map(|(p, m)| ((*p).into(), mode(*m))).collect(),
    }
}

pub(super) fn decode_peer(from: proto::PeerAuthentication) -> Read<PeerAuthentication> {
    let ports = from.ports.into_iter().map(|(port, mode)| {
        let field = format!("ports[{port}]");
        Ok((narrow(port, &field)?, read_mode(mode, &field)?))
    });
    Ok(PeerAuthentication {
        origin: read_origin(from.origin)?,
        selector: labels(from.selector),
        mode: read_mode(from.mode, "mode")?,
        ports: ports.collect::<Read<_>>()?,
    })
}

pub(super) fn selection(from: &Selection) -> Option<proto::Selection> {
    let target = |t: &TargetRef| proto::TargetRef {
        kind: text(&t.kind),
        name: text(&t.name),
    };
    Some(proto::Selection {
        labels: map(&from.labels),
        targets: from.targets.iter().map(target).collect(),
    })
}

/// Absent is refused, not taken for "everything": a policy must say what it is for.
pub(super) fn read_selection(from: Option<proto::Selection>) -> Read<Selection> {
    let from = required(from, "selection")?;
    let target = |t: proto::TargetRef| {
        Ok(TargetRef {
            kind: named(&t.kind, "kind")?,
            name: named(&t.name, "name")?,
        })
    };
    Ok(Selection {
        labels: labels(from.labels),
        targets: each(from.targets, "targets", target).within("selection")?,
    })
}

pub(super) fn encode_request(from: &RequestAuthentication) -> proto::RequestAuthentication {
    proto::RequestAuthentication {
        origin: origin(&from.origin),
        selection: selection(&from.selection),
        visible_to: visibility(&from.visibility),
        rules: from.rules.iter().map(encode_rule).collect(),
    }
}

fn encode_rule(from: &JwtRule) -> proto::JwtRule {
    let header = |h: &TokenHeader| proto::TokenHeader {
        name: text(&h.name),
        prefix: text(&h.prefix),
    };
    let claim = |c: &ClaimHeader| proto::ClaimHeader {
        header: text(&c.header),
        claim: text(&c.claim),
    };
    proto::JwtRule {
        issuer: optional(&from.issuer),
        audiences: texts(&from.audiences),
        keys: Some(match &from.keys {
            JwtKeys::Inline(set) => proto::jwt_rule::Keys::Inline(text(set)),
            JwtKeys::Unavailable { uri, reason } => {
                proto::jwt_rule::Keys::Unavailable(proto::UnavailableKeys {
                    uri: text(uri),
                    reason: text(reason),
                })
            }
        }),
        from_headers: from.from_headers.iter().map(header).collect(),
        from_params: texts(&from.from_params),
        from_cookies: texts(&from.from_cookies),
        forward_original: from.forward_original,
        payload_header: optional(&from.payload_header),
        claim_headers: from.claim_headers.iter().map(claim).collect(),
        space_delimited: texts(&from.space_delimited),
    }
}

pub(super) fn decode_request(from: proto::RequestAuthentication) -> Read<RequestAuthentication> {
    Ok(RequestAuthentication {
        origin: read_origin(from.origin)?,
        selection: read_selection(from.selection)?,
        visibility: read_visibility(from.visible_to),
        rules: each(from.rules, "rules", decode_rule)?,
    })
}

fn decode_rule(from: proto::JwtRule) -> Read<JwtRule> {
    let keys = match required(from.keys, "keys")? {
        proto::jwt_rule::Keys::Inline(set) => JwtKeys::Inline(set.into()),
        proto::jwt_rule::Keys::Unavailable(u) => JwtKeys::Unavailable {
            uri: u.uri.into(),
            reason: u.reason.into(),
        },
    };
    let header = |h: proto::TokenHeader| {
        Ok(TokenHeader {
            name: named(&h.name, "name")?,
            prefix: h.prefix.into(),
        })
    };
    let claim = |c: proto::ClaimHeader| {
        Ok(ClaimHeader {
            header: named(&c.header, "header")?,
            claim: named(&c.claim, "claim")?,
        })
    };
    Ok(JwtRule {
        issuer: from.issuer.map(Into::into),
        audiences: strs(from.audiences),
        keys,
        from_headers: each(from.from_headers, "from_headers", header)?,
        from_params: strs(from.from_params),
        from_cookies: strs(from.from_cookies),
        forward_original: from.forward_original,
        payload_header: from.payload_header.map(Into::into),
        claim_headers: each(from.claim_headers, "claim_headers", claim)?,
        space_delimited: strs(from.space_delimited),
    })
}

pub(super) fn encode_bundle(from: &TrustBundle) -> proto::TrustBundle {
    proto::TrustBundle {
        trust_domain: text(&from.trust_domain),
        roots: text(&from.roots),
        crls: text(&from.crls),
    }
}

pub(super) fn decode_bundle(from: proto::TrustBundle) -> Read<TrustBundle> {
    Ok(TrustBundle {
        trust_domain: named(&from.trust_domain, "trust_domain")?,
        roots: named(&from.roots, "roots")?,
        crls: from.crls.into(),
    })
}

pub(super) fn encode_credential(from: &Credential) -> proto::Credential {
    proto::Credential {
        origin: origin(&from.origin),
        chain: text(&from.chain),
        key: from.key.expose().to_owned(),
        ca: text(&from.ca),
        crl: text(&from.crl),
        readers: texts(&from.readers),
    }
}

pub(super) fn decode_credential(from: proto::Credential) -> Read<Credential> {
    if from.chain.is_empty() != from.key.is_empty() {
        return Err(bad("key", "a chain and its key come together"));
    }
    Ok(Credential {
        origin: read_origin(from.origin)?,
        chain: from.chain.into(),
        key: Secret::new(&from.key),
        ca: from.ca.into(),
        crl: from.crl.into(),
        readers: strs(from.readers),
    })
}
