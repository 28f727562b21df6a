//! Records of TLS 1.3 after the handshake (RFC 8446 §5), decrypted and encrypted where they are: rustls makes the keys
//! and keeps the session's tickets, this turns bytes into records. Nothing here negotiates, and nothing waits.

use super::{End, Rest, Side};
use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce};
use aws_lc_rs::aead::{Algorithm, UnboundKey};
use rustls::client::ClientConnectionData;
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use rustls::{
    AlertDescription, ConnectionTrafficSecrets, ContentType, Error, InvalidMessage, PeerMisbehaved,
};
use std::io::{IoSlice, IoSliceMut};

/// A record's head: type, version, length.
const HEAD: usize = 5;
const TAG: usize = 16;
/// Most plaintext of one record (RFC 8446 §5.1).
pub(super) const PLAIN: usize = 1 << 14;
/// A record with as much plaintext as it may have, without padding.
pub(super) const FULL: usize = HEAD + PLAIN + 1 + TAG;
/// Records that are filled and sent at once.
const SLOTS: usize = 8;
/// Most bytes behind a head (RFC 8446 §5.2).
const LARGEST: usize = PLAIN + 256;
/// Records after which we take new keys: far below what AES-GCM allows (RFC 8446 §5.5: 2^24.5).
const REKEY: u64 = if cfg!(test) { 8 } else { 1 << 23 };
/// Largest message of TLS itself that may come after the handshake.
const MESSAGE: usize = 64 * 1024;
/// Changes of keys that a peer may ask for in a row without sending anything.
const UPDATES: u8 = 32;

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const DATA: u8 = 23;
const TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;
const CLOSE_NOTIFY: u8 = 0;
const USER_CANCELED: u8 = 90;
const FATAL: u8 = 2;
const WARNING: u8 = 1;

/// The records of one connection.
pub(super) struct Records {
    sealing: Half,
    opening: Half,
    secrets: Secrets,
    /// A message of TLS itself that is not whole.
    message: Vec<u8>,
    /// Changes of keys in a row that the peer asked for.
    updates: u8,
    /// It waits for new keys of ours; one change answers all that it asked for until we send (RFC 8446 §4.6.3).
    owes_keys: bool,
}

/// What rustls keeps.
enum Secrets {
    Client(Box<KernelConnection<ClientConnectionData>>),
    Server(Box<KernelConnection<ServerConnectionData>>),
}

/// One direction.
struct Half {
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
}

impl Half {
    fn new((sequence, secrets): (u64, ConnectionTrafficSecrets)) -> Result<Self, Error> {
        let (algorithm, key, iv): (&'static Algorithm, _, _) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return Err(Error::General("a cipher that records do not know".into())),
        };
        let bad = |_| Error::General("a key of another length than its cipher's".into());
        let key = UnboundKey::new(algorithm, key.as_ref()).map_err(bad)?;
        let mut nonce = [0; 12];
        nonce.copy_from_slice(iv.as_ref());
        Ok(Self {
            key: LessSafeKey::new(key),
            iv: nonce,
            sequence,
        })
    }

    /// RFC 8446 §5.3: the sequence number in the last eight bytes. None is used twice.
    fn nonce(&mut self) -> Result<Nonce, Error> {
        let mut nonce = self.iv;
        for (byte, number) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= number;
        }
        self.sequence = self.sequence.checked_add(1).ok_or(Error::EncryptError)?;
        Ok(Nonce::assume_unique_for_key(nonce))
    }
}

/// What a record was.
enum Opened<'a> {
    Data(&'a [u8]),
    /// A message of TLS itself, or nothing.
    Other,
    End,
}

impl Records {
    /// Takes over from an engine of TLS 1.3 whose handshake is done and which has nothing to send.
    ///
    /// # Errors
    /// Its configuration keeps the keys to itself.
    pub(super) fn take_over(side: Side) -> Result<Self, Error> {
        let (secrets, kept) = match side {
            Side::Client(conn) => {
                let (secrets, kept) = conn.dangerous_into_kernel_connection()?;
                (secrets, Secrets::Client(Box::new(kept)))
            }
            Side::Server(conn) => {
                let (secrets, kept) = conn.dangerous_into_kernel_connection()?;
                (secrets, Secrets::Server(Box::new(kept)))
            }
        };
        Ok(Self {
            sealing: Half::new(secrets.tx)?,
            opening: Half::new(secrets.rx)?,
            secrets: kept,
            message: Vec::new(),
            updates: 0,
            owes_keys: false,
        })
    }

    /// Decrypts every whole record of `bytes` and gives its plaintext to `deliver`; says how many bytes are done with, and
    /// whether the peer has said its last word. What is to be answered goes to `outgoing`.
    ///
    /// # Errors
    /// The peer broke the protocol; the alert that tells it so is in `outgoing`.
    pub(super) fn open(
        &mut self,
        bytes: &mut [u8],
        deliver: &mut dyn FnMut(&[u8]),
        outgoing: &mut Rest,
    ) -> Result<(usize, Option<End>), Error> {
        let mut used = 0;
        while let Some(length) = whole(&bytes[used..]) {
            let done = length.and_then(|length| {
                let record = &mut bytes[used..used + length];
                used += length;
                match self.open_one(record)? {
                    Opened::Data(plain) => deliver(plain),
                    Opened::Other => {}
                    Opened::End => return Ok(true),
                }
                Ok(false)
            });
            match done {
                Ok(false) => {}
                Ok(true) => return Ok((used, Some(End::Said))),
                Err(error) => {
                    self.accuse(&error, outgoing);
                    return Err(error);
                }
            }
        }
        Ok((used, None))
    }

    /// As [`Records::open`], with plaintext put to the beginning of `into` for as long as whole records find room there, and
    /// into `plain` behind that. Says how many bytes of `bytes` are done with, how many of `into` are filled, and how it
    /// ended, if it did: what came before an end counts, a bad one as well.
    pub(super) fn open_into(
        &mut self,
        bytes: &mut [u8],
        into: &mut [u8],
        plain: &mut Rest,
        outgoing: &mut Rest,
    ) -> (usize, usize, Option<End>) {
        let (mut used, mut filled) = (0, 0);
        while let Some(Ok(length)) = whole(&bytes[used..]) {
            let room = &mut into[filled..];
            let body = length - HEAD;
            if !plain.is_empty() || body < TAG || room.len() < body - TAG {
                break;
            }
            let (head, body) = bytes[used..used + length].split_at(HEAD);
            let (body, tag) = body.split_at(body.len() - TAG);
            let room = &mut room[..body.len()];
            let done = self.open_apart((head, body, tag), room);
            used += length;
            match done {
                Ok(Opened::Data(data)) => filled += data.len(),
                Ok(Opened::Other) => {}
                Ok(Opened::End) => return (used, filled, Some(End::Said)),
                Err(error) => {
                    self.accuse(&error, outgoing);
                    return (used, filled, Some(End::Broken(error)));
                }
            }
        }
        let mut deliver = |bytes: &[u8]| plain.push(bytes);
        match self.open(&mut bytes[used..], &mut deliver, outgoing) {
            Ok((more, end)) => (used + more, filled, end),
            Err(error) => (bytes.len(), filled, Some(End::Broken(error))),
        }
    }

    /// Decrypts a record (head, body, tag) to somewhere else.
    fn open_apart<'b>(
        &mut self,
        (head, body, tag): (&[u8], &[u8], &[u8]),
        into: &'b mut [u8],
    ) -> Result<Opened<'b>, Error> {
        let nonce = self.opening.nonce()?;
        let key = &self.opening.key;
        key.open_separate_gather(nonce, Aad::from(head), body, tag, into)
            .map_err(|_| Error::DecryptError)?;
        self.meaning(into)
    }

    fn open_one<'b>(&mut self, record: &'b mut [u8]) -> Result<Opened<'b>, Error> {
        let (head, body) = record.split_at_mut(HEAD);
        let nonce = self.opening.nonce()?;
        let key = &self.opening.key;
        let opened = key.open_in_place(nonce, Aad::from(&*head), body);
        self.meaning(opened.map_err(|_| Error::DecryptError)?)
    }

    fn meaning<'b>(&mut self, plain: &'b [u8]) -> Result<Opened<'b>, Error> {
        // Padding is zeros behind the type.
        let end = plain.iter().rposition(|byte| *byte != 0);
        let end = end.ok_or(PeerMisbehaved::IllegalTlsInnerPlaintext)?;
        let (kind, plain) = (plain[end], &plain[..end]);
        if plain.len() > PLAIN {
            return Err(Error::PeerSentOversizedRecord);
        }
        if kind != HANDSHAKE && !self.message.is_empty() {
            return Err(PeerMisbehaved::MessageInterleavedWithHandshakeMessage.into());
        }
        match kind {
            DATA => {
                self.updates = 0;
                Ok(Opened::Data(plain))
            }
            ALERT => alert(plain),
            // There are no empty parts of such messages (RFC 8446 §5.1).
            HANDSHAKE if plain.is_empty() => Err(unexpected(kind)),
            HANDSHAKE => {
                self.message.extend_from_slice(plain);
                self.messages()?;
                Ok(Opened::Other)
            }
            _ => Err(unexpected(kind)),
        }
    }

    /// Follows what TLS itself says after the handshake (RFC 8446 §4.6).
    fn messages(&mut self) -> Result<(), Error> {
        while let [kind, a, b, c, rest @ ..] = &self.message[..] {
            let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
            if length > MESSAGE {
                return Err(unexpected(HANDSHAKE));
            }
            let Some(body) = rest.get(..length) else {
                break;
            };
            match (*kind, &mut self.secrets) {
                (TICKET, Secrets::Client(kept)) => kept.handle_new_session_ticket(body)?,
                (KEY_UPDATE, _) => {
                    let asked = match body {
                        [0] => false,
                        [1] => true,
                        _ => return Err(InvalidMessage::InvalidKeyUpdate.into()),
                    };
                    // New keys begin with a record (RFC 8446 §5.1).
                    if rest.len() > length {
                        return Err(PeerMisbehaved::KeyEpochWithPendingFragment.into());
                    }
                    self.message.clear();
                    return self.updated(asked);
                }
                _ => return Err(unexpected(HANDSHAKE)),
            }
            self.message.drain(..4 + length);
        }
        if self.message.is_empty() {
            self.message = Vec::new();
        }
        Ok(())
    }

    /// The peer has new keys; `asked`: it wants us to have some as well.
    fn updated(&mut self, asked: bool) -> Result<(), Error> {
        self.updates += 1;
        if self.updates > UPDATES {
            return Err(PeerMisbehaved::TooManyKeyUpdateRequests.into());
        }
        self.opening = Half::new(match &mut self.secrets {
            Secrets::Client(kept) => kept.update_rx_secret(),
            Secrets::Server(kept) => kept.update_rx_secret(),
        }?)?;
        self.owes_keys |= asked;
        Ok(())
    }

    /// Tells the peer that our next record has new keys, and takes them.
    fn renew(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        self.record(HANDSHAKE, &[&[KEY_UPDATE, 0, 0, 1, 0]], out)?;
        self.sealing = Half::new(match &mut self.secrets {
            Secrets::Client(kept) => kept.update_tx_secret(),
            Secrets::Server(kept) => kept.update_tx_secret(),
        }?)?;
        Ok(())
    }

    /// Appends at most `most` bytes of `bufs` to `out` as records; says how many bytes those were.
    ///
    /// # Errors
    /// No key is left to encrypt with.
    pub(super) fn seal(
        &mut self,
        bufs: &[IoSlice<'_>],
        most: usize,
        out: &mut Vec<u8>,
    ) -> Result<usize, Error> {
        let mut parts: [&[u8]; 4] = [&[]; 4];
        let (mut sealed, mut held, mut count) = (0, 0, 0);
        for buf in bufs {
            let mut rest = &buf[..buf.len().min(most - sealed - held)];
            while !rest.is_empty() {
                let (now, later) = rest.split_at(rest.len().min(PLAIN - held));
                (parts[count], rest) = (now, later);
                (held, count) = (held + now.len(), count + 1);
                if held == PLAIN || count == parts.len() {
                    self.data(&parts[..count], out)?;
                    (sealed, held, count) = (sealed + held, 0, 0);
                }
            }
        }
        if held > 0 {
            self.data(&parts[..count], out)?;
        }
        Ok(sealed + held)
    }

    fn data(&mut self, parts: &[&[u8]], out: &mut Vec<u8>) -> Result<(), Error> {
        self.refresh(out)?;
        self.record(DATA, parts, out)
    }

    /// Takes new keys where they are due, and tells so in `out`.
    pub(super) fn refresh(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        if self.owes_keys || self.sealing.sequence >= REKEY {
            self.renew(out)?;
            self.owes_keys = false;
        }
        Ok(())
    }

    /// Encrypts `length` bytes of plaintext where they are, in the rooms of `slots` ([`rooms`]) from the first on. Says how
    /// many bytes of `slots` are records now.
    ///
    /// # Errors
    /// As [`Records::seal`].
    pub(super) fn seal_slots(&mut self, slots: &mut [u8], length: usize) -> Result<usize, Error> {
        let (mut left, mut end) = (length, 0);
        for slot in slots.chunks_exact_mut(FULL) {
            if left == 0 {
                break;
            }
            let plain = left.min(PLAIN);
            let (head, rest) = slot.split_at_mut(HEAD);
            let (inner, tag) = rest.split_at_mut(plain + 1);
            head.copy_from_slice(&header(plain + 1 + TAG));
            inner[plain] = DATA;
            let nonce = self.sealing.nonce()?;
            let key = &self.sealing.key;
            let made = key.seal_in_place_separate_tag(nonce, Aad::from(&*head), inner);
            tag[..TAG].copy_from_slice(made.map_err(|_| Error::EncryptError)?.as_ref());
            (left, end) = (left - plain, end + HEAD + plain + 1 + TAG);
        }
        Ok(end)
    }

    /// Appends the orderly end.
    ///
    /// # Errors
    /// As [`Records::seal`].
    pub(super) fn close(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        self.record(ALERT, &[&[WARNING, CLOSE_NOTIFY]], out)
    }

    fn record(&mut self, kind: u8, parts: &[&[u8]], out: &mut Vec<u8>) -> Result<(), Error> {
        let length = parts.iter().map(|part| part.len()).sum::<usize>() + 1 + TAG;
        let head = header(length);
        out.extend_from_slice(&head);
        let start = out.len();
        for part in parts {
            out.extend_from_slice(part);
        }
        out.push(kind);
        let nonce = self.sealing.nonce()?;
        let key = &self.sealing.key;
        let tag = key.seal_in_place_separate_tag(nonce, Aad::from(head), &mut out[start..]);
        out.extend_from_slice(tag.map_err(|_| Error::EncryptError)?.as_ref());
        Ok(())
    }

    /// Tells the peer why the connection ends (RFC 8446 §6.2).
    fn accuse(&mut self, error: &Error, outgoing: &mut Rest) {
        let description = match error {
            Error::DecryptError => AlertDescription::BadRecordMac,
            Error::PeerSentOversizedRecord => AlertDescription::RecordOverflow,
            Error::AlertReceived(_) => return,
            Error::InvalidMessage(_) => AlertDescription::DecodeError,
            _ => AlertDescription::UnexpectedMessage,
        };
        // There is no other way to tell it.
        let _ = self.record(ALERT, &[&[FATAL, description.into()]], &mut outgoing.bytes);
    }
}

/// The head of a record that has `length` bytes behind it: at most PLAIN and what belongs to it.
fn header(length: usize) -> [u8; HEAD] {
    let [high, low] = (length as u16).to_be_bytes();
    [DATA, 3, 3, high, low]
}

/// Memory for records that are filled before they are encrypted.
pub(super) fn slots() -> Vec<u8> {
    vec![0; SLOTS * FULL]
}

/// Where plaintext goes in [`slots`].
pub(super) fn rooms(slots: &mut [u8]) -> [IoSliceMut<'_>; SLOTS] {
    let mut each = slots.chunks_exact_mut(FULL);
    std::array::from_fn(|_| {
        let slot = each.next().unwrap_or_default();
        IoSliceMut::new(slot.get_mut(HEAD..HEAD + PLAIN).unwrap_or_default())
    })
}

/// Whether this is at most a part of one record, none of which has been looked at.
pub(super) fn is_part(bytes: &[u8]) -> bool {
    whole(bytes).is_none()
}

/// The length of the first record, head included; absent: it is not whole.
fn whole(bytes: &[u8]) -> Option<Result<usize, Error>> {
    let [kind, _, _, high, low, rest @ ..] = bytes else {
        return None;
    };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    if *kind != DATA {
        return Some(Err(unexpected(*kind)));
    }
    if length > LARGEST {
        return Some(Err(Error::PeerSentOversizedRecord));
    }
    (rest.len() >= length).then_some(Ok(HEAD + length))
}

fn alert<'a>(plain: &[u8]) -> Result<Opened<'a>, Error> {
    match plain {
        [_, CLOSE_NOTIFY] => Ok(Opened::End),
        // The peer says that it will end; the end itself follows.
        [_, USER_CANCELED] => Ok(Opened::Other),
        [_, description] => Err(Error::AlertReceived((*description).into())),
        _ => Err(unexpected(ALERT)),
    }
}

fn unexpected(kind: u8) -> Error {
    Error::InappropriateMessage {
        expect_types: vec![ContentType::ApplicationData],
        got_type: kind.into(),
    }
}

impl std::fmt::Debug for Records {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Records").finish_non_exhaustive()
    }
}
