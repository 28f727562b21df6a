//! How a peer wrote what HTTP/1 does not tell apart: the case of header names, and words behind a status. Both travel as
//! extensions of the message, so that the next hop reads what the last one wrote.

use bytes::Bytes;
use http::HeaderName;
use std::sync::Arc;

/// The names of a message's headers that are not all lower case, in their order.
#[derive(Debug, Clone)]
pub(super) struct Spelling(Arc<Names>);

#[derive(Debug)]
struct Names {
    head: Bytes,
    /// Where they are in `head`.
    at: Vec<(u32, u32)>,
}

/// The words of a status line that are not the usual ones.
#[derive(Debug, Clone)]
pub(super) struct Reason(pub(super) Bytes);

impl Spelling {
    /// Names in `head` at these places; absent without any.
    pub(super) fn new(head: &Bytes, at: Vec<(u32, u32)>) -> Option<Self> {
        let head = head.clone();
        (!at.is_empty()).then(|| Self(Arc::new(Names { head, at })))
    }

    /// The name as it was written; absent: in lower case, or not at all. `next` is where the last one was found: headers
    /// are asked for in about the order in which they came.
    pub(super) fn of(&self, name: &HeaderName, next: &mut usize) -> Option<&[u8]> {
        let Names { head, at } = &*self.0;
        let (before, after) = at.split_at((*next).min(at.len()));
        let places = after.iter().chain(before);
        for (passed, &(start, end)) in places.enumerate() {
            let written = &head[start as usize..end as usize];
            if written.eq_ignore_ascii_case(name.as_str().as_bytes()) {
                *next = (*next + passed) % at.len() + 1;
                return Some(written);
            }
        }
        None
    }
}
