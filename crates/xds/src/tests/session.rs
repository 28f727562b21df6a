//! Session against subscription, message by message.

mod demand;

use super::{key, scope, settings, table};
use crate::codec::LOOKUP;
use crate::node;
use crate::server::Identity;
use crate::session::Session;
use crate::subscription::Subscription;
use crate::table::Table;
use lateen_model::mesh::{OutboundMode, Scope};
use lateen_model::name::Origin;
use lateen_model::resource::{Key, Kind, Resource};
use lateen_model::security::{Credential, Secret};
use lateen_proto::discovery::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource as Wire, Status,
};
use std::time::SystemTime;

/// One proxy and one control plane, with responses held back until told.
struct Pair {
    table: Table,
    session: Session,
    subscription: Subscription,
    scope: Scope,
    /// Who the connection belongs to.
    proved: Option<Identity>,
    /// Sent and not yet answered.
    under_way: Vec<DeltaDiscoveryResponse>,
}

impl Pair {
    fn new(table: Table) -> Self {
        Self {
            table,
            session: Session::new(None, SystemTime::UNIX_EPOCH),
            subscription: Subscription::default(),
            scope: scope("sleep", "default"),
            proved: None,
            under_way: Vec::new(),
        }
    }

    fn connect(&mut self) {
        self.session = Session::new(self.proved.clone(), SystemTime::UNIX_EPOCH);
        self.under_way.clear();
        let node = node::encode(&self.scope, &node::id(&self.scope), "test");
        for request in self.subscription.open(node) {
            self.request(request);
        }
    }

    fn request(&mut self, request: DeltaDiscoveryRequest) {
        self.session
            .on_request(&self.table, request, SystemTime::UNIX_EPOCH)
            .expect("a good request");
    }

    fn apply(&mut self, changed: Vec<Resource>, removed: &[&str]) {
        let removed = removed.iter().map(|name| key(name)).collect();
        self.table.apply(changed, removed);
    }

    /// What the control plane sends now, as one line for each response that is not empty.
    fn sent(&mut self) -> Vec<String> {
        let passed = self.session.pass(&self.table);
        let responses = self.session.pump(&self.table, SystemTime::UNIX_EPOCH);
        assert!(!passed || responses.is_empty(), "{responses:?}");
        let lines = responses.iter().filter_map(line).collect();
        self.under_way.extend(responses);
        lines
    }

    /// The proxy answers everything under way; refusals come back.
    fn answered(&mut self) -> Vec<String> {
        let mut refused = Vec::new();
        for response in std::mem::take(&mut self.under_way) {
            let outcome = self.subscription.on_response(response);
            refused.extend(outcome.refused);
            self.request(outcome.reply);
        }
        refused
    }

    /// Exchanges messages until nothing moves; everything sent on the way.
    fn settle(&mut self) -> Vec<String> {
        let mut all = Vec::new();
        loop {
            all.extend(self.sent());
            if self.under_way.is_empty() {
                return all;
            }
            self.answered();
        }
    }
}

/// `RouteTable +a/b -c/d`; a trailing `…` when more follows.
fn line(response: &DeltaDiscoveryResponse) -> Option<String> {
    let kind = response.type_url.rsplit('.').next().unwrap_or_default();
    let mut names: Vec<_> = response
        .resources
        .iter()
        .map(|r| format!("+{}", r.name))
        .collect();
    names.extend(response.removed_resources.iter().map(|n| format!("-{n}")));
    names.sort();
    let more = response.system_version_info.ends_with('+');
    let end = if more { " …" } else { "" };
    (!names.is_empty()).then(|| format!("{kind} {}{end}", names.join(" ")))
}

fn ready(resources: Vec<Resource>) -> Table {
    let mut table = Table::default();
    table.apply(resources, Vec::new());
    table.mark_ready();
    table
}

#[test]
fn nothing_is_sent_before_the_store_is_ready() {
    let mut table = Table::default();
    table.apply(vec![super::table("a/x", "h", None)], Vec::new());
    let mut pair = Pair::new(table);
    pair.connect();
    assert_eq!(pair.session.pump(&pair.table, SystemTime::UNIX_EPOCH), []);
    pair.table.mark_ready();
    assert_eq!(pair.settle(), ["RouteTable +a/x"]);
}

#[test]
fn every_kind_is_answered_in_push_order_even_when_empty() {
    let mut pair = Pair::new(ready(vec![
        table("a/x", "h", None),
        settings(OutboundMode::AllowAny),
    ]));
    pair.connect();
    let responses = pair.session.pump(&pair.table, SystemTime::UNIX_EPOCH);
    let kinds: Vec<_> = responses
        .iter()
        .map(|r| crate::codec::kind_of(&r.type_url))
        .collect();
    assert_eq!(kinds, Kind::ALL.map(Some));
    let synced: Vec<_> = responses
        .into_iter()
        .map(|r| pair.subscription.on_response(r).synced)
        .collect();
    let (last, others) = synced.split_last().expect("kinds");
    assert!(*last && !others.contains(&true), "{synced:?}");
}

#[test]
fn changes_and_removals_are_sent_and_equal_values_are_not() {
    let mut pair = Pair::new(ready(vec![
        table("a/x", "h", None),
        table("a/y", "h", None),
    ]));
    pair.connect();
    pair.settle();
    pair.apply(vec![table("a/x", "h", None)], &[]);
    assert!(pair.settle().is_empty(), "the same content");
    pair.apply(vec![table("a/x", "new", None)], &["a/y", "a/never"]);
    assert_eq!(pair.settle(), ["RouteTable +a/x -a/y"]);
    assert_eq!(pair.session.acked(), Some(pair.table.generation()));
}

#[test]
fn a_slow_client_gets_the_latest_value_only() {
    let mut pair = Pair::new(ready(vec![]));
    pair.connect();
    pair.settle();
    pair.apply(vec![table("a/x", "1", None)], &[]);
    assert_eq!(pair.sent(), ["RouteTable +a/x"]);
    for host in ["2", "3", "4"] {
        pair.apply(
            vec![table("a/x", host, None), table("a/gone", host, None)],
            &[],
        );
        pair.apply(vec![], &["a/gone"]);
        assert!(pair.sent().is_empty(), "one response is under way");
    }
    assert!(pair.session.acked() < Some(pair.table.generation()));
    pair.answered();
    let responses = pair.session.pump(&pair.table, SystemTime::UNIX_EPOCH);
    assert_eq!(responses.len(), 1);
    let resource = &responses[0].resources[0];
    let any = resource.resource.as_ref().expect("a value");
    let value = crate::codec::decode(&any.type_url, &any.value);
    assert_eq!(value, Ok(table("a/x", "4", None)));
}

#[test]
fn what_refers_waits_for_what_is_referred_to() {
    let mut pair = Pair::new(ready(vec![]));
    pair.connect();
    pair.settle();
    pair.apply(vec![settings(OutboundMode::RegistryOnly)], &[]);
    assert_eq!(pair.sent(), ["MeshSettings +default"]);
    pair.apply(
        vec![settings(OutboundMode::AllowAny), table("a/x", "h", None)],
        &[],
    );
    assert!(
        pair.sent().is_empty(),
        "newer settings wait, and the routes behind them"
    );
    assert_eq!(pair.settle(), ["MeshSettings +default", "RouteTable +a/x"]);
}

#[test]
fn only_the_difference_after_a_reconnect() {
    let mut pair = Pair::new(ready(vec![
        table("a/same", "h", None),
        table("a/changes", "h", None),
        table("a/goes", "h", None),
        table("a/hides", "h", None),
    ]));
    pair.connect();
    assert_eq!(pair.settle().len(), 1);
    pair.connect();
    assert!(pair.settle().is_empty(), "nothing changed");
    // A new control plane process: its own table, numbered anew, the same content for the most part.
    pair.table = ready(vec![
        table("a/new", "h", None),
        table("a/hides", "h", Some("other")),
        table("a/changes", "h2", None),
        table("a/same", "h", None),
    ]);
    pair.connect();
    assert_eq!(
        pair.settle(),
        ["RouteTable +a/changes +a/new -a/goes -a/hides"]
    );
}

#[test]
fn what_is_not_exported_is_not_sent_and_leaves_when_it_is_hidden() {
    let mut pair = Pair::new(ready(vec![
        table("a/x", "h", Some("other")),
        table("a/y", "h", Some("default")),
    ]));
    pair.connect();
    assert_eq!(pair.settle(), ["RouteTable +a/y"]);
    pair.apply(vec![table("a/x", "h2", Some("other"))], &[]);
    assert!(pair.settle().is_empty(), "a change out of sight");
    pair.apply(
        vec![
            table("a/x", "h", Some("default")),
            table("a/y", "h", Some("other")),
        ],
        &[],
    );
    assert_eq!(pair.settle(), ["RouteTable +a/x -a/y"]);
    pair.apply(vec![], &["a/x", "a/y"]);
    assert_eq!(pair.settle(), ["RouteTable -a/x"]);
}

#[test]
fn large_answers_are_split() {
    let host = "h".repeat(300_000);
    let tables = ["a/1", "a/2", "a/3", "a/4"].map(|name| table(name, &host, None));
    let mut pair = Pair::new(ready(tables.to_vec()));
    pair.connect();
    let first = pair.sent();
    assert_eq!(first.len(), 1, "{first:?}");
    assert!(first[0].ends_with(" …"));
    assert!(
        !pair.subscription_synced_by_all(),
        "the answer is not whole"
    );
    let rest = pair.settle();
    assert_eq!(rest.len(), 1, "{rest:?}");
    assert!(!rest[0].ends_with(" …"));
}

impl Pair {
    fn subscription_synced_by_all(&mut self) -> bool {
        let responses = std::mem::take(&mut self.under_way);
        let mut synced = false;
        for response in responses {
            let outcome = self.subscription.on_response(response);
            synced |= outcome.synced;
            self.request(outcome.reply);
        }
        synced
    }
}

#[test]
fn a_bad_resource_is_refused_and_the_others_are_taken() {
    let mut pair = Pair::new(ready(vec![
        table("a/x", "h", None),
        table("a/y", "h", None),
    ]));
    pair.connect();
    pair.sent();
    let routes = pair.under_way.iter_mut().find(|r| !r.resources.is_empty());
    let resource: &mut Wire = &mut routes.expect("routes").resources[0];
    let name = resource.name.clone();
    resource.resource.as_mut().expect("a value").value = vec![0x0a, 0x00].into();
    let refused = pair.answered();
    assert_eq!(refused, ["RouteTable, field origin.kind: it is empty"]);
    let status = pair.session.status().expect("known").kinds[&Kind::RouteTable].clone();
    assert_eq!(
        (status.nack.as_deref(), status.rejects),
        (Some(&*refused[0]), 1)
    );
    // The refused one has no version, so it is sent again on the next stream, and only it.
    pair.connect();
    assert_eq!(pair.settle(), [format!("RouteTable +{name}")]);
}

#[test]
fn stale_and_foreign_messages() {
    let mut pair = Pair::new(ready(vec![table("a/x", "h", None)]));
    pair.connect();
    pair.sent();
    let routes = crate::codec::type_url(Kind::RouteTable).to_owned();
    pair.request(DeltaDiscoveryRequest {
        type_url: routes.clone(),
        response_nonce: "999".into(),
        error_detail: Some(Status::default()),
        ..DeltaDiscoveryRequest::default()
    });
    assert!(
        pair.session.is_waiting(),
        "a stranger's nonce answers nothing"
    );
    let request = DeltaDiscoveryRequest {
        type_url: "type.googleapis.com/envoy.config.cluster.v3.Cluster".into(),
        ..DeltaDiscoveryRequest::default()
    };
    let error = pair
        .session
        .on_request(&pair.table, request, SystemTime::UNIX_EPOCH)
        .expect_err("unknown type");
    assert!(error.to_string().contains("is not served"), "{error}");
    let mut session = Session::new(None, SystemTime::UNIX_EPOCH);
    let request = DeltaDiscoveryRequest {
        type_url: routes,
        ..DeltaDiscoveryRequest::default()
    };
    let error = session
        .on_request(&pair.table, request, SystemTime::UNIX_EPOCH)
        .expect_err("no node");
    assert_eq!(
        error.to_string(),
        "the first request of a stream must carry a node"
    );
}

#[test]
fn names_on_demand() {
    let mut pair = Pair::new(ready(vec![
        table("a/x", "h", None),
        table("a/y", "h", None),
    ]));
    let url = crate::codec::type_url(Kind::RouteTable).to_owned();
    let ask = |names: &[&str], drop: &[&str], node| DeltaDiscoveryRequest {
        node,
        type_url: url.clone(),
        resource_names_subscribe: names.iter().map(ToString::to_string).collect(),
        resource_names_unsubscribe: drop.iter().map(ToString::to_string).collect(),
        ..DeltaDiscoveryRequest::default()
    };
    let node = node::encode(&pair.scope, &node::id(&pair.scope), "test");
    pair.request(ask(&["a/x", "a/nowhere"], &[], Some(node)));
    assert_eq!(pair.settle(), ["RouteTable +a/x -a/nowhere"]);
    pair.request(ask(&["a/y"], &["a/x"], None));
    assert_eq!(pair.settle(), ["RouteTable +a/y"]);
    pair.apply(vec![table("a/x", "2", None), table("a/y", "2", None)], &[]);
    assert_eq!(pair.settle(), ["RouteTable +a/y"]);
}

#[test]
fn removed_slots_are_used_again_once_everybody_knows() {
    let mut pair = Pair::new(ready(vec![]));
    pair.connect();
    pair.settle();
    for round in 0..100 {
        let name = format!("a/pod-{round}");
        pair.apply(vec![table(&name, "h", None)], &[]);
        assert_eq!(pair.settle(), [format!("RouteTable +{name}")]);
        pair.apply(vec![], &[&name]);
        assert_eq!(pair.settle(), [format!("RouteTable -{name}")]);
        pair.table.forget_removed(pair.session.settled());
    }
    assert_eq!(
        Kind::ALL
            .into_iter()
            .flat_map(|kind| pair.table.ids_of(kind))
            .count(),
        0
    );
    assert!(pair.table.slots_allocated() <= 2, "slots are reused");
}

fn identity(namespace: &str, account: &str) -> Identity {
    Identity {
        namespace: namespace.into(),
        service_account: account.into(),
    }
}

fn credential(readers: &[&str]) -> Resource {
    Resource::Credential(Credential {
        origin: Origin {
            kind: "Secret".into(),
            namespace: "default".into(),
            name: "tls".into(),
            created: 1,
        },
        chain: "chain".into(),
        key: Secret::new("key"),
        ca: "".into(),
        crl: "".into(),
        readers: readers.iter().map(|reader| (*reader).into()).collect(),
    })
}

#[test]
fn credentials_go_to_accounts_that_proved_who_they_are() {
    let check = |proved: Option<Identity>, readers: &[&str], want: &[&str]| {
        let mut pair = Pair::new(ready(vec![credential(readers)]));
        pair.proved = proved;
        pair.connect();
        assert_eq!(pair.settle(), want, "{:?} {readers:?}", pair.proved);
        let status = pair.session.status().expect("a node");
        assert_eq!(status.authenticated, pair.proved.is_some());
        pair.apply(vec![credential(&["default", "more"])], &[]);
        let sent = !pair.settle().is_empty();
        assert_eq!(sent, pair.proved.is_some(), "a change is no back door");
    };
    let own = || Some(identity("default", "default"));
    check(own(), &["default"], &["Credential +default/tls"]);
    check(own(), &["other"], &[]);
    check(None, &["default"], &[]);
}

#[test]
fn a_node_that_is_not_what_was_proved_is_refused() {
    for (namespace, account) in [("other", "default"), ("default", "admin"), ("", "")] {
        let mut pair = Pair::new(ready(vec![table("a/x", "h", None)]));
        pair.session = Session::new(Some(identity(namespace, account)), SystemTime::UNIX_EPOCH);
        let node = node::encode(&pair.scope, &node::id(&pair.scope), "test");
        let first = pair.subscription.open(node).remove(0);
        let refused = pair
            .session
            .on_request(&pair.table, first, SystemTime::UNIX_EPOCH)
            .expect_err("another identity");
        let text = refused.to_string();
        assert!(text.contains("the node says default/default"), "{text}");
        assert!(text.contains(&format!("{namespace}/{account}")), "{text}");
        assert_eq!(pair.settle(), Vec::<String>::new(), "nothing leaks");
    }
}

#[test]
fn names_are_bounded() {
    let mut pair = Pair::new(Table::default());
    let first = |names: Vec<String>| DeltaDiscoveryRequest {
        node: Some(node::encode(&pair.scope, &node::id(&pair.scope), "test")),
        type_url: crate::codec::type_url(Kind::Service).to_owned(),
        resource_names_subscribe: names,
        ..DeltaDiscoveryRequest::default()
    };
    let many = |count: usize| (0..count).map(|n| n.to_string()).collect::<Vec<_>>();
    let long = first((0..3).map(|n| n.to_string().repeat(1 << 19)).collect());
    let (most, more) = (first(many(10_000)), first(vec!["one more".to_owned()]));
    let again = first(many(10_000));
    let ask = |pair: &mut Pair, request| {
        let session = &mut pair.session;
        session.on_request(&pair.table, request, SystemTime::UNIX_EPOCH)
    };
    assert_eq!(ask(&mut pair, most), Ok(()));
    assert_eq!(ask(&mut pair, again), Ok(()), "the same names are no more");
    let refused = ask(&mut pair, more).expect_err("too many");
    assert!(refused.to_string().contains("10000 names"), "{refused}");
    pair.session = Session::new(None, SystemTime::UNIX_EPOCH);
    assert!(ask(&mut pair, long).is_err());
}
