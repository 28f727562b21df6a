//! Calls on the secured port, over real sockets.

use super::*;
use lateen_identity::ca::{KeyKind, Request as Csr};
use lateen_identity::istiod::{Connector, Known, RootsSource};
use lateen_identity::svid::Svid;
use lateen_proto::ca::istio_certificate_service_client::IstioCertificateServiceClient;
use lateen_proto::ca::{IstioCertificateRequest, Struct, Value, value};
use lateen_proto::discovery::DeltaDiscoveryRequest;
use lateen_proto::discovery::Node;
use lateen_proto::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use std::net::SocketAddr;
use tonic::transport::Channel;
use tonic::{Code, Status};

/// The secured port of a CA.
struct Open {
    running: Running,
    address: SocketAddr,
}

async fn open() -> Open {
    let mut running = start().await;
    running.signs(SELF_SIGNED).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let port = running.port.take().expect("not served yet");
    let (store, shutdown) = (running.store.clone(), running.shutdown.clone());
    tokio::spawn(port.serve(listener, store, shutdown));
    Open { running, address }
}

impl Open {
    fn connector(&self, svid: Option<Arc<Svid>>) -> Connector {
        let roots = self.running.trusted.clone();
        let known: Known = Arc::new(move || roots.borrow().roots.to_string());
        Connector {
            address: self.address.to_string(),
            names: vec![NAME.to_owned()],
            roots: RootsSource {
                file: None,
                known: Some(known),
            },
            client: Some(Arc::new(move || svid.clone())),
            prepare: |_| Ok(()),
        }
    }

    async fn channel(&self, svid: Option<Arc<Svid>>) -> Channel {
        self.connector(svid).channel().await.expect("it connects")
    }

    /// Asks for a certificate.
    async fn ask(
        &self,
        svid: Option<Arc<Svid>>,
        token: Option<&str>,
        request: IstioCertificateRequest,
    ) -> Result<Vec<String>, Status> {
        let channel = self.channel(svid).await;
        let mut request = tonic::Request::new(request);
        if let Some(token) = token {
            let header = format!("Bearer {token}").parse().expect("ASCII");
            request.metadata_mut().insert("authorization", header);
        }
        let mut client = IstioCertificateServiceClient::new(channel);
        let answer = client.create_certificate(request).await?;
        Ok(answer.into_inner().cert_chain)
    }

    /// A certificate of this service account.
    async fn svid(&self, token: &str) -> Arc<Svid> {
        let (csr, request) = request();
        let chain = self
            .ask(None, Some(token), request)
            .await
            .expect("it is signed");
        Arc::new(svid(csr, &chain))
    }
}

fn svid(csr: Csr, chain: &[String]) -> Svid {
    csr.answered(&chain.concat()).expect("an SVID")
}

fn request() -> (Csr, IstioCertificateRequest) {
    let csr = Csr::new(
        KeyKind::default(),
        Some("spiffe://cluster.local/ns/kube-system/sa/admin"),
    )
    .expect("a request");
    let request = IstioCertificateRequest {
        csr: csr.pem().to_owned(),
        ..IstioCertificateRequest::default()
    };
    (csr, request)
}

#[tokio::test]
async fn a_certificate_is_for_its_caller_by_token_and_then_by_certificate() {
    let open = open().await;
    let first = open.svid("default/sleep").await;
    assert_eq!(first.id.uri(), "spiffe://cluster.local/ns/default/sa/sleep");
    let (csr, request) = request();
    let chain = open.ask(Some(first), None, request).await.expect("renewed");
    let second = svid(csr, &chain);
    assert_eq!(
        second.id.uri(),
        "spiffe://cluster.local/ns/default/sa/sleep"
    );
    let metrics = &open.running.metrics.ca;
    assert_eq!((metrics.requests.value(), metrics.issued.value()), (2, 2));
}

#[tokio::test]
async fn nobody_gets_a_certificate_without_proof() {
    let (open, other) = (open().await, open().await);
    // Another CA for the same trust domain.
    let stranger = other.svid("default/sleep").await;
    let check = async |svid: Option<Arc<Svid>>, token: Option<&str>, part: &str| {
        let refused = open.ask(svid, token, request().1).await;
        let status = refused.expect_err(part);
        assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
        assert!(
            status.message().contains(part),
            "{part:?} is not in {:?}",
            status.message()
        );
    };
    check(None, None, "neither a service account token").await;
    check(None, Some("forged"), "forged").await;
    check(None, Some("other:default/sleep"), "audience istio-ca").await;
    check(None, Some(&"x".repeat(20_000)), "longer than 16384 bytes").await;
    check(Some(stranger), None, "not signed by a root").await;
    assert_eq!(open.running.metrics.ca.authentication_failures.value(), 5);
    assert_eq!(open.running.metrics.ca.issued.value(), 0);
}

#[tokio::test]
async fn requests_say_nothing_about_whom_they_are_for() {
    let open = open().await;
    let refused = async |change: fn(&mut IstioCertificateRequest), code: Code, part: &str| {
        let mut request = request().1;
        change(&mut request);
        let status = open.ask(None, Some("default/sleep"), request).await;
        let status = status.expect_err(part);
        assert_eq!(status.code(), code, "{status:?}");
        assert!(status.message().contains(part), "{:?}", status.message());
    };
    let impersonate = |request: &mut IstioCertificateRequest| {
        let kind = Some(value::Kind::StringValue(
            "spiffe://cluster.local/ns/a/sa/b".to_owned(),
        ));
        let fields = [("ImpersonatedIdentity".to_owned(), Value { kind })].into();
        request.metadata = Some(Struct { fields });
    };
    refused(impersonate, Code::PermissionDenied, "ImpersonatedIdentity").await;
    refused(
        |r| r.validity_duration = -1,
        Code::InvalidArgument,
        "validity_duration",
    )
    .await;
    refused(
        |r| r.csr = "rubbish".to_owned(),
        Code::InvalidArgument,
        "certificate request",
    )
    .await;
    assert_eq!(open.running.metrics.ca.csr_errors.value(), 1);

    let (csr, mut request) = request();
    request.validity_duration = i64::MAX;
    let chain = open.ask(None, Some("default/sleep"), request).await;
    let svid = svid(csr, &chain.expect("the most is granted"));
    let most = Duration::from_secs(91 * 24 * 3600);
    assert!(svid.lifetime() < most, "{:?}", svid.lifetime());
}

#[tokio::test]
async fn who_asks_too_often_is_told_to_wait() {
    let open = open().await;
    let mut told = None;
    for _ in 0..40 {
        if let Err(status) = open.ask(None, Some("default/eager"), request().1).await {
            told = Some(status);
            break;
        }
    }
    let status = told.expect("there is a limit");
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    let other = open.ask(None, Some("default/calm"), request().1).await;
    assert!(other.is_ok(), "others are served: {other:?}");
}

/// Opens a stream as the node of a pod in `namespace`, and waits for its first answer.
async fn subscribe(channel: Channel, token: Option<&str>, namespace: &str) -> Result<(), Status> {
    let text = |text: &str| lateen_proto::discovery::Value {
        kind: Some(lateen_proto::discovery::value::Kind::StringValue(
            text.to_owned(),
        )),
    };
    let fields = [("SERVICE_ACCOUNT".to_owned(), text("sleep"))].into();
    let first = DeltaDiscoveryRequest {
        node: Some(Node {
            id: format!("sidecar~10.0.0.1~sleep.{namespace}~{namespace}.svc.cluster.local"),
            metadata: Some(lateen_proto::discovery::Struct { fields }),
            ..Node::default()
        }),
        type_url: "type.googleapis.com/lateen.mesh.v1.TrustBundle".to_owned(),
        ..DeltaDiscoveryRequest::default()
    };
    // The stream must not end before the answer.
    let requests =
        futures::StreamExt::chain(futures::stream::iter([first]), futures::stream::pending());
    let mut request = tonic::Request::new(requests);
    if let Some(token) = token {
        let header = format!("Bearer {token}").parse().expect("ASCII");
        request.metadata_mut().insert("authorization", header);
    }
    let mut client = AggregatedDiscoveryServiceClient::new(channel);
    let mut answers = client
        .delta_aggregated_resources(request)
        .await?
        .into_inner();
    match answers.message().await? {
        Some(answer) => {
            assert_eq!(answer.resources.len(), 1);
            Ok(())
        }
        None => Err(Status::unknown("no answer")),
    }
}

#[tokio::test]
async fn xds_is_for_who_proves_to_be_what_its_node_says() {
    let open = open().await;
    let svid = open.svid("default/sleep").await;
    let by_certificate = open.channel(Some(svid)).await;
    subscribe(by_certificate.clone(), None, "default")
        .await
        .expect("its own namespace");
    let status = subscribe(by_certificate, None, "other")
        .await
        .expect_err("another namespace");
    assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
    assert!(status.message().contains("other/sleep"), "{status:?}");
    let bare = open.channel(None).await;
    subscribe(bare.clone(), Some("default/sleep"), "default")
        .await
        .expect("a token");
    for (token, namespace, code) in [
        (Some("default/admin"), "default", Code::PermissionDenied),
        (Some("forged"), "default", Code::Unauthenticated),
        (None, "default", Code::Unauthenticated),
    ] {
        let status = subscribe(bare.clone(), token, namespace)
            .await
            .expect_err("refused");
        assert_eq!(status.code(), code, "{token:?}: {status:?}");
    }
}

#[tokio::test]
async fn connections_of_who_is_believed_no_more_are_cut() {
    let open = open().await;
    let svid = open.svid("default/sleep").await;
    let mut stream = open
        .connector(Some(svid))
        .connect()
        .await
        .expect("it connects");
    let channel = open.channel(None).await;
    // What the mesh trusts changes so that the certificate is not part of it.
    open.running.domains.send_replace(Some(domains("corp")));
    let mut rest = Vec::new();
    let _ = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut rest).await;
    let status = subscribe(channel, Some("default/sleep"), "default").await;
    assert!(status.is_ok(), "a token is as good as before: {status:?}");
}

#[tokio::test]
async fn half_open_connections_keep_nobody_out() {
    let open = open().await;
    let mut silent = Vec::new();
    for _ in 0..300 {
        let stream = tokio::net::TcpStream::connect(open.address).await;
        silent.push(stream.expect("it connects"));
    }
    // Older than any honest handshake.
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(3)).await;
    tokio::time::resume();
    open.svid("default/sleep").await;
    drop(silent);
}
