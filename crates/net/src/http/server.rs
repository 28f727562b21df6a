//! The serving end of a connection: requests go to one function, a drain signal ends it between requests.

use super::flow::Flows;
use super::guard::{Control, Guarded};
use super::h1::server::Server;
use super::{Body, EngineError, Incoming, Limits, Version, Violation};
use crate::listen::reset_on_close;
use crate::memory::pressure;
use crate::seldom::Seldom;
use crate::stream::{Stream, Watch};
use http::HeaderValue;
use http::header::CONNECTION;
use hyper::service::{Service, service_fn};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::cell::Cell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::time::Instant;

/// How long a client that is still sending may take to notice that it has been answered (Envoy: delayed close).
const LINGER: Duration = Duration::from_secs(1);
/// How long an idle client may take to agree to the end of its connection.
const GRACE: Duration = Duration::from_secs(5);

/// How a connection ended other than well.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The client was hostile or broken, and has been told so where HTTP has words for it.
    #[error(transparent)]
    Violation(#[from] Violation),
    /// The client sent something else that is not HTTP, or the connection broke.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Held while a request is being answered; keep it until the response's last byte.
#[derive(Debug)]
pub struct Busy(Rc<Activity>);

/// What is known of a connection from outside its engine.
#[derive(Debug)]
pub(super) struct Activity {
    requests: Cell<usize>,
    idle_since: Cell<Instant>,
    watch: Watch,
    version: Version,
    /// Somebody else reads from the connection now.
    upgraded: Cell<bool>,
    /// Requests that were begun.
    begun: Cell<u64>,
    control: Arc<Control>,
    flows: Flows,
}

impl Activity {
    /// A request begins: its number, and the mark that it is under way.
    pub(super) fn begin(self: &Rc<Self>) -> (u64, Busy) {
        self.requests.set(self.requests.get() + 1);
        self.begun.set(self.begun.get() + 1);
        (self.begun.get(), Busy(Rc::clone(self)))
    }

    /// Notes the answer to request `number`.
    pub(super) fn answered(&self, number: u64, is_connect: bool, response: &mut Response<Body>) {
        let status = response.status();
        let switched =
            status == StatusCode::SWITCHING_PROTOCOLS || is_connect && status.is_success();
        if switched {
            self.upgraded.set(true);
        } else if is_connect && self.version == Version::Http1 {
            // What the client sent behind it was not for us: nothing can follow.
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(CONNECTION, close);
        }
        self.control.answer(number, switched);
    }

    /// Whether nobody reads from a client that may still be sending.
    fn is_abandoned(&self) -> bool {
        !self.upgraded.get() && !self.watch.has_ended()
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.requests.set(self.0.requests.get() - 1);
        self.0.idle_since.set(Instant::now());
    }
}

/// Serves `stream` until the client ends it, `drain` resolves and the requests under way are answered, or it idles
/// too long. `respond` gets each request with its [`Busy`] mark. Must run where local tasks can be spawned. An idle
/// connection waits in this future: give it a `drain` that is behind a pointer.
///
/// # Errors
/// The client sent something that is not HTTP or beyond `limits`, or the connection broke.
pub async fn serve<F, R>(
    stream: Stream,
    version: Version,
    limits: &Limits,
    drain: impl Future<Output = ()>,
    respond: F,
) -> Result<(), ServeError>
where
    F: Fn(Request<Incoming>, Busy) -> R + 'static,
    R: Future<Output = Response<Body>> + 'static,
{
    let watch = stream.watch();
    let guarded = Guarded::server(stream, version, limits);
    let activity = Rc::new(Activity {
        requests: Cell::new(0),
        idle_since: Cell::new(Instant::now()),
        watch,
        version,
        upgraded: Cell::new(false),
        begun: Cell::new(0),
        control: guarded.control(),
        flows: Flows::default(),
    });
    let told = Told::default();
    let mut ends = Seldom::new(ends(&activity, limits, drain, &told));
    let served = match version {
        Version::Http1 => {
            let server = Server::new(guarded, limits, &told, &activity);
            unless(&mut ends, pin!(server.serve(respond))).await
        }
        Version::Http2 => {
            let service = answering(Rc::clone(&activity), limits.headers, respond);
            let builder = http2(limits, activity.flows.clone());
            // Much larger than the other engine.
            let mut connection = Box::pin(builder.serve_connection(TokioIo::new(guarded), service));
            let mut ending = false;
            let engine = poll_fn(|cx| {
                let polled = connection.as_mut().poll(cx);
                // HTTP/2 tells a client which requests will not be answered.
                let now = told.idle.get() || told.draining.get();
                if polled.is_ready() || ending || !now {
                    return polled;
                }
                ending = true;
                connection.as_mut().graceful_shutdown();
                connection.as_mut().poll(cx)
            });
            unless(&mut ends, pin!(async { Ok(engine.await?) })).await
        }
    };
    finish(&activity, served).await
}

/// What the engine comes to, unless the connection must end before.
async fn unless(
    ends: &mut Seldom<impl Future<Output = ()>>,
    mut engine: Pin<&mut impl Future<Output = Result<(), EngineError>>>,
) -> Result<(), EngineError> {
    poll_fn(|cx| {
        // What ends a connection is not one of its requests: it is asked only when it has something to say.
        if Pin::new(&mut *ends).poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        engine.as_mut().poll(cx)
    })
    .await
}

/// What a connection's engine is to be told.
#[derive(Default)]
pub(super) struct Told {
    /// To end with what is under way. An HTTP/1 client that is about to send a request cannot be told: its connection ends
    /// with the response to that.
    pub(super) draining: Cell<bool>,
    /// To end.
    pub(super) idle: Cell<bool>,
}

/// Resolves when the connection must end at once; before that it may say that it is to end in order.
async fn ends(activity: &Activity, limits: &Limits, drain: impl Future<Output = ()>, told: &Told) {
    let drain = async {
        drain.await;
        told.draining.set(true);
        std::future::pending::<()>().await;
    };
    let idled = async {
        match watch_idle(activity, limits).await {
            Idle::Long => {
                told.idle.set(true);
                // An idle client that does not even take its farewell.
                tokio::time::sleep(GRACE).await;
            }
            Idle::Bad(why) => activity.control.accuse(why),
        }
    };
    tokio::select! {
        () = drain => {}
        () = cut_off(activity) => {}
        () = idled => {}
    }
}

/// The service of HTTP/2's engine: counts requests and refuses those with too many headers.
fn answering<F, R>(
    marks: Rc<Activity>,
    most_headers: usize,
    respond: F,
) -> impl Service<
    Request<hyper::body::Incoming>,
    Response = Response<Body>,
    Error = Infallible,
    Future: 'static,
>
where
    F: Fn(Request<Incoming>, Busy) -> R + 'static,
    R: Future<Output = Response<Body>> + 'static,
{
    service_fn(move |request: Request<hyper::body::Incoming>| {
        let request = request.map(Incoming::two);
        let is_connect = request.method() == Method::CONNECT;
        let (number, busy) = marks.begin();
        // The engine knows a size only.
        let answer = if request.headers().len() > most_headers {
            Err(busy)
        } else {
            // Moved some more times before it is first polled.
            Ok(Box::pin(respond(request, busy)))
        };
        let marks = Rc::clone(&marks);
        async move {
            let mut response = match answer {
                Ok(answer) => answer.await,
                Err(_busy) => too_many_headers(),
            };
            marks.answered(number, is_connect, &mut response);
            Ok::<_, Infallible>(marks.flows.watch(response))
        }
    })
}

/// What became of a connection that its engine is done with.
async fn finish(activity: &Activity, served: Result<(), EngineError>) -> Result<(), ServeError> {
    let violation = activity.control.violation();
    match violation {
        // What the peer did not take for so long it will not get.
        Some(Violation::Stalled) => reset_on_close(activity.watch.tcp()),
        Some(Violation::SlowHead) => {}
        None if served.is_err() || activity.version == Version::Http2 => {}
        _ if activity.is_abandoned() => activity.watch.linger(LINGER).await,
        _ => {}
    }
    match violation {
        Some(why) => Err(why.into()),
        None => Ok(served?),
    }
}

/// Resolves when a hostile HTTP/2 client has had its time to read why it is ended; HTTP/1's end with their answer.
async fn cut_off(activity: &Activity) {
    activity.control.violated().await;
    if activity.version == Version::Http1 {
        std::future::pending().await
    }
    tokio::time::sleep(LINGER).await;
}

fn too_many_headers() -> Response<Body> {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
    response
}

fn http2(limits: &Limits, flows: Flows) -> hyper::server::conn::http2::Builder<Flows> {
    let mut builder = hyper::server::conn::http2::Builder::new(flows);
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(limits.stream_window)
        .initial_connection_window_size(limits.connection_window)
        .max_frame_size(limits.frame)
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(limits.head_bytes)
        .max_send_buf_size(limits.send_buffer)
        .max_local_error_reset_streams(limits.local_resets)
        .auto_date_header(false);
    builder
}

enum Idle {
    /// No request for long: an orderly end.
    Long,
    /// The client holds the connection without using it: closed at once.
    Bad(Violation),
}

async fn watch_idle(activity: &Activity, limits: &Limits) -> Idle {
    let (mut head, mut written) = (Since::default(), Since::default());
    loop {
        // Only these are kept while it waits.
        let (head_time, idle_time, stall_time) = {
            let limits = limits.hurried();
            (limits.head_time, limits.idle_time, limits.stall_time)
        };
        let tick = head_time.min(idle_time).min(stall_time);
        tokio::select! {
            () = tokio::time::sleep(tick) => {}
            () = pressure::changed() => continue,
        }
        let (control, watch) = (&activity.control, &activity.watch);
        let is_busy = activity.requests.get() > 0;
        // One HTTP/2 head that does not end stops all streams; an HTTP/1 head may wait for the answer before it.
        let waits = activity.version == Version::Http2 || !is_busy;
        if head.unchanged(control.open_head().filter(|_| waits)) >= head_time {
            return Idle::Bad(Violation::SlowHead);
        }
        let unsent = watch.is_blocked().then(|| watch.bytes_written());
        if written.unchanged(unsent) >= stall_time {
            return Idle::Bad(Violation::Stalled);
        }
        activity.flows.give_up(stall_time);
        if !is_busy && activity.idle_since.get().elapsed() >= idle_time {
            return Idle::Long;
        }
    }
}

/// How long something has been what it is.
#[derive(Default)]
struct Since(Option<(u64, Instant)>);

impl Since {
    fn unchanged(&mut self, now: Option<u64>) -> Duration {
        match (now, self.0) {
            (Some(now), Some((was, since))) if now == was => since.elapsed(),
            (now, _) => {
                self.0 = now.map(|now| (now, Instant::now()));
                Duration::ZERO
            }
        }
    }
}
