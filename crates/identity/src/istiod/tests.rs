//! Connecting to a control plane on loopback.

use super::*;
use crate::fixture::*;
use crate::tls::control_server;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixStream};

fn plain(_: &TcpSocket) -> io::Result<()> {
    Ok(())
}

#[tokio::test]
async fn failures_say_what_to_look_at() {
    let dir = tempfile::tempdir().expect("a directory");
    let root = dir.path().join("root-cert.pem");
    let ca = authority("cluster.local");
    let names = vec!["istiod.istio-system.svc".to_owned()];
    let serving = ca
        .serve_certificate(&names, None, HOUR, now())
        .expect("a certificate");
    let tls = control_server(&serving, &bundles(&[("cluster.local", &ca)])).expect("settings");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
    let address = listener.local_addr().expect("an address").to_string();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = tokio_rustls::TlsAcceptor::from(tls.clone())
                .accept(stream)
                .await;
        }
    });
    let mut connector = Connector {
        address: address.clone(),
        names,
        roots: RootsSource {
            file: Some(root.clone()),
            known: None,
        },
        client: None,
        prepare: plain,
    };
    let fails = async |connector: &Connector, part: &str| {
        let text = match connector.connect().await {
            Ok(_) => "connected".to_owned(),
            Err(error) => error.to_string(),
        };
        assert!(text.contains(part), "{text:?} should have {part:?}");
    };
    fails(&connector, "istio-ca-root-cert").await;
    std::fs::write(&root, "not PEM").expect("written");
    fails(&connector, "there is no certificate in it").await;
    std::fs::write(&root, authority("cluster.local").root_pem()).expect("written");
    fails(&connector, "not signed by a root").await;
    // What the CA's answers told counts beside the file.
    let known = ca.root_pem().to_owned();
    connector.roots.known = Some(Arc::new(move || known.clone()));
    fails(&connector, "connected").await;
    connector.roots.known = None;
    std::fs::write(&root, ca.root_pem()).expect("written");
    fails(&connector, "connected").await;
    connector.names = vec!["elsewhere.svc".to_owned()];
    fails(&connector, "none of the names elsewhere.svc").await;
    connector.names = vec![];
    fails(&connector, "is no DNS name").await;
    connector.names = vec!["istiod.istio-system.svc".to_owned()];
    connector.address = "127.0.0.1:1".to_owned();
    fails(&connector, "127.0.0.1:1: ").await;
}

/// A server that counts the pings (RFC 9113 §6.7) of its only client, which says nothing else.
async fn pings(listener: tokio::net::UnixListener) -> usize {
    let (mut stream, _) = listener.accept().await.expect("a client");
    // An empty SETTINGS frame is all that a client waits for.
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    stream.write_all(&settings).await.expect("sent");
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).await.expect("the preface");
    let mut pings = 0;
    let mut head = [0; 9];
    while stream.read_exact(&mut head).await.is_ok() {
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let mut rest = vec![0; length];
        stream.read_exact(&mut rest).await.expect("a frame");
        pings += usize::from(head[3] == 6);
    }
    pings
}

#[tokio::test]
async fn sockets_of_this_machine_are_not_pinged() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("socket");
    let listener = tokio::net::UnixListener::bind(&path).expect("a socket");
    let served = tokio::spawn(pings(listener));
    let opened = channel(Box::new(move || {
        let path = path.clone();
        Box::pin(async move { Ok(Box::new(UnixStream::connect(path).await?) as Stream) })
    }));
    let opened = opened.await.expect("it connects");
    tokio::time::pause();
    tokio::time::sleep(Duration::from_secs(600)).await;
    tokio::time::resume();
    drop(opened);
    assert_eq!(served.await.expect("it ends"), 0);
}
