//! One TLS connection over a socket that somebody else owns: records in, plaintext out, and the other way round.
//!
//! Nothing is buffered while a connection idles: records are read, decrypted and encrypted in buffers that a worker has
//! once, and only what is left of a record, of plaintext or of ciphertext is kept with the connection.
//! No clock, no waiting: whoever calls reads [`io::ErrorKind::WouldBlock`] and waits for the socket.

mod records;
mod step;

use records::Records;
use rustls::ProtocolVersion;
use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use std::cell::RefCell;
use std::io::{self, IoSlice, IoSliceMut};
use std::ops::Deref;
use step::{Act, Step, handle};

/// Largest piece that is read from the socket at once: eight full records, so that a peer that sends much leaves no part of
/// one behind.
const READ: usize = 8 * records::FULL;
/// Most bytes of records that are not whole: what a handshake message may have, and the record that it ends in.
const PARTIAL: usize = 96 * 1024;
/// Most plaintext that becomes records at once.
const WRITE: usize = 128 * 1024;
/// What records add to [`WRITE`] bytes of plaintext, rounded up; messages of TLS itself are small.
const OVERHEAD: usize = 4 * 1024;

thread_local! {
    static INCOMING: RefCell<Vec<u8>> = RefCell::new(vec![0; PARTIAL + READ]);
    static OUTGOING: RefCell<Vec<u8>> = RefCell::new(vec![0; WRITE + OVERHEAD]);
    static SLOTS: RefCell<Vec<u8>> = RefCell::new(records::slots());
    static SEALED: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(WRITE + OVERHEAD));
    static GATHERED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Which end of the connection we are.
pub(crate) enum Side {
    /// We called.
    Client(UnbufferedClientConnection),
    /// We were called.
    Server(UnbufferedServerConnection),
}

impl std::fmt::Debug for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Client(_) => "Client",
            Self::Server(_) => "Server",
        })
    }
}

/// A TLS connection without its socket.
#[derive(Debug)]
pub(crate) struct Session {
    engine: Engine,
    /// Ciphertext of a record that is not whole yet.
    incoming: Vec<u8>,
    plain: Rest,
    outgoing: Rest,
    end: Option<End>,
}

/// What turns bytes into plaintext and back.
#[derive(Debug)]
enum Engine {
    /// rustls, which negotiates and, for TLS 1.2, goes on with the records.
    Whole(Box<Side>),
    /// Keys alone: TLS 1.3 after its handshake.
    Records(Box<Records>),
    /// None: taking over failed.
    Gone,
}

/// Why no more plaintext will come.
#[derive(Debug)]
enum End {
    /// The peer said so.
    Said,
    /// The socket ended without a word: an attacker may have cut it (RFC 8446 §6.1).
    Cut,
    /// The peer broke the protocol, or told us that we did.
    Broken(rustls::Error),
}

/// Bytes that nobody has taken yet.
#[derive(Debug, Default)]
struct Rest {
    bytes: Vec<u8>,
    taken: usize,
}

/// Takes as many of the bytes as it wants and says how many.
pub(crate) type Sink<'a> = &'a mut dyn FnMut(&[u8]) -> usize;
/// Reads from the socket as `recv(2)` does.
pub(crate) type Recv<'a> = &'a mut dyn FnMut(&mut [u8]) -> io::Result<usize>;
/// Reads plaintext into these places, one after the other, as `readv(2)` does.
pub(crate) type Fill<'a> = &'a mut dyn FnMut(&mut [IoSliceMut<'_>]) -> io::Result<usize>;
/// Writes to the socket as `send(2)` does.
pub(crate) type Send<'a> = &'a mut dyn FnMut(&[u8]) -> io::Result<usize>;

impl Rest {
    fn rest(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }

    fn is_empty(&self) -> bool {
        self.taken == self.bytes.len()
    }

    /// Drops the first `n` bytes; the memory goes with the last.
    fn take(&mut self, n: usize) {
        self.taken += n;
        if self.is_empty() {
            *self = Self::default();
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }
}

impl Session {
    /// A connection of `side`; `incoming` was already read from the socket.
    pub(crate) fn new(side: Side, incoming: Vec<u8>) -> Self {
        Self {
            engine: Engine::Whole(Box::new(side)),
            incoming,
            plain: Rest::default(),
            outgoing: Rest::default(),
            end: None,
        }
    }

    /// What both sides agreed on; absent after [`Session::settle`].
    pub(crate) fn common(&self) -> Option<&rustls::CommonState> {
        let Engine::Whole(side) = &self.engine else {
            return None;
        };
        Some(match &**side {
            Side::Client(conn) => conn.deref().deref(),
            Side::Server(conn) => conn.deref().deref(),
        })
    }

    /// The handshake is done: from here on records of TLS 1.3 are decrypted and encrypted in place, which saves copying
    /// each byte twice in either direction. `may`: the configuration lets its keys out (`enable_secret_extraction`).
    pub(crate) fn settle(&mut self, may: bool) {
        let common = self.common();
        let is_13 = common.and_then(|common| common.protocol_version());
        // rustls leaves a message of its own that is cut in two among the bytes, decrypted already.
        let is_clear = records::is_part(&self.incoming) && self.end.is_none();
        if !may || !is_clear || is_13 != Some(ProtocolVersion::TLSv1_3) {
            return;
        }
        let Engine::Whole(side) = std::mem::replace(&mut self.engine, Engine::Gone) else {
            return;
        };
        match Records::take_over(*side) {
            Ok(records) => self.engine = Engine::Records(Box::new(records)),
            Err(error) => self.end = Some(End::Broken(error)),
        }
    }

    /// Ciphertext that is read but not understood yet.
    pub(crate) fn incoming(&self) -> &[u8] {
        &self.incoming
    }

    /// Whether plaintext can be read at once.
    pub(crate) fn has_plain(&self) -> bool {
        !self.plain.is_empty()
    }

    /// Whether no more plaintext will come after what [`Session::has_plain`] tells of.
    pub(crate) fn has_ended(&self) -> bool {
        self.end.is_some()
    }

    /// Whether ciphertext waits for the socket.
    pub(crate) fn has_unsent(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Why TLS failed, if it did.
    pub(crate) fn failure(&self) -> Option<&rustls::Error> {
        match &self.end {
            Some(End::Broken(error)) => Some(error),
            _ => None,
        }
    }

    /// Reads plaintext into `sink`; 0 is an orderly end.
    pub(crate) fn read(&mut self, sink: Sink<'_>, recv: Recv<'_>) -> io::Result<usize> {
        loop {
            if let Some(n) = self.at_hand(sink)? {
                return Ok(n);
            }
            let n = self.pull(sink, recv)?;
            if n > 0 {
                return Ok(n);
            }
        }
    }

    /// As [`Session::read`], to the beginning of `into`; saves a copy where that is larger than a record.
    pub(crate) fn read_into(&mut self, into: &mut [u8], recv: Recv<'_>) -> io::Result<usize> {
        loop {
            let mut at = 0;
            let mut sink = |bytes: &[u8]| {
                let n = bytes.len().min(into.len() - at);
                into[at..at + n].copy_from_slice(&bytes[..n]);
                at += n;
                n
            };
            if let Some(n) = self.at_hand(&mut sink)? {
                return Ok(n);
            }
            if matches!(self.engine, Engine::Whole(_)) {
                return self.read(&mut sink, recv);
            }
            let n = self.pull_with(recv, |session, bytes| session.open_into(bytes, into))?;
            if n > 0 {
                return Ok(n);
            }
        }
    }

    /// What can be told without reading: plaintext, or the end.
    fn at_hand(&mut self, sink: Sink<'_>) -> io::Result<Option<usize>> {
        if !self.plain.is_empty() {
            let n = sink(self.plain.rest());
            self.plain.take(n);
            return Ok(Some(n));
        }
        match &self.end {
            None => Ok(None),
            Some(End::Said) => Ok(Some(0)),
            Some(End::Cut) => {
                let text = "the peer closed the connection without ending TLS";
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, text))
            }
            Some(End::Broken(error)) => {
                Err(io::Error::new(io::ErrorKind::InvalidData, error.clone()))
            }
        }
    }

    fn open_into(&mut self, bytes: &mut [u8], into: &mut [u8]) -> (usize, usize) {
        let Engine::Records(records) = &mut self.engine else {
            return (0, 0);
        };
        let (used, filled, end) =
            records.open_into(bytes, into, &mut self.plain, &mut self.outgoing);
        self.end = self.end.take().or(end);
        (used, filled)
    }

    /// Reads from the socket once and decrypts into `sink`, keeping what it does not take. Says how much it took, which
    /// is 0 when only TLS's own messages came, or parts of one.
    pub(crate) fn pull(&mut self, sink: Sink<'_>, recv: Recv<'_>) -> io::Result<usize> {
        self.pull_with(recv, |session, bytes| {
            let mut taken = 0;
            let used = session.run(bytes, &mut |bytes| {
                let n = sink(bytes);
                taken += n;
                n
            });
            (used, taken)
        })
    }

    // Reads once; `open` says how much of that it has used, and how much plaintext was taken.
    fn pull_with(
        &mut self,
        recv: Recv<'_>,
        open: impl FnOnce(&mut Self, &mut [u8]) -> (usize, usize),
    ) -> io::Result<usize> {
        INCOMING.with_borrow_mut(|scratch| {
            let held = self.incoming.len();
            if held > PARTIAL {
                return Err(io::Error::other("a TLS record that does not end"));
            }
            scratch[..held].copy_from_slice(&self.incoming);
            let end = READ.max(held + records::FULL);
            let got = match recv(&mut scratch[held..end])? {
                0 => {
                    self.end.get_or_insert(End::Cut);
                    return Ok(0);
                }
                got => got,
            };
            self.incoming = Vec::new();
            let (used, taken) = open(self, &mut scratch[..held + got]);
            if self.end.is_none() {
                self.incoming = scratch[used..held + got].to_vec();
            }
            Ok(taken)
        })
    }

    /// Lets the engine say and do what it can without reading from the socket.
    pub(crate) fn advance(&mut self) {
        if self.failure().is_some() {
            return;
        }
        let mut bytes = std::mem::take(&mut self.incoming);
        let used = self.run(&mut bytes, &mut |_| 0);
        bytes.drain(..used);
        self.incoming = bytes;
    }

    // Steps until more bytes are needed; says how many of `bytes` are done with.
    fn run(&mut self, bytes: &mut [u8], sink: Sink<'_>) -> usize {
        if let Engine::Records(records) = &mut self.engine {
            let plain = &mut self.plain;
            let mut deliver = |bytes: &[u8]| {
                let n = if plain.is_empty() { sink(bytes) } else { 0 };
                plain.push(&bytes[n..]);
            };
            let opened = records.open(bytes, &mut deliver, &mut self.outgoing);
            return match opened {
                Ok((used, end)) => {
                    self.end = self.end.take().or(end);
                    used
                }
                Err(error) => {
                    self.end = Some(End::Broken(error));
                    bytes.len()
                }
            };
        }
        let mut used = 0;
        loop {
            let (done, step) = self.step(&mut bytes[used..], sink, Act::Read);
            used += done;
            match step {
                Ok((Step::Again, _)) => {}
                Ok((Step::Ended, _)) => {
                    self.end.get_or_insert(End::Said);
                }
                Ok((Step::Idle, _)) => return used,
                Err(error) => {
                    self.end = Some(End::Broken(error));
                    break;
                }
            }
        }
        // The engine may have an alert that tells the peer why. It must see no more input.
        while self.common().is_some_and(|common| common.wants_write()) {
            let _ = self.step(&mut [], sink, Act::Read);
        }
        bytes.len()
    }

    fn step(
        &mut self,
        bytes: &mut [u8],
        sink: Sink<'_>,
        act: Act<'_>,
    ) -> (usize, Result<(Step, usize), rustls::Error>) {
        let (plain, outgoing) = (&mut self.plain, &mut self.outgoing);
        let mut deliver = |bytes: &[u8]| {
            // What was not taken before comes first.
            let n = if plain.is_empty() { sink(bytes) } else { 0 };
            plain.push(&bytes[n..]);
        };
        let Engine::Whole(side) = &mut self.engine else {
            return (0, Ok((Step::Idle, 0)));
        };
        match &mut **side {
            Side::Client(conn) => {
                handle(conn.process_tls_records(bytes), &mut deliver, outgoing, act)
            }
            Side::Server(conn) => {
                handle(conn.process_tls_records(bytes), &mut deliver, outgoing, act)
            }
        }
    }

    /// Encrypts some of `bufs` and gives it to the socket; says how many bytes of plaintext are taken care of.
    pub(crate) fn write(&mut self, bufs: &[IoSlice<'_>], send: Send<'_>) -> io::Result<usize> {
        // Takes no more before the last is gone: the socket's pace is the writer's.
        self.flush(send)?;
        if matches!(self.engine, Engine::Records(_)) {
            return self.seal(send, |records, out| records.seal(bufs, WRITE, out));
        }
        let mut filled = bufs.iter().filter(|buf| !buf.is_empty());
        match (filled.next(), filled.next()) {
            (None, _) => Ok(0),
            (Some(one), None) => self.write_one(one, send),
            _ => GATHERED.with_borrow_mut(|all| {
                all.clear();
                for buf in bufs {
                    all.extend_from_slice(&buf[..buf.len().min(WRITE - all.len())]);
                }
                self.write_one(all, send)
            }),
        }
    }

    fn write_one(&mut self, plain: &[u8], send: Send<'_>) -> io::Result<usize> {
        let plain = &plain[..plain.len().min(WRITE)];
        OUTGOING.with_borrow_mut(|records| {
            let made = self.act(|records| Act::Encrypt(plain, records), records)?;
            self.emit(&records[..made], send)?;
            Ok(plain.len())
        })
    }

    fn seal<T>(
        &mut self,
        send: Send<'_>,
        write: impl FnOnce(&mut Records, &mut Vec<u8>) -> Result<T, rustls::Error>,
    ) -> io::Result<T> {
        let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        if let Some(error) = self.failure() {
            return Err(invalid(error.clone()));
        }
        SEALED.with_borrow_mut(|sealed| {
            sealed.clear();
            let Engine::Records(records) = &mut self.engine else {
                return Err(io::ErrorKind::NotConnected.into());
            };
            let done = write(records, sealed).map_err(invalid)?;
            self.emit(sealed, send)?;
            Ok(done)
        })
    }

    /// Has plaintext read to where it is encrypted, and gives it to the socket; says how much that was (0: `fill` has come to
    /// an end). Absent, and nothing was read: this session's records are not made here, or bytes of before wait for the socket.
    pub(crate) fn pass(&mut self, fill: Fill<'_>, send: Send<'_>) -> io::Result<Option<usize>> {
        if !self.try_flush(send)? || self.failure().is_some() {
            return Ok(None);
        }
        let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        SLOTS.with_borrow_mut(|slots| {
            let Engine::Records(records) = &mut self.engine else {
                return Ok(None);
            };
            let got = fill(&mut records::rooms(slots))?;
            if got == 0 {
                return Ok(Some(0));
            }
            let mut news = Vec::new();
            records.refresh(&mut news).map_err(invalid)?;
            let end = records.seal_slots(slots, got).map_err(invalid)?;
            self.emit(&news, send)?;
            self.emit(&slots[..end], send)?;
            Ok(Some(got))
        })
    }

    /// Ends our half: the peer reads an orderly end after everything that was written.
    pub(crate) fn close(&mut self, send: Send<'_>) -> io::Result<()> {
        if matches!(self.engine, Engine::Records(_)) {
            return self.seal(send, Records::close);
        }
        OUTGOING.with_borrow_mut(|records| {
            let made = self.act(Act::Close, records)?;
            self.emit(&records[..made], send)
        })
    }

    // Runs the engine until it is idle and lets it act there.
    fn act<'b>(
        &mut self,
        act: impl Fn(&'b mut [u8]) -> Act<'b>,
        records: &'b mut [u8],
    ) -> io::Result<usize> {
        self.advance();
        if let Some(error) = self.failure() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, error.clone()));
        }
        let mut bytes = std::mem::take(&mut self.incoming);
        let (used, step) = self.step(&mut bytes, &mut |_| 0, act(records));
        bytes.drain(..used);
        self.incoming = bytes;
        match step {
            Ok((_, made)) => Ok(made),
            Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        }
    }

    // Sends what waits, then `records`; what the socket does not take waits.
    fn emit(&mut self, records: &[u8], send: Send<'_>) -> io::Result<()> {
        let mut sent = 0;
        if self.try_flush(send)? {
            while sent < records.len() {
                match send(&records[sent..]) {
                    Ok(n) => sent += n,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
        }
        self.outgoing.push(&records[sent..]);
        Ok(())
    }

    /// Gives the socket what waits for it.
    pub(crate) fn flush(&mut self, send: Send<'_>) -> io::Result<()> {
        if self.try_flush(send)? {
            Ok(())
        } else {
            Err(io::ErrorKind::WouldBlock.into())
        }
    }

    fn try_flush(&mut self, send: Send<'_>) -> io::Result<bool> {
        while !self.outgoing.is_empty() {
            match send(self.outgoing.rest()) {
                Ok(n) => self.outgoing.take(n),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}
