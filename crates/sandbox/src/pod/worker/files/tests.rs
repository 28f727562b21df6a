//! The files that name resolution in a pod uses.

use super::*;

fn pod(spec: serde_json::Value) -> Pod {
    serde_json::from_value(serde_json::json!({
        "metadata": {"name": "web-0", "namespace": "shop"}, "spec": spec
    }))
    .expect("a pod")
}

#[test]
fn resolv_conf_searches_the_cluster() {
    let plain = resolv_conf(&pod(serde_json::json!({"containers": []})));
    assert_eq!(
        plain,
        "search shop.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n"
    );
    let own = resolv_conf(&pod(serde_json::json!({
        "containers": [],
        "dnsPolicy": "None",
        "dnsConfig": {"nameservers": ["1.1.1.1"], "options": [{"name": "ndots", "value": "2"}]}
    })));
    assert_eq!(own, "nameserver 1.1.1.1\noptions ndots:2\n");
}

#[test]
fn hosts_names_the_pod_and_its_aliases() {
    let pod = pod(serde_json::json!({
        "containers": [], "subdomain": "web",
        "hostAliases": [{"ip": "10.1.2.3", "hostnames": ["a", "b"]}]
    }));
    let text = hosts(
        &pod,
        &host_name(&pod),
        std::net::Ipv4Addr::new(10, 244, 0, 7),
    );
    assert!(
        text.contains("10.244.0.7\tweb-0.web.shop.svc.cluster.local\tweb-0\n"),
        "{text}"
    );
    assert!(text.contains("10.1.2.3\ta\tb\n"), "{text}");
}
