//! The secured port: TLS connections, with client certificates as they please, for the gRPC server.
//!
//! A connection is cut when nothing on it was admitted in time, or when the certificate that it showed is believed
//! no more.

use crate::ca::caller::Peer;
use crate::places::{Bounds, Place, Places};
use lateen_identity::trust::TrustBundles;
use parking_lot::Mutex;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

/// Connections at once: proxies, and requests for certificates. Behind one address there may be a whole node, or the
/// gateway of another network. Whoever was admitted keeps its place.
const CONNECTIONS: Bounds = Bounds {
    all: 20_000,
    of_one: 4096,
    idle: Duration::from_secs(3),
    busy: Duration::from_secs(3),
};
/// Handshakes at once. One that is older than any honest one makes room for others.
const HANDSHAKES: Bounds = Bounds {
    all: 256,
    of_one: 64,
    idle: Duration::from_secs(3),
    busy: Duration::from_secs(3),
};
/// Chains that are verified before others get their turn.
const AT_A_STRETCH: usize = 32;
/// Time for a handshake.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// Time until something must have been admitted.
const ADMISSION_TIME: Duration = Duration::from_secs(30);

/// TLS settings of the port; none while there is no certificate.
pub(crate) type Settings = watch::Receiver<Option<Arc<rustls::ServerConfig>>>;

/// Accepts connections until `shutdown`.
pub(crate) fn connections(
    listener: TcpListener,
    tls: Settings,
    trust: watch::Receiver<TrustBundles>,
    shutdown: CancellationToken,
) -> mpsc::Receiver<io::Result<Connection>> {
    let (sender, receiver) = mpsc::channel(64);
    let live = Arc::new(Live::default());
    tokio::spawn(Arc::clone(&live).watch(trust.clone(), shutdown.clone()));
    let acceptor = Acceptor {
        tls,
        trust,
        live,
        sender,
        places: Places::new(CONNECTIONS),
        handshakes: Places::new(HANDSHAKES),
    };
    tokio::spawn(async move {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = acceptor.run(listener) => {}
        }
    });
    receiver
}

struct Acceptor {
    tls: Settings,
    trust: watch::Receiver<TrustBundles>,
    live: Arc<Live>,
    sender: mpsc::Sender<io::Result<Connection>>,
    places: Places,
    handshakes: Places,
}

impl Acceptor {
    async fn run(mut self, listener: TcpListener) {
        loop {
            if self.tls.wait_for(Option::is_some).await.is_err() {
                return;
            }
            let (stream, address) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(e) => {
                    tracing::warn!("accepting a connection failed: {e}");
                    // Out of file descriptors: give others time to close theirs.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let Some(tls) = self.tls.borrow().clone() else {
                continue;
            };
            let Some(handshake) = self.handshakes.enter(address.ip()).await else {
                tracing::debug!("{address} has too many handshakes under way: one is closed");
                continue;
            };
            let Some(place) = self.places.enter(address.ip()).await else {
                tracing::debug!("{address} has too many connections: one is closed");
                continue;
            };
            let _ = stream.set_nodelay(true);
            let (live, trust) = (Arc::clone(&self.live), self.trust.clone());
            let sender = self.sender.clone();
            tokio::spawn(async move {
                let shaken = TlsAcceptor::from(tls).accept(stream);
                let shaken = tokio::time::timeout(HANDSHAKE_TIME, shaken);
                let shaken = handshake.cut().run_until_cancelled(shaken);
                let shaken = place.cut().run_until_cancelled(shaken).await.flatten();
                drop(handshake);
                let Some(shaken) = shaken else {
                    tracing::debug!("TLS with {address} gave way to others");
                    return;
                };
                match shaken {
                    Ok(Ok(stream)) => {
                        let connection = Connection::new(stream, address, (live, &trust), place);
                        let _ = sender.send(Ok(connection)).await;
                    }
                    Ok(Err(e)) => tracing::debug!("TLS with {address} failed: {e}"),
                    Err(_) => tracing::debug!("TLS with {address} took too long"),
                }
            });
        }
    }
}

/// Connections whose certificate was believed when they came.
#[derive(Default)]
struct Live {
    next: AtomicU64,
    all: Mutex<HashMap<u64, (Peer, CancellationToken)>>,
}

impl Live {
    async fn watch(
        self: Arc<Self>,
        mut trust: watch::Receiver<TrustBundles>,
        shutdown: CancellationToken,
    ) {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                changed = trust.changed() => if changed.is_err() {
                    return;
                },
            }
            let bundles = trust.borrow_and_update().clone();
            self.verify(&bundles).await;
        }
    }

    /// Cuts every connection whose certificate is believed no more. Connections that come meanwhile look for
    /// themselves.
    async fn verify(&self, bundles: &TrustBundles) {
        let all: Vec<(u64, Peer, CancellationToken)> = {
            let all = self.all.lock();
            all.iter()
                .map(|(number, (peer, cut))| (*number, peer.clone(), cut.clone()))
                .collect()
        };
        // Peers may have several connections, and their chains then are the same.
        let mut verdicts: HashMap<&[CertificateDer<'static>], Result<(), String>> = HashMap::new();
        for (at, (number, peer, cut)) in all.iter().enumerate() {
            if at % AT_A_STRETCH == AT_A_STRETCH - 1 {
                tokio::task::yield_now().await;
            }
            let verdict = verdicts.entry(&peer.chain).or_insert_with(|| {
                let verified = bundles.verify(&peer.chain, SystemTime::now());
                verified.map(drop).map_err(|e| e.to_string())
            });
            if let Err(why) = verdict {
                tracing::warn!("the connection of {} is cut: {why}", peer.address);
                cut.cancel();
                self.all.lock().remove(number);
            }
        }
    }
}

/// One connection.
pub(crate) struct Connection {
    stream: TlsStream<TcpStream>,
    peer: Peer,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    live: Arc<Live>,
    number: u64,
    _place: Arc<Place>,
}

impl Connection {
    fn new(
        stream: TlsStream<TcpStream>,
        address: SocketAddr,
        (live, trust): (Arc<Live>, &watch::Receiver<TrustBundles>),
        place: Place,
    ) -> Self {
        let place = Arc::new(place);
        let shown = stream.get_ref().1.peer_certificates();
        let chain: Vec<_> = shown.unwrap_or_default().to_vec();
        let peer = Peer {
            address: address.ip().to_canonical(),
            chain: Arc::new(chain),
            admitted: Arc::new(AtomicBool::new(false)),
            place: Some(Arc::clone(&place)),
        };
        let cut = place.cut().clone();
        let number = live.next.fetch_add(1, Ordering::Relaxed);
        if !peer.chain.is_empty() {
            // First on the list, then looked at: so no change of trust slips through between.
            live.all.lock().insert(number, (peer.clone(), cut.clone()));
            let bundles = trust.borrow().clone();
            if bundles.verify(&peer.chain, SystemTime::now()).is_err() {
                live.all.lock().remove(&number);
            }
        }
        let (admitted, late) = (Arc::clone(&peer.admitted), cut.clone());
        tokio::spawn(async move {
            let time = tokio::time::sleep(ADMISSION_TIME);
            if late.run_until_cancelled(time).await.is_some() && !admitted.load(Ordering::Relaxed) {
                late.cancel();
            }
        });
        Self {
            stream,
            peer,
            cut: Box::pin(cut.cancelled_owned()),
            live,
            number,
            _place: place,
        }
    }

    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.cut.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::ConnectionAborted.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.live.all.lock().remove(&self.number);
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Err(e) = this.check(cx) {
            return Poll::Ready(Err(e));
        }
        Pin::new(&mut this.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Err(e) = this.check(cx) {
            return Poll::Ready(Err(e));
        }
        Pin::new(&mut this.stream).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

/// Asks for a client certificate and takes any whose key the client has; who it is, is decided for each call.
#[derive(Debug)]
pub(crate) struct AnyCertificate(WebPkiSupportedAlgorithms);

impl AnyCertificate {
    pub(crate) fn new(provider: &CryptoProvider) -> Self {
        Self(provider.signature_verification_algorithms)
    }
}

impl ClientCertVerifier for AnyCertificate {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
