//! One step of rustls's engine: during the handshake, and for the records of TLS 1.2.

use super::Rest;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus,
};

/// What one step of the TLS engine came to.
pub(super) enum Step {
    /// There may be more to do.
    Again,
    /// More bytes are needed.
    Idle,
    /// The peer has said its last word.
    Ended,
}

/// What a step may do besides reading records.
pub(super) enum Act<'a> {
    Read,
    /// Turns these bytes into records.
    Encrypt(&'a [u8], &'a mut [u8]),
    Close(&'a mut [u8]),
}

/// Does what the engine wants next, or `act` where it is idle. Says how many bytes it is done with, and what came of it.
pub(super) fn handle<D>(
    status: UnbufferedStatus<'_, '_, D>,
    deliver: &mut dyn FnMut(&[u8]),
    outgoing: &mut Rest,
    act: Act<'_>,
) -> (usize, Result<(Step, usize), rustls::Error>) {
    let mut discard = status.discard;
    let state = match status.state {
        Ok(state) => state,
        Err(error) => return (discard, Err(error)),
    };
    let step = match state {
        ConnectionState::ReadTraffic(mut traffic) => loop {
            match traffic.next_record() {
                Some(Ok(record)) => {
                    discard += record.discard;
                    deliver(record.payload);
                }
                Some(Err(error)) => break Err(error),
                None => break Ok((Step::Again, 0)),
            }
        },
        ConnectionState::EncodeTlsData(mut message) => {
            // The engine says the size before it encodes.
            let at = outgoing.bytes.len();
            if let Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) =
                message.encode(&mut [])
            {
                outgoing.bytes.resize(at + required_size, 0);
                let _ = message.encode(&mut outgoing.bytes[at..]);
            }
            Ok((Step::Again, 0))
        }
        ConnectionState::TransmitTlsData(sent) => {
            // `outgoing` keeps the order and is sent before anything else.
            sent.done();
            Ok((Step::Again, 0))
        }
        ConnectionState::PeerClosed => Ok((Step::Ended, 0)),
        ConnectionState::WriteTraffic(mut traffic) => {
            let made = match act {
                Act::Read => Ok(0),
                Act::Encrypt(plain, records) => traffic.encrypt(plain, records),
                Act::Close(records) => traffic.queue_close_notify(records),
            };
            match made {
                Ok(made) => Ok((Step::Idle, made)),
                Err(EncryptError::EncryptExhausted) => Err(rustls::Error::EncryptError),
                Err(EncryptError::InsufficientSize(_)) => Err(rustls::Error::General(
                    "a record larger than its bound".to_owned(),
                )),
            }
        }
        // Early data is never accepted; both ends have closed; more bytes are needed.
        _ => Ok((Step::Idle, 0)),
    };
    (discard, step)
}
