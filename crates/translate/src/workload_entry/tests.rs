//! Cases of `workload_entry`: text in, observable result out.

use super::*;
use expect_test::expect;
use lateen_api::object::Object;

#[test]
fn services_that_select_it() {
    let text = "
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: vm, namespace: ns, labels: {tier: db}}
spec: {address: 10.0.0.9, labels: {app: db, version: v2}, ports: {sql: 3307}, serviceAccount: sa}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: se, namespace: ns}
spec: {hosts: [db.local], ports: [{number: 3306, name: sql, protocol: TCP}], resolution: STATIC, workloadSelector: {labels: {app: db}}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: other, namespace: ns}
spec: {hosts: [x.local], ports: [{number: 1, name: x, protocol: TCP}], resolution: STATIC, workloadSelector: {labels: {app: x}}}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: ns}
spec: {selector: {app: db}, ports: [{name: sql, port: 5000, targetPort: 1}, {name: web, port: 5001, targetPort: 5002}]}
";
    let mut entry = None;
    let mut service_entries = Vec::new();
    let mut services = Vec::<core::Service>::new();
    for document in lateen_api::yaml::parse("f", text) {
        match document.object.expect("read") {
            Object::WorkloadEntry(config) => entry = Some(config),
            Object::ServiceEntry(config) => service_entries.push(config),
            _ => services.push(serde_json::from_value(document.value).expect("a Service")),
        }
    }
    let (resources, notices) = workload_entry(Inputs {
        config: &entry.expect("an entry"),
        service_entries: &service_entries.iter().collect::<Vec<_>>(),
        services: &services.iter().collect::<Vec<_>>(),
        health: Health::Ready,
        mesh: &Mesh::default(),
    });
    assert_eq!(notices, []);
    let [Resource::Workload(w)] = &resources[..] else {
        panic!("{resources:?}");
    };
    let said = format!(
        "{} {:?} {:?} {} {} {}\n{:#?}\n",
        w.uid,
        w.addresses,
        w.labels,
        w.canonical_name,
        w.canonical_revision,
        w.service_account,
        w.services
    );
    expect![[r#"
        WorkloadEntry/ns/vm [10.0.0.9] {"app": "db", "tier": "db", "version": "v2"} db v2 sa
        {
            ServiceKey {
                namespace: "ns",
                hostname: "db.local",
            }: ServicePorts {
                ports: {
                    3306: 3307,
                },
                health: Ready,
                hostname: None,
            },
            ServiceKey {
                namespace: "ns",
                hostname: "db.ns.svc.cluster.local",
            }: ServicePorts {
                ports: {
                    5000: 3307,
                    5001: 5002,
                },
                health: Ready,
                hostname: None,
            },
        }
    "#]]
    .assert_eq(&said);
}
