//! How a peer wrote what HTTP/1 does not tell apart: the case of header names, and words behind a status. Both travel as
//! extensions of the message, so that the next hop reads what the last one wrote.

use bytes::Bytes;
use http::HeaderName;

/// The head of a message some of whose names are not in lower case.
#[derive(Debug, Clone)]
pub(super) struct Spelling {
    head: Bytes,
    /// A bit for each length that such a name has, the longest together: most names that were not in the head are known
    /// by that.
    lengths: u64,
}

/// The words of a status line that are not the usual ones.
#[derive(Debug, Clone)]
pub(super) struct Reason(pub(super) Bytes);

fn bit(length: usize) -> u64 {
    1 << length.min(63)
}

/// Notes names while a head is read.
#[derive(Debug, Default)]
pub(super) struct Notes(u64);

impl Notes {
    pub(super) fn see(&mut self, name: &[u8]) {
        if name.iter().any(u8::is_ascii_uppercase) {
            self.0 |= bit(name.len());
        }
    }

    /// What is to be remembered of the head; absent: every name is in lower case.
    pub(super) fn of(self, head: &Bytes) -> Option<Spelling> {
        (self.0 != 0).then(|| Spelling {
            head: head.clone(),
            lengths: self.0,
        })
    }
}

impl Spelling {
    /// The name as it was written; absent: in lower case, or not at all. `next` is the line behind the last one that was
    /// found: headers are asked for in about the order in which they came.
    pub(super) fn of(&self, name: &HeaderName, next: &mut usize) -> Option<&[u8]> {
        let name = name.as_str().as_bytes();
        if self.lengths & bit(name.len()) == 0 {
            return None;
        }
        let line = self.begins(*next, name).or_else(|| {
            let ends = self.head.iter().enumerate().filter(|(_, b)| **b == b'\n');
            ends.map(|(at, _)| at + 1)
                .find_map(|line| self.begins(line, name))
        })?;
        let rest = self.head.iter().skip(line + name.len());
        *next = line + name.len() + rest.take_while(|b| **b != b'\n').count() + 1;
        Some(&self.head[line..line + name.len()])
    }

    /// The line, if it begins with this name.
    fn begins(&self, line: usize, name: &[u8]) -> Option<usize> {
        let end = line + name.len();
        let written = self.head.get(line..end)?;
        let is_it = self.head.get(end) == Some(&b':') && written.eq_ignore_ascii_case(name);
        is_it.then_some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_any_order_and_others_are_not() {
        let head = "GET / HTTP/1.1\r\nHost: a\r\nX-B: 1\r\nx-c: 2\r\nX-b: 3\r\nX-Long-Name: X-Y: 4\r\n\r\n";
        let mut notes = Notes::default();
        for name in ["Host", "X-B", "x-c", "X-b", "X-Long-Name"] {
            notes.see(name.as_bytes());
        }
        let spelling = notes.of(&Bytes::from(head)).expect("there is something");
        let check = |names: &[&'static str], expected: &str| {
            let mut next = 0;
            let written = names.iter().map(|name| {
                let name = HeaderName::from_static(name);
                let written = spelling.of(&name, &mut next).unwrap_or(b"-");
                String::from_utf8_lossy(written).into_owned()
            });
            assert_eq!(written.collect::<Vec<_>>().join(" "), expected);
        };
        check(&["host", "x-b", "x-b"], "Host X-B X-B");
        check(&["x-long-name", "host", "x-y"], "X-Long-Name Host -");
        check(&["x-c", "x-b", "x-request-id", "hos"], "x-c X-b - -");
    }

    #[test]
    fn a_head_in_lower_case_is_not_kept() {
        let mut notes = Notes::default();
        notes.see(b"host");
        assert!(
            notes
                .of(&Bytes::from("GET / HTTP/1.1\r\nhost: a\r\n\r\n"))
                .is_none()
        );
    }
}
