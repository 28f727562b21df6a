//! Records after the handshake, with somebody in between who changes them, and against an independent peer.

use super::*;
use rustls::AlertDescription;

/// Both ends of a connection of TLS 1.3, and the sockets of somebody between them: what the client says comes out of the
/// first, what is written to the second the server reads.
async fn between(mesh: &Mesh) -> (Stream, Stream, TcpStream, TcpStream) {
    let ((client, mut near), (mut far, server)) = (pair().await, pair().await);
    let shake = async {
        tokio::join!(
            connect(plain(client), name(), Arc::clone(&mesh.client), LIMIT),
            accept(plain(server), Arc::clone(&mesh.server), LIMIT)
        )
    };
    let ((client, _), (server, _)) = {
        let mut shake = std::pin::pin!(shake);
        loop {
            let (mut said, mut answered) = ([0; 16_384], [0; 16_384]);
            tokio::select! {
                biased;
                (client, server) = &mut shake => break (client.unwrap(), server.unwrap()),
                n = near.read(&mut said) => far.write_all(&said[..n.unwrap()]).await.unwrap(),
                n = far.read(&mut answered) => near.write_all(&answered[..n.unwrap()]).await.unwrap(),
            }
        }
    };
    (client, server, near, far)
}

/// A client of TLS 1.3 that is not ours.
async fn independent(mesh: &Mesh, tcp: TcpStream) -> tokio_rustls::client::TlsStream<TcpStream> {
    let config = client(&mesh.roots, &[&rustls::version::TLS13])
        .with_client_auth_cert(mesh.chain.clone(), own(&mesh.key))
        .unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    connector.connect(name(), tcp).await.unwrap()
}

/// What becomes of the server, and what it tells the client, when `change` is done to a record with "hello".
async fn changed(change: impl FnOnce(&mut Vec<u8>)) -> (String, String) {
    let mesh = mesh();
    let (mut client, mut server, mut near, mut far) = between(&mesh).await;
    client.write_all(b"hello").await.unwrap();
    let mut record = vec![0; 1024];
    let n = near.read(&mut record).await.unwrap();
    record.truncate(n);
    change(&mut record);
    far.write_all(&record).await.unwrap();
    let mut got = [0; 64];
    let failed = match server.read(&mut got).await {
        Ok(n) => {
            return (
                String::from_utf8_lossy(&got[..n]).into_owned(),
                String::new(),
            );
        }
        Err(error) => error,
    };
    // The alert is out with the next that is written, or with nothing.
    server.flush().await.unwrap();
    drop(server);
    let mut told = Vec::new();
    far.read_to_end(&mut told).await.unwrap();
    near.write_all(&told).await.unwrap();
    drop(near);
    let told = client.read(&mut got).await.unwrap_err();
    (failed.to_string(), told.to_string())
}

#[tokio::test]
async fn records_that_somebody_changed_are_refused_and_the_peer_is_told() {
    let check = |(failed, told): (String, String), why: &str, alert: AlertDescription| {
        assert!(failed.contains(why), "{failed}");
        assert!(told.contains(&format!("{alert:?}")), "{why}: {told}");
    };
    let got = changed(|_| {}).await;
    assert_eq!(got.0, "hello");
    for at in [5, 9, 26] {
        let got = changed(|record| record[at] ^= 1).await;
        check(got, "decrypt", AlertDescription::BadRecordMac);
    }
    // Its length is vouched for as well.
    let longer = changed(|record| {
        record[4] += 1;
        record.push(0);
    });
    check(longer.await, "decrypt", AlertDescription::BadRecordMac);
    let got = changed(|record| record[..5].copy_from_slice(&[23, 3, 3, 0x50, 0])).await;
    check(got, "excess record size", AlertDescription::RecordOverflow);
    let got = changed(|record| *record = vec![20, 3, 3, 0, 1, 1]).await;
    check(got, "ChangeCipherSpec", AlertDescription::UnexpectedMessage);
}

#[tokio::test]
async fn what_came_before_a_bad_record_is_read_and_nothing_twice() {
    let mesh = mesh();
    // Read into little room and into much, which are decrypted in different ways.
    for room in [64, 32_768] {
        let (mut client, server, mut near, mut far) = between(&mesh).await;
        client.write_all(b"hello").await.unwrap();
        let mut record = vec![0; 1024];
        let n = near.read(&mut record).await.unwrap();
        record.truncate(n);
        let again = record.clone();
        record.extend(again);
        far.write_all(&record).await.unwrap();
        let mut got = vec![0; room];
        server.tcp().readable().await.unwrap();
        assert_eq!(server.shared().try_read(&mut got).unwrap(), 5);
        assert_eq!(&got[..5], b"hello");
        let error = server.shared().try_read(&mut got).unwrap_err();
        assert!(error.to_string().contains("decrypt"), "{error}");
    }
}

#[tokio::test]
async fn a_peer_that_asks_for_new_keys_again_and_again_is_answered_once() {
    let mesh = mesh();
    let (caller, server) = pair().await;
    let serve = async {
        let accepted = accept(plain(server), Arc::clone(&mesh.server), LIMIT).await;
        let mut server = accepted.unwrap().0;
        let before = server.watch().bytes_written();
        let mut said = [0; 1];
        for _ in 0..100 {
            server.read_exact(&mut said).await.unwrap();
        }
        server.flush().await.unwrap();
        assert_eq!(server.watch().bytes_written(), before);
        server.write_all(b"!").await.unwrap();
        // Two records: new keys (a message of 5 bytes), and what is said with them; each has a head, a type and a tag.
        let written = server.watch().bytes_written() - before;
        assert_eq!(written, (5 + 5 + 1 + 16) + (5 + 1 + 1 + 16));
        server.shutdown().await.unwrap();
    };
    let talk = async {
        let mut client = independent(&mesh, caller).await;
        for _ in 0..100 {
            client.get_mut().1.refresh_traffic_keys().unwrap();
            client.write_all(b".").await.unwrap();
            client.flush().await.unwrap();
        }
        let mut all = Vec::new();
        client.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"!");
    };
    tokio::join!(serve, talk);
}

#[tokio::test]
async fn an_independent_peer_and_we_take_new_keys() {
    let mesh = mesh();
    let (caller, server) = pair().await;
    let serve = async {
        let accepted = accept(plain(server), Arc::clone(&mesh.server), LIMIT).await;
        let mut server = accepted.unwrap().0;
        let mut said = [0; 5];
        for _ in 0..40 {
            server.read_exact(&mut said).await.unwrap();
            server.write_all(&said).await.unwrap();
        }
        server.shutdown().await.unwrap();
    };
    let talk = async {
        let mut client = independent(&mesh, caller).await;
        for n in 0..40 {
            if n % 3 == 0 {
                client.get_mut().1.refresh_traffic_keys().unwrap();
            }
            client.write_all(b"hello").await.unwrap();
            client.flush().await.unwrap();
            let mut said = [0; 5];
            client.read_exact(&mut said).await.unwrap();
            assert_eq!(&said, b"hello");
        }
        assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
    };
    tokio::join!(serve, talk);
}

#[tokio::test]
async fn settings_that_keep_their_keys_work_with_those_that_do_not() {
    let mut mesh = mesh();
    let client = Arc::get_mut(&mut mesh.client).unwrap();
    client.enable_secret_extraction = false;
    for _ in 0..2 {
        let ((mut client, _), (mut server, _)) = secured(&mesh).await;
        for size in [1, 16_384, 16_385, 100_000] {
            let sent: Vec<u8> = (0..size).map(|i| i as u8).collect();
            let mut got = vec![0; size];
            let (wrote, read) = tokio::join!(client.write_all(&sent), server.read_exact(&mut got));
            wrote.unwrap();
            read.unwrap();
            assert!(got == sent);
            let (wrote, read) = tokio::join!(server.write_all(&sent), client.read_exact(&mut got));
            wrote.unwrap();
            read.unwrap();
            assert!(got == sent);
        }
    }
}
