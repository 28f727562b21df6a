//! Response bodies of an HTTP/2 connection: a stream whose client takes nothing of its body for too long is given up, and
//! the others go on. Flow control alone would keep everything behind it, up to the upstream connection, for ever.

use super::{Body, BodyError, Violation};
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::Response;
use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// What may be left to the engine when a body is over: nobody sees it wait. A longer last piece is cut in two.
const TAIL: usize = 16 * 1024;

/// The streams of a connection.
#[derive(Debug, Clone, Default)]
pub(super) struct Flows(Rc<RefCell<Vec<Weak<Flow>>>>);

/// A stream whose response has a body.
#[derive(Debug)]
struct Flow {
    /// Since when the client has taken nothing of what there is; absent: there is nothing, the source is slow.
    since: Cell<Option<Instant>>,
    task: RefCell<Option<AbortHandle>>,
}

tokio::task_local! {
    static STREAM: Rc<Flow>;
}

impl<F> hyper::rt::Executor<F> for Flows
where
    F: Future<Output = ()> + 'static,
{
    fn execute(&self, future: F) {
        let flow = Rc::new(Flow {
            since: Cell::new(None),
            task: RefCell::new(None),
        });
        let scoped = STREAM.scope(Rc::clone(&flow), crate::panics::caught(future));
        let task = tokio::task::spawn_local(scoped);
        flow.task.replace(Some(task.abort_handle()));
    }
}

impl Flows {
    /// Watches the response's body; to be called where the stream is answered.
    pub(super) fn watch(&self, response: Response<Body>) -> Response<Body> {
        let Ok(flow) = STREAM.try_with(Rc::clone) else {
            return response;
        };
        if response.body().is_end_stream() {
            return response;
        }
        flow.since.set(Some(Instant::now()));
        let mut all = self.0.borrow_mut();
        if all.len() == all.capacity() {
            all.retain(|flow| flow.strong_count() > 0);
        }
        all.push(Rc::downgrade(&flow));
        response.map(|inner| {
            Body::wrap(Watched {
                inner,
                tail: None,
                flow,
            })
        })
    }

    /// Gives up the streams whose clients have taken nothing for `patience`.
    pub(super) fn give_up(&self, patience: Duration) {
        self.0.borrow_mut().retain(|flow| {
            let Some(flow) = flow.upgrade() else {
                return false;
            };
            let is_stalled = flow.since.get().is_some_and(|at| at.elapsed() >= patience);
            if is_stalled && let Some(task) = flow.task.take() {
                Violation::Stalled.count();
                task.abort();
            }
            !is_stalled
        });
    }
}

/// A body that notes when it was last asked for more.
struct Watched {
    inner: Body,
    tail: Option<Bytes>,
    flow: Rc<Flow>,
}

impl Watched {
    fn cut(&mut self, frame: Frame<Bytes>) -> Frame<Bytes> {
        if !self.inner.is_end_stream() {
            return frame;
        }
        match frame.into_data() {
            Ok(mut bytes) if bytes.len() > TAIL => {
                self.tail = Some(bytes.split_off(bytes.len() - TAIL));
                Frame::data(bytes)
            }
            Ok(bytes) => Frame::data(bytes),
            Err(frame) => frame,
        }
    }
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if let Some(tail) = this.tail.take() {
            this.flow.since.set(None);
            return Poll::Ready(Some(Ok(Frame::data(tail))));
        }
        let polled = Pin::new(&mut this.inner).poll_frame(cx);
        let given = matches!(polled, Poll::Ready(Some(Ok(_))));
        this.flow.since.set(given.then(Instant::now));
        polled.map_ok(|frame| this.cut(frame))
    }

    fn is_end_stream(&self) -> bool {
        self.tail.is_none() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.tail.as_ref().map_or(0, |tail| tail.len() as u64);
        match self.inner.size_hint().exact() {
            Some(inner) => SizeHint::with_exact(inner + rest),
            None => SizeHint::default(),
        }
    }
}
