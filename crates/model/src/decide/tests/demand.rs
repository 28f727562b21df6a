//! What a proxy is sent that is not sent everything, and that it decides as if it were.

use super::mesh::{Mesh, parse};
use crate::decide::demand;
use crate::decide::plan::{ConnectionFacts, ConnectionPlan, Direction, Peer, RequestHead};
use crate::decide::reach::Directory;
use crate::decide::resources::ResourceSet;
use crate::decide::snapshot::Snapshot;
use crate::decide::{connection, known, request, server_name};
use crate::lookup::Lookup;
use crate::resource::Resource;
use std::collections::BTreeSet;

/// A control plane of one mesh, and what one proxy has asked it.
struct Asking {
    all: Vec<Resource>,
    directory: Directory,
    mesh: Mesh,
    asked: BTreeSet<Lookup>,
}

impl Asking {
    fn of(config: &str) -> Self {
        let mesh = parse(config);
        let all = mesh.set.to_resources();
        let mut directory = Directory::default();
        for (id, resource) in all.iter().enumerate() {
            directory.put(id as u32, resource);
        }
        Self {
            all,
            directory,
            mesh,
            asked: BTreeSet::new(),
        }
    }

    fn sent(&self) -> Vec<&Resource> {
        let reach = self.directory.reach(&self.mesh.scope, &self.asked);
        let all = self.all.iter().enumerate();
        let within = all.filter(|(id, _)| match &reach {
            Some(reach) => self.directory.is_within(reach, *id as u32),
            None => true,
        });
        within.map(|(_, resource)| resource).collect()
    }

    fn snapshot(&self) -> Snapshot {
        let set = ResourceSet::of(self.sent().into_iter().cloned());
        Snapshot::build(&set, &self.mesh.scope)
    }

    /// The decision of a proxy that asks until it knows what it needs.
    fn decide<T>(
        &mut self,
        wanted: impl Fn(&Snapshot) -> Vec<Lookup>,
        decide: impl Fn(&Snapshot) -> T,
    ) -> T {
        loop {
            let snapshot = self.snapshot();
            let before = self.asked.len();
            self.asked.extend(wanted(&snapshot));
            if self.asked.len() == before {
                return decide(&snapshot);
            }
        }
    }
}

/// Names of what is sent beside settings, services and VirtualServices by host.
fn names(asking: &Asking) -> String {
    let mut names: Vec<_> = asking
        .sent()
        .into_iter()
        .filter_map(|resource| match resource {
            Resource::Service(s) => Some(s.name.to_string()),
            Resource::Workload(w) => Some(format!("{}.pod", w.name)),
            Resource::RouteTable(r) => Some(format!("{}.routes", r.origin.name)),
            Resource::TrafficPolicy(p) => Some(format!("{}.policy", p.origin.name)),
            _ => None,
        })
        .collect();
    names.sort_unstable();
    names.join(" ")
}

#[track_caller]
fn check(config: &str, asked: &[&str], want: &str) {
    let mut asking = Asking::of(config);
    asking.asked = asked.iter().map(|text| text.parse().expect(text)).collect();
    let mut want: Vec<_> = want.split(' ').collect();
    want.sort_unstable();
    assert_eq!(names(&asking), want.join(" "), "{asked:?}");
}

const MESH: &str = "
mesh provider=authz
service default/web 10.96.0.1 http:80 tcp:90
service default/api 10.96.0.2 http:80
service default/db - tcp:5432
service shop/cart 10.96.0.3 http:80
service shop/secret 10.96.0.4 http:80 export=shop
service default/own 10.96.0.5 http:80
service default/authz 10.96.0.6 http:80
entry default/*.example.org - http:80
entry default/files.example.net - tls:443 dns
entry default/vip.example.net 240.0.0.1 http:80 dns
pod default/web-1 10.244.0.1 serves=web
pod default/api-1 10.244.0.2 serves=api
pod default/db-0 10.244.0.3 serves=db named
pod shop/cart-1 10.244.0.4 serves=cart
pod default/own-1 10.244.0.99 serves=own
pod default/authz-1 10.244.0.7 serves=authz
routes default/web hosts=web.default.svc.cluster.local
  http -> api.default.svc.cluster.local:80/v1
routes default/alone hosts=alone.example.com
  http -> cart.shop.svc.cluster.local:80
routes default/edge hosts=* gateways=default/edge
  http -> cart.shop.svc.cluster.local:80
policy default/api host=api subset=v1:app=x
policy default/web host=web rr
";

fn on_demand() -> String {
    format!("me sidecar default/sleep 10.244.0.99 app=sleep on-demand{MESH}")
}

#[test]
fn what_was_not_asked_for_is_not_sent() {
    let config = on_demand();
    // Its own service; who is asked about requests; services that are found by name only.
    let always = "*.example.org files.example.net authz authz-1.pod own own-1.pod";
    let check = |asked: &[&str], more: &str| {
        check(&config, asked, format!("{always} {more}").trim());
    };
    check(&[], "");
    check(&["host/nobody.example.com", "address/192.0.2.1"], "");
    for asked in [
        "host/api",
        "host/api.default",
        "host/api.default.svc.cluster.local",
        "address/10.96.0.2",
        "address/10.244.0.2",
    ] {
        check(&[asked], "api api-1.pod api.policy");
    }
    // A VirtualService comes with what it sends to, and that with its own rules.
    check(
        &["host/web"],
        "web web-1.pod web.routes web.policy api api-1.pod api.policy",
    );
    check(&["host/alone.example.com"], "alone.routes cart cart-1.pod");
    check(&["address/10.244.0.3"], "db db-0.pod");
    check(&["host/db-0.db"], "db db-0.pod");
    check(&["host/vip.example.net"], "vip.example.net");
    check(&["peer/10.244.0.4"], "cart-1.pod");
    check(&["host/cart"], "");
    check(&["host/secret.shop"], "");
}

#[test]
fn a_sidecar_object_limits_what_is_sent() {
    let scoped = |words: &str| format!("{MESH}scope default/own {words}");
    check(
        &scoped("egress=default/api.default.svc.cluster.local"),
        &[],
        "api api-1.pod api.policy authz authz-1.pod own own-1.pod",
    );
    // Who is imported with a VirtualService; who is left out.
    check(
        &scoped(
            "egress=default/* except=default/db.default.svc.cluster.local,default/*.example.org,default/*.example.net",
        ),
        &[],
        "alone.routes api api-1.pod api.policy cart cart-1.pod authz authz-1.pod own own-1.pod web web-1.pod web.policy web.routes",
    );
    // Somebody called, and the proxy wants to know who.
    check(
        &scoped("egress=default/api.default.svc.cluster.local"),
        &["peer/10.244.0.4"],
        "api api-1.pod api.policy cart-1.pod authz authz-1.pod own own-1.pod",
    );
    // What it does not import is not to be had by asking.
    let narrow = format!(
        "{}scope default/own egress=default/api.default.svc.cluster.local",
        on_demand()
    );
    check(
        &narrow,
        &["host/web", "host/api", "address/10.96.0.3"],
        "api api-1.pod api.policy authz authz-1.pod own own-1.pod",
    );
}

/// Whether nobody has the address: then any port may be HTTP.
fn is_unknown(snapshot: &Snapshot, facts: &ConnectionFacts) -> bool {
    let (ip, port) = (facts.destination.ip(), facts.destination.port());
    let registry = &snapshot.registry;
    registry.by_address(ip, port).is_none() && registry.by_endpoint(ip, port).is_none()
}

#[test]
fn a_proxy_that_asks_decides_as_one_that_has_everything() {
    let addresses = [
        "10.96.0.1:80",
        "10.96.0.1:90",
        "10.96.0.2:80",
        "10.96.0.3:80",
        "10.96.0.4:80",
        "10.244.0.1:80",
        "10.244.0.3:5432",
        "10.244.0.4:80",
        "240.0.0.1:80",
        "192.0.2.7:443",
        "192.0.2.7:5432",
    ];
    let hosts = [
        "web",
        "web:80",
        "api.default",
        "cart.shop.svc.cluster.local",
        "secret.shop",
        "alone.example.com",
        "a.example.org",
        "files.example.net",
        "nobody.example.com",
        "10.96.0.2",
        "db-0.db",
        "Web.Default",
    ];
    for scope in [
        "",
        "scope default/own egress=default/*",
        "scope default/own egress=shop/* registry-only",
    ] {
        let full = Asking::of(&format!("{MESH}{scope}")).snapshot();
        let config = format!("{}{scope}", on_demand());
        for address in addresses {
            let facts = ConnectionFacts {
                direction: Direction::Outbound,
                source: "10.244.0.99:40000".parse().expect("an address"),
                destination: address.parse().expect("an address"),
            };
            let ip = facts.destination.ip();
            let mut asking = Asking::of(&config);
            let to = |s: &Snapshot| demand::of_address(s, ip).into_iter().collect::<Vec<_>>();
            let got = asking.decide(to, |s| connection(s, &facts, 0));
            let want = match connection(&full, &facts, 0) {
                ConnectionPlan::Tcp(rest) | ConnectionPlan::Sni(rest)
                    if is_unknown(&full, &facts) =>
                {
                    ConnectionPlan::Detect(rest)
                }
                plan => plan,
            };
            assert_eq!(got, want, "{scope}: {address}");
            for host in hosts {
                let head = RequestHead {
                    method: &http::Method::GET,
                    authority: host,
                    path: "/",
                    scheme: "http",
                    headers: &http::HeaderMap::new(),
                    token: None,
                };
                let plan = |s: &Snapshot| request(s, &facts, &Peer::default(), &head, 0);
                let port = facts.destination.port();
                let wanted = |s: &Snapshot| {
                    to(s)
                        .into_iter()
                        .chain(demand::of_authority(s, port, host))
                        .collect()
                };
                let got = asking.decide(wanted, plan);
                assert_eq!(got, plan(&full), "{scope}: {address} {host}");
                let named = |s: &Snapshot| server_name(s, &facts, host, 0);
                let wanted = |s: &Snapshot| {
                    to(s)
                        .into_iter()
                        .chain(demand::of_server_name(s, host))
                        .collect()
                };
                assert_eq!(
                    asking.decide(wanted, named),
                    named(&full),
                    "{scope}: {address} TLS {host}"
                );
            }
        }
        let search = [
            "default.svc.cluster.local".to_owned(),
            "svc.cluster.local".to_owned(),
        ];
        for name in hosts
            .iter()
            .flat_map(|host| [(*host).to_owned(), format!("{host}.svc.cluster.local")])
        {
            let told = |s: &Snapshot| known(s, &name, &search);
            let mut asking = Asking::of(&config);
            let got = asking.decide(|s| demand::of_name(s, &name, &search), told);
            assert_eq!(got, told(&full), "{scope}: DNS {name}");
        }
    }
}
