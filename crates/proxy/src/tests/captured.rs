//! Two pods with sidecars and the real capture: a call to a service's address passes both proxies, found by the
//! kernel's own memory of where it was going.
//!
//! The case runs in a copy of the test program inside fresh namespaces: nothing is left behind.

use super::mesh::{pod, service};
use super::*;
use lateen_model::mesh::{Role, Scope};
use lateen_model::service::Protocol;
use lateen_net::capture::{CaptureRules, apply};
use nix::sched::{CloneFlags, unshare};
use std::process::Command;
use std::sync::mpsc;

#[test]
fn calls_pass_both_sidecars() {
    let root = nix::unistd::geteuid().is_root();
    let output = Command::new("unshare")
        .args(if root {
            &["-n", "-m"][..]
        } else {
            &["-Urn", "-m"]
        })
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "tests::captured::inner",
            "--ignored",
            "--nocapture",
        ])
        .output()
        .expect("the test needs unshare (util-linux)");
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        output.status.success() && out.contains("1 passed"),
        "{out}{err}"
    );
}

fn shell(command: &str) {
    let output = Command::new("sh").args(["-ec", command]).output().unwrap();
    assert!(output.status.success(), "{command}: {output:?}");
}

fn resources() -> Vec<Resource> {
    let mut all = Vec::new();
    let mut pods = Vec::new();
    for (name, vip, protocol, port) in [
        ("web", "10.96.0.1", Protocol::Http, 8080),
        ("any", "10.96.0.2", Protocol::Detect, 8081),
        ("db", "10.96.0.3", Protocol::Detect, 8082),
    ] {
        all.push(service(name, vip, 80, protocol));
        pods.push(pod(name, "v1", 80, SocketAddr::from(([10, 9, 0, 2], port))));
    }
    // One pod serves all three.
    let whole = pods.into_iter().reduce(|one, other| match (one, other) {
        (Resource::Workload(mut one), Resource::Workload(other)) => {
            one.services.extend(other.services);
            Resource::Workload(one)
        }
        (one, _) => one,
    });
    all.extend(whole);
    all.push(pod("sleep", "v1", 80, "10.9.0.1:80".parse().unwrap()));
    all
}

/// Runs `job` in the pod with this address: its own network namespace, a sidecar, and capture.
fn in_pod(last: u8, log: Log, job: impl FnOnce() + Send + 'static) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let scope = mesh::scope(Role::Sidecar);
        let address = IpAddr::V4(Ipv4Addr::new(10, 9, 0, last));
        let mut config = Config::new(Scope {
            on_demand: false,
            addresses: vec![address],
            ..scope
        });
        config.resources = Some(resources());
        config.concurrency = 1;
        let proxy = Proxy::start(config, log).unwrap();
        apply(&CaptureRules::default()).unwrap();
        job();
        drop(proxy);
    })
}

/// A namespace that is ready to be joined to another; its thread goes on with what it is sent.
fn namespace() -> (i32, mpsc::Sender<Box<dyn FnOnce() + Send>>) {
    let (ready, thread) = mpsc::channel();
    let (go, jobs) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
    std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a new network namespace");
        shell("ip link set lo up");
        ready.send(nix::unistd::gettid().as_raw()).unwrap();
        jobs.into_iter().for_each(|job| job());
    });
    (thread.recv().unwrap(), go)
}

/// The applications of the second pod.
fn applications() {
    run(async {
        web_at("10.9.0.2:8080", "from web").await;
        web_at("10.9.0.2:8081", "from any").await;
        let listener = TcpListener::bind("10.9.0.2:8082").await.unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"greetings").await.unwrap();
        // The caller ends the connection.
        let _ = stream.read_u8().await;
    });
}

async fn web_at(address: &str, body: &'static str) {
    let listener = TcpListener::bind(address).await.unwrap();
    tokio::task::spawn_local(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            read_head(&mut stream).await;
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
}

#[test]
#[ignore = "runs inside namespaces made by calls_pass_both_sidecars"]
fn inner() {
    let ((client, on_client), (server, on_server)) = (namespace(), namespace());
    let (done, finished) = mpsc::channel();
    let link = done.clone();
    on_client
        .send(Box::new(move || {
            let peer = format!("/proc/{}/task/{server}/ns/net", std::process::id());
            shell(&format!("ip link add eth0 type veth peer name eth0 netns {peer}"));
            shell("ip addr add 10.9.0.1/24 dev eth0; ip link set eth0 up; ip route add default dev eth0");
            link.send(()).unwrap();
        }))
        .unwrap();
    finished.recv().unwrap();
    assert_ne!(client, server);
    let (calls, answers) = (Log::default(), Log::default());
    let server_log = answers.clone();
    let (up, is_up) = mpsc::channel();
    on_server
        .send(Box::new(move || {
            shell("ip addr add 10.9.0.2/24 dev eth0; ip link set eth0 up");
            let pod = in_pod(2, server_log, applications);
            up.send(()).unwrap();
            pod.join().unwrap();
        }))
        .unwrap();
    is_up.recv().unwrap();
    let client_log = calls.clone();
    on_client
        .send(Box::new(move || {
            let log = client_log.clone();
            let pod = in_pod(1, log, move || run(talk(client_log, answers)));
            pod.join().unwrap();
            done.send(()).unwrap();
        }))
        .unwrap();
    finished
        .recv_timeout(Duration::from_secs(30))
        .expect("the client came through");
}

async fn talk(calls: Log, answers: Log) {
    for (vip, want, outbound, inbound) in [
        (
            "10.96.0.1:80",
            "from web",
            "outbound|80||web.default",
            "inbound|8080||",
        ),
        (
            "10.96.0.2:80",
            "from any",
            "outbound|80||any.default",
            "inbound|8081||",
        ),
    ] {
        let (before, then) = (calls.lines(0).await.len(), answers.lines(0).await.len());
        let answer = loop {
            // The other pod may still be starting.
            if let Ok(mut stream) = TcpStream::connect(vip).await {
                let answer = exchange(
                    &mut stream,
                    &format!("GET / HTTP/1.1\r\nhost: {vip}\r\n\r\n"),
                )
                .await;
                if answer.starts_with("HTTP/1.1 200") {
                    break answer;
                }
            }
        };
        assert!(
            answer.ends_with(want) && answer.contains("server: envoy"),
            "{answer}"
        );
        for (log, at, cluster) in [(&calls, before, outbound), (&answers, then, inbound)] {
            let line = log.lines(at + 1).await.pop().unwrap();
            assert!(
                line.contains(cluster) && line.contains(" 200 - via_upstream "),
                "{cluster}: {line}"
            );
        }
    }
    let mut stream = TcpStream::connect("10.96.0.3:80").await.unwrap();
    let mut greeting = [0; 9];
    stream.read_exact(&mut greeting).await.unwrap();
    assert_eq!(
        &greeting, b"greetings",
        "the server spoke first through both proxies"
    );
}
