//! A made-up Kubernetes API server: lists by pages, watches, and keeps what is written. It checks nothing, knows no
//! schema and forgets everything at its end.

mod answer;
mod path;

use anyhow::Result;
use bytes::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// An object of one collection.
#[derive(Debug, Clone)]
pub struct Object {
    /// Plural name of its kind.
    pub plural: String,
    /// Its namespace; empty: none.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// All of it.
    pub value: Value,
}

impl Object {
    /// An object whose metadata is completed with namespace, name, age and uid.
    pub fn new(plural: &str, namespace: &str, name: &str, mut value: Value) -> Self {
        let meta = &mut value["metadata"];
        meta["name"] = json!(name);
        if !namespace.is_empty() {
            meta["namespace"] = json!(namespace);
        }
        if meta["uid"].is_null() {
            meta["uid"] = json!(format!("uid-{plural}-{namespace}-{name}"));
        }
        if meta["creationTimestamp"].is_null() {
            meta["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        if let Some(meta) = meta.as_object_mut() {
            meta.retain(|_, value| !value.as_object().is_some_and(serde_json::Map::is_empty));
        }
        Self {
            plural: plural.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            value,
        }
    }
}

/// The server's content. A cheap handle: clones share one.
#[derive(Debug, Clone, Default)]
pub struct Api(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    version: u64,
    collections: HashMap<String, Collection>,
}

#[derive(Debug, Default)]
struct Collection {
    /// By `namespace/name`.
    objects: BTreeMap<String, Bytes>,
    /// Events since the first list, with their versions and keys.
    log: Vec<(u64, String, Bytes)>,
    watches: Vec<Watch>,
    /// Whether anybody has listed it: before, nothing has to be remembered.
    is_read: bool,
}

/// Somebody who follows a collection.
#[derive(Debug)]
struct Watch {
    wanted: Wanted,
    lines: mpsc::UnboundedSender<Bytes>,
}

/// The part of a collection that somebody asks for.
#[derive(Debug)]
struct Wanted {
    /// Empty: every one.
    namespace: String,
    /// Absent: every one.
    name: Option<String>,
}

impl Wanted {
    fn has(&self, key: &str) -> bool {
        let (namespace, name) = key.split_once('/').unwrap_or(("", key));
        (self.namespace.is_empty() || self.namespace == namespace)
            && self.name.as_ref().is_none_or(|wanted| wanted == name)
    }
}

impl Api {
    /// Puts an object in and tells who watches.
    pub fn put(&self, object: Object) -> Bytes {
        let Object {
            plural,
            namespace,
            name,
            mut value,
        } = object;
        let mut state = self.0.lock();
        state.version += 1;
        let version = state.version;
        value["metadata"]["resourceVersion"] = json!(version.to_string());
        let bytes = Bytes::from(value.to_string());
        let collection = state.collections.entry(plural).or_default();
        let key = format!("{namespace}/{name}");
        let old = collection.objects.insert(key.clone(), bytes.clone());
        let event = if old.is_some() { "MODIFIED" } else { "ADDED" };
        collection.tell(version, event, (key, &bytes));
        bytes
    }

    fn remove(&self, plural: &str, key: &str) {
        let mut state = self.0.lock();
        state.version += 1;
        let version = state.version;
        let collection = state.collections.entry(plural.to_owned()).or_default();
        if let Some(old) = collection.objects.remove(key) {
            collection.tell(version, "DELETED", (key.to_owned(), &old));
        }
    }

    fn find(&self, plural: &str, key: &str) -> Option<Bytes> {
        let state = self.0.lock();
        state.collections.get(plural)?.objects.get(key).cloned()
    }

    /// Size of everything in JSON, in bytes.
    pub fn size(&self) -> usize {
        let state = self.0.lock();
        let all = state.collections.values().flat_map(|c| c.objects.values());
        all.map(Bytes::len).sum()
    }

    /// Serves it on a free port of 127.0.0.1 until the process ends.
    ///
    /// # Errors
    /// No port is free.
    pub async fn serve(&self) -> Result<SocketAddr> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let api = self.clone();
        tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    continue;
                };
                let _ = stream.set_nodelay(true);
                let api = api.clone();
                let service =
                    hyper::service::service_fn(move |request| answer::answer(api.clone(), request));
                let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                tokio::spawn(async move {
                    // The client went: nobody is left to be told.
                    let _ = server.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Ok(address)
    }
}

impl Collection {
    fn tell(&mut self, version: u64, event: &str, (key, object): (String, &Bytes)) {
        if !self.is_read {
            return;
        }
        let object = String::from_utf8_lossy(object);
        let line = Bytes::from(format!("{{\"type\":\"{event}\",\"object\":{object}}}\n"));
        self.watches
            .retain(|watch| !watch.wanted.has(&key) || watch.lines.send(line.clone()).is_ok());
        self.log.push((version, key, line));
    }
}
