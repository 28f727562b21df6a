//! Questions in, answers out, over a small cluster on paper.

use std::net::Ipv4Addr;

use hickory_proto::op::{Edns, Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use k8s_openapi::api::core::v1::Service;
use serde_json::json;

use super::zone::{View, Zone};
use super::*;

struct Paper {
    services: Vec<Arc<Service>>,
    slices: Vec<Arc<EndpointSlice>>,
}

impl View for Paper {
    fn has_namespace(&self, namespace: &str) -> bool {
        namespace == "default"
    }
    fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>> {
        let mut all = self.services.iter();
        let found = all.find(|service| service.metadata.name.as_deref() == Some(name));
        found.filter(|_| namespace == "default").cloned()
    }
    fn slices(&self, _: &str, service: &str) -> Vec<Arc<EndpointSlice>> {
        let of = |slice: &&Arc<EndpointSlice>| {
            slice.metadata.labels.as_ref().unwrap()["kubernetes.io/service-name"] == service
        };
        self.slices.iter().filter(of).cloned().collect()
    }
    fn has_pod(&self, _: &str, address: IpAddr) -> bool {
        address == IpAddr::V4(Ipv4Addr::new(10, 244, 0, 7))
    }
    fn service_at(&self, address: IpAddr) -> Option<Arc<Service>> {
        let text = address.to_string();
        let at = |service: &&Arc<Service>| {
            service.spec.as_ref().unwrap().cluster_ip.as_deref() == Some(&*text)
        };
        self.services.iter().find(at).cloned()
    }
    fn slices_at(&self, address: IpAddr) -> Vec<Arc<EndpointSlice>> {
        let text = address.to_string();
        let at = |slice: &&Arc<EndpointSlice>| {
            slice
                .endpoints
                .iter()
                .any(|one| one.addresses.contains(&text))
        };
        self.slices.iter().filter(at).cloned().collect()
    }
}

fn paper() -> Paper {
    let service = |name: &str, spec: &str| {
        let spec: serde_json::Value = serde_saphyr::from_str(spec).unwrap();
        let metadata = json!({ "name": name, "namespace": "default" });
        serde_json::from_value(json!({ "metadata": metadata, "spec": spec })).unwrap()
    };
    let slice = json!({
        "metadata": {
            "name": "db-x",
            "namespace": "default",
            "labels": { "kubernetes.io/service-name": "db" },
        },
        "addressType": "IPv4",
        "ports": [{ "name": "mysql", "port": 3306 }],
        "endpoints": [
            { "addresses": ["10.244.0.2"], "hostname": "db-0", "conditions": { "ready": true } },
            { "addresses": ["10.244.0.3"], "conditions": { "ready": true } },
            { "addresses": ["10.244.0.4"], "hostname": "db-2", "conditions": { "ready": false } },
        ],
    });
    Paper {
        services: vec![
            service(
                "web",
                "{ clusterIP: 10.96.0.5, ports: [ { name: http, port: 80 } ] }",
            ),
            service(
                "db",
                "{ clusterIP: None, ports: [ { name: mysql, port: 3306 } ] }",
            ),
            service("out", "{ type: ExternalName, externalName: example.com }"),
            service(
                "in",
                "{ type: ExternalName, externalName: web.default.svc.cluster.local }",
            ),
        ],
        slices: vec![Arc::new(serde_json::from_value(slice).unwrap())],
    }
}

fn server() -> Server {
    let zone = Zone::new("cluster.local").unwrap();
    Server::new(zone, Arc::new(paper()), Forwarder::new(Vec::new()))
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

async fn ask(message: &Message) -> Message {
    let bytes = server()
        .respond(&message.to_vec().unwrap(), false)
        .await
        .unwrap();
    Message::from_vec(&bytes).unwrap()
}

async fn check(kind: RecordType, name: &str, expected: &str) {
    let answer = ask(&question(name, kind)).await;
    let mut words: Vec<String> = answer
        .answers
        .iter()
        .map(|record| match &record.data {
            RData::A(data) => data.to_string(),
            RData::SRV(data) => format!("{}:{}", data.target, data.port),
            RData::CNAME(data) => format!("={data}"),
            RData::PTR(data) => data.to_string(),
            RData::TXT(data) => data.to_string(),
            other => format!("{other:?}"),
        })
        .collect();
    words.sort();
    let has_authority = !answer.authorities.is_empty();
    let code = answer.metadata.response_code;
    let wants_authority = code == ResponseCode::NXDomain
        || (code == ResponseCode::NoError && answer.answers.is_empty());
    assert_eq!(has_authority, wants_authority, "{name}");
    if code != ResponseCode::NoError {
        words.push(format!("{code:?}"));
    }
    assert_eq!(words.join(" "), expected, "{name}");
}

#[tokio::test]
async fn services() {
    let (a, aaaa) = (RecordType::A, RecordType::AAAA);
    check(a, "web.default.svc.cluster.local.", "10.96.0.5").await;
    check(a, "WEB.Default.svc.Cluster.local.", "10.96.0.5").await;
    check(aaaa, "web.default.svc.cluster.local.", "").await;
    check(a, "db.default.svc.cluster.local.", "10.244.0.2 10.244.0.3").await;
    check(a, "db-0.db.default.svc.cluster.local.", "10.244.0.2").await;
    check(a, "10-244-0-3.db.default.svc.cluster.local.", "10.244.0.3").await;
    check(a, "db-2.db.default.svc.cluster.local.", "NXDomain").await;
    check(a, "missing.default.svc.cluster.local.", "NXDomain").await;
    check(a, "web.elsewhere.svc.cluster.local.", "NXDomain").await;
    check(a, "default.svc.cluster.local.", "").await;
    check(a, "example.com.default.svc.cluster.local.", "NXDomain").await;
    check(a, "cluster.local.", "").await;
}

#[tokio::test]
async fn other_records() {
    let srv = RecordType::SRV;
    let web = "web.default.svc.cluster.local.";
    check(srv, &format!("_http._tcp.{web}"), &format!("{web}:80")).await;
    check(srv, &format!("_http._udp.{web}"), "NXDomain").await;
    let db = "db.default.svc.cluster.local.";
    let both = format!("10-244-0-3.{db}:3306 db-0.{db}:3306");
    check(srv, &format!("_mysql._tcp.{db}"), &both).await;
    check(RecordType::A, &format!("_mysql._tcp.{db}"), "").await;
    check(RecordType::PTR, "5.0.96.10.in-addr.arpa.", web).await;
    check(
        RecordType::PTR,
        "2.0.244.10.in-addr.arpa.",
        &format!("db-0.{db}"),
    )
    .await;
    check(RecordType::TXT, "dns-version.cluster.local.", "1.1.0").await;
    check(
        RecordType::A,
        "10-244-0-7.default.pod.cluster.local.",
        "10.244.0.7",
    )
    .await;
    check(
        RecordType::A,
        "10-244-0-8.default.pod.cluster.local.",
        "NXDomain",
    )
    .await;
}

#[tokio::test]
async fn aliases_and_names_elsewhere() {
    let a = RecordType::A;
    check(
        a,
        "in.default.svc.cluster.local.",
        "10.96.0.5 =web.default.svc.cluster.local.",
    )
    .await;
    check(
        RecordType::CNAME,
        "out.default.svc.cluster.local.",
        "=example.com.",
    )
    .await;
    // There is nobody to ask.
    check(
        a,
        "out.default.svc.cluster.local.",
        "=example.com. ServFail",
    )
    .await;
    check(a, "example.com.", "ServFail").await;
}

#[tokio::test]
async fn sizes_and_nonsense() {
    let server = server();
    assert!(server.respond(b"", false).await.is_none());
    let bad = server.respond(b"\x12\x34garbage", false).await.unwrap();
    let bad = Message::from_vec(&bad).unwrap();
    assert_eq!(
        (bad.metadata.id, bad.metadata.response_code),
        (0x1234, ResponseCode::FormErr)
    );
    // An answer to nobody's question is not answered.
    let mut answer = question("web.default.svc.cluster.local.", RecordType::A);
    answer.metadata.message_type = hickory_proto::op::MessageType::Response;
    assert!(
        server
            .respond(&answer.to_vec().unwrap(), false)
            .await
            .is_none()
    );

    let mut paper = paper();
    let mut slice = (*paper.slices[0]).clone();
    let one = slice.endpoints[1].clone();
    slice.endpoints = (0..100)
        .map(|n| Endpoint {
            addresses: vec![format!("10.244.1.{n}")],
            ..one.clone()
        })
        .collect();
    paper.slices = vec![Arc::new(slice)];
    let zone = Zone::new("cluster.local").unwrap();
    let server = Server::new(zone, Arc::new(paper), Forwarder::new(Vec::new()));
    let mut message = question("db.default.svc.cluster.local.", RecordType::A);
    let mut edns = Edns::new();
    edns.set_max_payload(9000);
    message.set_edns(edns);
    let bytes = message.to_vec().unwrap();
    let by_udp = server.respond(&bytes, false).await.unwrap();
    assert!(by_udp.len() <= 1232);
    assert!(Message::from_vec(&by_udp).unwrap().metadata.truncation);
    let by_tcp = Message::from_vec(&server.respond(&bytes, true).await.unwrap()).unwrap();
    assert_eq!(by_tcp.answers.len(), 100);
}
