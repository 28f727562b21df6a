//! Protocol selection (Istio: "Protocol Selection"): by `appProtocol`, else by the port name's prefix.

use lateen_model::service::Protocol;

/// Ports where servers speak first: opaque TCP unless declared (Istio: SMTP, DNS, MySQL, MongoDB).
const SERVER_FIRST: [u16; 4] = [25, 53, 3306, 27017];

/// What a port of a Kubernetes Service speaks. `transport` is the port's `protocol`.
pub fn of_service_port(
    number: u16,
    name: &str,
    app_protocol: Option<&str>,
    transport: &str,
) -> Protocol {
    if transport.eq_ignore_ascii_case("UDP") {
        return Protocol::Udp;
    }
    let declared = match app_protocol {
        Some(app_protocol) => named(app_protocol),
        None => of_port_name(name),
    };
    declared.unwrap_or(if SERVER_FIRST.contains(&number) {
        Protocol::Tcp
    } else {
        Protocol::Detect
    })
}

/// The protocol that a port name declares, such as `http`, `grpc-web-main` or `tcp-db`. Absent: none.
pub fn of_port_name(name: &str) -> Option<Protocol> {
    let name = name.to_ascii_lowercase();
    if name == "grpc-web" || name.starts_with("grpc-web-") {
        return Some(Protocol::GrpcWeb);
    }
    let prefix = name.split('-').next().unwrap_or(&name);
    named(prefix)
}

/// The protocol of this name, in any case: Istio's names and Kubernetes' `kubernetes.io/…`. Absent: unknown.
pub fn named(name: &str) -> Option<Protocol> {
    Some(match &*name.to_ascii_lowercase() {
        "http" | "kubernetes.io/ws" => Protocol::Http,
        "http2" | "kubernetes.io/h2c" => Protocol::Http2,
        "grpc" => Protocol::Grpc,
        "grpc-web" => Protocol::GrpcWeb,
        "https" | "tls" | "kubernetes.io/wss" => Protocol::Tls,
        "tcp" | "mongo" | "redis" | "mysql" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(number: u16, name: &str, app_protocol: Option<&str>, want: Protocol) {
        let said = of_service_port(number, name, app_protocol, "TCP");
        assert_eq!(said, want, "{number} {name} {app_protocol:?}");
    }

    #[test]
    fn as_istio_selects() {
        check(80, "http", None, Protocol::Http);
        check(80, "HTTP-web", None, Protocol::Http);
        check(80, "httpweb", None, Protocol::Detect);
        check(80, "http2-a", None, Protocol::Http2);
        check(80, "grpc-web-a", None, Protocol::GrpcWeb);
        check(80, "grpc-a", None, Protocol::Grpc);
        check(443, "https", None, Protocol::Tls);
        check(80, "", None, Protocol::Detect);
        check(3306, "", None, Protocol::Tcp);
        check(3306, "http", None, Protocol::Http);
        check(80, "tcp", Some("http"), Protocol::Http);
        check(80, "http", Some("kubernetes.io/h2c"), Protocol::Http2);
        check(80, "http", Some("example.com/own"), Protocol::Detect);
        check(80, "redis", None, Protocol::Tcp);
        assert_eq!(of_service_port(53, "dns", None, "UDP"), Protocol::Udp);
    }
}
