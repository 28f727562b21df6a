//! The pages on 8080 and 15014: readiness, metrics, version, debug. They read; nothing is changed here, and no
//! secret is within their reach. Debug pages are not for everybody: [`guard`] says who sees what.

pub(crate) mod guard;
mod proxies;
#[cfg(test)]
mod tests;

use crate::ca;
use crate::engine::{Ask, Page};
use crate::http::{Answer, json, text};
use crate::metrics::{Figures, Metrics};
use guard::{Guard, View};
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use lateen_model::resource::Kind;
use lateen_xds::server::{ProxyStatus, Store};
use serde_json::{Value, json as value};
use std::sync::Arc;
use tokio::sync::watch;

/// What the pages are made from.
#[derive(Clone)]
pub(crate) struct Pages {
    pub(crate) store: Store,
    pub(crate) metrics: Arc<Metrics>,
    /// Whether every source is known and the servers are open.
    pub(crate) ready: watch::Receiver<bool>,
    pub(crate) counts: watch::Receiver<Counts>,
    pub(crate) ask: Ask,
    pub(crate) ca: watch::Receiver<ca::Page>,
    pub(crate) version: Arc<str>,
    pub(crate) guard: Guard,
}

/// Sizes of the mesh, published by the engine after each commit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) services: usize,
    pub(crate) virtual_services: usize,
}

/// The debug pages and what they show.
const PAGES: [(&str, &str); 11] = [
    ("/debug/syncz", "what each proxy was sent and acknowledged"),
    (
        "/debug/configz",
        "configuration objects and the notices about them",
    ),
    ("/debug/registryz", "services"),
    ("/debug/endpointz", "workloads and the services they serve"),
    ("/debug/adsz", "connected proxies in detail"),
    ("/debug/connections", "connected proxies by version"),
    ("/debug/push_status", "the last push and all errors"),
    (
        "/debug/graph",
        "collections, their sizes and how often transforms ran",
    ),
    (
        "/debug/config_dump?proxyID=NAME.NAMESPACE",
        "the resources that a proxy may have",
    ),
    (
        "/debug/ca",
        "the CA: what signs and which roots are trusted",
    ),
    ("/debug/list", "this list"),
];

impl Pages {
    /// Answers one request.
    pub(crate) async fn handle(self, request: Request<Incoming>) -> Answer {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return text(
                StatusCode::METHOD_NOT_ALLOWED,
                "these pages are only read\n",
            );
        }
        match request.uri().path().trim_end_matches('/') {
            "/ready" => self.ready(),
            "/metrics" => self.metrics(),
            "/version" => json(&value!({ "version": &*self.version, "name": "lateen" })),
            path if path == "/debug" || path.starts_with("/debug/") => self.debug(&request).await,
            _ => text(StatusCode::NOT_FOUND, "no such page; see /debug/list\n"),
        }
    }

    async fn debug(&self, request: &Request<Incoming>) -> Answer {
        let view = match self
            .guard
            .admit(request.extensions(), request.headers())
            .await
        {
            Ok(view) => view,
            Err(refusal) => {
                let mut answer = text(refusal.status(), format!("{refusal}\n"));
                if refusal.status() == StatusCode::UNAUTHORIZED {
                    let scheme = http::HeaderValue::from_static("Bearer");
                    let headers = answer.headers_mut();
                    headers.insert(http::header::WWW_AUTHENTICATE, scheme);
                }
                return answer;
            }
        };
        let query = request.uri().query().unwrap_or_default();
        let proxies = self.proxies(&view);
        match (request.uri().path().trim_end_matches('/'), &view) {
            ("/debug" | "/debug/list", _) => json(&list()),
            ("/debug/syncz", _) => json(&proxies::sync(&proxies)),
            ("/debug/adsz", _) => json(&proxies::detail(&proxies)),
            ("/debug/connections", _) => json(&proxies::connections(&proxies)),
            ("/debug/config_dump", _) => self.config_dump(query, &proxies),
            (_, View::Namespace(namespace)) => text(
                StatusCode::FORBIDDEN,
                format!(
                    "accounts of namespace {namespace} see only pages about their own proxies: syncz, adsz, \
                     connections, config_dump\n"
                ),
            ),
            ("/debug/configz", View::All) => self.page(Page::Configuration).await,
            ("/debug/registryz", View::All) => self.page(Page::Resources(Kind::Service)).await,
            ("/debug/endpointz", View::All) => self.page(Page::Resources(Kind::Workload)).await,
            ("/debug/push_status", View::All) => self.page(Page::PushStatus).await,
            ("/debug/ca", View::All) => json(&*self.ca.borrow()),
            ("/debug/graph", View::All) => self.page(Page::Graph).await,
            _ => text(StatusCode::NOT_FOUND, "no such page; see /debug/list\n"),
        }
    }

    /// The connected proxies that a view includes.
    fn proxies(&self, view: &View) -> Vec<ProxyStatus> {
        let mut proxies = self.store.proxies();
        if let View::Namespace(namespace) = view {
            proxies.retain(|proxy| proxy.scope.namespace == *namespace);
        }
        proxies
    }

    fn ready(&self) -> Answer {
        match *self.ready.borrow() {
            true => text(StatusCode::OK, "ready\n"),
            false => text(
                StatusCode::SERVICE_UNAVAILABLE,
                "not ready: not every source has been read yet\n",
            ),
        }
    }

    fn metrics(&self) -> Answer {
        let counts = *self.counts.borrow();
        let mut figures = Figures {
            services: counts.services,
            virtual_services: counts.virtual_services,
            version: self.version.to_string(),
            ..Figures::default()
        };
        for proxy in self.store.proxies() {
            *figures.proxies.entry(proxy.version.clone()).or_default() += 1;
            for (kind, status) in &proxy.kinds {
                let kind = format!("{kind:?}");
                *figures.sent.entry(kind.clone()).or_default() += status.carried;
                *figures.rejects.entry(kind).or_default() += status.rejects;
            }
        }
        crate::http::answer(
            StatusCode::OK,
            "text/plain; version=0.0.4; charset=utf-8",
            self.metrics.render(&figures).into(),
        )
    }

    async fn page(&self, page: Page) -> Answer {
        match self.ask.page(page).await {
            Some(page) => json(&page),
            None => text(
                StatusCode::SERVICE_UNAVAILABLE,
                "the control plane is stopping\n",
            ),
        }
    }

    fn config_dump(&self, query: &str, proxies: &[ProxyStatus]) -> Answer {
        let wanted = query
            .split('&')
            .find_map(|pair| pair.strip_prefix("proxyID="))
            .unwrap_or_default();
        let Some(proxy) = proxies
            .iter()
            .find(|proxy| proxies::is_called(proxy, wanted))
        else {
            let known: Vec<String> = proxies.iter().map(proxies::name).collect();
            return text(
                StatusCode::NOT_FOUND,
                format!(
                    "no connected proxy is called {wanted:?}; connected: {}\n",
                    known.join(", ")
                ),
            );
        };
        json(&proxies::config_dump(proxy, &self.store))
    }
}

fn list() -> Value {
    let pages = PAGES
        .iter()
        .map(|(path, what)| value!({ "path": path, "shows": what }));
    pages.collect()
}
