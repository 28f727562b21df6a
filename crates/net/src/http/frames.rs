//! HTTP/2 frames counted by their nine-byte heads beside the engine that reads them; payloads are skipped.
//!
//! It watches for floods that cost the sender little and us much (rapid reset, pings, settings, window updates, empty
//! frames). Header blocks, their decoded size, continuations and tiny data frames are bounded by the engine.

use super::{Limits, Violation};
use tokio::time::Instant;

const HEAD: usize = 9;
const PREFACE: usize = 24;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// Bytes that we send for which a peer may send one more ping or window update: honest ones answer what they read.
const BYTES_PER_ANSWER: u64 = 32;

/// Bytes that we send for which a server may send one more header block: a response and its trailers for each request.
const BYTES_PER_BLOCK: u64 = 8;

/// Frames of each kind within the present second.
#[derive(Debug, Default)]
struct Counts {
    resets: u32,
    /// Header blocks that open a stream.
    opened: u32,
    /// Other header blocks: responses, trailers, or neither.
    blocks: u32,
    pings: u32,
    settings: u32,
    updates: u32,
    empty: u32,
}

/// The state of the reading half of a connection.
#[derive(Debug)]
pub(super) struct Frames {
    limits: Limits,
    /// Whether the peer opens streams.
    is_client: bool,
    /// Bytes until the next frame's head.
    skip: usize,
    head: [u8; HEAD],
    held: usize,
    /// The stream whose header block is not whole, with its frames and bytes so far.
    block: Option<(u32, u32, usize)>,
    heads: u64,
    /// The latest stream that the peer has opened.
    latest: u32,
    in_preface: bool,
    counts: Counts,
    since: Instant,
    sent_before: u64,
}

/// How far bytes are good, and what is wrong with the next frame.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) good: usize,
    pub(super) bad: Option<Bad>,
}

/// A frame that the engine must not see.
#[derive(Debug)]
pub(super) struct Bad {
    pub(super) why: Violation,
    /// What it may see instead; none when it has seen a part of the frame already.
    pub(super) instead: Option<Vec<u8>>,
}

impl Frames {
    /// Reads frames of a client (preface first) or of a server.
    pub(super) fn new(limits: Limits, is_client: bool) -> Self {
        Self {
            limits,
            is_client,
            skip: if is_client { PREFACE } else { 0 },
            head: [0; HEAD],
            held: 0,
            block: None,
            heads: 0,
            latest: 0,
            in_preface: is_client,
            counts: Counts::default(),
            since: Instant::now(),
            sent_before: 0,
        }
    }

    /// How many header blocks were begun.
    pub(super) fn heads(&self) -> u64 {
        self.heads
    }

    /// Whether a header block, or the preface, is not whole.
    pub(super) fn is_in_head(&self) -> bool {
        self.block.is_some() || self.heads == 0 && self.in_preface
    }

    /// Looks at the next bytes; `sent` is how many bytes we have sent so far.
    pub(super) fn look(&mut self, bytes: &[u8], sent: u64) -> Look {
        self.turn(sent);
        let mut seen = 0;
        while seen < bytes.len() {
            let rest = &bytes[seen..];
            if self.skip > 0 {
                let n = self.skip.min(rest.len());
                self.skip -= n;
                seen += n;
                continue;
            }
            self.in_preface = false;
            let before = self.held;
            let n = (HEAD - before).min(rest.len());
            self.head[before..before + n].copy_from_slice(&rest[..n]);
            self.held += n;
            if self.held == HEAD {
                let in_block = self.block;
                if let Some(why) = self.frame(sent) {
                    let instead = (before == 0).then(|| self.calming(in_block.map(|b| b.0)));
                    let bad = Some(Bad { why, instead });
                    return Look { good: seen, bad };
                }
                self.held = 0;
            }
            seen += n;
        }
        let bad = None;
        Look { good: seen, bad }
    }

    /// Begins a new second when the last is over.
    fn turn(&mut self, sent: u64) {
        let now = Instant::now();
        if now.duration_since(self.since).as_millis() >= 1000 {
            self.since = now;
            self.sent_before = sent;
            self.counts = Counts::default();
        }
    }

    /// Frames that make the engine send GOAWAY with ENHANCE_YOUR_CALM: a header block with more continuations than it
    /// takes. `block`: the stream whose header block it has begun to read.
    fn calming(&self, block: Option<u32>) -> Vec<u8> {
        const FRAMES: usize = 128;
        let (stream, first) = match block {
            Some(stream) => (stream, CONTINUATION),
            None if self.is_client => (0x7fff_ffff, HEADERS),
            None => (0x7fff_fffe, HEADERS),
        };
        let mut frames = Vec::with_capacity(FRAMES * HEAD);
        for n in 0..FRAMES {
            let kind = if n == 0 { first } else { CONTINUATION };
            frames.extend([0, 0, 0, kind, 0]);
            frames.extend(u32::to_be_bytes(stream));
        }
        frames
    }

    fn frame(&mut self, sent: u64) -> Option<Violation> {
        let [a, b, c, kind, flags, s0, s1, s2, s3] = self.head;
        let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        let stream = u32::from_be_bytes([s0, s1, s2, s3]) & 0x7fff_ffff;
        self.skip = length;
        let counts = &mut self.counts;
        match kind {
            HEADERS | PUSH_PROMISE => {
                if self.is_client && stream > self.latest {
                    self.latest = stream;
                    counts.opened += 1;
                } else {
                    counts.blocks += 1;
                }
                self.heads += 1;
                self.block = (flags & END_HEADERS == 0).then_some((stream, 1, length));
            }
            CONTINUATION => return self.continuation(flags, length),
            DATA if length > 0 || flags & END_STREAM != 0 => return None,
            DATA => counts.empty += 1,
            RST_STREAM => counts.resets += 1,
            // Acknowledgements answer ours, which are few; they count all the same.
            SETTINGS => counts.settings += 1,
            PING => counts.pings += 1,
            // PRIORITY and kinds that nobody knows cost as much to skip.
            WINDOW_UPDATE | PRIORITY | GOAWAY | 10.. => counts.updates += 1,
        }
        self.over(sent)
    }

    fn continuation(&mut self, flags: u8, length: usize) -> Option<Violation> {
        let Some((_, frames, bytes)) = &mut self.block else {
            // Out of place: the engine says so.
            return None;
        };
        *frames += 1;
        *bytes += length;
        if *frames > self.limits.continuations || *bytes > 2 * self.limits.head_bytes as usize {
            return Some(Violation::Flood("CONTINUATION frames without end"));
        }
        if flags & END_HEADERS != 0 {
            self.block = None;
        }
        None
    }

    fn over(&self, sent: u64) -> Option<Violation> {
        let (counts, limits) = (&self.counts, &self.limits);
        let sent = sent.saturating_sub(self.sent_before);
        let for_bytes = |each: u64| u32::try_from(sent / each).unwrap_or(u32::MAX);
        let answers = for_bytes(BYTES_PER_ANSWER).saturating_add(2 * counts.opened);
        let over = |n: u32, most: u32, why| (n > most).then_some(Violation::Flood(why));
        // Who cancels less than half of what it asks for has a reason to cancel.
        let resets = if self.is_client && counts.resets >= counts.opened / 2 {
            counts.resets
        } else {
            0
        };
        let all_resets = if self.is_client { counts.resets } else { 0 };
        over(resets, limits.resets, "streams that are opened and reset")
            .or_else(|| over(all_resets, limits.all_resets, "streams that are reset"))
            .or_else(|| over(counts.settings, limits.settings, "SETTINGS frames"))
            .or_else(|| over(counts.empty, limits.empty_frames, "empty DATA frames"))
            .or_else(|| {
                over(
                    counts.pings,
                    limits.pings.saturating_add(answers),
                    "PING frames",
                )
            })
            .or_else(|| {
                // A client has one such block for each stream, its trailers; the engine refuses a second.
                let more = for_bytes(BYTES_PER_BLOCK).saturating_add(counts.opened);
                let most = limits.window_updates.saturating_add(more);
                over(counts.blocks, most, "header blocks")
            })
            .or_else(|| {
                let most = limits.window_updates.saturating_add(answers);
                over(counts.updates, most, "WINDOW_UPDATE and PRIORITY frames")
            })
    }
}

#[cfg(test)]
mod tests;
