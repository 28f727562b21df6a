//! Real handshakes over in-memory pipes: who is believed to be whom.

use super::*;
use rustls::ClientConfig;
use tokio_rustls::{TlsAcceptor, TlsConnector};

fn client_config(authority: &Authority, identity: Option<&Identity>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.der.clone()).unwrap();
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    Arc::new(match identity.map(|identity| identity.parts().unwrap()) {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
        None => builder.with_no_client_auth(),
    })
}

/// The user that a server of `server` sees when a client connects to `name` with a certificate of `of`.
async fn check(
    server: &Authority,
    name: &str,
    client: Option<&Identity>,
) -> Result<Option<User>, String> {
    let acceptor = TlsAcceptor::from(server.server_config(&["extra.example".into()]).unwrap());
    let connector = TlsConnector::from(client_config(server, client));
    let (near, far) = tokio::io::duplex(64 * 1024);
    let name = rustls_pki_types::ServerName::try_from(name.to_owned()).unwrap();
    let (accepted, connected) = tokio::join!(acceptor.accept(far), connector.connect(name, near));
    connected.map_err(|error| error.to_string())?;
    let stream = accepted.map_err(|error| error.to_string())?;
    let (_, session) = stream.get_ref();
    Ok(session
        .peer_certificates()
        .and_then(|chain| certificate_user(&chain[0])))
}

#[tokio::test]
async fn names_and_client_certificates() {
    let authority = Authority::open(None).unwrap();
    for name in [
        "localhost",
        "127.0.0.1",
        "::1",
        "kubernetes.default.svc",
        "10.96.0.1",
        "extra.example",
    ] {
        assert_eq!(check(&authority, name, None).await, Ok(None), "{name}");
    }
    assert!(check(&authority, "elsewhere.example", None).await.is_err());

    let admin = authority.admin().unwrap();
    let user = check(&authority, "localhost", Some(&admin))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (user.name.as_str(), user.groups),
        ("kubernetes-admin", vec!["system:masters".to_owned()])
    );

    let jane = authority.client("jane", None).unwrap();
    let user = check(&authority, "localhost", Some(&jane))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        user,
        User {
            name: "jane".into(),
            ..User::default()
        }
    );

    let stranger = Authority::open(None).unwrap().admin().unwrap();
    assert!(
        check(&authority, "localhost", Some(&stranger))
            .await
            .is_err()
    );
}

#[test]
fn kept_in_a_directory_with_private_keys() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let first = Authority::open(Some(dir.path())).unwrap().pem().to_owned();
    assert_eq!(Authority::open(Some(dir.path())).unwrap().pem(), first);
    let mode = std::fs::metadata(dir.path().join("ca.key"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);

    std::fs::remove_file(dir.path().join("ca.key")).unwrap();
    assert_ne!(
        Authority::open(Some(dir.path())).unwrap().pem(),
        first,
        "a lost key means a new authority"
    );

    std::fs::write(dir.path().join("ca.key"), "nonsense").unwrap();
    let error = Authority::open(Some(dir.path())).err().unwrap().to_string();
    assert!(
        error.contains("ca.key") && error.contains("delete it"),
        "{error}"
    );
}

#[test]
fn kubeconfig_is_yaml_that_names_the_server() {
    let authority = Authority::open(None).unwrap();
    let admin = authority.admin().unwrap();
    let text = authority.kubeconfig(
        "https://127.0.0.1:6443",
        "lateen",
        Credential::Certificate(&admin),
    );
    let parsed: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
    assert_eq!(
        parsed["clusters"][0]["cluster"]["server"],
        "https://127.0.0.1:6443"
    );
    assert_eq!(parsed["current-context"], "lateen");
    let key = parsed["users"][0]["user"]["client-key-data"]
        .as_str()
        .unwrap();
    assert!(
        String::from_utf8(STANDARD.decode(key).unwrap())
            .unwrap()
            .contains("PRIVATE KEY")
    );
}
