//! When the engine pushes: nothing before everything is known, then in batches.

mod supply;

use super::{Engine, Page, Parts, Views};
use crate::credentials::Found;
use crate::inject::Settings;
use crate::jwks::Keys;
use crate::metrics::Metrics;
use crate::source::{Books, Delta, Event, Id, IstioKind, Seen, slim};
use crate::status::Wishes;
use crate::webhook::NamespaceLabels;
use lateen_model::resource::Kind;
use lateen_xds::server::Store;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

struct Running {
    events: mpsc::Sender<Seen>,
    store: Store,
    /// Held, so that the engine goes on hoping for reports.
    reports: (mpsc::Sender<Delta<Keys>>, mpsc::Sender<Delta<Found>>),
    views: Views,
    metrics: Arc<Metrics>,
    namespaces: NamespaceLabels,
    wishes: Wishes,
}

impl Running {
    fn start() -> Self {
        let metrics: Arc<Metrics> = Arc::default();
        let namespaces = NamespaceLabels::default();
        let (keys, key_reports) = mpsc::channel(8);
        let (credentials, credential_reports) = mpsc::channel(8);
        let store = Store::new();
        let wishes = Wishes::default();
        let (engine, views) = Engine::new(Parts {
            store: store.clone(),
            metrics: Arc::clone(&metrics),
            wishes: wishes.clone(),
            namespaces: Arc::clone(&namespaces),
            injection: Settings::default(),
            debounce_quiet: Duration::from_millis(10),
            debounce_most: Duration::from_millis(100),
            keys: key_reports,
            credentials: credential_reports,
        });
        let (events, seen) = mpsc::channel(64);
        tokio::spawn(engine.run(seen, CancellationToken::new()));
        Self {
            events,
            store,
            reports: (keys, credentials),
            views,
            metrics,
            namespaces,
            wishes,
        }
    }

    async fn send(&self, event: Event) {
        let at = Instant::now();
        let sent = self.events.send(Seen { at, event }).await;
        assert!(sent.is_ok(), "the engine runs");
        // Asking for a page waits until the engine has taken the event.
        self.page(Page::Graph).await;
    }

    async fn page(&self, page: Page) -> Value {
        self.views.ask.page(page).await.expect("the engine runs")
    }

    /// Everything but the Pods is reported.
    async fn almost_sync(&self) {
        let shop = json!({ "istio-injection": "enabled" });
        let labels = serde_json::from_value(shop).expect("labels");
        let all = vec![(Id::new("", "shop"), labels)];
        self.send(Event::Namespace(Delta::Replace(all))).await;
        self.send(Event::Node(Delta::Replace(Vec::new()))).await;
        self.send(Event::Service(Box::new(Delta::Replace(Vec::new()))))
            .await;
        self.send(Event::EndpointSlice(Delta::Replace(Vec::new())))
            .await;
        self.send(Event::MeshConfig(Delta::Replace(Vec::new())))
            .await;
        for kind in IstioKind::ALL {
            self.send(Event::Istio(kind, Box::new(Delta::Replace(Vec::new()))))
                .await;
        }
    }

    async fn sync(&self) {
        self.almost_sync().await;
        self.send(Event::Pod(Delta::Replace(Vec::new()))).await;
        let mut synced = self.views.synced.clone();
        synced.wait_for(|synced| *synced).await.expect("it runs");
    }

    async fn route(&self, name: &str, metadata: Value) {
        let mut metadata = metadata;
        metadata["name"] = json!(name);
        metadata["namespace"] = json!("shop");
        let written = slim::written(json!({
            "apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": metadata,
            "spec": { "hosts": [name], "http": [{ "route": [{ "destination": { "host": name } }] }] },
        }));
        let delta = Delta::Set(Id::new("shop", name), (written, Books::default()));
        self.send(Event::Istio(IstioKind::VirtualService, Box::new(delta)))
            .await;
    }

    fn pushes(&self) -> u64 {
        self.metrics.pushes.value()
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_pushed_before_everything_is_known() {
    let running = Running::start();
    running.almost_sync().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(
        (running.pushes(), *running.views.synced.borrow()),
        (0, false)
    );
    running.send(Event::Pod(Delta::Replace(Vec::new()))).await;
    let mut synced = running.views.synced.clone();
    synced.wait_for(|synced| *synced).await.expect("it runs");
    assert_eq!(running.pushes(), 1);
    assert!(running.namespaces.read().contains_key("shop"));
}

#[tokio::test(start_paused = true)]
async fn changes_are_pushed_together_once_it_is_quiet() {
    let running = Running::start();
    running.sync().await;
    let before = running.pushes();
    running.route("a", json!({})).await;
    tokio::time::sleep(Duration::from_millis(8)).await;
    running.route("b", json!({})).await;
    tokio::time::sleep(Duration::from_millis(8)).await;
    assert_eq!(running.pushes(), before, "still not quiet");
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(running.pushes(), before + 1);
    assert_eq!(running.views.counts.borrow().virtual_services, 2);
}

#[tokio::test(start_paused = true)]
async fn a_storm_does_not_hold_pushes_back_for_ever() {
    let running = Running::start();
    running.sync().await;
    let before = running.pushes();
    for i in 0..30 {
        running.route(&format!("r{i}"), json!({})).await;
        tokio::time::sleep(Duration::from_millis(7)).await;
    }
    let pushes = running.pushes() - before;
    assert!(
        (2..=3).contains(&pushes),
        "210 ms of changes: {pushes} pushes"
    );
}

#[tokio::test(start_paused = true)]
async fn an_edit_of_metadata_pushes_nothing() {
    let running = Running::start();
    running.sync().await;
    running.route("a", json!({})).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = running.pushes();
    let touched = json!({ "annotations": { "who": "me" }, "resourceVersion": "7" });
    running.route("a", touched).await;
    running
        .route("a", json!({ "labels": { "team": "x" } }))
        .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(running.pushes(), before);
    let status = running.page(Page::PushStatus).await;
    assert_eq!(status["pushes"], before);
}

/// A ServiceEntry `shop/db` with this status.
fn db(status: Value) -> Event {
    let written = slim::written(json!({
        "apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry",
        "metadata": { "name": "db", "namespace": "shop" },
        "spec": {
            "hosts": ["db.example"], "resolution": "DNS",
            "ports": [{ "number": 5432, "name": "tcp", "protocol": "TCP" }],
        },
    }));
    assert!(written.object.is_some(), "{:?}", written.notices);
    let books = Books {
        status,
        ..Books::default()
    };
    let delta = Delta::Set(Id::new("shop", "db"), (written, books));
    Event::Istio(IstioKind::ServiceEntry, Box::new(delta))
}

#[tokio::test(start_paused = true)]
async fn addresses_are_allocated_and_written_down() {
    let running = Running::start();
    running.sync().await;
    let allocated = async || {
        let page = running.page(Page::Resources(Kind::Service)).await;
        page[0]["Service"]["allocated"].clone()
    };
    running.send(db(Value::Null)).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let drawn = allocated().await;
    assert_eq!(drawn.as_array().map(Vec::len), Some(2), "{drawn}");
    let wish = running.wishes.take().expect("a status to write");
    assert_eq!(wish.event, None);
    let told = &wish.patch["status"]["addresses"];
    assert_eq!(told[0], json!({ "value": drawn[0], "host": "db.example" }));

    // What is written down is not written again, and counts after a restart.
    let kept = json!({ "addresses": [{ "value": "240.240.9.9", "host": "db.example" }] });
    let restarted = Running::start();
    restarted.almost_sync().await;
    restarted.send(db(kept)).await;
    let pods = Event::Pod(Delta::Replace(Vec::new()));
    restarted.send(pods).await;
    let mut synced = restarted.views.synced.clone();
    synced.wait_for(|synced| *synced).await.expect("it runs");
    let page = restarted.page(Page::Resources(Kind::Service)).await;
    let kept = &page[0]["Service"]["allocated"];
    assert_eq!(kept[0], "240.240.9.9", "{page}");
    running.send(db(wish.patch["status"].clone())).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(running.wishes.take(), None);
    assert_eq!(allocated().await, drawn);
}

#[tokio::test(start_paused = true)]
async fn mesh_config_reaches_injection() {
    let running = Running::start();
    running.sync().await;
    let id = Id::new("istio-system", "istio");
    let text = "trustDomain: corp\nenablePrometheusMerge: false\n".to_owned();
    running.send(Event::MeshConfig(Delta::Set(id, text))).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let settings = running.views.settings.borrow().clone();
    assert_eq!(
        (settings.trust_domain.as_str(), settings.prometheus_merge),
        ("corp", false)
    );
}
