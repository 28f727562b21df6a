//! SPDY/3.1 frames (Chromium: SPDY Protocol, draft 3.1), as much as Kubernetes clients use. Sans IO: bytes in,
//! frames out, and back. Flow control is left out as Kubernetes' own peers leave it out: windows are ignored.

pub(super) mod session;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use std::sync::LazyLock;

/// Largest frame taken; clients send 32 KiB.
const MOST_FRAME: usize = 1024 * 1024;
/// Largest header block, decompressed. Ours have three short headers.
const MOST_HEADERS: usize = 64 * 1024;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const FIN: u8 = 1;

/// A frame that matters.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// SYN_STREAM: the peer opens a stream. Header names are in lower case.
    Open {
        stream: u32,
        headers: Vec<(String, String)>,
        finished: bool,
    },
    /// SYN_REPLY: the peer accepts a stream of ours.
    Reply { stream: u32 },
    /// Data; `finished` closes the peer's direction.
    Data {
        stream: u32,
        bytes: Bytes,
        finished: bool,
    },
    /// RST_STREAM
    Reset { stream: u32 },
    /// PING
    Ping { id: u32 },
    /// GOAWAY
    GoAway,
    /// Settings, windows and late headers.
    Other,
}

/// Why a peer's bytes make no sense; the connection is of no more use.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SpdyError {
    #[error("a SPDY frame of {0} bytes is longer than allowed")]
    TooLong(usize),
    #[error("a SPDY frame of type {0} is cut short")]
    Short(u16),
    #[error("a SPDY header block cannot be decompressed")]
    Headers,
    #[error("SPDY version {0} is not 3")]
    Version(u16),
}

/// Bytes to frames.
pub(super) struct Decoder {
    buffer: BytesMut,
    inflate: Decompress,
}

/// Frames with headers to bytes; the compression remembers earlier ones.
pub(super) struct Encoder {
    deflate: Compress,
}

// === impl Decoder ===

impl Default for Decoder {
    fn default() -> Self {
        Self {
            buffer: BytesMut::new(),
            inflate: Decompress::new(true),
        }
    }
}

impl Decoder {
    /// Takes bytes as they come.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, SpdyError> {
        let Some(head) = self.buffer.first_chunk::<8>().copied() else {
            return Ok(None);
        };
        let word = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        let length = u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize;
        if length > MOST_FRAME {
            return Err(SpdyError::TooLong(length));
        }
        if self.buffer.len() < 8 + length {
            return Ok(None);
        }
        self.buffer.advance(8);
        let body = self.buffer.split_to(length).freeze();
        let finished = head[4] & FIN != 0;
        if word >> 31 == 0 {
            return Ok(Some(Frame::Data {
                stream: word,
                bytes: body,
                finished,
            }));
        }
        let version = (word >> 16) as u16 & 0x7fff;
        if version != 3 {
            return Err(SpdyError::Version(version));
        }
        self.control(word as u16, finished, body).map(Some)
    }

    fn control(&mut self, kind: u16, finished: bool, mut body: Bytes) -> Result<Frame, SpdyError> {
        let fixed = match kind {
            SYN_STREAM => 10,
            SYN_REPLY | PING | HEADERS => 4,
            RST_STREAM => 8,
            _ => 0,
        };
        if body.len() < fixed {
            return Err(SpdyError::Short(kind));
        }
        if fixed == 0 {
            return Ok(if kind == GOAWAY {
                Frame::GoAway
            } else {
                Frame::Other
            });
        }
        let number = body.get_u32() & 0x7fff_ffff;
        Ok(match kind {
            SYN_STREAM => {
                // Associated stream, priority and slot.
                body.advance(6);
                Frame::Open {
                    stream: number,
                    headers: self.headers(&body)?,
                    finished,
                }
            }
            SYN_REPLY => {
                self.headers(&body)?;
                Frame::Reply { stream: number }
            }
            HEADERS => {
                // Not needed, but the compression goes on from it.
                self.headers(&body)?;
                Frame::Other
            }
            RST_STREAM => Frame::Reset { stream: number },
            _ => Frame::Ping { id: number },
        })
    }

    fn headers(&mut self, block: &[u8]) -> Result<Vec<(String, String)>, SpdyError> {
        let plain = self.inflate(block)?;
        let mut plain = plain.as_slice();
        let number = |plain: &mut &[u8]| plain.try_get_u32().map_err(|_| SpdyError::Headers);
        let text = |plain: &mut &[u8]| {
            let length = number(plain)? as usize;
            let (text, rest) = plain.split_at_checked(length).ok_or(SpdyError::Headers)?;
            *plain = rest;
            Ok(String::from_utf8_lossy(text).into_owned())
        };
        let count = plain.try_get_u32().map_err(|_| SpdyError::Headers)?;
        let mut headers = Vec::new();
        for _ in 0..count {
            let name = text(&mut plain)?.to_ascii_lowercase();
            headers.push((name, text(&mut plain)?));
        }
        Ok(headers)
    }

    fn inflate(&mut self, block: &[u8]) -> Result<Vec<u8>, SpdyError> {
        let mut plain = vec![0; MOST_HEADERS];
        let (read, written) = (self.inflate.total_in(), self.inflate.total_out());
        loop {
            let used = (self.inflate.total_in() - read) as usize;
            let made = (self.inflate.total_out() - written) as usize;
            if made == plain.len() {
                return Err(SpdyError::Headers);
            }
            match self
                .inflate
                .decompress(&block[used..], &mut plain[made..], FlushDecompress::Sync)
            {
                Ok(Status::Ok | Status::BufError) => {
                    let (used_now, made_now) = (
                        (self.inflate.total_in() - read) as usize,
                        (self.inflate.total_out() - written) as usize,
                    );
                    if used_now == block.len() || (used_now, made_now) == (used, made) {
                        plain.truncate(made_now);
                        return Ok(plain);
                    }
                }
                Err(error) if error.needs_dictionary().is_some() => {
                    self.inflate
                        .set_dictionary(&DICTIONARY)
                        .map_err(|_| SpdyError::Headers)?;
                }
                Ok(Status::StreamEnd) | Err(_) => return Err(SpdyError::Headers),
            }
        }
    }
}

// === impl Encoder ===

impl Encoder {
    /// An encoder for one connection.
    pub(super) fn new() -> Self {
        let mut deflate = Compress::new(Compression::fast(), true);
        // Fails on streams that have begun only; then peers could not read our (empty) headers.
        let _ = deflate.set_dictionary(&DICTIONARY);
        Self { deflate }
    }

    /// SYN_REPLY without headers.
    pub(super) fn reply(&mut self, stream: u32) -> Bytes {
        let block = self.block(&[]);
        let mut body = BytesMut::with_capacity(4 + block.len());
        body.put_u32(stream);
        body.extend_from_slice(&block);
        control(SYN_REPLY, 0, &body)
    }

    /// SYN_STREAM, as clients send it.
    #[cfg(test)]
    pub(super) fn open(&mut self, stream: u32, headers: &[(&str, &str)], finished: bool) -> Bytes {
        let block = self.block(headers);
        let mut body = BytesMut::new();
        body.put_u32(stream);
        body.put_u32(0);
        body.put_u16(0);
        body.extend_from_slice(&block);
        control(SYN_STREAM, u8::from(finished), &body)
    }

    fn block(&mut self, headers: &[(&str, &str)]) -> Vec<u8> {
        let mut plain = BytesMut::new();
        plain.put_u32(headers.len() as u32);
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            plain.put_u32(text.len() as u32);
            plain.extend_from_slice(text.as_bytes());
        }
        let mut block = Vec::with_capacity(plain.len() + 64);
        // Room for all of it is reserved, so that one call is enough.
        let _ = self
            .deflate
            .compress_vec(&plain, &mut block, FlushCompress::Sync);
        block
    }
}

/// A data frame.
pub(super) fn data(stream: u32, bytes: &[u8], finished: bool) -> Bytes {
    let mut frame = BytesMut::with_capacity(8 + bytes.len());
    frame.put_u32(stream & 0x7fff_ffff);
    frame.put_u8(u8::from(finished));
    frame.put_uint(bytes.len() as u64, 3);
    frame.extend_from_slice(bytes);
    frame.freeze()
}

/// PING, back to where it came from.
pub(super) fn ping(id: u32) -> Bytes {
    control(PING, 0, &id.to_be_bytes())
}

/// RST_STREAM: 3 refuses a stream, 5 cancels it.
pub(super) fn reset(stream: u32, status: u32) -> Bytes {
    let mut body = BytesMut::with_capacity(8);
    body.put_u32(stream);
    body.put_u32(status);
    control(RST_STREAM, 0, &body)
}

fn control(kind: u16, flags: u8, body: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(8 + body.len());
    frame.put_u16(0x8003);
    frame.put_u16(kind);
    frame.put_u8(flags);
    frame.put_uint(body.len() as u64, 3);
    frame.extend_from_slice(body);
    frame.freeze()
}

/// What both sides know before the first header (draft 3.1 §2.6.10.1): words with their lengths, then plain text.
static DICTIONARY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let words = "options head post put delete trace accept accept-charset accept-encoding accept-language \
        accept-ranges age allow authorization cache-control connection content-base content-encoding \
        content-language content-length content-location content-md5 content-range content-type date etag expect \
        expires from host if-match if-modified-since if-none-match if-range if-unmodified-since last-modified \
        location max-forwards pragma proxy-authenticate proxy-authorization range referer retry-after server te \
        trailer transfer-encoding upgrade user-agent vary via warning www-authenticate method get status";
    let more = [
        "200 OK",
        "version",
        "HTTP/1.1",
        "url",
        "public",
        "set-cookie",
        "keep-alive",
        "origin",
    ];
    let tail = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505\
        203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized\
        403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable\
        Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT\
        chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,\
        text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";
    let mut dictionary = Vec::with_capacity(1423);
    for word in words.split_ascii_whitespace().chain(more) {
        dictionary.put_u32(word.len() as u32);
        dictionary.extend_from_slice(word.as_bytes());
    }
    dictionary.extend_from_slice(tail.as_bytes());
    dictionary
});

#[cfg(test)]
mod tests;
