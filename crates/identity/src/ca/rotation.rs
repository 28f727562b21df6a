//! Changing roots without losing anybody: while one root takes over from another, everybody believes both.

use crate::certificate::{Facts, show};
use crate::pem;
use rustls_pki_types::CertificateDer;
use std::time::SystemTime;

/// The roots of several authorities (upcoming, active, retiring) as one PEM text, each certificate once, in the given
/// order. Certificates that have expired, cannot be read or may not sign are left out, and told in the second value.
pub fn union(roots: &[&str], now: SystemTime) -> (String, Vec<String>) {
    let mut kept: Vec<CertificateDer<'static>> = Vec::new();
    let mut notices = Vec::new();
    for text in roots.iter().filter(|text| !text.trim().is_empty()) {
        let certificates = match pem::certificates(text) {
            Ok(certificates) => certificates,
            Err(error) => {
                notices.push(format!("roots cannot be read: {error}"));
                continue;
            }
        };
        for der in certificates {
            if kept.contains(&der) {
                continue;
            }
            match Facts::of(&der) {
                Ok(facts) if facts.not_after <= now => notices.push(format!(
                    "the root {} expired at {} and is left out",
                    facts.subject,
                    show(facts.not_after)
                )),
                Ok(facts) if !facts.may_sign => notices.push(format!(
                    "{} is not the certificate of an authority and is left out of the roots",
                    facts.subject
                )),
                Ok(_) => kept.push(der),
                Err(why) => notices.push(format!("a root cannot be read: {why}")),
            }
        }
    }
    (pem::encode_chain(&kept), notices)
}
