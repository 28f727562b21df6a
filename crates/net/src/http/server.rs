//! The serving end of a connection: requests go to one function, a drain signal ends it between requests.

use super::{Body, Limits, Local, Version};
use crate::stream::{Stream, Watch};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::cell::Cell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::Instant;

/// How long a client that is still sending may take to notice that it has been answered (Envoy: delayed close).
const LINGER: Duration = Duration::from_secs(1);

/// Held while a request is being answered; keep it until the response's last byte.
#[derive(Debug)]
pub struct Busy(Rc<Activity>);

#[derive(Debug)]
struct Activity {
    requests: Cell<usize>,
    idle_since: Cell<Instant>,
    read_when_idle: Cell<u64>,
    watch: Watch,
    /// Somebody else reads from the connection now.
    upgraded: Cell<bool>,
}

impl Activity {
    fn begin(self: &Rc<Self>) -> Busy {
        self.requests.set(self.requests.get() + 1);
        Busy(Rc::clone(self))
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
        self.0.read_when_idle.set(self.0.watch.bytes_read());
    }
}

/// Serves `stream` until the client ends it, `drain` resolves and the requests under way are answered, or it idles
/// too long. `respond` gets each request with its [`Busy`] mark. Must run where local tasks can be spawned.
///
/// # Errors
/// The client sent something that is not HTTP, or the connection broke.
pub async fn serve<F, R>(
    stream: Stream,
    version: Version,
    limits: &Limits,
    drain: impl Future<Output = ()>,
    respond: F,
) -> Result<(), hyper::Error>
where
    F: Fn(Request<Incoming>, Busy) -> R + 'static,
    R: Future<Output = Response<Body>> + 'static,
{
    let activity = Rc::new(Activity {
        requests: Cell::new(0),
        idle_since: Cell::new(Instant::now()),
        read_when_idle: Cell::new(0),
        watch: stream.watch(),
        upgraded: Cell::new(false),
    });
    let marks = Rc::clone(&activity);
    let service = service_fn(move |request| {
        let is_connect = request.method() == Method::CONNECT;
        let answer = respond(request, marks.begin());
        let marks = Rc::clone(&marks);
        async move {
            let response = answer.await;
            let status = response.status();
            if status == StatusCode::SWITCHING_PROTOCOLS || is_connect && status.is_success() {
                marks.upgraded.set(true);
            }
            Ok::<_, Infallible>(response)
        }
    });
    let io = TokioIo::new(stream);
    let watchdog = watch_idle(Rc::clone(&activity), *limits);
    // HTTP/2 tells a client which requests will not be answered. An HTTP/1 client that is about to send one cannot be
    // told: its connection ends with the response to its next request.
    let may_end = || version == Version::Http2 || activity.requests.get() > 0;
    // The two engines have no common trait for a graceful end, hence a macro.
    macro_rules! drive {
        ($connection:expr) => {{
            let mut connection = pin!($connection);
            let mut drain = pin!(drain);
            let mut watchdog = pin!(watchdog);
            let mut draining = false;
            let ending = Cell::new(false);
            loop {
                let served = poll_fn(|cx| {
                    let polled = connection.as_mut().poll(cx);
                    if polled.is_ready() || !draining || ending.get() || !may_end() {
                        return polled;
                    }
                    ending.set(true);
                    connection.as_mut().graceful_shutdown();
                    connection.as_mut().poll(cx)
                });
                tokio::select! {
                    done = served => break done,
                    () = drain.as_mut(), if !draining => draining = true,
                    idle = watchdog.as_mut(), if !ending.get() => {
                        if idle == Idle::Slow {
                            break Ok(());
                        }
                        ending.set(true);
                        connection.as_mut().graceful_shutdown();
                    }
                }
            }
        }};
    }
    match version {
        Version::Http1 => {
            drive!(http1(limits).serve_connection(io, service).with_upgrades())?;
            if activity.is_abandoned() {
                activity.watch.linger(LINGER).await;
            }
            Ok(())
        }
        Version::Http2 => drive!(http2(limits).serve_connection(io, service)),
    }
}

fn http1(limits: &Limits) -> hyper::server::conn::http1::Builder {
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        .preserve_header_case(true)
        .max_buf_size(limits.read_ahead)
        .max_header_size(limits.head_bytes as usize)
        .auto_date_header(false)
        // Slow heads and idle connections are watched per connection, which costs no timer per request.
        .header_read_timeout(None);
    if limits.headers != Limits::default().headers {
        builder.max_headers(limits.headers);
    }
    builder
}

fn http2(limits: &Limits) -> hyper::server::conn::http2::Builder<Local> {
    let mut builder = hyper::server::conn::http2::Builder::new(Local);
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(limits.stream_window)
        .initial_connection_window_size(limits.connection_window)
        .max_frame_size(limits.frame)
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(limits.head_bytes)
        .max_send_buf_size(limits.send_buffer)
        .auto_date_header(false);
    builder
}

#[derive(PartialEq, Eq)]
enum Idle {
    /// No request for long: an orderly end.
    Long,
    /// A head that does not come to its end: closed at once.
    Slow,
}

async fn watch_idle(activity: Rc<Activity>, limits: Limits) -> Idle {
    loop {
        tokio::time::sleep(limits.head_time.min(limits.idle_time)).await;
        if activity.requests.get() > 0 {
            continue;
        }
        let idle = activity.idle_since.get().elapsed();
        if idle >= limits.idle_time {
            return Idle::Long;
        }
        if idle >= limits.head_time && activity.watch.bytes_read() != activity.read_when_idle.get()
        {
            return Idle::Slow;
        }
    }
}
