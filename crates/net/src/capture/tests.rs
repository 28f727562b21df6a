//! Capture with real connections: a pod and an outside host as two network namespaces, and a
//! proxy that only tells who was called.
//!
//! The cases run in a copy of the test program inside fresh namespaces, so that nothing is left
//! behind and no right is needed on the machine itself.

mod names;

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use socket2::{Domain, Socket, Type};

use super::*;

/// Runs an ignored test of this file inside new user, network and mount namespaces.
fn in_namespaces(case: &str) {
    let root = nix::unistd::geteuid().is_root();
    let mut command = Command::new("unshare");
    // Real root keeps its users, so that sockets of user 1337 can be tried as well.
    command.args(if root {
        &["-n", "-m"][..]
    } else {
        &["-Urn", "-m"]
    });
    command.arg(std::env::current_exe().unwrap());
    command.args([
        "--exact",
        &format!("capture::tests::{case}"),
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
    assert!(output.status.success(), "{text}");
    assert!(
        text.contains("1 passed"),
        "the case {case} did not run: {text}"
    );
    eprint!("{text}");
}

macro_rules! cases {
    ($($outer:ident => $inner:ident),* $(,)?) => {$(
        #[test]
        fn $outer() {
            in_namespaces(stringify!($inner));
        }
    )*};
}

cases! {
    default_rules => inner_default,
    exclusions => inner_exclusions,
    inclusions => inner_inclusions,
    apply_twice_and_remove => inner_replace,
    listing_matches => inner_listing,
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

    fn shell(&self, command: &str) -> String {
        let command = command.to_owned();
        self.run(move || {
            let output = Command::new("sh").args(["-c", &command]).output().unwrap();
            assert!(output.status.success(), "{command}: {output:?}");
            String::from_utf8_lossy(&output.stdout).into_owned()
        })
    }

    /// Answers every connection with `name` and the destination it was meant for.
    fn serve(&self, address: &str, name: &'static str) {
        let address: SocketAddr = address.parse().unwrap();
        let listener = self
            .run(move || TcpListener::bind(address))
            .expect("a free port");
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let wanted = original(&stream);
                let _ = write!(stream, "{name} {wanted}");
            }
        });
    }

    /// Connects and reads the answer to the end; an error by its kind.
    fn call(&self, caller: Caller, address: &str) -> String {
        let address: SocketAddr = address.parse().unwrap();
        // A thread of its own may change its user, and inherits the namespace.
        let dial = move || {
            std::thread::spawn(move || dial(caller, address))
                .join()
                .unwrap()
        };
        match self.run(dial) {
            Ok(text) => text,
            Err(error) => format!("{:?}", error.kind()),
        }
    }

    fn capture(&self, rules: &CaptureRules) {
        let rules = rules.clone();
        self.run(move || apply(&rules))
            .expect("rules that the kernel takes");
    }
}

/// Who dials.
#[derive(Clone, Copy)]
enum Caller {
    Application,
    Marked,
    User(u32),
    Group(u32),
    From(&'static str),
}

fn dial(caller: Caller, address: SocketAddr) -> io::Result<String> {
    match caller {
        Caller::User(id) => become_(libc::SYS_setresuid, id)?,
        Caller::Group(id) => become_(libc::SYS_setresgid, id)?,
        _ => {}
    }
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    match caller {
        Caller::Marked => socket.set_mark(PROXY_ID)?,
        Caller::From(source) => {
            socket.set_mark(PROXY_ID)?;
            let source: IpAddr = source.parse().unwrap();
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        _ => {}
    }
    socket.connect_timeout(&address.into(), Duration::from_secs(3))?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(3)))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// Changes the calling thread's user or group; libc's own functions would change all threads.
fn become_(call: libc::c_long, id: u32) -> io::Result<()> {
    #[expect(unsafe_code, reason = "per-thread credentials have no safe wrapper")]
    // SAFETY: the calls take three plain numbers.
    let result = unsafe { libc::syscall(call, id, id, id) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn original(stream: &TcpStream) -> SocketAddr {
    use nix::sys::socket::{getsockopt, sockopt};
    if stream.local_addr().unwrap().is_ipv4() {
        match getsockopt(stream, sockopt::OriginalDst) {
            Ok(raw) => {
                let ip = Ipv4Addr::from(u32::from_be(raw.sin_addr.s_addr));
                (ip, u16::from_be(raw.sin_port)).into()
            }
            Err(_) => stream.local_addr().unwrap(),
        }
    } else {
        match getsockopt(stream, sockopt::Ip6tOriginalDst) {
            Ok(raw) => (
                Ipv6Addr::from(raw.sin6_addr.s6_addr),
                u16::from_be(raw.sin6_port),
            )
                .into(),
            Err(_) => stream.local_addr().unwrap(),
        }
    }
}

/// A pod 10.9.0.1 with application and proxy, and a host 10.9.0.2 outside.
fn scene() -> (Host, Host) {
    let (pod, outside) = (Host::new(), Host::new());
    pod.shell(&format!(
        "ip link add eth0 type veth peer name eth0 netns /proc/{}/task/{}/ns/net",
        std::process::id(),
        outside.thread
    ));
    for (host, last) in [(&pod, 1), (&outside, 2)] {
        host.shell(&format!("ip addr add 10.9.0.{last}/24 dev eth0"));
        host.shell(&format!("ip addr add fd09::{last}/64 dev eth0 nodad"));
        host.shell("ip link set eth0 up");
    }
    pod.shell("ip addr add ::6/128 dev lo nodad");
    for (address, name) in [
        ("[::]:15001", "outbound"),
        ("[::]:15006", "inbound"),
        ("[::]:8080", "application"),
        ("[::]:9090", "application"),
        ("[::]:15021", "ready"),
    ] {
        pod.serve(address, name);
    }
    for address in ["10.9.0.2:80", "10.9.0.2:3306", "[fd09::2]:80"] {
        outside.serve(address, "outside");
    }
    (pod, outside)
}

fn check(host: &Host, caller: Caller, address: &str, expected: &str) {
    // A dual-stack listener sees IPv4 peers as mapped addresses.
    let answer = host
        .call(caller, address)
        .replace("[::ffff:10.9.0.", "[10.9.0.");
    assert_eq!(answer, expected, "calling {address}");
}

#[test]
#[ignore = "runs inside namespaces, started by default_rules"]
fn inner_default() {
    let (pod, outside) = scene();
    check(
        &pod,
        Caller::Application,
        "10.9.0.2:80",
        "outside 10.9.0.2:80",
    );
    pod.capture(&CaptureRules::default());

    // Outbound, both IP versions, any port.
    assert!(
        pod.call(Caller::Application, "10.9.0.2:80")
            .starts_with("outbound")
    );
    check(
        &pod,
        Caller::Application,
        "[fd09::2]:80",
        "outbound [fd09::2]:80",
    );
    assert!(
        pod.call(Caller::Application, "10.9.0.77:9999")
            .starts_with("outbound")
    );
    // The proxy's own calls leave.
    check(&pod, Caller::Marked, "10.9.0.2:80", "outside 10.9.0.2:80");
    check(&pod, Caller::Marked, "[fd09::2]:80", "outside [fd09::2]:80");
    // Inbound, except for the ports of the proxy itself.
    assert!(
        outside
            .call(Caller::Application, "10.9.0.1:8080")
            .starts_with("inbound")
    );
    check(
        &outside,
        Caller::Application,
        "[fd09::1]:8080",
        "inbound [fd09::1]:8080",
    );
    assert!(
        outside
            .call(Caller::Application, "10.9.0.1:15021")
            .starts_with("ready")
    );
    // Inside the pod nothing is captured, …
    assert!(
        pod.call(Caller::Application, "127.0.0.1:8080")
            .starts_with("application")
    );
    assert!(
        pod.call(Caller::Application, "10.9.0.1:8080")
            .starts_with("application")
    );
    assert!(
        pod.call(Caller::Marked, "127.0.0.1:8080")
            .starts_with("application")
    );
    // … but the proxy's call to its own pod, unless it comes from the inbound side.
    assert!(
        pod.call(Caller::Marked, "10.9.0.1:8080")
            .starts_with("inbound")
    );
    check(
        &pod,
        Caller::Marked,
        "[fd09::1]:8080",
        "inbound [fd09::1]:8080",
    );
    assert!(
        pod.call(Caller::From("127.0.0.6"), "10.9.0.1:8080")
            .starts_with("application")
    );
    assert!(
        pod.call(Caller::From("::6"), "[fd09::1]:8080")
            .starts_with("application")
    );

    for caller in [Caller::User(PROXY_ID), Caller::Group(PROXY_ID)] {
        match pod.call(caller, "10.9.0.2:80").as_str() {
            // A user namespace of an ordinary user has one user only.
            "InvalidInput" => eprintln!("NOT TRIED: exemption by user and group (needs root)"),
            answer => assert_eq!(answer, "outside 10.9.0.2:80"),
        }
    }
}

#[test]
#[ignore = "runs inside namespaces, started by exclusions"]
fn inner_exclusions() {
    let (pod, outside) = scene();
    pod.capture(&CaptureRules {
        excluded_outbound_ports: vec![3306],
        excluded_inbound_ports: vec![9090],
        excluded_outbound_networks: vec!["fd09::/64".parse().unwrap()],
        ..CaptureRules::default()
    });
    assert!(
        pod.call(Caller::Application, "10.9.0.2:80")
            .starts_with("outbound")
    );
    check(
        &pod,
        Caller::Application,
        "10.9.0.2:3306",
        "outside 10.9.0.2:3306",
    );
    check(
        &pod,
        Caller::Application,
        "[fd09::2]:80",
        "outside [fd09::2]:80",
    );
    assert!(
        outside
            .call(Caller::Application, "10.9.0.1:8080")
            .starts_with("inbound")
    );
    assert!(
        outside
            .call(Caller::Application, "10.9.0.1:9090")
            .starts_with("application")
    );

    pod.capture(&CaptureRules {
        excluded_interfaces: vec!["eth0".to_owned()],
        ..CaptureRules::default()
    });
    check(
        &pod,
        Caller::Application,
        "10.9.0.2:80",
        "outside 10.9.0.2:80",
    );
    assert!(
        outside
            .call(Caller::Application, "10.9.0.1:8080")
            .starts_with("application")
    );
}

#[test]
#[ignore = "runs inside namespaces, started by inclusions"]
fn inner_inclusions() {
    let (pod, outside) = scene();
    pod.capture(&CaptureRules {
        outbound_networks: Networks::Only(vec!["fd09::/16".parse().unwrap()]),
        included_outbound_ports: vec![3306],
        inbound_ports: Ports::Only(vec![9090]),
        ..CaptureRules::default()
    });
    check(
        &pod,
        Caller::Application,
        "10.9.0.2:80",
        "outside 10.9.0.2:80",
    );
    assert!(
        pod.call(Caller::Application, "10.9.0.2:3306")
            .starts_with("outbound")
    );
    assert!(
        pod.call(Caller::Application, "[fd09::2]:80")
            .starts_with("outbound")
    );
    assert!(
        outside
            .call(Caller::Application, "10.9.0.1:8080")
            .starts_with("application")
    );
    assert!(
        outside
            .call(Caller::Application, "10.9.0.1:9090")
            .starts_with("inbound")
    );

    pod.capture(&CaptureRules {
        outbound_networks: Networks::Only(Vec::new()),
        inbound_ports: Ports::Only(Vec::new()),
        ..CaptureRules::default()
    });
    check(
        &pod,
        Caller::Application,
        "10.9.0.2:80",
        "outside 10.9.0.2:80",
    );
    assert!(
        outside
            .call(Caller::Application, "10.9.0.1:8080")
            .starts_with("application")
    );
}

#[test]
#[ignore = "runs inside namespaces, started by apply_twice_and_remove"]
fn inner_replace() {
    let (pod, _outside) = scene();
    pod.run(remove).expect("nothing to remove is no error");
    pod.capture(&CaptureRules::default());
    pod.capture(&CaptureRules::default());
    assert!(
        pod.call(Caller::Application, "10.9.0.2:80")
            .starts_with("outbound")
    );
    pod.run(remove).unwrap();
    check(
        &pod,
        Caller::Application,
        "10.9.0.2:80",
        "outside 10.9.0.2:80",
    );
}

#[test]
#[ignore = "runs inside namespaces, started by listing_matches"]
fn inner_listing() {
    let Some(listing) = crate::nft::tests::listing(|| apply(&CaptureRules::default()).unwrap())
    else {
        return;
    };
    for line in [
        "type nat hook prerouting priority dstnat; policy accept;",
        "tcp dport { 15000, 15008, 15020, 15021, 15090 } return",
        "meta l4proto tcp jump to-inbound",
        "type nat hook output priority -100; policy accept;",
        "oifname \"lo\" ip saddr 127.0.0.6 return",
        "meta skuid 1337 oifname \"lo\" ip daddr != 127.0.0.1 tcp dport != 15008 jump to-inbound",
        "meta skuid 1337 return",
        "meta skgid 1337 return",
        "meta mark 0x00000539 return",
        "redirect to :15001",
        "redirect to :15006",
    ] {
        assert!(listing.contains(line), "no {line:?} in:\n{listing}");
    }
}

#[test]
fn nonsense_is_refused_before_the_kernel_is_asked() {
    let same = CaptureRules {
        inbound_port: OUTBOUND_PORT,
        ..CaptureRules::default()
    };
    assert_eq!(
        apply(&same).unwrap_err().to_string(),
        "cannot capture traffic: inbound and outbound connections cannot both go to port 15001; \
         give them two ports"
    );
    let name = CaptureRules {
        excluded_interfaces: vec!["much-too-long-a-name".to_owned()],
        ..CaptureRules::default()
    };
    assert!(
        apply(&name)
            .unwrap_err()
            .to_string()
            .contains("is no interface name")
    );
}
