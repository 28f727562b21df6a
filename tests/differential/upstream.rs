//! The servers behind both proxies: each records what it gets and answers by the script of the call.

use crate::case::{Cases, Step};
use crate::seen::{CALL, Request, headers, step};
use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::Notify;

/// How long a request that must come may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Every upstream, by service.
pub struct Upstreams {
    services: BTreeMap<String, Vec<Endpoint>>,
    shared: Arc<Shared>,
    last: RefCell<u64>,
}

/// One of a service's servers.
pub struct Endpoint {
    pub port: u16,
    /// Keeps a port that nobody listens at.
    _closed: Option<TcpSocket>,
}

#[derive(Default)]
struct Shared {
    calls: Mutex<HashMap<String, Call>>,
    came: Notify,
}

struct Call {
    script: Vec<Step>,
    requests: Vec<Request>,
}

/// A call that upstreams know.
pub struct Expected<'a> {
    pub id: String,
    shared: &'a Shared,
}

impl Upstreams {
    /// Opens the endpoints of all services.
    pub async fn start(cases: &Cases) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let mut services = BTreeMap::new();
        for (name, service) in &cases.services {
            let mut endpoints = Vec::new();
            for at in 1..=service.endpoints {
                let label = match service.endpoints {
                    1 => name.clone(),
                    _ => format!("{name}/{at}"),
                };
                endpoints.push(match at <= service.dead {
                    true => closed()?,
                    false => open(label, &shared).await?,
                });
            }
            services.insert(name.clone(), endpoints);
        }
        Ok(Self {
            services,
            shared,
            last: RefCell::default(),
        })
    }

    /// The endpoints of a service.
    pub fn of(&self, service: &str) -> &[Endpoint] {
        self.services.get(service).map_or(&[], Vec::as_slice)
    }

    /// Announces a call that will be answered by `script`.
    pub fn expect(&self, script: &[Step]) -> Expected<'_> {
        *self.last.borrow_mut() += 1;
        let id = self.last.borrow().to_string();
        let call = Call {
            script: script.to_vec(),
            requests: Vec::new(),
        };
        self.shared.calls().insert(id.clone(), call);
        Expected {
            id,
            shared: &self.shared,
        }
    }
}

impl Shared {
    fn calls(&self) -> MutexGuard<'_, HashMap<String, Call>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn requests(&self, id: &str) -> Option<Vec<Request>> {
        self.calls().get(id).map(|call| call.requests.clone())
    }
}

impl Expected<'_> {
    /// What came of it, once it is `least` requests; in the end whatever came.
    pub async fn requests(self, least: usize) -> Vec<Request> {
        let enough = async {
            loop {
                let came = self.shared.came.notified();
                tokio::pin!(came);
                came.as_mut().enable();
                let found = self.shared.requests(&self.id);
                match found {
                    Some(requests) if requests.len() >= least => return requests,
                    _ => came.await,
                }
            }
        };
        // Too few are a difference, which is told as such.
        let waited = tokio::time::timeout(PATIENCE, enough).await;
        waited.unwrap_or_else(|_| self.shared.requests(&self.id).unwrap_or_default())
    }
}

fn closed() -> Result<Endpoint> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(([127, 0, 0, 1], 0).into())?;
    Ok(Endpoint {
        port: socket.local_addr()?.port(),
        _closed: Some(socket),
    })
}

async fn open(label: String, shared: &Arc<Shared>) -> Result<Endpoint> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (label, shared) = (label.clone(), Arc::clone(&shared));
            let answer = move |request| serve(request, label.clone(), Arc::clone(&shared));
            tokio::spawn(async move {
                let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                // Ends with an error where a script wants that.
                let _ = server
                    .serve_connection(TokioIo::new(stream), service_fn(answer))
                    .await;
            });
        }
    });
    Ok(Endpoint {
        port,
        _closed: None,
    })
}

async fn serve(
    request: http::Request<Incoming>,
    upstream: String,
    shared: Arc<Shared>,
) -> Result<http::Response<Full<Bytes>>> {
    let (head, body) = request.into_parts();
    let id = head.headers.get(CALL).and_then(|id| id.to_str().ok());
    let id = id.context("a request without its call")?.to_owned();
    let body = body.collect().await?.to_bytes();
    let host = head.headers.get(http::header::HOST);
    let authority = match head.uri.authority() {
        Some(authority) => authority.to_string(),
        None => host
            .map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned())
            .unwrap_or_default(),
    };
    let mut seen = headers(&head.headers);
    seen.remove("host");
    let request = Request {
        upstream,
        version: head.version,
        method: head.method.to_string(),
        path: head
            .uri
            .path_and_query()
            .map_or_else(|| head.uri.to_string(), ToString::to_string),
        authority,
        headers: seen,
        body: String::from_utf8_lossy(&body).into_owned(),
    };
    let step = {
        let mut calls = shared.calls();
        let call = calls.get_mut(&id).context("a call that nobody made")?;
        call.requests.push(request);
        step(&call.script, call.requests.len() - 1)
    };
    shared.came.notify_waiters();
    if step.hang {
        // The proxy gives up, which ends this connection and with it this future.
        pending::<()>().await;
    }
    if step.close {
        bail!("as the script says");
    }
    let mut response = http::Response::builder().status(step.status);
    for (name, lines) in &step.headers {
        for line in lines.all() {
            response = response.header(name, line);
        }
    }
    Ok(response.body(Full::new(step.body.into()))?)
}
