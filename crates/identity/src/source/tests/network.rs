//! A CA over TLS on loopback, and the Workload API on a Unix socket.

use super::until;
use crate::ca::{Authority, KeyKind};
use crate::fixture::*;
use crate::istiod::{Connector, RootsSource};
use crate::source::{AuthorityOptions, Clock, Options, Origin, State, run};
use crate::tls::control_server;
use crate::trust::{TrustBundles, peer_id};
use lateen_proto::ca::istio_certificate_service_server::{
    IstioCertificateService, IstioCertificateServiceServer,
};
use lateen_proto::ca::{IstioCertificateRequest, IstioCertificateResponse};
use lateen_proto::workload::spiffe_workload_api_server::{
    SpiffeWorkloadApi, SpiffeWorkloadApiServer,
};
use lateen_proto::workload::{
    X509BundlesRequest, X509BundlesResponse, X509svid, X509svidRequest, X509svidResponse,
};
use parking_lot::Mutex;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, UnixListener};
use tokio::sync::{Notify, watch};
use tokio_stream::Stream;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream, WatchStream};

/// The CA's service; answers with the token and the identities that it saw.
struct Service {
    ca: Arc<Authority>,
    seen: Arc<Mutex<Vec<String>>>,
}

#[tonic::async_trait]
impl IstioCertificateService for Service {
    async fn create_certificate(
        &self,
        request: tonic::Request<IstioCertificateRequest>,
    ) -> Result<tonic::Response<IstioCertificateResponse>, tonic::Status> {
        let token = request.metadata().get("authorization");
        let token = token
            .and_then(|t| t.to_str().ok())
            .unwrap_or("none")
            .to_owned();
        self.seen.lock().push(token);
        let request = request.into_inner();
        let validity = Duration::from_secs(request.validity_duration.unsigned_abs());
        let chain = self.ca.sign(&request.csr, &sleep_id(), validity, now());
        let cert_chain = chain.map_err(|e| tonic::Status::invalid_argument(e.to_string()))?;
        Ok(tonic::Response::new(IstioCertificateResponse {
            cert_chain,
        }))
    }
}

#[tokio::test]
async fn a_ca_over_tls_gives_a_certificate_that_the_next_request_shows() {
    let ca = Arc::new(authority("cluster.local"));
    let names = vec!["istiod.istio-system.svc".to_owned()];
    let serving = ca
        .serve_certificate(&names, None, HOUR, now())
        .expect("a certificate");
    let tls = control_server(&serving, &bundles(&[("cluster.local", &ca)])).expect("settings");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
    let address = listener.local_addr().expect("an address").to_string();
    let (seen, peers) = (
        Arc::new(Mutex::new(Vec::new())),
        Arc::new(Mutex::new(Vec::new())),
    );
    let (accepted, streams) = tokio::sync::mpsc::channel(4);
    let known = peers.clone();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let acceptor = tokio_rustls::TlsAcceptor::from(tls.clone());
            let Ok(stream) = acceptor.accept(tcp).await else {
                continue;
            };
            let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
            known
                .lock()
                .push(peer_id(chain).map(|id| id.to_string()).unwrap_or_default());
            let (near, mut far) = tokio::io::duplex(64 << 10);
            let mut stream = stream;
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut stream, &mut far).await });
            if accepted.send(Ok::<_, std::io::Error>(near)).await.is_err() {
                return;
            }
        }
    });
    let service = Service {
        ca: ca.clone(),
        seen: seen.clone(),
    };
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(IstioCertificateServiceServer::new(service))
            .serve_with_incoming(ReceiverStream::new(streams)),
    );
    let dir = tempfile::tempdir().expect("a directory");
    let token = dir.path().join("token");
    std::fs::write(&token, "secret\n").expect("written");
    let (sender, mut state) = watch::channel(State::default());
    let (shown, known) = (sender.subscribe(), ca.root_pem().to_owned());
    let renew = Arc::new(Notify::new());
    let options = Options {
        origin: Origin::Authority(AuthorityOptions {
            connector: Connector {
                address,
                names,
                roots: RootsSource {
                    file: None,
                    known: Some(Arc::new(move || known.clone())),
                },
                client: Some(Arc::new(move || shown.borrow().svid.clone())),
                prepare: |_: &TcpSocket| Ok(()),
            },
            token: Some(token),
            lifetime: HOUR,
            key: KeyKind::EcdsaP256,
        }),
        cache: None,
        renew: renew.clone(),
        believed: None,
        clock: Clock::machine(),
    };
    tokio::spawn(run(options, sender));
    let first = until(&mut state, |state| state.renewals == 1).await;
    assert_eq!(first.roots, ca.root_pem());
    assert_eq!(first.not_after(), Some(now() + HOUR));
    renew.notify_one();
    until(&mut state, |state| state.renewals == 2).await;
    assert_eq!(*seen.lock(), ["Bearer secret", "Bearer secret"]);
    assert_eq!(*peers.lock(), ["", sleep_id().uri()]);
}

// === the Workload API ===

struct Spire(watch::Receiver<X509svidResponse>);

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, tonic::Status>> + Send>>;

#[tonic::async_trait]
impl SpiffeWorkloadApi for Spire {
    type FetchX509SVIDStream = Answers<X509svidResponse>;
    type FetchX509BundlesStream = Answers<X509BundlesResponse>;

    async fn fetch_x509svid(
        &self,
        request: tonic::Request<X509svidRequest>,
    ) -> Result<tonic::Response<Self::FetchX509SVIDStream>, tonic::Status> {
        if request.metadata().get("workload.spiffe.io").is_none() {
            return Err(tonic::Status::invalid_argument("security header missing"));
        }
        if self.0.borrow().svids.is_empty() {
            return Err(tonic::Status::permission_denied("no identity issued"));
        }
        let answers = WatchStream::new(self.0.clone());
        let answers = tokio_stream::StreamExt::map(answers, Ok);
        Ok(tonic::Response::new(Box::pin(answers)))
    }

    async fn fetch_x509_bundles(
        &self,
        _: tonic::Request<X509BundlesRequest>,
    ) -> Result<tonic::Response<Self::FetchX509BundlesStream>, tonic::Status> {
        Err(tonic::Status::unimplemented("not asked for"))
    }
}

fn spire_answer(root: &Workshop, uri: &str, announced: &str) -> X509svidResponse {
    let middle = root.intermediate("spire server");
    let (leaf, key) = middle.leaf(&[uri], |_| {});
    let foreign = Workshop::root("foreign");
    X509svidResponse {
        svids: vec![X509svid {
            spiffe_id: announced.to_owned(),
            x509_svid: [leaf.as_ref(), middle.der.as_ref()].concat(),
            x509_svid_key: key.secret_der().to_vec(),
            bundle: root.der.to_vec(),
            hint: String::new(),
        }],
        crl: Vec::new(),
        federated_bundles: [
            ("spiffe://partner.example".to_owned(), foreign.der.to_vec()),
            ("spiffe://broken.example".to_owned(), b"rubbish".to_vec()),
        ]
        .into(),
    }
}

#[tokio::test]
async fn the_workload_api_is_followed() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("socket");
    let (answers, served) = watch::channel(X509svidResponse::default());
    let listener = UnixListener::bind(&path).expect("a socket");
    let server = tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(SpiffeWorkloadApiServer::new(Spire(served)))
            .serve_with_incoming(UnixListenerStream::new(listener)),
    );
    let (sender, mut state) = watch::channel(State::default());
    let renew = Arc::new(Notify::new());
    let options = Options {
        origin: Origin::WorkloadApi(path.clone()),
        cache: None,
        renew: renew.clone(),
        believed: None,
        clock: Clock::machine(),
    };
    tokio::spawn(run(options, sender));
    let refused = until(&mut state, |state| state.failures > 0).await;
    let why = refused.last_error.expect("an error");
    assert!(why.contains("registered with SPIRE"), "{why}");

    let root = Workshop::root("spire");
    let uri = "spiffe://example.org/vm/db-1";
    answers.send_replace(spire_answer(&root, uri, uri));
    renew.notify_one();
    let first = until(&mut state, |state| state.renewals == 1).await;
    let svid = first.svid.clone().expect("an SVID");
    assert_eq!((svid.id.uri(), svid.chain.len()), (uri, 2));
    assert_eq!(first.roots, root.pem());
    let names: Vec<&str> = first.bundles.iter().map(|b| &*b.trust_domain).collect();
    assert_eq!(names, ["example.org", "partner.example"]);
    let (believed, notices) = TrustBundles::of(&first.bundles, "example.org", &[]);
    assert_eq!(notices, Vec::<String>::new());
    assert_eq!(believed.verify(&svid.chain, now()), Ok(svid.id.clone()));

    answers.send_replace(spire_answer(&root, uri, uri));
    let second = until(&mut state, |state| state.renewals == 2).await;
    let second = second.svid.expect("an SVID");
    assert_ne!(second.serial, svid.serial, "rotated");

    answers.send_replace(spire_answer(&root, uri, "spiffe://example.org/vm/db-2"));
    let wrong = until(&mut state, |state| state.failures > 0).await;
    let why = wrong.last_error.expect("an error");
    assert!(
        why.contains("is announced as spiffe://example.org/vm/db-2"),
        "{why}"
    );
    assert_eq!(wrong.svid.expect("the last good one").serial, second.serial);
    server.abort();
}
