//! Names resolved by servers on loopback, in text: `name TYPE -> [ttl] data`.

use super::settings::hosts;
use super::*;
use hickory_proto::op::{Edns, Message, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

/// A server that knows the lines of `zone`: `name ttl address|name`. Names with `truncate` in them are told over TCP
/// only; `fail` fails.
struct Server {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

fn respond(zone: &str, question: &[u8], over_tcp: bool) -> Vec<u8> {
    let question = Message::from_vec(question).unwrap();
    let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
    let query = question.queries[0].clone();
    let name = query.name().to_ascii().to_ascii_lowercase();
    answer.add_query(query.clone());
    if name.contains("fail") {
        answer.metadata.response_code = ResponseCode::ServFail;
        return answer.to_vec().unwrap();
    }
    if name.contains("truncate") && !over_tcp {
        answer.metadata.truncation = true;
        return answer.to_vec().unwrap();
    }
    let mut known = false;
    let mut owner = name;
    for line in zone.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [of, ttl, data] = words[..] else { continue };
        if of != owner {
            continue;
        }
        known = true;
        let data = match data.parse::<IpAddr>() {
            Ok(IpAddr::V4(ip)) => RData::A(A(ip)),
            Ok(IpAddr::V6(ip)) => RData::AAAA(AAAA(ip)),
            Err(_) => {
                owner = data.to_owned();
                RData::CNAME(CNAME(Name::from_ascii(data).unwrap()))
            }
        };
        if data.record_type() == query.query_type() || matches!(data, RData::CNAME(_)) {
            let name = Name::from_ascii(of).unwrap();
            answer.add_answer(Record::from_rdata(name, ttl.parse().unwrap(), data));
        }
    }
    if !known {
        answer.metadata.response_code = ResponseCode::NXDomain;
    }
    answer.to_vec().unwrap()
}

async fn serve(zone: &'static str) -> Server {
    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = udp.local_addr().unwrap();
    let tcp = TcpListener::bind(address).await.unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        loop {
            let (length, client) = udp.recv_from(&mut buffer).await.unwrap();
            count.fetch_add(1, Ordering::SeqCst);
            let answer = respond(zone, &buffer[..length], false);
            // First a guess at the number, then a stranger's question: neither may count.
            let mut guess = answer.clone();
            guess[0] ^= 0xff;
            udp.send_to(&guess, client).await.unwrap();
            udp.send_to(&answer[..6], client).await.unwrap();
            udp.send_to(&answer, client).await.unwrap();
        }
    });
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = tcp.accept().await.unwrap();
            let mut question = vec![0; usize::from(stream.read_u16().await.unwrap())];
            stream.read_exact(&mut question).await.unwrap();
            let answer = respond(zone, &question, true);
            let length = u16::try_from(answer.len()).unwrap();
            stream.write_u16(length).await.unwrap();
            stream.write_all(&answer).await.unwrap();
        }
    });
    Server { address, asked }
}

fn settings(servers: &[&Server]) -> Settings {
    Settings {
        servers: servers.iter().map(|s| s.address).collect(),
        search: vec![
            "ns.svc.cluster.local".to_owned(),
            "cluster.local".to_owned(),
        ],
        timeout: Duration::from_secs(5),
        attempts: 1,
        hosts: "/nonexistent".into(),
    }
}

async fn look(settings: Settings, name: &str) -> String {
    match Resolver::new(settings).lookup(name).await {
        Ok(found) => format!("{:?} {:?}", found.addresses, found.ttl),
        Err(error) => error.to_string(),
    }
}

const ZONE: &str = "
a.example. 30 192.0.2.1
a.example. 20 192.0.2.2
a.example. 60 2001:db8::1
alias.example. 7 a.example.
a.example. 30 192.0.2.9
web.ns.svc.cluster.local. 0 10.96.0.1
other.cluster.local. 99999 10.96.0.2
truncate.example. 30 192.0.2.3
only6.example. 30 2001:db8::6
";

#[tokio::test]
async fn names_and_times() {
    let server = serve(ZONE).await;
    for (name, want) in [
        (
            "A.Example",
            "[192.0.2.1, 192.0.2.2, 192.0.2.9, 2001:db8::1] 20s",
        ),
        // The alias does not hold as long as what it stands for.
        ("alias.example.", "[192.0.2.9] 7s"),
        ("web", "[10.96.0.1] 1s"),
        ("other", "[10.96.0.2] 3600s"),
        ("web.ns.svc", "[10.96.0.1] 1s"),
        ("web.", "the name has no address"),
        ("truncate.example", "[192.0.2.3] 30s"),
        ("only6.example", "[2001:db8::6] 30s"),
        ("none.example", "the name has no address"),
        ("fail.example.", "the DNS server says Server Failure"),
        ("192.0.2.7", "[192.0.2.7] 3600s"),
        ("2001:db8::7", "[2001:db8::7] 3600s"),
    ] {
        assert_eq!(look(settings(&[&server]), name).await, want, "{name}");
    }
}

#[tokio::test]
async fn the_next_server_when_one_fails() {
    let failing = serve("").await;
    let good = serve("fail.example. 30 192.0.2.1").await;
    // Both fail: the failure is told, after both were asked.
    let told = look(settings(&[&failing, &good]), "fail.example.").await;
    assert_eq!(told, "the DNS server says Server Failure");
    assert_eq!(
        [&failing, &good].map(|s| s.asked.load(Ordering::SeqCst)),
        [2, 2]
    );
    let closed = Server {
        address: "127.0.0.1:9".parse().unwrap(),
        asked: Arc::default(),
    };
    let good = serve(ZONE).await;
    let told = look(settings(&[&closed, &good]), "a.example").await;
    assert!(told.starts_with("[192.0.2.1"), "{told}");
    let told = look(settings(&[&closed]), "a.example").await;
    assert_eq!(told, "no DNS server answered (127.0.0.1:9)");
}

#[tokio::test]
async fn bytes_are_forwarded_as_they_are() {
    let server = serve(ZONE).await;
    let forwarder = Forwarder::new(&settings(&[&server]), 1);
    let mut question = Message::query();
    question.metadata.id = 7;
    let name = Name::from_ascii("A.example.").unwrap();
    let query = Query::query(name, RecordType::A);
    question.add_query(query);
    let bytes = question.to_vec().unwrap();
    for over_tcp in [false, true] {
        let answer = forwarder.ask(&bytes, over_tcp).await.unwrap();
        let answer = Message::from_vec(&answer).unwrap();
        assert_eq!(answer.metadata.id, 7, "the asker's own number");
        assert_eq!(answer.answers.len(), 3);
    }
    for bad in [&bytes[..11], &bytes[..20], &[0; 12][..], &[]] {
        assert_eq!(forwarder.ask(bad, false).await, Err(AskError::NoQuestion));
    }
    let none = Forwarder::new(&settings(&[&server]), 0);
    assert_eq!(none.ask(&bytes, false).await, Err(AskError::Busy));
}

#[test]
fn resolv_conf() {
    let text = "# nameserver 9.9.9.9\ndomain x\nsearch NS.svc.cluster.local. cluster.local\nnameserver 10.96.0.10\n\
                nameserver fe80::1%eth0\nnameserver 2001:db8::1\noptions ndots:5 timeout:30 attempts:3\n";
    let read = Settings::parse(text);
    let servers: Vec<String> = read.servers.iter().map(ToString::to_string).collect();
    assert_eq!(servers, ["10.96.0.10:53", "[2001:db8::1]:53"]);
    assert_eq!(read.search, ["ns.svc.cluster.local", "cluster.local"]);
    assert_eq!((read.timeout, read.attempts), (Duration::from_secs(5), 3));
    let none = Settings::parse("");
    assert_eq!(none.servers, ["127.0.0.1:53".parse().unwrap()]);
}

#[test]
fn hosts_files() {
    let file = std::env::temp_dir().join(format!("lateen-hosts-{}", std::process::id()));
    std::fs::write(
        &file,
        "127.0.0.1 localhost # me\n::1 localhost\n192.0.2.1\tA.example a\nx a\n",
    )
    .unwrap();
    let found: Vec<String> = hosts(&file, "a").iter().map(ToString::to_string).collect();
    assert_eq!(found, ["192.0.2.1"]);
    assert_eq!(hosts(&file, "localhost").len(), 2);
    assert!(hosts(&file, "me").is_empty());
    std::fs::remove_file(&file).unwrap();
}

/// Asks a server that knows `web` and `many`, and shows the answer: `CODE [aa] [tc] name data…`.
async fn ask(server: SocketAddr, name: &str, kind: RecordType, over_tcp: bool) -> String {
    let mut question = Message::query();
    question.metadata.recursion_desired = true;
    question.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    let mut edns = Edns::new();
    edns.set_max_payload(1232);
    question.set_edns(edns);
    let bytes = question.to_vec().unwrap();
    let forwarder = Forwarder::new(
        &Settings {
            servers: vec![server],
            ..settings(&[])
        },
        1,
    );
    let answer = forwarder.ask(&bytes, over_tcp).await.unwrap();
    let answer = Message::from_vec(&answer).unwrap();
    let mut said = format!("{:?}", answer.metadata.response_code);
    for (flag, name) in [
        (answer.metadata.authoritative, " aa"),
        (answer.metadata.truncation, " tc"),
    ] {
        said += if flag { name } else { "" };
    }
    let mut records: Vec<_> = answer
        .answers
        .iter()
        .map(|r| format!(" {} {} {}", r.name, r.ttl, r.data))
        .collect();
    records.sort();
    match records.len() {
        n if n > 4 => format!("{said} {n} records"),
        _ => said + &records.concat(),
    }
}

#[tokio::test]
async fn a_server_answers_what_it_knows_and_passes_the_rest_on() {
    let local = tokio::task::LocalSet::new();
    local.run_until(serve_and_ask()).await;
}

async fn serve_and_ask() {
    let upstream = serve(ZONE).await;
    let know = async |name: &str| {
        let (alias, addresses): (_, Vec<IpAddr>) = match name {
            "web" | "web.ns" => (
                None,
                vec!["10.96.0.1".parse().unwrap(), "10.96.0.2".parse().unwrap()],
            ),
            "web.search" => (Some("web".to_owned()), vec!["10.96.0.1".parse().unwrap()]),
            "many" => (
                None,
                (0..200u8).map(|n| IpAddr::from([10, 0, 0, n])).collect(),
            ),
            _ => return None,
        };
        Some(Told {
            alias,
            addresses,
            ttl: 30,
        })
    };
    let counts = Arc::new(Counts::default());
    let server = super::Server::new(&settings(&[&upstream]), Arc::clone(&counts), know);
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = tcp.local_addr().unwrap();
    let udp = std::net::UdpSocket::bind(at).unwrap();
    tokio::task::spawn_local(std::rc::Rc::clone(&server).serve_udp(udp));
    tokio::task::spawn_local(server.serve_tcp(tcp));
    use RecordType as T;
    for (name, kind, want) in [
        (
            "WEB.",
            T::A,
            "NoError aa WEB. 30 10.96.0.1 WEB. 30 10.96.0.2",
        ),
        ("web.ns.", T::AAAA, "NoError aa"),
        (
            "web.search.",
            T::A,
            "NoError aa web. 30 10.96.0.1 web.search. 30 web.",
        ),
        // Other types, and other names, are others' to answer.
        ("web.", T::MX, "NXDomain"),
        (
            "alias.example.",
            T::A,
            "NoError a.example. 30 192.0.2.9 alias.example. 7 a.example.",
        ),
        ("none.example.", T::A, "NXDomain"),
        ("fail.example.", T::A, "ServFail"),
    ] {
        for over_tcp in [false, true] {
            assert_eq!(ask(at, name, kind, over_tcp).await, want, "{name} {kind}");
        }
    }
    assert_eq!(ask(at, "many.", T::A, false).await, "NoError aa tc");
    assert_eq!(ask(at, "many.", T::A, true).await, "NoError aa 200 records");
    let before = counts.requests();
    let stray = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for junk in [&b""[..], &[0xff; 40], &[0; 12]] {
        stray.send_to(junk, at).await.unwrap();
    }
    assert_eq!(ask(at, "web.", T::AAAA, false).await, "NoError aa");
    assert!(counts.requests() > before && counts.forwarded() > 0);
}
