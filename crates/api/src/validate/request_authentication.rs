//! RequestAuthentications: issuers, keys, places of tokens, headers that get claims.

use super::Findings;
use super::attachment::{Place, attachment};
use crate::jwks;
use crate::meta::Config;
use crate::notice::{Notice, Subject};
use crate::path;
use crate::request_authentication::{JwtRule, RequestAuthentication};

/// Validates a RequestAuthentication.
pub fn request_authentication(config: &Config<RequestAuthentication>) -> Vec<Notice> {
    let spec = &config.spec;
    let mut findings = Findings::new(Subject::new("RequestAuthentication", &config.meta));
    let f = &mut findings;
    attachment(
        f,
        &Place {
            namespace: &config.meta.namespace,
            selector: spec.selector.as_ref(),
            target_ref: spec.target_ref.as_ref(),
            target_refs: &spec.target_refs,
        },
    );
    for (i, one) in spec.jwt_rules.iter().enumerate() {
        rule(f, &path::index("spec.jwtRules", i), one);
    }
    findings.notices
}

fn rule(f: &mut Findings, field: &str, rule: &JwtRule) {
    let issuer = rule.issuer.as_deref().unwrap_or_default();
    let address = rule.key_address();
    if issuer.is_empty() && address.is_none() {
        f.error(
            format!("{field}.issuer"),
            "is missing: name the issuer as in the claim \"iss\" (it may be left out beside jwksUri only)",
        );
    } else if issuer.is_empty() {
        f.warning(
            format!("{field}.issuer"),
            "is missing: a token counts whoever its claim \"iss\" names, so whoever signs with these keys can speak for every issuer",
        );
    }
    keys(f, field, rule);
    if address.is_none() && rule.inline_keys().is_none() && !issuer.is_empty() {
        // The keys are then found at the issuer's own address.
        if let Some(reason) = bad_address(issuer) {
            f.warning(
                format!("{field}.jwksUri"),
                format!(
                    "no key can be found: jwks and jwksUri are missing, and the issuer {reason}"
                ),
            );
        }
    }
    for (name, list) in [
        ("audiences", &rule.audiences),
        ("fromParams", &rule.from_params),
        ("fromCookies", &rule.from_cookies),
        ("spaceDelimitedClaims", &rule.space_delimited_claims),
    ] {
        for (i, text) in list.iter().enumerate() {
            if text.is_empty() {
                let field = format!("{field}.{name}[{i}]");
                f.error(field, "is empty: give it a value or remove it");
            }
        }
    }
    for (i, header) in rule.from_headers.iter().enumerate() {
        let field = format!("{field}.fromHeaders[{i}].name");
        header_name(f, &field, &header.name);
    }
    if let Some(name) = &rule.output_payload_to_header {
        header_name(f, &format!("{field}.outputPayloadToHeader"), name);
    }
    claims(f, field, rule);
    f.duration(&format!("{field}.timeout"), rule.timeout.as_ref());
}

fn keys(f: &mut Findings, field: &str, rule: &JwtRule) {
    if rule.jwks_uri.is_some() && rule.jwks_uri_old.is_some() {
        f.error(
            format!("{field}.jwks_uri"),
            "is the same as jwksUri: keep one of them",
        );
    }
    if rule.inline_keys().is_some() && rule.key_address().is_some() {
        f.error(
            field,
            "jwks and jwksUri exclude each other: keep one of them",
        );
    }
    if let Some(address) = rule.key_address()
        && let Some(reason) = bad_address(address)
    {
        f.error(format!("{field}.jwksUri"), reason);
    }
    if let Some(text) = rule.inline_keys() {
        let field = format!("{field}.jwks");
        match jwks::read(text) {
            Ok(set) if set.has_symmetric => f.error(
                field,
                "holds a symmetric key (oct or HS…), with which every reader could forge tokens: use the issuer's public keys",
            ),
            Ok(set) => {
                for reason in set.passed_over {
                    f.warning(&field, format!("{reason}; it is passed over"));
                }
            }
            Err(reason) => f.error(field, reason),
        }
    }
}

/// Why keys cannot be fetched from an address; absent: they can be asked for there.
fn bad_address(text: &str) -> Option<String> {
    let rest = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    let Some(rest) = rest else {
        return Some(format!(
            "{text:?} is not an address of keys: it begins with https:// or http://"
        ));
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.is_empty() || authority.starts_with(':') {
        return Some(format!("{text:?} names no host"));
    }
    if authority.contains('@') {
        return Some("carries a password: addresses of keys are public".to_owned());
    }
    let bad = |c: char| c.is_whitespace() || c.is_control() || c == '\\';
    text.contains(bad)
        .then(|| format!("{text:?} is not an address: it has characters that must be encoded"))
}

fn claims(f: &mut Findings, field: &str, rule: &JwtRule) {
    let all = &rule.output_claim_to_headers;
    for (i, one) in all.iter().enumerate() {
        let field = format!("{field}.outputClaimToHeaders[{i}]");
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if one.header.is_empty() || !one.header.chars().all(allowed) {
            let header = &one.header;
            let message = format!("{header:?} is not a header: use letters, digits, - and _");
            f.error(format!("{field}.header"), message);
        }
        if one.claim.is_empty() {
            f.error(format!("{field}.claim"), "is empty: name a claim");
        }
        let same = |other: &&_| {
            let other: &crate::request_authentication::ClaimToHeader = other;
            other.header.eq_ignore_ascii_case(&one.header)
        };
        if all.iter().take(i).any(|other| same(&other)) {
            let message = format!("{:?} gets another claim already: use another", one.header);
            f.error(format!("{field}.header"), message);
        }
    }
}

fn header_name(f: &mut Findings, field: &str, name: &str) {
    if !super::is_token(name) {
        f.error(field, format!("{name:?} is not a name of a header"));
    }
}
