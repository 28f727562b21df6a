//! Debug pages made from the graph.

use super::{Engine, Page, Push};
use crate::graph::ObjectId;
use lateen_api::notice::Notice;
use lateen_model::resource::Key;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Keys that a page lists of one push.
pub(super) const MOST_KEYS: usize = 200;

impl Engine {
    /// Makes a page.
    pub(super) fn page(&self, page: Page) -> Value {
        match page {
            Page::Configuration => self.configuration(),
            Page::Resources(kind) => self.graph.resources(kind).map(|r| json!(r)).collect(),
            Page::PushStatus => self.push_status(),
            Page::Graph => {
                let stats = self.graph.stats().into_iter();
                stats
                    .map(|node| json!({ "name": node.name, "entries": node.entries, "runs": node.runs }))
                    .collect()
            }
        }
    }

    /// Every Istio object, and every other object with notices.
    fn configuration(&self) -> Value {
        let mut objects: BTreeSet<ObjectId> = self
            .books
            .keys()
            .map(|(kind, id)| ObjectId::istio(*kind, id.clone()))
            .collect();
        objects.extend(self.graph.noticed().map(|(object, _)| object.clone()));
        let one = |object: &ObjectId| {
            let notices = self.graph.notices_of(object);
            let kind = object.istio_kind();
            let books = kind.and_then(|kind| self.books.get(&(kind, object.id.clone())));
            json!({
                "kind": object.kind,
                "namespace": object.id.namespace,
                "name": object.id.name,
                "generation": books.map(|books| books.generation),
                "inForce": self.graph.is_in_force(object),
                "lastGood": self.graph.is_refused(object) && self.graph.is_in_force(object),
                "notices": notices.iter().map(notice).collect::<Vec<_>>(),
            })
        };
        objects.iter().map(one).collect()
    }

    fn push_status(&self) -> Value {
        let errors: Vec<String> = self
            .graph
            .noticed()
            .flat_map(|(_, notices)| notices.iter())
            .filter(|notice| notice.is_error())
            .map(ToString::to_string)
            .collect();
        json!({
            "pushes": self.parts.metrics.pushes.value(),
            "synced": *self.synced.borrow(),
            "lastPush": self.last_push.as_ref().map(push),
            "errors": errors,
        })
    }
}

fn push(push: &Push) -> Value {
    let names = |keys: &[Key]| -> Vec<String> {
        let names = keys
            .iter()
            .map(|key| format!("{:?} {}", key.kind, key.name));
        names.collect()
    };
    json!({
        "at": push.at.to_string(),
        "generation": push.generation,
        "bytes": push.bytes,
        "changed": names(&push.changed),
        "removed": names(&push.removed),
    })
}

fn notice(notice: &Notice) -> Value {
    json!({
        "severity": notice.severity.to_string(),
        "code": notice.code,
        "field": notice.field,
        "message": notice.message,
    })
}
