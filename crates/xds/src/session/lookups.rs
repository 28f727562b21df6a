//! What a client asks for by name or address, and when it has got everything that this brings.

use super::Refused;
use super::kind::{MOST_NAME_BYTES, MOST_NAMES};
use crate::codec::LOOKUP;
use lateen_model::lookup::Lookup;
use lateen_proto::discovery::{DeltaDiscoveryResponse, Resource as Wire};
use std::collections::BTreeMap;

/// The questions of one stream.
#[derive(Debug, Default)]
pub(super) struct Lookups {
    /// Whether each was answered.
    asked: BTreeMap<Lookup, bool>,
    bytes: usize,
    open: usize,
}

impl Lookups {
    /// Adds and takes back questions; tells whether anything is different.
    pub fn take(&mut self, more: &[String], less: &[String]) -> Result<bool, Refused> {
        let mut differs = false;
        for text in less {
            if let Ok(lookup) = text.parse::<Lookup>()
                && let Some(answered) = self.asked.remove(&lookup)
            {
                self.bytes -= text.len();
                self.open -= usize::from(!answered);
                differs = true;
            }
        }
        for text in more {
            let lookup: Lookup = text.parse()?;
            if self.asked.contains_key(&lookup) {
                continue;
            }
            self.bytes += text.len();
            if self.asked.len() >= MOST_NAMES || self.bytes > MOST_NAME_BYTES {
                return Err(Refused::TooManyNames);
            }
            self.asked.insert(lookup, false);
            self.open += 1;
            differs = true;
        }
        Ok(differs)
    }

    pub fn asked(&self) -> impl Iterator<Item = &Lookup> {
        self.asked.keys()
    }

    pub fn len(&self) -> usize {
        self.asked.len()
    }

    /// The answer to every open question: what there is has been sent before it.
    pub fn answer(&mut self, generation: u64) -> Option<DeltaDiscoveryResponse> {
        if self.open == 0 {
            return None;
        }
        self.open = 0;
        let open = self.asked.iter_mut().filter(|(_, answered)| !**answered);
        let resources = open.map(|(lookup, answered)| {
            *answered = true;
            Wire {
                version: "1".to_owned(),
                name: lookup.to_string(),
                resource: None,
            }
        });
        Some(DeltaDiscoveryResponse {
            system_version_info: generation.to_string(),
            resources: resources.collect(),
            type_url: LOOKUP.to_owned(),
            nonce: "lookup".to_owned(),
            removed_resources: Vec::new(),
        })
    }
}
