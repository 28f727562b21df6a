//! Where HTTP/1 messages begin and end, followed beside the engine that parses them: whatever two implementations could
//! read differently is a [`Violation`] before the engine sees it (RFC 9112 §2.2, §5.1, §6, §7.1).
//!
//! Sans-io and incremental. A head that comes in one piece is looked at in place; only a line that is cut in two is kept.
//! It does not store headers, does not route, and leaves sizes and counts of headers to the engine's own limits.
//!
//! ```text
//! bytes -> start line -> fields -> [sized body | chunks -> trailers] -> start line …
//!                               \-> hold (CONNECT, Upgrade) -> tunnel | start line …
//! ```

mod lines;

use super::Violation;
use lines::{Field, field, is_plain, plain_run, request_line, size_line, status_line};

/// Longest line of a chunk's size with its extensions.
const SIZE_LINE: usize = 1024;
/// Longest line of a head or trailer that is put together from parts; the engine refuses long heads before that.
const LINE: usize = 256 * 1024;
/// Empty lines that may come before a request (RFC 9112 §2.2: robust servers ignore at least one).
const BLANK: u8 = 2;

/// Interim responses (1xx) that may come in a row.
const INTERIM: u8 = 64;

/// Which messages are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Requests,
    Responses,
}

/// What the next response answers: it decides whether it has a body (RFC 9112 §6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Asked {
    #[default]
    Other,
    Head,
    Connect,
}

/// What bytes were found to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    /// How many of them the engine may see.
    pub(super) good: usize,
    pub(super) stop: Option<Stop>,
}

/// Why the rest may not be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// The request asks for another protocol: what follows is nobody's before the answer is known.
    Hold,
    Bad {
        why: Violation,
        /// The engine is waiting for a head and can answer for itself; else it is in a body.
        in_head: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Start,
    Fields,
    /// So many bytes of a body are left.
    Sized(u64),
    /// The line with a chunk's size.
    Size,
    Chunk(u64),
    /// The line end after a chunk's bytes.
    ChunkEnd,
    Trailers,
    Hold,
    /// Whatever comes is not HTTP/1, or is a body without an end.
    Free,
    Broken,
}

/// What a head said that concerns its framing.
#[derive(Debug, Default)]
struct Head {
    http_10: bool,
    /// A response's status.
    status: u16,
    length: Option<u64>,
    chunked: bool,
    connect: bool,
    upgrade: bool,
}

/// The state of one direction of a connection.
#[derive(Debug)]
pub(super) struct Framing {
    side: Side,
    at: At,
    /// The beginning of a line whose end has not come.
    line: Vec<u8>,
    head: Head,
    heads: u64,
    blank: u8,
    /// Interim responses since the last final one.
    interim: u8,
    /// What the next response answers.
    pub(super) asked: Asked,
}

impl Framing {
    pub(super) fn new(side: Side) -> Self {
        Self {
            side,
            at: At::Start,
            line: Vec::new(),
            head: Head::default(),
            heads: 0,
            blank: 0,
            interim: 0,
            asked: Asked::Other,
        }
    }

    /// How many heads were whole.
    pub(super) fn heads(&self) -> u64 {
        self.heads
    }

    /// Whether a head has begun that is not whole.
    pub(super) fn is_in_head(&self) -> bool {
        match self.at {
            At::Start => !self.line.is_empty(),
            at => at == At::Fields,
        }
    }

    pub(super) fn side(&self) -> Side {
        self.side
    }

    /// The number of the request that holds what follows it, counted from 1.
    pub(super) fn held_by(&self) -> Option<u64> {
        (self.at == At::Hold).then_some(self.heads)
    }

    /// The held request was answered: what follows belongs to the other protocol, or is the next request.
    /// After a refused CONNECT nothing can follow.
    pub(super) fn release(&mut self, switched: bool) {
        self.at = match (switched, self.head.connect) {
            (true, _) => At::Free,
            (false, true) => At::Broken,
            (false, false) => At::Start,
        };
    }

    /// Whether nothing more will be understood.
    pub(super) fn is_over(&self) -> bool {
        self.at == At::Broken
    }

    /// Looks at the next bytes of the connection.
    pub(super) fn look(&mut self, bytes: &[u8]) -> Look {
        let mut seen = 0;
        while let Some(rest) = bytes.get(seen..).filter(|rest| !rest.is_empty()) {
            seen += match self.at {
                At::Free => rest.len(),
                At::Sized(left) => self.skip(left, rest.len(), At::Sized),
                At::Chunk(left) => self.skip(left, rest.len(), At::Chunk),
                At::Hold => {
                    return Look {
                        good: seen,
                        stop: Some(Stop::Hold),
                    };
                }
                At::Broken => {
                    return self.bad(seen, "bytes after the end of the connection");
                }
                _ => match self.next_line(rest) {
                    Ok(n) => n,
                    Err(why) => return self.bad(seen, why),
                },
            };
        }
        Look {
            good: bytes.len(),
            stop: None,
        }
    }

    fn bad(&mut self, good: usize, why: &'static str) -> Look {
        let in_head = matches!(self.at, At::Start | At::Fields);
        self.at = At::Broken;
        self.line = Vec::new();
        let why = Violation::Framing(why);
        Look {
            good,
            stop: Some(Stop::Bad { why, in_head }),
        }
    }

    fn skip(&mut self, left: u64, there: usize, rest: fn(u64) -> At) -> usize {
        let there = there as u64;
        if there < left {
            self.at = rest(left - there);
            return there as usize;
        }
        match self.at {
            At::Chunk(_) => self.at = At::ChunkEnd,
            _ => self.end_message(),
        }
        left as usize
    }

    /// Reads up to the end of a line; says how many bytes that were.
    fn next_line(&mut self, rest: &[u8]) -> Result<usize, &'static str> {
        if self.line.is_empty() {
            // Almost every line comes whole, and its end is its first control character.
            let text = plain_run(rest);
            if rest[text..].starts_with(b"\r\n") {
                self.on_text(&rest[..text])?;
                return Ok(text + 2);
            }
        }
        let Some(end) = rest.iter().position(|b| *b == b'\n') else {
            let most = if self.at == At::Size { SIZE_LINE } else { LINE };
            if self.line.len() + rest.len() > most {
                return Err("a line that does not end");
            }
            self.line.extend_from_slice(rest);
            return Ok(rest.len());
        };
        let mut line = std::mem::take(&mut self.line);
        line.extend_from_slice(&rest[..=end]);
        self.on_line(&line)?;
        // The memory serves the next line that is cut.
        line.clear();
        self.line = line;
        Ok(end + 1)
    }

    fn on_line(&mut self, line: &[u8]) -> Result<(), &'static str> {
        // Servers are forgiven in heads: the engine writes them anew. In chunks every byte counts.
        let lenient = self.side == Side::Responses && matches!(self.at, At::Start | At::Fields);
        let text = match line.strip_suffix(b"\r\n") {
            None if lenient => line.strip_suffix(b"\n"),
            text => text,
        };
        let text = text.ok_or("a line that does not end with CR LF")?;
        if !text.split(|b| *b == b'\t').all(is_plain) {
            return Err("a control character");
        }
        self.on_text(text)
    }

    /// Reads a line that has no control character but tabs.
    fn on_text(&mut self, text: &[u8]) -> Result<(), &'static str> {
        match self.at {
            At::Start if text.is_empty() => {
                self.blank += 1;
                if self.blank > BLANK {
                    return Err("empty lines where a message should begin");
                }
            }
            At::Start => self.start(text)?,
            At::Fields if text.is_empty() => self.end_head()?,
            At::Fields => self.field(field(text)?)?,
            At::Size => match size_line(text)? {
                0 => self.at = At::Trailers,
                size => self.at = At::Chunk(size),
            },
            At::ChunkEnd if text.is_empty() => self.at = At::Size,
            At::ChunkEnd => return Err("a chunk that is longer than it said"),
            At::Trailers if text.is_empty() => self.end_message(),
            At::Trailers => lines::trailer(text)?,
            // These are not read line by line.
            At::Sized(_) | At::Chunk(_) | At::Hold | At::Free | At::Broken => {}
        }
        Ok(())
    }

    fn start(&mut self, text: &[u8]) -> Result<(), &'static str> {
        self.blank = 0;
        self.head = match self.side {
            Side::Requests => {
                let line = request_line(text)?;
                Head {
                    http_10: line.http_10,
                    connect: line.method == b"CONNECT",
                    ..Head::default()
                }
            }
            Side::Responses => {
                let line = status_line(text)?;
                Head {
                    http_10: line.http_10,
                    status: line.status,
                    connect: self.asked == Asked::Connect,
                    ..Head::default()
                }
            }
        };
        self.at = At::Fields;
        Ok(())
    }

    fn field(&mut self, field: Field) -> Result<(), &'static str> {
        let head = &mut self.head;
        match field {
            Field::Other => {}
            Field::Upgrade => head.upgrade = true,
            Field::Length(_) if head.length.is_some() => {
                return Err("more than one Content-Length");
            }
            Field::Length(_) | Field::Chunked if head.chunked => {
                return Err("Transfer-Encoding with Content-Length or another Transfer-Encoding");
            }
            Field::Length(length) => head.length = Some(length),
            Field::Chunked if head.length.is_some() => {
                return Err("Transfer-Encoding with Content-Length");
            }
            Field::Chunked if head.http_10 => return Err("Transfer-Encoding in HTTP/1.0"),
            Field::Chunked => head.chunked = true,
        }
        Ok(())
    }

    fn end_head(&mut self) -> Result<(), &'static str> {
        let head = &self.head;
        let has_body = match self.side {
            Side::Requests => {
                if head.connect && (head.chunked || head.length.is_some_and(|n| n > 0)) {
                    return Err("CONNECT with a body");
                }
                self.heads += 1;
                true
            }
            Side::Responses => {
                let switched = head.status == 101 || head.connect && head.status / 100 == 2;
                if switched {
                    self.at = At::Free;
                    return Ok(());
                }
                let interim = head.status / 100 == 1;
                self.interim = if interim { self.interim + 1 } else { 0 };
                if self.interim > INTERIM {
                    return Err("interim responses without end");
                }
                let asked = self.asked;
                !interim && asked != Asked::Head && !matches!(head.status, 204 | 304)
            }
        };
        self.at = match (has_body, head.chunked, head.length) {
            (true, true, _) => At::Size,
            (true, false, Some(length)) if length > 0 => At::Sized(length),
            (true, false, None) if self.side == Side::Responses => At::Free,
            _ => {
                self.end_message();
                return Ok(());
            }
        };
        Ok(())
    }

    fn end_message(&mut self) {
        let holds = self.side == Side::Requests && (self.head.connect || self.head.upgrade);
        self.at = if holds { At::Hold } else { At::Start };
    }
}

#[cfg(test)]
mod tests;
