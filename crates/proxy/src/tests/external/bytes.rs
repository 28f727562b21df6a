//! Policies for connections that are not HTTP: providers that are asked, and policies that only notice.

use super::grpc::{Teller, no, yes};
use super::*;
use crate::tests::member::at_server;
use lateen_model::security::{Attribute, Condition, Operation, Rule};

/// An application that sends back what it gets.
async fn echo() -> SocketAddr {
    server("127.1.0.1", |mut stream, _| async move {
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
    })
    .await
}

/// The sidecar of an application whose port is opaque, with these policies.
async fn opaque(app: SocketAddr, more: Vec<Resource>) -> Bench {
    let (config, mut resources) = at_server(Protocol::Tcp, app);
    resources.extend(more);
    Bench::with(config, resources).await
}

fn asked(provider: AuthzProvider, judge: SocketAddr) -> Vec<Resource> {
    let action = Action::Custom {
        provider: provider.name.clone(),
    };
    vec![
        service("judge", "10.96.0.9", 90, Protocol::Grpc),
        pod("judge", "v1", 90, judge),
        settings(|mesh| mesh.authz_providers = vec![provider]),
        Resource::AuthorizationPolicy(policy("asked", action, vec![Rule::default()])),
    ]
}

/// Whether a client gets its bytes back.
async fn passes(stream: &mut TcpStream) -> bool {
    let mut got = [0; 4];
    let said = stream.write_all(b"ping").await;
    said.is_ok() && stream.read_exact(&mut got).await.is_ok() && got == *b"ping"
}

#[test]
fn providers_are_asked_about_connections() {
    run(async {
        let (teller, judge) = Teller::start(|check| {
            let source = check.attributes.as_ref().unwrap().source.as_ref().unwrap();
            let address = source.address.as_ref().unwrap();
            let ip = &address.socket_address.as_ref().unwrap().address;
            Ok(if ip == "127.1.0.9" {
                yes(Vec::new())
            } else {
                no()
            })
        })
        .await;
        let app = echo().await;
        let bench = opaque(app, asked(provider(AuthzProtocol::Grpc), judge)).await;
        let mut stays = bench.inbound("127.1.0.9").await;
        assert!(passes(&mut stays).await);
        assert!(!passes(&mut bench.inbound("127.1.0.8").await).await);
        let check = teller.seen.lock().unwrap()[0].clone().attributes.unwrap();
        assert!(check.request.unwrap().http.is_none());
        let destination = check.destination.unwrap().address.unwrap();
        let destination = destination.socket_address.unwrap();
        assert_eq!(destination.port_value, u32::from(app.port()));
        let line = bench.log.lines(1).await.remove(0);
        assert!(
            line.contains(" UAEX ") && line.contains(" ext_authz_denied "),
            "{line}"
        );

        // What a provider said holds as long as the connection; what policies say does not.
        let watch = policy("watch", Action::Audit, vec![Rule::default()]);
        let (changed, removed) = (vec![Resource::AuthorizationPolicy(watch)], Vec::new());
        let update = lateen_xds::client::Update::Changed { changed, removed };
        bench.proxy.feed.send(update).await.unwrap();
        loop {
            assert!(passes(&mut bench.inbound("127.1.0.9").await).await);
            let text = String::from_utf8(bench.log.0.lock().unwrap().clone()).unwrap();
            if text.contains("default/watch") {
                break;
            }
        }
        assert!(passes(&mut stays).await);
        let deny = policy("deny", Action::Deny, vec![Rule::default()]);
        let (changed, removed) = (vec![Resource::AuthorizationPolicy(deny)], Vec::new());
        let update = lateen_xds::client::Update::Changed { changed, removed };
        bench.proxy.feed.send(update).await.unwrap();
        while passes(&mut stays).await {}
    });
}

#[test]
fn a_provider_that_cannot_be_asked_about_connections_is_a_no_unless_the_mesh_says_otherwise() {
    run(async {
        let (_, broken) = Teller::start(|_| Err(tonic::Status::internal("broken"))).await;
        for judge in [nobody("127.1.0.2").await, broken] {
            for open in [false, true] {
                let mut provider = provider(AuthzProtocol::Grpc);
                provider.fail_open = open;
                let bench = opaque(echo().await, asked(provider, judge)).await;
                let mut stream = bench.inbound("127.1.0.9").await;
                assert_eq!(passes(&mut stream).await, open, "{judge}");
            }
        }
        // HTTP providers know nothing but requests.
        let (judge, _) = judge("").await;
        let bench = opaque(echo().await, asked(provider(http()), judge)).await;
        assert!(!passes(&mut bench.inbound("127.1.0.9").await).await);
    });
}

#[test]
fn audits_and_dry_runs_of_connections_are_written_and_refuse_nobody() {
    run(async {
        let app = echo().await;
        let port = Rule {
            to: vec![Operation {
                ports: vec![app.port()],
                ..Operation::default()
            }],
            ..Rule::default()
        };
        let audit = policy("watch", Action::Audit, vec![port.clone()]);
        let mut dry = policy("tried", Action::Deny, vec![port]);
        dry.dry_run = true;
        let policies = [audit, dry].map(Resource::AuthorizationPolicy);
        let bench = opaque(app, policies.to_vec()).await;
        assert!(passes(&mut bench.inbound("127.1.0.9").await).await);
        let lines = bench.log.lines(3).await;
        let notes: Vec<serde_json::Value> = lines
            .iter()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        let [audit, dry] = &notes[..] else {
            panic!("{lines:?}");
        };
        for (note, log, name) in [(audit, "audit", "watch"), (dry, "dry-run", "tried")] {
            assert_eq!(note["log"], log);
            assert_eq!(note["policy"], format!("default/{name}"));
            assert_eq!(note["source"], "127.1.0.9");
            assert_eq!(note["port"], app.port());
            assert!(note.get("path").is_none(), "{note}");
        }
        assert_eq!(dry["allowed"], false);
    });
}

/// The first bytes of TLS for a server of this name (RFC 8446 §4.1.2, RFC 6066 §3).
fn hello(name: &str) -> Vec<u8> {
    let sized = |bytes: Vec<u8>| {
        let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
        [&length[..], &bytes].concat()
    };
    let entry = [&[0][..], &sized(name.as_bytes().to_vec())].concat();
    let extension = [&[0, 0][..], &sized(sized(entry))].concat();
    let body = [
        &[3, 3][..],
        &[7; 32],
        &[0, 0, 2, 0x13, 1, 1, 0],
        &sized(extension),
    ]
    .concat();
    let message = [&[1, 0][..], &sized(body)].concat();
    [&[22, 3, 1][..], &sized(message)].concat()
}

#[test]
fn the_server_name_of_tls_that_passes_through_counts() {
    run(async {
        let rule = Rule {
            when: vec![Condition {
                attribute: Attribute::ServerName,
                values: strs(&["secret.example"]),
                not_values: Vec::new(),
            }],
            ..Rule::default()
        };
        let deny = Resource::AuthorizationPolicy(policy("secret", Action::Deny, vec![rule]));
        let (config, mut resources) = at_server(Protocol::Tls, echo().await);
        resources.push(deny);
        let bench = Bench::with(config, resources).await;
        for (name, passes) in [("Secret.example", false), ("other.example", true)] {
            let hello = hello(name);
            let mut stream = bench.inbound("127.1.0.9").await;
            stream.write_all(&hello).await.unwrap();
            let mut got = vec![0; hello.len()];
            let came_back = stream.read_exact(&mut got).await.is_ok() && got == hello;
            assert_eq!(came_back, passes, "{name}");
        }
    });
}
