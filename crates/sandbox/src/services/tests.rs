//! Services with real packets: a node and two pods as network namespaces.
//!
//! The cases run in a copy of the test program inside fresh namespaces, so that nothing is left
//! behind and no right is needed on the machine itself.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::mpsc;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use lateen_net::nft::{Pick, Protocol};
use nix::sched::{CloneFlags, unshare};
use serde_json::json;

use super::plan::{Entry, entries};
use super::*;

fn service(spec: &str) -> Arc<Service> {
    let spec: serde_json::Value = serde_saphyr::from_str(spec).unwrap();
    let metadata = json!({ "name": "web", "namespace": "default" });
    serde_json::from_value(json!({ "metadata": metadata, "spec": spec })).unwrap()
}

/// Endpoints as `address state…`, with the states `ready`, `serving`, `terminating`.
fn slice(port: i32, endpoints: &[&str]) -> Arc<EndpointSlice> {
    let endpoints = endpoints.iter().map(|text| {
        let has = |word: &str| text.split(' ').any(|one| one == word);
        json!({
            "addresses": [text.split(' ').next()],
            "conditions": {
                "ready": has("ready"),
                "serving": has("ready") || has("serving"),
                "terminating": has("terminating"),
            },
        })
    });
    serde_json::from_value(json!({
        "metadata": {
            "name": "web-x",
            "namespace": "default",
            "labels": { "kubernetes.io/service-name": "web" },
        },
        "addressType": "IPv4",
        "endpoints": endpoints.collect::<Vec<_>>(),
        "ports": [{ "name": "http", "port": port, "protocol": "TCP" }],
    }))
    .unwrap()
}

fn check(spec: &str, endpoints: &[&str], expected: &str) {
    let found = entries(&[service(spec)], &[slice(8080, endpoints)]);
    let lines = found.iter().map(|entry| {
        let list = |list: &[SocketAddr]| {
            list.iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(",")
        };
        let node = entry
            .node_port
            .map_or(String::new(), |port| format!(" node {port}"));
        let (from, to) = (list(&entry.addresses), list(&entry.backends));
        format!("{:?} {from}{node} -> {to} {:?}", entry.protocol, entry.pick)
    });
    assert_eq!(lines.collect::<Vec<_>>().join("\n"), expected);
}

const WEB: &str = "{ clusterIP: 10.96.0.5, ports: [ { name: http, port: 80 } ] }";

#[test]
fn ready_endpoints_before_leaving_ones() {
    let leaving = "10.244.0.4 serving terminating";
    check(
        WEB,
        &[
            "10.244.0.3 ready",
            "10.244.0.2 ready",
            leaving,
            "10.244.0.5",
        ],
        "Tcp 10.96.0.5:80 -> 10.244.0.2:8080,10.244.0.3:8080 Random",
    );
    check(
        WEB,
        &[leaving, "10.244.0.5"],
        "Tcp 10.96.0.5:80 -> 10.244.0.4:8080 Random",
    );
    check(WEB, &["10.244.0.5"], "Tcp 10.96.0.5:80 ->  Random");
}

#[test]
fn kinds_of_services() {
    let ready = &["10.244.0.2 ready"];
    check(
        "{ clusterIP: None, ports: [ { name: http, port: 80 } ] }",
        ready,
        "",
    );
    check(
        "{ type: ExternalName, externalName: example.com }",
        ready,
        "",
    );
    check(
        "{ clusterIP: 10.96.0.5, sessionAffinity: ClientIP, externalIPs: [ 192.0.2.1 ], \
           ports: [ { name: http, port: 80, nodePort: 30080 }, { name: dns, port: 53, protocol: UDP } ] }",
        ready,
        "Tcp 10.96.0.5:80,192.0.2.1:80 node 30080 -> 10.244.0.2:8080 SourceHash\n\
         Udp 10.96.0.5:53,192.0.2.1:53 ->  SourceHash",
    );
}

#[test]
fn packets() {
    let root = nix::unistd::geteuid().is_root();
    let mut command = Command::new("unshare");
    command.args(if root {
        &["-n", "-m"][..]
    } else {
        &["-Urn", "-m"]
    });
    command.arg(std::env::current_exe().unwrap());
    command.args([
        "--exact",
        "services::tests::inner_packets",
        "--ignored",
        "--nocapture",
    ]);
    let output = command
        .output()
        .expect("the test needs unshare (util-linux)");
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}"
    );
}

type Job = Box<dyn FnOnce() + Send>;

/// A thread that lives in a network namespace of its own and does what it is told.
struct Host {
    jobs: mpsc::Sender<Job>,
    thread: i32,
}

impl Host {
    fn new() -> Host {
        let (jobs, queue) = mpsc::channel::<Job>();
        let (started, thread) = mpsc::channel();
        std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("a new network namespace");
            started.send(nix::unistd::gettid().as_raw()).unwrap();
            queue.into_iter().for_each(|job| job());
        });
        let host = Host {
            jobs,
            thread: thread.recv().unwrap(),
        };
        host.shell("ip link set lo up");
        host
    }

    fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = mpsc::channel();
        self.jobs
            .send(Box::new(move || done.send(job()).unwrap()))
            .unwrap();
        result.recv().expect("the job ended")
    }

    fn shell(&self, command: &str) {
        let command = command.to_owned();
        self.run(move || {
            let output = Command::new("sh").args(["-c", &command]).output().unwrap();
            assert!(output.status.success(), "{command}: {output:?}");
        });
    }

    /// Answers with its name and the client's address.
    fn serve(&self, name: &'static str) {
        let tcp = self.run(|| TcpListener::bind("0.0.0.0:8080")).unwrap();
        let udp = self.run(|| UdpSocket::bind("0.0.0.0:8080")).unwrap();
        std::thread::spawn(move || {
            for stream in tcp.incoming() {
                let mut stream = stream.unwrap();
                let client = stream.peer_addr().unwrap().ip();
                let _ = write!(stream, "{name} {client}");
            }
        });
        std::thread::spawn(move || {
            let mut buffer = [0; 16];
            while let Ok((_, client)) = udp.recv_from(&mut buffer) {
                let _ = udp.send_to(format!("{name} {}", client.ip()).as_bytes(), client);
            }
        });
    }

    fn call(&self, address: &str) -> String {
        let address: SocketAddr = address.parse().unwrap();
        let dial = move || -> io::Result<String> {
            let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        };
        self.run(dial)
            .unwrap_or_else(|error| format!("{:?}", error.kind()))
    }

    fn ask(&self, address: &str) -> String {
        let address: SocketAddr = address.parse().unwrap();
        let ask = move || -> io::Result<String> {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.set_read_timeout(Some(Duration::from_secs(2)))?;
            socket.connect(address)?;
            socket.send(b"?")?;
            let mut buffer = [0; 64];
            let length = socket.recv(&mut buffer)?;
            Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
        };
        self.run(ask)
            .unwrap_or_else(|error| format!("{:?}", error.kind()))
    }
}

fn options() -> Options {
    Options {
        network: "10.96.0.0/16".parse().unwrap(),
        bridge: "lateen0".to_owned(),
        node: Ipv4Addr::new(10, 244, 0, 1),
    }
}

/// A node with a bridge, and pods that reach everything through the node.
fn scene() -> (Host, [Host; 2]) {
    let node = Host::new();
    node.shell("ip link add lateen0 type bridge && ip link set lateen0 up");
    node.shell("ip addr add 10.244.0.1/16 dev lateen0");
    node.shell("echo 1 > /proc/sys/net/ipv4/ip_forward");
    // Redirects would use up what the kernel may send a pod by ICMP in a second.
    node.shell("echo 0 | tee /proc/sys/net/ipv4/conf/*/send_redirects");
    let pods = [2, 3].map(|number| {
        let pod = Host::new();
        node.shell(&format!(
            "ip link add pod{number} type veth peer name eth0 netns /proc/{}/task/{}/ns/net && \
             ip link set pod{number} master lateen0 up",
            std::process::id(),
            pod.thread
        ));
        pod.shell(&format!(
            "ip addr add 10.244.0.{number}/32 dev eth0 && ip link set eth0 up"
        ));
        pod.shell("ip route add 10.244.0.1 dev eth0 && ip route add default via 10.244.0.1");
        pod
    });
    pods[0].serve("a");
    pods[1].serve("b");
    node.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(route(&options())).unwrap();
    });
    (node, pods)
}

fn entry(protocol: Protocol, port: u16, backends: &[&str]) -> Entry {
    Entry {
        protocol,
        addresses: vec![SocketAddr::new(Ipv4Addr::new(10, 96, 0, 5).into(), port)],
        node_port: Some(30000 + port),
        pick: Pick::Random,
        backends: backends.iter().map(|text| text.parse().unwrap()).collect(),
    }
}

fn apply(node: &Host, entries: Vec<Entry>) {
    node.run(move || program::batch(&entries, &options()).commit())
        .expect("rules are taken");
}

#[test]
#[ignore = "runs inside namespaces, started by packets"]
fn inner_packets() {
    let (node, [a, b]) = scene();
    let both = ["10.244.0.2:8080", "10.244.0.3:8080"];
    apply(
        &node,
        vec![
            entry(Protocol::Tcp, 80, &both),
            entry(Protocol::Tcp, 81, &both[..1]),
            entry(Protocol::Udp, 80, &both[1..]),
            entry(Protocol::Tcp, 82, &[]),
            entry(Protocol::Udp, 82, &[]),
        ],
    );
    // From a pod, keeping its address; both endpoints are used.
    assert_eq!(b.call("10.96.0.5:81"), "a 10.244.0.3");
    let answers: Vec<String> = (0..40).map(|_| node.call("10.96.0.5:80")).collect();
    assert!(
        answers.iter().any(|answer| answer == "a 10.244.0.1"),
        "{answers:?}"
    );
    assert!(
        answers.iter().any(|answer| answer == "b 10.244.0.1"),
        "{answers:?}"
    );
    // A pod that reaches itself sees the node.
    assert_eq!(a.call("10.96.0.5:81"), "a 10.244.0.1");
    // UDP, from a pod, itself and the node.
    assert_eq!(a.ask("10.96.0.5:80"), "b 10.244.0.2");
    assert_eq!(b.ask("10.96.0.5:80"), "b 10.244.0.1");
    assert_eq!(node.ask("10.96.0.5:80"), "b 10.244.0.1");
    // Node ports, from everywhere.
    assert_eq!(b.call("10.244.0.1:30081"), "a 10.244.0.3");
    assert_eq!(node.call("10.244.0.1:30081"), "a 10.244.0.1");
    assert_eq!(node.call("127.0.0.1:30081"), "a 10.244.0.1");
    // Nobody there: refused at once, by service and by address.
    for (host, by_udp) in [(&node, "PermissionDenied"), (&a, "ConnectionRefused")] {
        assert_eq!(host.call("10.96.0.5:82"), "ConnectionRefused");
        // On the node itself the kernel refuses the sending.
        assert_eq!(host.ask("10.96.0.5:82"), by_udp);
        assert_eq!(host.call("10.96.9.9:80"), "ConnectionRefused");
    }
    // Pods reach each other as before.
    assert_eq!(a.call("10.244.0.3:8080"), "b 10.244.0.2");
    // A change replaces everything, and an open connection goes on.
    let open = a.run(|| TcpStream::connect("10.96.0.5:81")).unwrap();
    apply(&node, vec![entry(Protocol::Tcp, 81, &both[1..])]);
    assert_eq!(a.call("10.96.0.5:81"), "b 10.244.0.2");
    assert_eq!(a.call("10.96.0.5:80"), "ConnectionRefused");
    let mut text = String::new();
    (&open).read_to_string(&mut text).unwrap();
    assert_eq!(text, "a 10.244.0.1");
}
