//! One request that may pass: its plan, and what comes of it.

use super::{
    aim, all, capture_request, direct, faults, finish_own, mirror, quote, refuse, refuse_with,
    respond, scheme, too_large, turn_away,
};
use crate::authorize::Passed;
use crate::body::ResponseBody;
use crate::connection::Conn;
use crate::exchange::Open;
use crate::fault;
use crate::head;
use crate::limits::{self, Counting};
use crate::live::Review;
use crate::upstream::{Bound, Failed, Order, Replay, Sent};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, request};
use lateen_filters::{Context, cors, edits, reply};
use lateen_model::decide::plan::{
    Fault, FaultReason, ForwardPlan, RequestHead, RequestPlan, RoutePolicy,
};
use lateen_model::decide::snapshot::Snapshot;
use lateen_model::decide::{self, demand};
use lateen_net::http::{Body, NoUpgrade, OnUpgrade, Upgraded, Version, recycle, tunnel, upgrade};
use lateen_net::original::canonical;
use lateen_telemetry::record::Record;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

/// A request that may pass, on its way upstream.
pub(super) struct Call<'a> {
    pub(super) conn: &'a Conn,
    pub(super) version: Version,
    pub(super) client: OnUpgrade,
    pub(super) authority: &'a str,
    /// The client's address as trusted proxies tell it.
    pub(super) remote: IpAddr,
    pub(super) passed: Passed,
    /// The request's head. Everything is borrowed: futures hold what they are given, one within the other.
    pub(super) head: &'a mut request::Parts,
    pub(super) body: &'a Replay,
}

impl Call<'_> {
    /// Follows the plan for the request.
    pub(super) async fn route(&mut self, cx: &mut Context, open: Open) -> Response<Body> {
        let conn = self.conn;
        let port = conn.facts.destination.port();
        let named = |snapshot: &Snapshot| demand::of_authority(snapshot, port, self.authority);
        if let Err(fault) = conn.learn(named).await {
            return refuse(conn, cx, open, &fault, None);
        }
        let plan = {
            let live = conn.worker.shared.live.load();
            let seen = RequestHead {
                headers: self.passed.routing.as_ref().unwrap_or(&self.head.headers),
                token: self.passed.token.as_deref(),
                ..head::seen(self.head, self.authority, scheme(conn))
            };
            let dice = fastrand::u64(..);
            decide::request(&live.snapshot, &conn.facts, &conn.peer, &seen, dice)
        };
        let counting = Counting {
            conn,
            head: self.head,
            authority: self.authority,
            scheme: scheme(conn),
            remote: self.remote,
            token: self.passed.token.as_deref(),
        };
        let said = match limits::check(&counting, &plan).await {
            Ok(said) => said,
            Err(refusal) => return turn_away(conn, cx, open, &refusal),
        };
        said.on_request(&mut self.head.headers);
        let mut answer = self.follow(cx, open, plan).await;
        said.on_response(answer.headers_mut());
        answer
    }

    async fn follow(
        &mut self,
        cx: &mut Context,
        mut open: Open,
        plan: RequestPlan,
    ) -> Response<Body> {
        let conn = self.conn;
        if let Some(policy) = plan.route().and_then(|route| route.policy.as_ref())
            && let Some(answer) = self.before(cx, &mut open, policy).await
        {
            open.record.route = plan.route().map(|r| r.name.clone()).unwrap_or_default();
            if let Some(cluster) = plan.cluster() {
                open.record.cluster = cluster.name.clone();
            }
            aim(conn, &mut open, plan.cluster());
            return finish_own(cx, open, &[], answer);
        }
        match plan {
            RequestPlan::Forward(plan) => self.forward(cx, open, &plan).await,
            RequestPlan::Redirect {
                redirect,
                route,
                response_edits,
            } => {
                quote(&mut open, &response_edits, &self.head.headers);
                let seen = head::seen(self.head, self.authority, scheme(conn));
                let answer = reply::redirect(&seen, &redirect).map(|()| Body::Empty);
                direct(conn, cx, open, (&route, &response_edits), answer)
            }
            RequestPlan::Direct {
                status,
                body,
                route,
                response_edits,
            } => {
                quote(&mut open, &response_edits, &self.head.headers);
                let answer = if open.grpc {
                    fault::told(status, &String::from_utf8_lossy(&body), true)
                } else {
                    let answer = reply::direct(status, !body.is_empty());
                    answer.map(|()| Body::full(Bytes::from(body)))
                };
                direct(conn, cx, open, (&route, &response_edits), answer)
            }
            RequestPlan::Refuse(fault) => {
                // Envoy knows where the request was going, though nobody is there.
                if fault.reason == FaultReason::NoEndpoint {
                    open.record.cluster = fault.subject.as_str().into();
                }
                refuse(conn, cx, open, &fault, None)
            }
        }
    }

    /// Faults and CORS of the rule; an answer when the request ends with that.
    async fn before(
        &self,
        cx: &mut Context,
        open: &mut Open,
        policy: &Arc<RoutePolicy>,
    ) -> Option<Response<Body>> {
        if let Some(fault) = &policy.fault
            && let Some(status) = Box::pin(faults::inject(fault, open)).await
        {
            return Some(faults::answer(status, open));
        }
        let rules = policy.cors.as_ref()?;
        match cors::judge(rules, &self.head.method, &self.head.headers) {
            cors::Verdict::Pass => None,
            cors::Verdict::Mark(origin) => {
                let policy = Arc::clone(policy);
                cx.cors = Some(cors::Marked { policy, origin });
                None
            }
            cors::Verdict::Answer(answer) => Some(answer.map(|()| Body::Empty)),
        }
    }

    async fn forward(
        &mut self,
        cx: &mut Context,
        mut open: Open,
        plan: &ForwardPlan,
    ) -> Response<Body> {
        let (conn, body) = (self.conn, self.body);
        self.describe(&mut open, plan);
        let head = &mut *self.head;
        if let Err(fault) = rewrite(&mut open, plan, head) {
            return refuse(conn, cx, open, &fault, None);
        }
        edits::apply(&plan.request_edits, &mut head.headers, |headers| {
            whole(&open, headers)
        });
        capture_request(&mut open, &head.headers);
        quote(&mut open, &plan.response_edits, &head.headers);
        let is_connect = head.method == Method::CONNECT;
        let copied = (&*head, body, open.grpc);
        mirror::send(conn, &plan.mirrors, copied, plan.timeout);
        let deadline = plan.timeout.map(|limit| Bound::after(body, limit));
        let order = Order {
            plan,
            facts: &conn.facts,
            version: self.version,
            head,
            body,
            grpc: open.grpc,
            upgrade: cx.upgrade || is_connect,
            deadline: deadline.as_ref(),
        };
        match conn.worker.upstream.send(&order).await {
            Err(failed) if failed.client_gone && body.is_too_large() => {
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
                // Nobody sends it again.
                recycle(self.head);
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
        let told = (&fault, Some(failed));
        refuse_with(self.conn, cx, open, told, &plan.response_edits)
    }

    /// The protocol changes: from here on bytes are copied.
    fn switch(
        &mut self,
        cx: &mut Context,
        mut open: Open,
        plan: &ForwardPlan,
        mut sent: Sent,
    ) -> Response<Body> {
        let server = upgrade(sent.response.extensions_mut());
        let lease = sent.lease;
        let client = std::mem::take(&mut self.client);
        let worker = Rc::clone(&self.conn.worker);
        let held = self.passed.tunnel.take().map(Review::Tunnel);
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

async fn both(client: OnUpgrade, server: OnUpgrade) -> Result<(Upgraded, Upgraded), NoUpgrade> {
    Ok((client.await?, server.await?))
}

fn note(conn: &Conn, open: &mut Open, sent: &Sent) {
    open.record.attempts = sent.attempts;
    if sent.overflowed {
        open.record.flags = "UO".into();
    }
    open.record.details = "via_upstream".into();
    open.record.upstream_host = Some(sent.address);
    open.record.upstream_local = sent.local.map(canonical);
    let identity = sent.lease.security().identity();
    conn.label_upstream(open, sent.workload.as_ref(), identity);
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
    if plan.authority.is_some() {
        let original = open.record.authority.as_deref();
        if let Some(original) = original.and_then(|a| HeaderValue::from_str(a).ok()) {
            head.headers.insert("x-envoy-original-host", original);
        }
    }
    Ok(())
}

// For header values that quote the request.
fn whole(open: &Open, headers: &HeaderMap) -> Record {
    let mut record = open.record.clone();
    record.request_headers = all(headers);
    record
}
