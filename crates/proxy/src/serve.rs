//! The spine: one request from its head to its response. HTTP versions differ only below this.
//!
//! ```text
//! canonical head -> filters -> authorize -> decide::request -> limits -> rewrite, edits -> upstream::send
//!                -> filters, edits -> client
//! ```

use crate::authorize::{self, Asked, Passed, Refusal};
use crate::body::{ResponseBody, grpc_status};
use crate::connection::Conn;
use crate::drain::Stage;
use crate::exchange::{Kind, Open};
use crate::fault;
use crate::head;
use crate::limits::{self, Counting};
use crate::live::Review;
use crate::upstream::{Failed, Order, Replay, Sent, UNREACHED};
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, request};
use lateen_filters::{Client, Context, Edge, chain, client_cert, edits, reply};
use lateen_model::decide;
use lateen_model::decide::cluster::Cluster;
use lateen_model::decide::plan::{
    Direction, Fault, FaultReason, ForwardPlan, RequestHead, RequestPlan, RouteFacts,
};
use lateen_model::mesh::PathNormalization;
use lateen_model::route::HeaderEdit;
use lateen_net::http::{Body, Busy, Incoming, OnUpgrade, Upgraded, Version, tunnel, upgrade};
use lateen_net::original::canonical;
use std::net::IpAddr;
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
    let (edge, mode) = {
        let live = conn.worker.shared.live.load();
        let mesh = live.snapshot.mesh();
        (Edge::of(mesh), mesh.path_normalization)
    };
    let mut cx = Context::new(conn.facts.direction, conn.facts.source, client(&conn), edge);
    let upgraded = upgrade(&mut request);
    let (mut head, body) = request.into_parts();
    let body = Replay::new(body, Rc::clone(&open.received));
    let mut response = match settle(&conn, &mut head, &body, mode) {
        Err(fault) => refuse(&conn, &mut cx, open, &fault, None),
        Ok(authority) => {
            describe(&mut open, &head, &authority);
            let remote = cx.client_address(&head.headers);
            for filter in chain(cx.direction) {
                filter.on_request(&mut cx, &mut head);
            }
            capture_request(&mut open, &head.headers);
            let scheme = scheme(&conn);
            let asked = Asked {
                conn: &conn,
                open: &mut open,
                head: &mut head,
                authority: &authority,
                scheme,
                remote,
                body: &body,
            };
            match authorize::check(asked).await {
                Err(refusal) => turn_away(&conn, &mut cx, open, &refusal),
                Ok(passed) => {
                    let call = Call {
                        conn: &conn,
                        version,
                        client: upgraded,
                        authority: &authority,
                        remote,
                        passed,
                    };
                    call.route(&mut cx, open, head, body).await
                }
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

/// Gives the head its form, unless the request is refused before anything is decided on it. Returns the authority.
fn settle(
    conn: &Conn,
    head: &mut request::Parts,
    body: &Replay,
    mode: PathNormalization,
) -> Result<String, Fault> {
    let fault = |reason, subject| Fault {
        reason,
        origin: None,
        subject,
    };
    let shared = &conn.worker.shared;
    if shared.overload.refuses_request() {
        return Err(fault(FaultReason::Overloaded, "a request".to_owned()));
    }
    let authority = head::settle(head, conn.facts.destination, mode)
        .map_err(|subject| fault(FaultReason::BadRequest, subject))?;
    let most = shared.limits.body_bytes.unwrap_or(u64::MAX);
    if body.length().is_some_and(|length| length > most) {
        return Err(too_large());
    }
    body.bound(most);
    Ok(authority)
}

fn too_large() -> Fault {
    Fault {
        reason: FaultReason::BodyTooLarge,
        origin: None,
        subject: "a body of more bytes than a request may have".to_owned(),
    }
}

/// What headers are told of a connection's client.
fn client(conn: &Conn) -> Rc<Client> {
    let make = || {
        let own = conn.worker.shared.member.load();
        // The certificate that we showed is the mesh's only where the client is of the mesh.
        let own = own.as_ref().filter(|_| conn.peer.identity.is_some());
        let own = own.map(|own| own.svid.id.uri());
        let with_pem = conn.facts.direction == Direction::Gateway;
        let leaf = conn.certificates.first();
        Rc::new(Client {
            is_member: conn.peer.identity.is_some(),
            is_encrypted: conn.peer.tls,
            certificate: leaf.and_then(|leaf| client_cert::element(own, leaf, with_pem)),
        })
    };
    Rc::clone(conn.client.get_or_init(make))
}

// TLS between sidecars is none that the application or its routes would know of.
fn scheme(conn: &Conn) -> &'static str {
    if conn.peer.tls && conn.facts.direction == Direction::Gateway {
        "https"
    } else {
        "http"
    }
}

fn begin(conn: &Conn, request: &Request<Incoming>, busy: Busy) -> Open {
    let labels = &conn.worker.labels;
    let unknown = labels.peer(None, None);
    let target = labels.target(None, None);
    let mut open = conn
        .worker
        .ledger
        .open(conn.facts.direction, Kind::Request, &unknown, target);
    open.hold(busy);
    conn.label(&mut open);
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
    if !conn.server_name.is_empty() {
        record.server_name = conn.server_name.as_str().into();
    }
    open
}

fn is_grpc(headers: &HeaderMap) -> bool {
    // Not gRPC-Web, which is HTTP/1 to those who speak it.
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let rest = kind.and_then(|kind| kind.strip_prefix(b"application/grpc"));
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

fn describe(open: &mut Open, head: &request::Parts, authority: &str) {
    open.record.path = Some(head::path(head).to_owned());
    open.record.authority = Some(authority.to_owned());
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

/// A request that may not pass.
fn turn_away(conn: &Conn, cx: &mut Context, mut open: Open, refusal: &Refusal) -> Response<Body> {
    conn.worker
        .say(&refusal.fault, || fault::sentence(&refusal.fault, None));
    open.record.flags = match refusal.fault.flag() {
        "-" => "".into(),
        flag => flag.into(),
    };
    open.record.details = refusal.details.clone().into();
    aim(conn, &mut open, None);
    let answer = refusal.answer(open.grpc);
    finish_own(cx, open, &[], answer)
}

/// Notes the service that was meant. The Host header stands in for an unknown one where it is our own application's:
/// from others it could be anything, and each would be a series.
fn aim(conn: &Conn, open: &mut Open, cluster: Option<&Arc<Cluster>>) {
    let host = open.record.authority.as_deref();
    let host = host.filter(|_| conn.facts.direction == Direction::Outbound);
    open.target = conn.worker.labels.target(cluster, host);
}

/// A request that may pass, on its way upstream.
struct Call<'a> {
    conn: &'a Conn,
    version: Version,
    client: OnUpgrade,
    authority: &'a str,
    /// The client's address as trusted proxies tell it.
    remote: IpAddr,
    passed: Passed,
}

impl Call<'_> {
    /// Follows the plan for the request.
    async fn route(
        self,
        cx: &mut Context,
        open: Open,
        mut head: request::Parts,
        body: Replay,
    ) -> Response<Body> {
        let conn = self.conn;
        let plan = {
            let live = conn.worker.shared.live.load();
            let seen = RequestHead {
                headers: self.passed.routing.as_ref().unwrap_or(&head.headers),
                ..head::seen(&head, self.authority, scheme(conn))
            };
            let dice = fastrand::u64(..);
            decide::request(&live.snapshot, &conn.facts, &conn.peer, &seen, dice)
        };
        let counting = Counting {
            conn,
            head: &head,
            authority: self.authority,
            scheme: scheme(conn),
            remote: self.remote,
            token: self.passed.token.as_deref(),
        };
        let said = match limits::check(&counting, &plan).await {
            Ok(said) => said,
            Err(refusal) => return turn_away(conn, cx, open, &refusal),
        };
        said.on_request(&mut head.headers);
        let mut answer = self.follow(cx, open, plan, (head, body)).await;
        said.on_response(answer.headers_mut());
        answer
    }

    async fn follow(
        self,
        cx: &mut Context,
        open: Open,
        plan: RequestPlan,
        (head, body): (request::Parts, Replay),
    ) -> Response<Body> {
        let conn = self.conn;
        match plan {
            RequestPlan::Forward(plan) => self.forward(cx, open, &plan, (head, body)).await,
            RequestPlan::Redirect { redirect, route } => {
                let seen = head::seen(&head, self.authority, scheme(conn));
                let answer = reply::redirect(&seen, &redirect).map(|()| Body::Empty);
                direct(conn, cx, open, (&route, &[]), answer)
            }
            RequestPlan::Direct {
                status,
                body,
                route,
                response_edits,
            } => {
                let answer = reply::direct(status, !body.is_empty());
                let answer = answer.map(|()| Body::full(Bytes::from(body)));
                direct(conn, cx, open, (&route, &response_edits), answer)
            }
            RequestPlan::Refuse(fault) => refuse(conn, cx, open, &fault, None),
        }
    }

    async fn forward(
        self,
        cx: &mut Context,
        mut open: Open,
        plan: &ForwardPlan,
        (mut head, body): (request::Parts, Replay),
    ) -> Response<Body> {
        let conn = self.conn;
        self.describe(&mut open, plan);
        if let Err(fault) = rewrite(&mut open, plan, &mut head) {
            return refuse(conn, cx, open, &fault, None);
        }
        edits::apply(&plan.request_edits, &mut head.headers, |headers| {
            whole(&open, headers)
        });
        capture_request(&mut open, &head.headers);
        let is_connect = head.method == Method::CONNECT;
        let deadline = plan
            .timeout
            .map(|limit| Instant::from_std(open.began) + limit);
        let sending = body.clone();
        let order = Order {
            plan,
            facts: &conn.facts,
            version: self.version,
            head,
            body,
            grpc: open.grpc,
            upgrade: cx.upgrade || is_connect,
            deadline,
        };
        match conn.worker.upstream.send(order).await {
            Err(failed) if failed.client_gone && sending.is_too_large() => {
                refuse(conn, cx, open, &too_large(), None)
            }
            Err(failed) => self.failed(cx, open, plan, &failed),
            Ok(sent) if !is_answer(&sent, cx.upgrade, conn.worker.shared.limits.headers) => {
                // Its connection is of no more use either: dropped with it.
                let failed = Failed {
                    address: Some(sent.address),
                    workload: sent.workload.clone(),
                    attempts: sent.attempts,
                    ..Failed::new(FaultReason::UpstreamProtocol)
                };
                self.failed(cx, open, plan, &failed)
            }
            Ok(mut sent) => {
                note(conn, &mut open, &sent);
                cx.upstream_time = Some(sent.time);
                self.passed.finish(sent.response.headers_mut());
                let status = sent.response.status();
                let switches = cx.upgrade && status == StatusCode::SWITCHING_PROTOCOLS
                    || is_connect && status.is_success();
                if switches {
                    return self.switch(cx, open, plan, sent);
                }
                let answer = respond(cx, &mut open, &plan.response_edits, sent.response);
                let lease = sent.lease;
                answer.map(|body| ResponseBody::wrap(body, open, lease, deadline))
            }
        }
    }

    fn describe(&self, open: &mut Open, plan: &ForwardPlan) {
        let conn = self.conn;
        open.record.cluster = plan.cluster.name.clone();
        open.record.route = plan.route.name.clone();
        aim(conn, open, Some(&plan.cluster));
    }

    fn failed(
        &self,
        cx: &mut Context,
        mut open: Open,
        plan: &ForwardPlan,
        failed: &Failed,
    ) -> Response<Body> {
        open.record.attempts = failed.attempts;
        open.record.upstream_host = failed.address;
        self.conn
            .label_upstream(&mut open, failed.workload.as_ref(), None);
        if failed.client_gone {
            // Nobody is left to answer; the exchange is closed as one that its client left.
            drop(open);
            return reply::direct(400, false).map(|()| Body::Empty);
        }
        let fault = Fault {
            reason: failed.reason,
            origin: plan.route.origin.clone(),
            subject: plan.cluster.name.to_string(),
        };
        refuse(self.conn, cx, open, &fault, Some(failed))
    }

    /// The protocol changes: from here on bytes are copied.
    fn switch(
        self,
        cx: &mut Context,
        mut open: Open,
        plan: &ForwardPlan,
        mut sent: Sent,
    ) -> Response<Body> {
        let server = upgrade(&mut sent.response);
        let lease = sent.lease;
        let client = self.client;
        let worker = Rc::clone(&self.conn.worker);
        let held = self.passed.tunnel.map(Review::Tunnel);
        let held = held.and_then(|review| self.conn.hold(review));
        let answer = respond(cx, &mut open, &plan.response_edits, sent.response);
        tokio::task::spawn_local(async move {
            let _lease = lease;
            let copied = async {
                let (client, server) = both(client, server).await.ok()?;
                tunnel(client, server).await.ok()
            };
            let cut = async {
                match &held {
                    Some(held) => held.cut().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // Who may not come in any more is not heard first.
                biased;
                fault = cut => {
                    worker.say(&fault, || fault::sentence(&fault, None));
                    open.record.details = fault::verdict(&fault, None).details;
                }
                copied = copied => if let Some((received, sent)) = copied {
                    open.received.set(received);
                    open.record.sent = sent;
                },
            }
            open.complete = true;
        });
        answer.map(|_| Body::Empty)
    }
}

/// Whether an upstream's response can be one: nobody changes a protocol unasked (RFC 9110 §15.2.2). HTTP/2's engine knows
/// no bound on the number of headers.
fn is_answer(sent: &Sent, upgrade: bool, most_headers: usize) -> bool {
    let switches = sent.response.status() == StatusCode::SWITCHING_PROTOCOLS;
    (!switches || upgrade) && sent.response.headers().len() <= most_headers
}

async fn both(client: OnUpgrade, server: OnUpgrade) -> Result<(Upgraded, Upgraded), hyper::Error> {
    Ok((client.await?, server.await?))
}

fn note(conn: &Conn, open: &mut Open, sent: &Sent) {
    open.record.attempts = sent.attempts;
    open.record.details = "via_upstream".into();
    open.record.upstream_host = Some(sent.address);
    open.record.upstream_local = sent.local.map(canonical);
    conn.label_upstream(open, sent.workload.as_ref(), sent.security.identity());
}

/// Gives the request the path and host that its route wants.
fn rewrite(open: &mut Open, plan: &ForwardPlan, head: &mut request::Parts) -> Result<(), Fault> {
    if !edits::rewrite(head, plan.path.as_deref(), plan.authority.as_deref()) {
        return Err(Fault {
            reason: FaultReason::BadRequest,
            origin: plan.route.origin.clone(),
            subject: "a rewrite to something that is no path or host".to_owned(),
        });
    }
    if let Some(path) = &plan.path {
        open.record.rewritten_path = Some(path.clone());
        let original = open.record.path.as_deref();
        if let Some(original) = original.and_then(|p| HeaderValue::from_str(p).ok()) {
            head.headers.insert("x-envoy-original-path", original);
        }
    }
    Ok(())
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
