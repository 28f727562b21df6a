//! What a user sees of an object's notices: `status`, an Event, the log. Writing is safe to repeat: what is wanted
//! is compared with what is there, so two writers or a restart write nothing twice.

use crate::source::{Books, Id, IstioKind};
use lateen_api::notice::{Notice, Severity};
use serde_json::{Value, json};

mod writer;

pub(crate) use writer::{Wishes, run};

/// The condition that says whether the object is in force as written.
const CONDITION: &str = "Accepted";
/// Notices that one status carries; the rest is counted in the condition.
const MOST_MESSAGES: usize = 20;

/// A status that should be written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Wish {
    pub(crate) kind: IstioKind,
    pub(crate) id: Id,
    pub(crate) uid: String,
    /// The JSON merge patch.
    pub(crate) patch: Value,
    /// The sentence for an Event; absent when the object is fine.
    pub(crate) event: Option<String>,
}

/// What is found about an object.
#[derive(Debug, Clone)]
pub(crate) struct Verdict<'a> {
    /// Whether it is not in force as written.
    pub(crate) refused: bool,
    /// Everything that is to be said.
    pub(crate) notices: &'a [Notice],
    /// `status.addresses` as it should be; absent: it is right.
    pub(crate) addresses: Option<Value>,
}

/// The write that brings an object's status in line with its notices; none when it is.
/// Objects that never had a notice, nor need an address, are never written. `now` is the time in RFC 3339.
pub(crate) fn wish(
    (kind, id): (IstioKind, &Id),
    books: &Books,
    verdict: Verdict<'_>,
    now: &str,
) -> Option<Wish> {
    let Verdict {
        refused,
        notices,
        addresses,
    } = verdict;
    let told: Vec<&Notice> = notices
        .iter()
        .filter(|notice| notice.severity > Severity::Info)
        .collect();
    let conditions = books.status["conditions"].as_array();
    let present = conditions
        .into_iter()
        .flatten()
        .find(|condition| condition["type"] == CONDITION);
    if told.is_empty() && present.is_none_or(|present| present["status"] == "True") {
        let messages = books.status["validationMessages"].as_array();
        if present.is_none() || messages.is_none_or(Vec::is_empty) {
            return addresses.map(|addresses| Wish {
                kind,
                id: id.clone(),
                uid: books.uid.clone(),
                patch: json!({ "status": { "addresses": addresses } }),
                event: None,
            });
        }
    }
    let (state, reason) = match (refused, told.is_empty()) {
        (true, _) => ("False", "Invalid"),
        (false, false) => ("True", "AcceptedWithNotices"),
        (false, true) => ("True", "Accepted"),
    };
    let mut condition = json!({
        "type": CONDITION,
        "status": state,
        "reason": reason,
        "message": summary(&told),
        "observedGeneration": books.generation,
    });
    let since = present.filter(|present| present["status"] == state);
    let since = since.and_then(|present| present["lastTransitionTime"].as_str());
    condition["lastTransitionTime"] = json!(since.unwrap_or(now));
    let messages: Vec<Value> = told
        .iter()
        .take(MOST_MESSAGES)
        .map(|n| message(n))
        .collect();
    let mut others: Vec<Value> = conditions.cloned().unwrap_or_default();
    others.retain(|other| other["type"] != CONDITION);
    others.push(condition);
    let mut status = json!({
        "conditions": others,
        "observedGeneration": books.generation,
        "validationMessages": if messages.is_empty() { Value::Null } else { json!(messages) },
    });
    if let Some(addresses) = addresses {
        status["addresses"] = addresses;
    }
    let fields = status.as_object().into_iter().flatten();
    let is_news = !["conditions", "validationMessages"]
        .iter()
        .all(|field| books.status[field] == status[field]);
    let same = fields
        .clone()
        .all(|(field, value)| books.status[field] == *value);
    (!same).then(|| Wish {
        kind,
        id: id.clone(),
        uid: books.uid.clone(),
        patch: json!({ "status": status }),
        event: (is_news && !told.is_empty()).then(|| summary(&told)),
    })
}

/// The first sentence and how many more there are.
fn summary(told: &[&Notice]) -> String {
    match told {
        [] => "The object is in force as written".to_owned(),
        [only] => sentence(only),
        [first, more @ ..] => format!("{} (and {} more)", sentence(first), more.len()),
    }
}

fn sentence(notice: &Notice) -> String {
    match notice.field.as_str() {
        "" => notice.message.clone(),
        field => format!("{field}: {}", notice.message),
    }
}

/// A validation message (Istio: `AnalysisMessageBase`), with the sentence beside it.
fn message(notice: &Notice) -> Value {
    let level = match notice.severity {
        Severity::Error => "ERROR",
        Severity::Warning => "WARNING",
        Severity::Info => "INFO",
    };
    json!({
        "type": { "code": notice.code.unwrap_or("LATEEN") },
        "level": level,
        "message": sentence(notice),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use lateen_api::notice::Subject;

    fn notice(severity: Severity) -> Notice {
        Notice::new(
            severity,
            &Subject::default(),
            "spec.http[0]",
            "has no route: add one",
        )
    }

    /// Writes until nothing is left to write; returns the status and how often it was written.
    fn settle(books: &mut Books, notices: &[Notice], now: &str) -> usize {
        let id = Id::new("shop", "reviews");
        let refused = lateen_api::notice::any_error(notices);
        let mut writes = 0;
        let verdict = || Verdict {
            refused,
            notices,
            addresses: None,
        };
        while let Some(wish) = wish((IstioKind::VirtualService, &id), books, verdict(), now) {
            let mut object = json!({ "status": books.status });
            json_patch::merge(&mut object, &wish.patch);
            books.status = object["status"].take();
            writes += 1;
            assert!(writes < 3, "writing comes to an end");
        }
        writes
    }

    #[test]
    fn notices_come_and_go() {
        let mut books = Books {
            generation: 1,
            ..Books::default()
        };
        assert_eq!(
            settle(&mut books, &[], "t0"),
            0,
            "a good object is never written"
        );
        assert_eq!(settle(&mut books, &[notice(Severity::Info)], "t0"), 0);
        assert_eq!(settle(&mut books, &[notice(Severity::Error)], "t1"), 1);
        assert_eq!(
            books.status,
            json!({
                "observedGeneration": 1,
                "conditions": [{
                    "type": "Accepted", "status": "False", "reason": "Invalid", "observedGeneration": 1,
                    "message": "spec.http[0]: has no route: add one", "lastTransitionTime": "t1",
                }],
                "validationMessages": [{
                    "type": { "code": "LATEEN" }, "level": "ERROR",
                    "message": "spec.http[0]: has no route: add one",
                }],
            })
        );
        assert_eq!(
            settle(&mut books, &[notice(Severity::Error)], "t2"),
            0,
            "nothing new"
        );
        assert_eq!(settle(&mut books, &[], "t3"), 1, "recovery is written");
        assert_eq!(books.status["validationMessages"], Value::Null);
        let condition = &books.status["conditions"][0];
        assert_eq!(
            (&condition["status"], &condition["lastTransitionTime"]),
            (&json!("True"), &json!("t3"))
        );
        assert_eq!(settle(&mut books, &[], "t4"), 0);
    }

    #[test]
    fn the_conditions_of_others_stay() {
        let mut books = Books {
            status: json!({ "conditions": [{ "type": "istio.io/WaypointBound", "status": "True" }], "x": 1 }),
            ..Books::default()
        };
        assert_eq!(settle(&mut books, &[notice(Severity::Warning)], "t"), 1);
        assert_eq!(books.status["conditions"].as_array().map(Vec::len), Some(2));
        assert_eq!(
            books.status["conditions"][1]["reason"],
            "AcceptedWithNotices"
        );
        assert_eq!(books.status["x"], 1);
    }
}
