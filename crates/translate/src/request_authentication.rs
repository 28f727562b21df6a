//! RequestAuthentication → rules for tokens. Keys that must be fetched are supplied later, by [`supply`].

use crate::mesh::Mesh;
use crate::names::origin;
use crate::policy::{salvaged_selection, selection, visibility};
use crate::{NOT_YET, Translated};
use lateen_api::meta::{Config, Meta};
use lateen_api::notice::{Notice, Subject, any_error};
use lateen_api::request_authentication::{
    JwtRule as WrittenRule, Presence, RequestAuthentication as Written,
};
use lateen_api::{jwks, validate};
use lateen_base::Str;
use lateen_model::resource::Resource;
use lateen_model::security::{ClaimHeader, JwtKeys, JwtRule, RequestAuthentication, TokenHeader};
use serde_json::Value;

/// Where an issuer tells the address of its keys (OpenID Connect Discovery 1.0 §4).
pub const DISCOVERY: &str = "/.well-known/openid-configuration";

/// Why a rule has no keys before they were asked for.
const NOT_FETCHED: &str = "not fetched yet";

/// What a RequestAuthentication is translated from.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// The RequestAuthentication.
    pub config: &'a Config<Written>,
    /// The mesh.
    pub mesh: &'a Mesh,
}

/// Translates a RequestAuthentication. Rules whose keys are elsewhere come back without keys: see [`supply`].
pub fn request_authentication(inputs: Inputs<'_>) -> Translated {
    let Inputs { config, mesh } = inputs;
    let spec = &config.spec;
    let mut notices = validate::request_authentication(config);
    if any_error(&notices) {
        return (Vec::new(), notices);
    }
    let subject = Subject::new("RequestAuthentication", &config.meta);
    for (i, one) in spec.jwt_rules.iter().enumerate() {
        if one.presence == Some(Presence::Required) {
            let field = format!("spec.jwtRules[{i}].presence");
            let message = format!(
                "{NOT_YET}: require a token by an AuthorizationPolicy with requestPrincipals"
            );
            notices.push(Notice::warning(&subject, field, message));
        }
    }
    let policy = RequestAuthentication {
        origin: origin("RequestAuthentication", &config.meta),
        selection: selection(
            spec.selector.as_ref(),
            spec.target_ref.as_ref(),
            &spec.target_refs,
        ),
        visibility: visibility(&config.meta, mesh),
        rules: spec.jwt_rules.iter().map(|r| rule(r, keys(r))).collect(),
    };
    crate::done(Resource::RequestAuthentication(policy), notices)
}

fn rule(written: &WrittenRule, keys: JwtKeys) -> JwtRule {
    let texts = |list: &[String]| list.iter().map(|text| text.as_str().into()).collect();
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    JwtRule {
        issuer: given(&written.issuer).map(Str::from),
        audiences: texts(&written.audiences),
        keys,
        from_headers: written
            .from_headers
            .iter()
            .map(|header| TokenHeader {
                name: header.name.to_ascii_lowercase().into(),
                prefix: header.prefix.as_deref().unwrap_or_default().into(),
            })
            .collect(),
        from_params: texts(&written.from_params),
        from_cookies: texts(&written.from_cookies),
        forward_original: written.forward_original_token == Some(true),
        payload_header: given(&written.output_payload_to_header)
            .map(|name| name.to_ascii_lowercase().into()),
        claim_headers: written
            .output_claim_to_headers
            .iter()
            .map(|one| ClaimHeader {
                header: one.header.to_ascii_lowercase().into(),
                claim: one.claim.as_str().into(),
            })
            .collect(),
        space_delimited: texts(&written.space_delimited_claims),
    }
}

/// The keys of a rule: as written, or where they are to be fetched from.
fn keys(rule: &WrittenRule) -> JwtKeys {
    let unavailable = |uri: &str, reason: &str| JwtKeys::Unavailable {
        uri: uri.into(),
        reason: reason.into(),
    };
    if let Some(set) = rule.inline_keys() {
        return match jwks::read(set) {
            Ok(_) => JwtKeys::Inline(set.into()),
            Err(reason) => unavailable("", &format!("jwks {reason}")),
        };
    }
    if let Some(uri) = rule.key_address() {
        return unavailable(uri, NOT_FETCHED);
    }
    let issuer = rule.issuer.as_deref().unwrap_or_default();
    if issuer.starts_with("https://") || issuer.starts_with("http://") {
        let uri = format!("{}{DISCOVERY}", issuer.trim_end_matches('/'));
        return unavailable(&uri, NOT_FETCHED);
    }
    unavailable(
        "",
        "jwks and jwksUri are missing, and the issuer is no address",
    )
}

/// Addresses that keys of `resources` are to be fetched from: key sets, or, ending in [`DISCOVERY`], documents that
/// name the address of the key set. An address may come twice.
pub fn wanted<'a>(resources: impl Iterator<Item = &'a Resource>) -> impl Iterator<Item = &'a Str> {
    resources.flat_map(|resource| {
        let rules = match resource {
            Resource::RequestAuthentication(policy) => policy.rules.as_slice(),
            _ => &[],
        };
        rules.iter().filter_map(|rule| match &rule.keys {
            JwtKeys::Unavailable { uri, .. } if !uri.is_empty() => Some(uri),
            _ => None,
        })
    })
}

/// What became of fetching keys.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Supply {
    /// The last good key set; absent: there never was one.
    pub set: Option<Str>,
    /// Why the last fetch failed; absent: it did not.
    pub problem: Option<Str>,
}

/// Puts fetched keys in. `find` gives what became of an address; nothing: it was not asked yet.
/// Comes back with notices about keys that could not be fetched: without older ones, their tokens are refused.
pub fn supply(
    subject: &Subject,
    resources: &mut [Resource],
    mut find: impl FnMut(&str) -> Option<Supply>,
) -> Vec<Notice> {
    let mut notices = Vec::new();
    for resource in resources {
        let Resource::RequestAuthentication(policy) = resource else {
            continue;
        };
        for (i, rule) in policy.rules.iter_mut().enumerate() {
            let JwtKeys::Unavailable { uri, reason } = &mut rule.keys else {
                continue;
            };
            if uri.is_empty() {
                continue;
            }
            let Some(Supply { set, problem }) = find(uri) else {
                continue;
            };
            if let Some(problem) = problem {
                let effect = match set {
                    Some(_) => "the last good keys stay in use",
                    None => "tokens of this issuer are refused until there are keys",
                };
                let message = format!("no keys from {uri}: {problem}; {effect}");
                let field = format!("spec.jwtRules[{i}].jwksUri");
                notices.push(Notice::warning(subject, field, message));
                *reason = problem;
            }
            if let Some(set) = set {
                rule.keys = JwtKeys::Inline(set);
            }
        }
    }
    notices
}

/// A broken one takes no token of any of its issuers.
pub(crate) fn closed(meta: &Meta, spec: &Value, mesh: &Mesh) -> Vec<Resource> {
    let rules = spec["jwtRules"].as_array().into_iter().flatten();
    let rules = rules.map(|value| {
        let written: WrittenRule =
            serde_json::from_value(value.clone()).unwrap_or_else(|_| WrittenRule {
                issuer: value["issuer"].as_str().map(str::to_owned),
                ..WrittenRule::default()
            });
        let keys = JwtKeys::Unavailable {
            uri: "".into(),
            reason: "the RequestAuthentication is broken".into(),
        };
        rule(&written, keys)
    });
    vec![Resource::RequestAuthentication(RequestAuthentication {
        origin: origin("RequestAuthentication", meta),
        selection: salvaged_selection(spec),
        visibility: visibility(meta, mesh),
        rules: rules.collect(),
    })]
}
