//! The spine: one request from its head to its response. HTTP versions differ only below this.
//!
//! ```text
//! canonical head -> filters -> authorize -> decide::request -> limits -> rewrite, edits -> upstream::send
//!                -> filters, edits -> client
//! ```

mod call;
mod faults;
mod mirror;

use crate::authorize::{self, Asked, Refusal};
use crate::body::grpc_status;
use crate::connection::Conn;
use crate::drain::Stage;
use crate::exchange::{Kind, Open};
use crate::fault;
use crate::head;
use crate::upstream::{Failed, Replay, UNREACHED};
use call::Call;
use http::header::{CONNECTION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, request};
use lateen_base::Str;
use lateen_filters::{Client, Context, Edge, chain, client_cert, edits};
use lateen_model::decide::cluster::Cluster;
use lateen_model::decide::plan::{Direction, Fault, FaultReason, RouteFacts};
use lateen_model::mesh::PathNormalization;
use lateen_model::route::HeaderEdit;
use lateen_net::http::{Body, Busy, Incoming, Version, upgrade};
use lateen_telemetry::record::Record;
use std::rc::Rc;
use std::sync::Arc;

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
    let upgraded = upgrade(request.extensions_mut());
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
                    let mut call = Call {
                        conn: &conn,
                        version,
                        client: upgraded,
                        authority: &authority,
                        remote,
                        passed,
                        head: &mut head,
                        body: &body,
                    };
                    call.route(&mut cx, open).await
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
) -> Result<Str, Fault> {
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
    open
}

fn is_grpc(headers: &HeaderMap) -> bool {
    // Not gRPC-Web, which is HTTP/1 to those who speak it.
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let rest = kind.and_then(|kind| kind.strip_prefix(b"application/grpc"));
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

fn describe(open: &mut Open, head: &request::Parts, authority: &Str) {
    open.record.path = Some(head::path(head).to_owned());
    open.record.authority = Some(Str::clone(authority));
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
    open.record.code = head.status.as_u16();
    edits::apply(edits, &mut head.headers, |headers| answered(open, headers));
    if let Some(marked) = &cx.cors {
        marked.apply(&mut head.headers);
    }
    if open.grpc {
        open.record.grpc_status = grpc_status(&head.headers);
    }
    if let Some(format) = open.format.clone() {
        open.record.response_headers = format.capture_response(&head.headers);
    }
    Response::from_parts(head, body)
}

// For header values that quote the request or the response.
fn answered(open: &Open, headers: &HeaderMap) -> Record {
    let mut record = open.record.clone();
    record.request_headers = open.quoted.clone();
    record.response_headers = all(headers);
    record
}

fn all(headers: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
    let pairs = headers.iter();
    pairs.map(|(n, v)| (n.clone(), v.clone())).collect()
}

/// Keeps the request's headers for edits of its response that quote them.
fn quote(open: &mut Open, edits: &[HeaderEdit], headers: &HeaderMap) {
    if edits::quote_request(edits) {
        open.quoted = all(headers);
    }
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
    open: Open,
    fault: &Fault,
    failed: Option<&Failed>,
) -> Response<Body> {
    refuse_with(conn, cx, open, (fault, failed), &[])
}

/// A refusal with the headers that the route wants on every response.
fn refuse_with(
    conn: &Conn,
    cx: &mut Context,
    mut open: Open,
    (fault, failed): (&Fault, Option<&Failed>),
    edits: &[HeaderEdit],
) -> Response<Body> {
    conn.worker.say(fault, || fault::sentence(fault, failed));
    let verdict = fault::verdict(fault, failed);
    open.add_flags(verdict.flags);
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
    finish_own(cx, open, edits, answer)
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
