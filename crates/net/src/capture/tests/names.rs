//! DNS questions of an application and of the proxy beside it, to a server outside.

use super::*;
use std::net::UdpSocket;

#[test]
fn questions_go_to_the_proxy() {
    in_namespaces("names::inner_dns");
}

impl Host {
    /// Answers every datagram with `name`.
    fn answer(&self, address: &str, name: &'static str) {
        let address: SocketAddr = address.parse().unwrap();
        let socket = self.run(move || UdpSocket::bind(address)).unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((_, client)) = socket.recv_from(&mut buffer) {
                socket.send_to(name.as_bytes(), client).unwrap();
            }
        });
    }

    /// Sends a datagram, from a port when one is given, and reads the answer; the socket takes answers of that address
    /// only.
    fn datagram(&self, mark: bool, port: u16, address: &str) -> String {
        let address: SocketAddr = address.parse().unwrap();
        let ask = move || {
            let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
            if mark {
                socket.set_mark(PROXY_ID)?;
            }
            let own = if address.is_ipv4() {
                "10.9.0.1"
            } else {
                "fd09::1"
            };
            let own: IpAddr = own.parse().unwrap();
            socket.bind(&SocketAddr::new(own, port).into())?;
            let socket = UdpSocket::from(socket);
            socket.set_read_timeout(Some(Duration::from_secs(3)))?;
            socket.connect(address)?;
            socket.send(b"who")?;
            let mut buffer = [0; 64];
            let length = socket.recv(&mut buffer)?;
            io::Result::Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
        };
        match self.run(ask) {
            Ok(text) => text,
            Err(error) => format!("{:?}", error.kind()),
        }
    }
}

#[test]
#[ignore = "runs inside namespaces, started by questions_go_to_the_proxy"]
fn inner_dns() {
    let (pod, outside) = scene();
    for (address, name) in [("127.0.0.1:15053", "proxy"), ("[::1]:15053", "proxy")] {
        pod.answer(address, name);
        pod.serve(address, name);
    }
    for address in ["10.9.0.2:53", "[fd09::2]:53", "10.9.0.3:53", "10.9.0.2:54"] {
        if address.starts_with("10.9.0.3") {
            outside.shell("ip addr add 10.9.0.3/24 dev eth0");
        }
        outside.answer(address, "outside");
        outside.serve(address, "outside");
    }
    let servers = ["10.9.0.2", "fd09::2"].map(|ip| ip.parse().unwrap());
    let mut rules = CaptureRules {
        dns: Dns::Servers(servers.to_vec()),
        ..CaptureRules::default()
    };
    pod.capture(&rules);
    for address in ["10.9.0.2:53", "[fd09::2]:53"] {
        assert_eq!(pod.datagram(false, 0, address), "proxy", "{address}");
        assert_eq!(pod.datagram(true, 0, address), "outside", "{address}");
        assert!(pod.call(Caller::Application, address).starts_with("proxy"));
        assert!(pod.call(Caller::Marked, address).starts_with("outside"));
        // The application's question of a moment ago had this port, too.
        assert_eq!(pod.datagram(false, 5353, address), "proxy", "{address}");
        assert_eq!(pod.datagram(true, 5353, address), "outside", "{address}");
    }
    // Other ports and other servers are none of its business.
    assert_eq!(pod.datagram(false, 0, "10.9.0.2:54"), "outside");
    assert_eq!(pod.datagram(false, 0, "10.9.0.3:53"), "outside");
    assert!(
        pod.call(Caller::Application, "10.9.0.3:53")
            .starts_with("outbound")
    );

    rules.dns = Dns::All;
    pod.capture(&rules);
    assert_eq!(pod.datagram(false, 0, "10.9.0.3:53"), "proxy");
    assert_eq!(pod.datagram(true, 0, "10.9.0.3:53"), "outside");
}
