//! Validation of configuration objects at the door: errors refuse, warnings go to the user, and so does what is valid
//! and has no effect yet.

use super::review::{Review, Verdict};
use crate::metrics::Metrics;
use lateen_api::notice::{Notice, Severity};
use lateen_api::object::from_json;
use lateen_api::validate::validate as rules;
use lateen_translate::mesh::Mesh;

/// Most sentences that one answer carries; Kubernetes cuts long answers off.
const MOST_SENTENCES: usize = 10;

/// Decides on one object.
pub(super) fn validate(review: &Review, metrics: &Metrics) -> Verdict {
    if review.request.object.is_null() {
        return Verdict::Allow(Vec::new());
    }
    let (object, mut notices) = from_json(review.request.object.clone());
    if let Some(object) = &object {
        notices.extend(rules(object));
        let (_, said) = lateen_translate::alone(object, &Mesh::default());
        let new = said.into_iter().filter(|n| !notices.contains(n));
        // What Istio accepts is stored, whether or not it can be put in force here.
        let new: Vec<_> = new
            .map(|notice| Notice {
                severity: notice.severity.min(Severity::Warning),
                ..notice
            })
            .collect();
        notices.extend(new);
    }
    let of = |severity: Severity| -> Vec<String> {
        let matching = notices.iter().filter(|notice| notice.severity == severity);
        matching.map(sentence).take(MOST_SENTENCES).collect()
    };
    let errors = of(Severity::Error);
    if errors.is_empty() {
        metrics.validation_passed.add(1);
        return Verdict::Allow(of(Severity::Warning));
    }
    metrics.validation_failed.add(1);
    Verdict::Deny(errors.join("; "))
}

/// Object, field and cure, without severity: the API server adds its own words.
fn sentence(notice: &Notice) -> String {
    let code = notice
        .code
        .map(|code| format!(" [{code}]"))
        .unwrap_or_default();
    match notice.field.as_str() {
        "" => format!("{}: {}{code}", notice.subject, notice.message),
        field => format!("{}: {field}: {}{code}", notice.subject, notice.message),
    }
}
