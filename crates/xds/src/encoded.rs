//! A resource as it is sent: encoded once, wherever it is known first, and shared from then on.

use crate::codec::{decode, encode, type_url};
use bytes::Bytes;
use lateen_model::decide::resources::Audience;
use lateen_model::resource::{Key, Resource};

/// A resource's bytes with what has to be known to send them. Two are equal when they mean the same.
#[derive(Debug, Clone)]
pub struct Encoded {
    key: Key,
    audience: Audience,
    bytes: Bytes,
}

impl Encoded {
    /// Encodes `resource`.
    pub fn of(resource: &Resource) -> Self {
        Self {
            key: resource.key(),
            audience: Audience::of(resource),
            bytes: encode(resource),
        }
    }

    /// The resource's key.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Who it may be sent to.
    pub fn audience(&self) -> &Audience {
        &self.audience
    }

    /// The message.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The resource anew. Absent never happens: what was encoded can be decoded.
    pub fn decode(&self) -> Option<Resource> {
        decode(type_url(self.key.kind), &self.bytes).ok()
    }
}

impl PartialEq for Encoded {
    /// Compares keys and bytes: who may have a resource follows from them.
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes && self.key == other.key
    }
}
