//! Names: ServiceEntries that are resolved, names that clients ask for, and the application's own DNS questions. A DNS
//! server on loopback stands in for the resolvers.

use super::mesh::{pod, registry_only, scope, service};
use super::tcp::hello;
use super::{Bench, run, server, web};
use crate::{Config, Destinations};
use lateen_base::Str;
use lateen_model::mesh::Role;
use lateen_model::name::Visibility;
use lateen_model::resource::Resource;
use lateen_model::service::{Location, Port, Protocol, Resolution};
use lateen_net::dns::{Counts, Resolver, Server, Settings, Told};
use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A DNS server with a zone that can change; it knows no other names.
struct Zone(Rc<RefCell<HashMap<String, Vec<IpAddr>>>>, Settings);

impl Zone {
    fn new(names: &[(&str, &str)]) -> Self {
        let zone = Rc::new(RefCell::new(HashMap::new()));
        let nobody = settings("127.0.0.1:9".parse().unwrap());
        let known = Rc::clone(&zone);
        let know = async move |name: &str| {
            let addresses = known.borrow().get(name).cloned()?;
            Some(Told {
                alias: None,
                addresses,
                ttl: 1,
            })
        };
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        let udp = std::net::UdpSocket::bind(address).unwrap();
        let server = Server::new(&nobody, Arc::new(Counts::default()), know);
        tokio::task::spawn_local(Rc::clone(&server).serve_udp(udp));
        tokio::task::spawn_local(server.serve_tcp(tcp));
        let zone = Self(zone, settings(address));
        for (name, ip) in names {
            zone.set(name, ip);
        }
        zone
    }

    fn set(&self, name: &str, ips: &str) {
        let ips = ips.split(' ').map(|ip| ip.parse().unwrap()).collect();
        self.0.borrow_mut().insert(name.to_owned(), ips);
    }
}

fn settings(server: SocketAddr) -> Settings {
    Settings {
        servers: vec![server],
        search: vec!["default.svc.cluster.local".to_owned()],
        timeout: Duration::from_secs(5),
        attempts: 1,
        hosts: "/nonexistent".into(),
    }
}

/// A ServiceEntry's host with one port.
fn entry(host: &str, port: (u16, u16), protocol: Protocol, resolution: Resolution) -> Resource {
    let Resource::Service(mut made) = service("x", "192.0.2.1", port.0, protocol) else {
        panic!("a service");
    };
    made.key.hostname = host.into();
    made.name = host.into();
    made.origin.kind = "ServiceEntry".into();
    made.origin.name = host.into();
    made.addresses.clear();
    made.aliases.clear();
    made.ports = vec![Port {
        number: port.0,
        name: "p".into(),
        protocol,
        target: Some(port.1),
    }];
    made.resolution = resolution;
    made.location = Location::External;
    made.visibility = Visibility::Public;
    Resource::Service(made)
}

async fn sidecar(destination: &str, zone: &Zone, resources: Vec<Resource>) -> Bench {
    let mut config = Config::new(scope(Role::Sidecar));
    config.destinations = Destinations::Fixed(destination.parse().unwrap());
    config.names = zone.1.clone();
    config.dns = Some(0);
    Bench::with(config, resources).await
}

fn get(host: &str) -> String {
    format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n")
}

#[test]
fn new_connections_go_to_the_first_address() {
    run(async {
        let first = web("127.1.0.1", "first").await;
        let zone = Zone::new(&[("web.test", "127.1.0.1")]);
        let entry = entry(
            "web.test",
            (80, first.port()),
            Protocol::Http,
            Resolution::DnsFirst,
        );
        let bench = sidecar("192.0.2.9:80", &zone, vec![registry_only(), entry]).await;
        let answer = bench.ask(&get("web.test")).await;
        assert!(answer.ends_with("first"), "{answer}");
        assert!(
            bench
                .ask(&get("other.test"))
                .await
                .starts_with("HTTP/1.1 502")
        );
    });
}

#[test]
fn every_address_of_a_name_is_tried() {
    run(async {
        let web = web("127.1.0.2", "second").await;
        // Nobody answers at the first address.
        let zone = Zone::new(&[("web.test", "127.1.0.1 127.1.0.2")]);
        let entry = entry(
            "web.test",
            (80, web.port()),
            Protocol::Http,
            Resolution::Dns,
        );
        let bench = sidecar("192.0.2.9:80", &zone, vec![entry]).await;
        for _ in 0..8 {
            let answer = bench.ask(&get("web.test")).await;
            assert!(answer.ends_with("second"), "{answer}");
        }
    });
}

#[test]
fn a_request_names_whom_it_goes_to() {
    run(async {
        let a = web("127.1.0.1", "a").await;
        let zone = Zone::new(&[("a.example.test", "127.1.0.1"), ("evil.test", "127.1.0.1")]);
        let wild = entry(
            "*.example.test",
            (80, a.port()),
            Protocol::Http,
            Resolution::DynamicDns,
        );
        let bench = sidecar("192.0.2.9:80", &zone, vec![registry_only(), wild]).await;
        assert!(bench.ask(&get("A.example.test:80")).await.ends_with("a"));
        let none = bench.ask(&get("b.example.test")).await;
        assert!(none.starts_with("HTTP/1.1 503"), "{none}");
        let other = bench.ask(&get("evil.test")).await;
        assert!(other.starts_with("HTTP/1.1 502"), "{other}");
    });
}

#[test]
fn tls_names_whom_it_goes_to() {
    run(async {
        let there = server("127.1.0.1", |mut stream, _| async move {
            let mut first = [0];
            stream.read_exact(&mut first).await.unwrap();
            stream.write_all(b"there").await.unwrap();
        })
        .await;
        let zone = Zone::new(&[("a.example.test", "127.1.0.1")]);
        let port = (443, there.port());
        let wild = entry(
            "*.example.test",
            port,
            Protocol::Tls,
            Resolution::DynamicDns,
        );
        let bench = sidecar("192.0.2.9:443", &zone, vec![registry_only(), wild]).await;
        let said = |name: &'static str| {
            let outbound = bench.outbound();
            async move {
                let mut stream = outbound.await;
                stream.write_all(&hello(name)).await.unwrap();
                let mut answer = Vec::new();
                let _ = stream.read_to_end(&mut answer).await;
                String::from_utf8(answer).unwrap()
            }
        };
        assert_eq!(said("a.example.test").await, "there");
        assert_eq!(said("b.example.test").await, "");
        assert_eq!(said("example.org").await, "");
    });
}

#[test]
fn unknown_hosts_by_their_names() {
    run(async {
        let a = web("127.1.0.1", "a").await;
        let zone = Zone::new(&[("a.test", "127.1.0.1")]);
        let mesh = Resource::MeshSettings(lateen_model::mesh::MeshSettings {
            outbound: lateen_model::mesh::OutboundMode::AllowAnyDynamicDns,
            ..lateen_model::mesh::MeshSettings::default()
        });
        // A declared HTTP port, so that requests are looked at at once.
        let http = service("web", "10.96.0.1", a.port(), Protocol::Http);
        let to = format!("192.0.2.9:{}", a.port());
        let bench = sidecar(&to, &zone, vec![mesh, http]).await;
        let answer = bench.ask(&get("a.test")).await;
        assert!(answer.ends_with("a"), "{answer}");
        let log = bench.log.lines(1).await;
        assert!(log[0].contains("AllowAnyDynamicDNSCluster"), "{}", log[0]);
    });
}

/// The addresses that a resolver gets from the proxy.
async fn resolved(bench: &Bench, name: &str) -> String {
    let at = bench.proxy.addresses().dns.unwrap();
    match Resolver::new(settings(at)).lookup(name).await {
        Ok(found) => format!("{:?} {:?}", found.addresses, found.ttl),
        Err(error) => error.to_string(),
    }
}

#[test]
fn the_applications_questions() {
    run(async {
        let zone = Zone::new(&[("outside.test", "192.0.2.7")]);
        let Resource::Service(mut db) =
            entry("db.test", (5432, 5432), Protocol::Tcp, Resolution::Dns)
        else {
            panic!("a service");
        };
        db.allocated = vec!["240.240.0.7".parse().unwrap()];
        let Resource::Service(mut headless) = service("peers", "10.96.0.9", 1, Protocol::Tcp)
        else {
            panic!("a service");
        };
        headless.addresses.clear();
        let Resource::Workload(mut peer) = pod("peers", "v1", 1, "127.1.0.4:1".parse().unwrap())
        else {
            panic!("a workload");
        };
        for served in peer.services.values_mut() {
            served.hostname = Some(Str::from("peers-0"));
        }
        let resources = vec![
            service("web", "10.96.0.1", 80, Protocol::Http),
            Resource::Service(db),
            Resource::Service(headless),
            Resource::Workload(peer),
        ];
        let bench = sidecar("192.0.2.9:80", &zone, resources).await;
        for (name, want) in [
            ("web", "[10.96.0.1] 30s"),
            ("web.default.svc.cluster.local.", "[10.96.0.1] 30s"),
            ("db.test", "[240.240.0.7] 30s"),
            ("peers-0.peers", "[127.1.0.4] 30s"),
            ("outside.test", "[192.0.2.7] 1s"),
        ] {
            assert_eq!(resolved(&bench, name).await, want, "{name}");
        }
        let unknown = resolved(&bench, "unknown.test.").await;
        assert_eq!(unknown, "the DNS server says Server Failure");
        // Both versions of the two names that the mesh does not know.
        let name = "istio_agent_dns_upstream_requests_total";
        assert_eq!(bench.metrics(name).await, [format!("{name} 4")]);
    });
}

#[test]
fn answers_hold_for_their_time() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build_local(Default::default())
        .unwrap();
    runtime.block_on(async {
        let file = std::env::temp_dir().join(format!("lateen-names-{}", std::process::id()));
        let write = |ip: &str| std::fs::write(&file, format!("{ip} web.test\n")).unwrap();
        write("192.0.2.1");
        let resolver = Arc::new(Resolver::new(Settings {
            hosts: file.clone(),
            ..settings("127.0.0.1:9".parse().unwrap())
        }));
        let names = crate::upstream::Names::new(&resolver, &[]);
        let one = async || names.one("web.test").await[0].to_string();
        assert_eq!(one().await, "192.0.2.1");
        write("192.0.2.2");
        tokio::time::advance(Duration::from_millis(4900)).await;
        assert_eq!(one().await, "192.0.2.1", "still fresh");
        tokio::time::advance(Duration::from_millis(200)).await;
        assert_eq!(one().await, "192.0.2.2");
        std::fs::remove_file(&file).unwrap();
    });
}
