//! TLS on a connection, at either end. What is trusted and who we are comes in rustls's configurations; who may use the
//! connection is decided by whoever reads the [`Handshake`].
//!
//! Limits hold before anybody is known: time, the size of a ClientHello, and the bytes of a whole handshake.

use crate::detect::{Guess, guess};
use crate::stream::Stream;
use crate::stream::session::{Session, Side};
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::UnbufferedServerConnection;
use rustls::{ClientConfig, HandshakeKind, ProtocolVersion, ServerConfig};
use std::io;
use std::io::IoSlice;
use std::sync::Arc;
use std::time::Duration;

/// Most bytes of a ClientHello, its records' heads included (Envoy's inspector: 16 KiB).
pub const LARGEST_HELLO: usize = 16 * 1024;
/// Most bytes that a peer may send before its handshake is complete: certificate chains are the large part.
pub const LARGEST_HANDSHAKE: usize = 80 * 1024;

/// What a handshake told.
#[derive(Debug, Clone)]
pub struct Handshake {
    /// The peer's certificates, its own first; none when it showed none. Verified as the configuration says.
    pub peer_certificates: Vec<CertificateDer<'static>>,
    /// The application protocol that both agreed on; absent: none.
    pub alpn: Option<String>,
    /// Name that the client asked for, lower case; absent: none. At the client's end: absent.
    pub server_name: Option<String>,
    /// `TLSv1.3` or `TLSv1.2`.
    pub version: &'static str,
    /// Cipher suite in IANA's words, such as `TLS13_AES_256_GCM_SHA384`.
    pub cipher: String,
    /// Whether an earlier session was resumed; its certificates are the earlier ones.
    pub resumed: bool,
}

/// A handshake did not come to its end. The connection is closed; the peer has been told by an alert where TLS has one.
#[derive(Debug, thiserror::Error)]
pub enum TlsFailure {
    /// The peer was too slow.
    #[error("no TLS handshake within {} ms", .0.as_millis())]
    Timeout(Duration),
    /// The peer sent more than a handshake needs.
    #[error("a TLS handshake of more than {0} bytes")]
    TooLarge(usize),
    /// The peer closed the connection.
    #[error("the peer closed the connection during the TLS handshake")]
    Closed,
    /// The connection broke.
    #[error("the connection broke during the TLS handshake: {0}")]
    Broken(#[source] io::Error),
    /// One side did not like the other: certificates, versions, or bytes that are not TLS.
    #[error("the TLS handshake failed: {0}")]
    Refused(#[source] rustls::Error),
}

impl TlsFailure {
    /// The reason in the words of Envoy's `%UPSTREAM_TRANSPORT_FAILURE_REASON%`.
    pub fn transport_reason(&self) -> String {
        match self {
            Self::Timeout(_) => "connection timeout".to_owned(),
            Self::Closed => "connection termination".to_owned(),
            Self::TooLarge(_) => "TLS_error:handshake too large:TLS_error_end".to_owned(),
            Self::Broken(error) => format!("TLS_error:{error}:TLS_error_end"),
            Self::Refused(error) => format!("TLS_error:{error}:TLS_error_end"),
        }
    }
}

/// Serves TLS on `stream`: bytes that were read from it before are the first of the ClientHello.
///
/// # Errors
/// The peer is no TLS client that `config` accepts, or exceeds `limit` or the sizes above.
pub async fn accept(
    mut stream: Stream,
    config: Arc<ServerConfig>,
    limit: Duration,
) -> Result<(Stream, Handshake), TlsFailure> {
    let may = config.enable_secret_extraction;
    let conn = UnbufferedServerConnection::new(config).map_err(TlsFailure::Refused)?;
    let shake = async {
        let mut first = bytes::BytesMut::new();
        // The whole hello first: only then is its size bounded and its name known.
        let server_name = loop {
            match guess(&first) {
                Guess::Tls(hello) if first.len() < LARGEST_HELLO || hello != <_>::default() => {
                    break hello.server_name;
                }
                Guess::Tls(_) => return Err(TlsFailure::TooLarge(LARGEST_HELLO)),
                Guess::Unsure => {}
                // The engine refuses it in TLS's words.
                Guess::Http1 | Guess::Http2 | Guess::Other => break None,
            }
            match stream.read_more(&mut first).await {
                Ok(0) => return Err(TlsFailure::Closed),
                Ok(_) => {}
                Err(error) => return Err(TlsFailure::Broken(error)),
            }
        };
        let session = Session::new(Side::Server(conn), first.to_vec());
        let done = complete(stream, session).await?;
        Ok((done, server_name))
    };
    let ((stream, session), server_name) = bounded(limit, shake).await?;
    Ok(finish(stream, session, may, server_name))
}

/// Puts TLS on `stream` as a client; `name` is asked for and, unless the configuration's verifier does otherwise, must be
/// in the server's certificate. Nothing may have been read from `stream`.
///
/// # Errors
/// The peer is no TLS server that `config` trusts, or exceeds `limit` or the sizes above.
pub async fn connect(
    stream: Stream,
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
    limit: Duration,
) -> Result<(Stream, Handshake), TlsFailure> {
    let may = config.enable_secret_extraction;
    let conn = UnbufferedClientConnection::new(config, name).map_err(TlsFailure::Refused)?;
    let session = Session::new(Side::Client(conn), Vec::new());
    let (stream, session) = bounded(limit, complete(stream, session)).await?;
    Ok(finish(stream, session, may, None))
}

async fn bounded<T>(
    limit: Duration,
    shake: impl Future<Output = Result<T, TlsFailure>>,
) -> Result<T, TlsFailure> {
    match tokio::time::timeout(limit, shake).await {
        Ok(done) => done,
        Err(_) => Err(TlsFailure::Timeout(limit)),
    }
}

async fn complete(
    mut stream: Stream,
    mut session: Session,
) -> Result<(Stream, Session), TlsFailure> {
    let mut received = stream.take_prefix().len() + session.incoming().len();
    session.advance();
    loop {
        let shared = stream.shared();
        let flushed = session.flush(&mut |bytes| shared.send(&[IoSlice::new(bytes)]));
        if let Some(error) = session.failure() {
            return Err(TlsFailure::Refused(error.clone()));
        }
        let waits = match flushed {
            Ok(()) => false,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => true,
            Err(error) => return Err(TlsFailure::Broken(error)),
        };
        if !session
            .common()
            .is_some_and(|common| common.is_handshaking())
        {
            return Ok((stream, session));
        }
        if waits {
            shared.tcp().writable().await.map_err(TlsFailure::Broken)?;
            continue;
        }
        if session.has_ended() {
            return Err(TlsFailure::Closed);
        }
        if received > LARGEST_HANDSHAKE {
            return Err(TlsFailure::TooLarge(LARGEST_HANDSHAKE));
        }
        shared.tcp().readable().await.map_err(TlsFailure::Broken)?;
        let mut recv = |buf: &mut [u8]| {
            let most = buf.len().min(LARGEST_HELLO);
            let got = shared.tcp().try_read(&mut buf[..most])?;
            received += got;
            Ok(got)
        };
        match session.pull(&mut |_| 0, &mut recv) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(TlsFailure::Broken(error)),
        }
    }
}

fn finish(
    stream: Stream,
    mut session: Session,
    may: bool,
    server_name: Option<String>,
) -> (Stream, Handshake) {
    let common = session.common();
    let certificates = common.and_then(|common| common.peer_certificates());
    let certificates = certificates.unwrap_or_default();
    let suite = common.and_then(|common| common.negotiated_cipher_suite());
    let handshake = Handshake {
        peer_certificates: certificates.to_vec(),
        alpn: common
            .and_then(|common| common.alpn_protocol())
            .map(|p| String::from_utf8_lossy(p).into_owned()),
        server_name,
        version: match common.and_then(|common| common.protocol_version()) {
            Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "TLSv1.3",
        },
        cipher: suite.map_or_else(String::new, |s| format!("{:?}", s.suite())),
        resumed: common.and_then(|common| common.handshake_kind()) == Some(HandshakeKind::Resumed),
    };
    session.settle(may);
    stream.shared().start_tls(session);
    (stream, handshake)
}

#[cfg(test)]
mod tests;
