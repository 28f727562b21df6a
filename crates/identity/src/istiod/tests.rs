//! Connecting to a control plane on loopback.

use super::*;
use crate::fixture::*;
use crate::tls::control_server;
use tokio::net::TcpListener;

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
