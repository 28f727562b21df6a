//! The spine: one request from its head to its response. HTTP versions differ only below this.
//!
//! ```text
//! canonical head -> decide::request -> filters -> rewrite, edits -> upstream::send -> filters, edits -> client
//! ```

use crate::body::{ResponseBody, grpc_status};
use crate::connection::Conn;
use crate::drain::Stage;
use crate::exchange::{Kind, Open};
use crate::fault;
use crate::upstream::{Failed, Order, Replay, Sent, UNREACHED};
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, request};
use lateen_filters::{Context, chain, edits, reply};
use lateen_model::decide;
use lateen_model::decide::cluster::Cluster;
use lateen_model::decide::plan::{
    Direction, Fault, FaultReason, ForwardPlan, RequestHead, RequestPlan, RouteFacts,
};
use lateen_model::route::HeaderEdit;
use lateen_net::http::{Body, Busy, Incoming, OnUpgrade, Upgraded, Version, tunnel, upgrade};
use lateen_net::original::canonical;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use tokio::time::Instant;

/// Answers one request of a connection.
pub(crate) async fn answer(
    conn: Rc<Conn>,
    version: Version,
    mut request: Request<Incoming>,
    busy: Busy,
) -> Response<Body> {
    let mut open = begin(&conn, &request, busy);
    let mut cx = Context::new(conn.facts.direction, conn.facts.source);
    let client = upgrade(&mut request);
    let (mut head, body) = request.into_parts();
    let mut response = match canonical_head(&mut head, conn.facts.destination) {
        Err(subject) => {
            let fault = Fault {
                reason: FaultReason::BadRequest,
                origin: None,
                subject,
            };
            refuse(&conn, &mut cx, open, &fault, None)
        }
        Ok(authority) => {
            describe(&mut open, &head, &authority);
            match decide_request(&conn, &head, &authority) {
                RequestPlan::Forward(plan) => {
                    let call = Call {
                        conn: &conn,
                        version,
                        plan: &plan,
                        client,
                    };
                    call.forward(&mut cx, open, head, body).await
                }
                RequestPlan::Redirect { redirect, route } => {
                    let answer = reply::redirect(&plain(&head, &authority), &redirect);
                    let answer = answer.map(|()| Body::Empty);
                    direct(&conn, &mut cx, open, (&route, &[]), answer)
                }
                RequestPlan::Direct {
                    status,
                    body,
                    route,
                    response_edits,
                } => {
                    let answer = reply::direct(status, !body.is_empty());
                    let answer = answer.map(|()| Body::full(Bytes::from(body)));
                    direct(&conn, &mut cx, open, (&route, &response_edits), answer)
                }
                RequestPlan::Refuse(fault) => refuse(&conn, &mut cx, open, &fault, None),
            }
        }
    };
    // The upstream's version says nothing about the client's.
    *response.version_mut() = http::Version::HTTP_11;
    let draining = conn.worker.shared.drain.stage() >= Stage::Draining;
    let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    if draining && version == Version::Http1 && cx.direction != Direction::Outbound && !switches {
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn begin(conn: &Conn, request: &Request<Incoming>, busy: Busy) -> Open {
    let labels = &conn.worker.labels;
    let unknown = labels.peer(None);
    let target = labels.target(None, None);
    let mut open = conn
        .worker
        .ledger
        .open(conn.facts.direction, Kind::Request, &unknown, target);
    open.hold(busy);
    if conn.facts.direction == Direction::Inbound {
        let live = conn.worker.shared.live.load();
        open.source = labels.peer(live.snapshot.workload_at(conn.facts.source.ip()));
        open.destination = labels.own();
    } else {
        open.source = labels.own();
    }
    open.grpc = is_grpc(request.headers());
    let record = &mut open.record;
    record.protocol = Some(match request.version() {
        http::Version::HTTP_10 => "HTTP/1.0",
        http::Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    });
    record.method = Some(request.method().clone());
    record.local = Some(conn.local);
    record.remote = Some(conn.facts.source);
    open
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .is_some_and(|t| t.as_bytes().starts_with(b"application/grpc"))
}

/// Gives the request the one form that every later step sees: `Host` is present and is the authority.
/// HTTP/1.0 knows no `Host`: there the address that was called stands for it. Fails with what is wrong.
fn canonical_head(head: &mut request::Parts, called: SocketAddr) -> Result<String, String> {
    // An authority in the request line is the one that counts (RFC 9112 §3.2.2).
    let authority = match head.uri.authority() {
        Some(authority) => authority.as_str().to_owned(),
        None => match head.headers.get(HOST) {
            Some(host) => host
                .to_str()
                .map_err(|_| "a Host header that is no text")?
                .to_owned(),
            None if head.version == http::Version::HTTP_10 => called.to_string(),
            None => return Err("a request without Host".to_owned()),
        },
    };
    if head.headers.get_all(HOST).iter().nth(1).is_some() {
        return Err("a request with more than one Host".to_owned());
    }
    let host = HeaderValue::from_str(&authority).map_err(|_| "an authority that is no text")?;
    head.headers.insert(HOST, host);
    Ok(authority)
}

fn plain<'a>(head: &'a request::Parts, authority: &'a str) -> RequestHead<'a> {
    RequestHead {
        method: &head.method,
        authority,
        path: head.uri.path_and_query().map_or("/", |p| p.as_str()),
        // TLS is not terminated yet.
        scheme: "http",
        headers: &head.headers,
    }
}

fn decide_request(conn: &Conn, head: &request::Parts, authority: &str) -> RequestPlan {
    let live = conn.worker.shared.live.load();
    decide::request(
        &live.snapshot,
        &conn.facts,
        &plain(head, authority),
        fastrand::u64(..),
    )
}

fn describe(open: &mut Open, head: &request::Parts, authority: &str) {
    let path = head.uri.path_and_query().map_or("/", |p| p.as_str());
    open.record.path = Some(path.to_owned());
    open.record.authority = Some(authority.to_owned());
    capture_request(open, &head.headers);
}

fn capture_request(open: &mut Open, headers: &HeaderMap) {
    if let Some(format) = open.format.clone() {
        open.record.request_headers = format.capture_request(headers);
    }
}

/// The last steps of every response: filters, edits, and what the record says of its head.
fn respond<B>(
    cx: &mut Context,
    open: &mut Open,
    edits: &[HeaderEdit],
    answer: Response<B>,
) -> Response<B> {
    let (mut head, body) = answer.into_parts();
    for filter in chain(cx.direction) {
        filter.on_response(cx, &mut head);
    }
    edits::apply(edits, &mut head.headers, |_| open.record.clone());
    open.record.code = head.status.as_u16();
    if open.grpc {
        open.record.grpc_status = grpc_status(&head.headers);
    }
    if let Some(format) = open.format.clone() {
        open.record.response_headers = format.capture_response(&head.headers);
    }
    Response::from_parts(head, body)
}

/// An answer that we make ourselves.
fn direct(
    conn: &Conn,
    cx: &mut Context,
    mut open: Open,
    (route, edits): (&RouteFacts, &[HeaderEdit]),
    answer: Response<Body>,
) -> Response<Body> {
    open.record.route = route.name.clone();
    open.record.details = "direct_response".into();
    aim(conn, &mut open, None);
    finish_own(cx, open, edits, answer)
}

fn finish_own(
    cx: &mut Context,
    mut open: Open,
    edits: &[HeaderEdit],
    answer: Response<Body>,
) -> Response<Body> {
    let answer = respond(cx, &mut open, edits, answer);
    if let Body::Full(Some(bytes)) = answer.body() {
        open.record.sent = bytes.len() as u64;
    }
    open.complete = true;
    answer
}

fn refuse(
    conn: &Conn,
    cx: &mut Context,
    mut open: Open,
    fault: &Fault,
    failed: Option<&Failed>,
) -> Response<Body> {
    conn.worker.say(fault, || fault::sentence(fault, failed));
    let verdict = fault::verdict(fault, failed);
    open.record.flags = verdict.flags;
    open.record.details = verdict.details;
    open.record.transport_failure = verdict.transport;
    if fault.reason == FaultReason::NotInRegistry {
        // Istio's names for what REGISTRY_ONLY refuses.
        open.record.route = "block_all".into();
        let live = conn.worker.shared.live.load();
        aim(conn, &mut open, Some(live.snapshot.black_hole()));
    } else if failed.is_none() {
        aim(conn, &mut open, None);
    }
    let mut answer = fault::reply(fault, failed, open.grpc);
    if cx.direction == Direction::Inbound && fault.reason == FaultReason::ConnectFailed {
        answer
            .headers_mut()
            .insert(UNREACHED, HeaderValue::from_static("1"));
    }
    finish_own(cx, open, &[], answer)
}

/// Notes the service that was meant. The Host header stands in for an unknown one, but not at gateways, where anyone
/// may send any (Istio).
fn aim(conn: &Conn, open: &mut Open, cluster: Option<&Arc<Cluster>>) {
    let host = open.record.authority.as_deref();
    let host = host.filter(|_| conn.facts.direction != Direction::Gateway);
    open.target = conn.worker.labels.target(cluster, host);
}

/// A request on its way upstream.
struct Call<'a> {
    conn: &'a Conn,
    version: Version,
    plan: &'a ForwardPlan,
    client: OnUpgrade,
}

impl Call<'_> {
    async fn forward(
        self,
        cx: &mut Context,
        mut open: Open,
        mut head: request::Parts,
        body: Incoming,
    ) -> Response<Body> {
        let (conn, plan) = (self.conn, self.plan);
        self.describe(&mut open);
        for filter in chain(cx.direction) {
            filter.on_request(cx, &mut head);
        }
        if !edits::rewrite(&mut head, plan.path.as_deref(), plan.authority.as_deref()) {
            let subject = "a rewrite to something that is no path or host".to_owned();
            let origin = plan.route.origin.clone();
            let fault = Fault {
                reason: FaultReason::BadRequest,
                origin,
                subject,
            };
            return refuse(conn, cx, open, &fault, None);
        }
        if let Some(path) = &plan.path {
            open.record.rewritten_path = Some(path.clone());
            let original = open
                .record
                .path
                .as_deref()
                .and_then(|p| HeaderValue::from_str(p).ok());
            if let Some(original) = original {
                head.headers.insert("x-envoy-original-path", original);
            }
        }
        edits::apply(&plan.request_edits, &mut head.headers, |headers| {
            whole(&open, headers)
        });
        capture_request(&mut open, &head.headers);
        let is_connect = head.method == Method::CONNECT;
        let deadline = plan
            .timeout
            .map(|limit| Instant::from_std(open.began) + limit);
        let order = Order {
            plan,
            facts: &conn.facts,
            version: self.version,
            head,
            body: Replay::new(body, Rc::clone(&open.received)),
            grpc: open.grpc,
            upgrade: cx.upgrade || is_connect,
            deadline,
        };
        match conn.worker.upstream.send(order).await {
            Err(failed) => self.failed(cx, open, &failed),
            Ok(sent) => {
                note(conn, &mut open, &sent);
                cx.upstream_time = Some(sent.time);
                let status = sent.response.status();
                let switches = cx.upgrade && status == StatusCode::SWITCHING_PROTOCOLS
                    || is_connect && status.is_success();
                if switches {
                    return self.switch(cx, open, sent);
                }
                let answer = respond(cx, &mut open, &plan.response_edits, sent.response);
                let lease = sent.lease;
                answer.map(|body| ResponseBody::wrap(body, open, lease, deadline))
            }
        }
    }

    fn describe(&self, open: &mut Open) {
        let (conn, plan) = (self.conn, self.plan);
        open.record.cluster = plan.cluster.name.clone();
        open.record.route = plan.route.name.clone();
        let host = open.record.authority.clone();
        let host = host.filter(|_| conn.facts.direction != Direction::Gateway);
        open.target = conn
            .worker
            .labels
            .target(Some(&plan.cluster), host.as_deref());
    }

    fn failed(&self, cx: &mut Context, mut open: Open, failed: &Failed) -> Response<Body> {
        open.record.attempts = failed.attempts;
        open.record.upstream_host = failed.address;
        if self.conn.facts.direction != Direction::Inbound {
            open.destination = self.conn.worker.labels.peer(failed.workload.as_ref());
        }
        if failed.client_gone {
            // Nobody is left to answer; the exchange is closed as one that its client left.
            drop(open);
            return reply::direct(400, false).map(|()| Body::Empty);
        }
        let fault = Fault {
            reason: failed.reason,
            origin: self.plan.route.origin.clone(),
            subject: self.plan.cluster.name.to_string(),
        };
        refuse(self.conn, cx, open, &fault, Some(failed))
    }

    /// The protocol changes: from here on bytes are copied.
    fn switch(self, cx: &mut Context, mut open: Open, mut sent: Sent) -> Response<Body> {
        let server = upgrade(&mut sent.response);
        let lease = sent.lease;
        let client = self.client;
        let answer = respond(cx, &mut open, &self.plan.response_edits, sent.response);
        tokio::task::spawn_local(async move {
            let _lease = lease;
            if let Ok((client, server)) = both(client, server).await
                && let Ok((received, sent)) = tunnel(client, server).await
            {
                open.received.set(received);
                open.record.sent = sent;
            }
            open.complete = true;
        });
        answer.map(|_| Body::Empty)
    }
}

async fn both(client: OnUpgrade, server: OnUpgrade) -> Result<(Upgraded, Upgraded), hyper::Error> {
    Ok((client.await?, server.await?))
}

fn note(conn: &Conn, open: &mut Open, sent: &Sent) {
    open.record.attempts = sent.attempts;
    open.record.details = "via_upstream".into();
    open.record.upstream_host = Some(sent.address);
    open.record.upstream_local = sent.local.map(canonical);
    if conn.facts.direction != Direction::Inbound {
        open.destination = conn.worker.labels.peer(sent.workload.as_ref());
    }
}

// For header values that quote the request.
fn whole(open: &Open, headers: &HeaderMap) -> lateen_telemetry::record::Record {
    let mut record = open.record.clone();
    record.request_headers = headers
        .iter()
        .map(|(n, v)| (n.clone(), v.clone()))
        .collect();
    record
}
