//! One request or TCP connection from its beginning to its account: metrics and the access-log line.
//!
//! An [`Open`] exchange travels with whatever keeps it alive. When that ends, however it ends, the exchange is put on
//! the worker's ledger; the ledger's own task is the one place that counts and writes.

use crate::drain::Underway;
use crate::shared::Shared;
use http::{HeaderName, HeaderValue};
use lateen_model::decide::plan::Direction;
use lateen_net::http::Busy;
use lateen_telemetry::access_log::Format;
use lateen_telemetry::metrics::{
    Peer, Reporter, RequestSeen, RequestSeries, Shard, Target, TcpSeen, TcpSeries,
};
use lateen_telemetry::record::Record;
use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::ops::{Deref, DerefMut};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

const NO_FLAG: Cow<'static, str> = Cow::Borrowed("-");

/// What a line of the access log usually takes, in bytes.
const LINE: usize = 512;

/// How long finished exchanges gather before they are accounted for together.
const GATHER: Duration = Duration::from_millis(10);

/// Everything known of one exchange.
pub(crate) struct Exchange {
    pub(crate) record: Record,
    pub(crate) began: Instant,
    pub(crate) format: Option<Arc<Format>>,
    pub(crate) reporter: Reporter,
    pub(crate) source: Arc<Peer>,
    pub(crate) destination: Arc<Peer>,
    pub(crate) target: Arc<Target>,
    /// HTTP only: the request's headers as they were sent on, when edits of the response quote them.
    pub(crate) quoted: Vec<(HeaderName, HeaderValue)>,
    /// HTTP only: whether the request is gRPC.
    pub(crate) grpc: bool,
    pub(crate) kind: Kind,
    /// Body bytes of the request, counted where they pass.
    pub(crate) received: Rc<Cell<u64>>,
    /// Whether the client got everything; if not, it left.
    pub(crate) complete: bool,
}

/// What an exchange is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One HTTP request.
    Request,
    /// One TCP connection, with the bytes already counted in metrics.
    Tcp(TcpSeen),
}

/// An exchange that is not over.
pub(crate) struct Open {
    // Only taken when dropped.
    exchange: Option<Box<Exchange>>,
    ledger: Rc<Ledger>,
    _busy: Option<Busy>,
    _underway: Underway,
}

impl Deref for Open {
    type Target = Exchange;

    fn deref(&self) -> &Exchange {
        self.exchange.as_deref().expect("taken only when dropped")
    }
}

impl DerefMut for Open {
    fn deref_mut(&mut self) -> &mut Exchange {
        self.exchange
            .as_deref_mut()
            .expect("taken only when dropped")
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(mut exchange) = self.exchange.take() {
            exchange.record.duration = exchange.began.elapsed();
            self.ledger.closed.borrow_mut().push(exchange);
            self.ledger.wake.notify_one();
        }
    }
}

/// A worker's finished exchanges, and where they are accounted for.
pub(crate) struct Ledger {
    shared: Arc<Shared>,
    shard: Arc<Shard>,
    #[expect(
        clippy::vec_box,
        reason = "exchanges are boxed for their whole life: moving one costs a pointer"
    )]
    closed: RefCell<Vec<Box<Exchange>>>,
    wake: Notify,
}

impl Ledger {
    pub(crate) fn new(shared: &Arc<Shared>) -> Rc<Self> {
        Rc::new(Self {
            shared: Arc::clone(shared),
            shard: shared.metrics.shard(),
            closed: RefCell::default(),
            wake: Notify::new(),
        })
    }

    /// Opens an exchange with nothing known but its direction.
    pub(crate) fn open(
        self: &Rc<Self>,
        direction: Direction,
        kind: Kind,
        unknown: &Arc<Peer>,
        target: Arc<Target>,
    ) -> Open {
        let reporter = match direction {
            Direction::Inbound => Reporter::Destination,
            Direction::Outbound | Direction::Gateway => Reporter::Source,
        };
        let exchange = Exchange {
            record: Record::begin(),
            began: Instant::now(),
            format: self.shared.live.load().format.clone(),
            reporter,
            source: Arc::clone(unknown),
            destination: Arc::clone(unknown),
            target,
            grpc: false,
            kind,
            quoted: Vec::new(),
            received: Rc::default(),
            complete: false,
        };
        Open {
            exchange: Some(Box::new(exchange)),
            ledger: Rc::clone(self),
            _busy: None,
            _underway: self.shared.drain.begin(),
        }
    }

    /// Accounts for what is closed, as it closes; runs for the worker's life.
    pub(crate) async fn keep(&self) {
        loop {
            self.wake.notified().await;
            tokio::time::sleep(GATHER).await;
            self.settle();
        }
    }

    /// Accounts for everything closed so far.
    pub(crate) fn settle(&self) {
        let closed = self.closed.take();
        let is_logged = closed.iter().any(|exchange| exchange.format.is_some());
        let mut lines = Vec::with_capacity(if is_logged { LINE * closed.len() } else { 0 });
        let mut count = 0;
        for mut exchange in closed {
            self.count(&mut exchange);
            if let Some(format) = &exchange.format {
                format.write(&exchange.record, &mut lines);
                count += 1;
            }
        }
        if count > 0 {
            self.shared.log.write(lines, count);
        }
    }

    /// Adds to a TCP connection's series while it goes on.
    pub(crate) fn progress(&self, exchange: &Exchange, seen: TcpSeen) {
        self.shard.tcp(tcp_series(exchange, NO_FLAG), seen);
    }

    fn count(&self, exchange: &mut Exchange) {
        match exchange.kind {
            Kind::Request => self.count_request(exchange),
            Kind::Tcp(counted) => {
                let flags = flags(exchange);
                let record = &exchange.record;
                let seen = TcpSeen {
                    opened: 1 - counted.opened.min(1),
                    closed: 1,
                    sent: record.sent.saturating_sub(counted.sent),
                    received: record.received.saturating_sub(counted.received),
                };
                self.shard.tcp(tcp_series(exchange, flags), seen);
            }
        }
    }

    fn count_request(&self, exchange: &mut Exchange) {
        exchange.record.received = exchange.received.get();
        if !exchange.complete {
            if exchange.record.flags.is_empty() {
                exchange.record.flags = "DC".into();
            }
            exchange.record.details = "downstream_remote_disconnect".into();
        }
        let record = &exchange.record;
        let series = RequestSeries {
            reporter: exchange.reporter,
            source: Arc::clone(&exchange.source),
            destination: Arc::clone(&exchange.destination),
            target: Arc::clone(&exchange.target),
            grpc: exchange.grpc,
            code: record.code,
            grpc_status: record.grpc_status,
            flags: flags(exchange),
        };
        let seen = RequestSeen {
            duration: record.duration,
            request_bytes: record.received,
            response_bytes: record.sent,
        };
        self.shard.request(series, seen);
    }
}

fn flags(exchange: &Exchange) -> Cow<'static, str> {
    let flags = &exchange.record.flags;
    if flags.is_empty() {
        NO_FLAG
    } else {
        flags.clone()
    }
}

impl Open {
    /// Adds response flags to those that are known already.
    pub(crate) fn add_flags(&mut self, more: Cow<'static, str>) {
        let flags = &mut self.record.flags;
        if flags.is_empty() {
            *flags = more;
        } else if !more.is_empty() {
            *flags = format!("{flags},{more}").into();
        }
    }

    /// Keeps the connection marked busy until the exchange is over.
    pub(crate) fn hold(&mut self, busy: Busy) {
        self._busy = Some(busy);
    }

    pub(crate) fn ledger(&self) -> Rc<Ledger> {
        Rc::clone(&self.ledger)
    }
}

fn tcp_series(exchange: &Exchange, flags: Cow<'static, str>) -> TcpSeries {
    TcpSeries {
        reporter: exchange.reporter,
        source: Arc::clone(&exchange.source),
        destination: Arc::clone(&exchange.destination),
        target: Arc::clone(&exchange.target),
        flags,
    }
}
