//! A response's body on its way to the client: counted, bounded in time, and at its end everything is let go.

use crate::exchange::Open;
use crate::upstream::{Bound, Lease};
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use lateen_filters::trailers;
use lateen_net::http::{Body, BodyError, Incoming};
use std::pin::Pin;
use std::task::{Context, Poll};

/// A response's body together with the exchange that it ends and the connection that it comes from.
pub(crate) struct ResponseBody {
    inner: Incoming,
    // Absent once the body has ended.
    open: Option<Open>,
    lease: Option<Lease>,
    deadline: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

/// The route's timeout ran out in the middle of a body.
#[derive(Debug, thiserror::Error)]
#[error("upstream response timeout")]
struct TooLate;

impl ResponseBody {
    /// Wraps `inner`; a body that has no bytes is over at once.
    pub(crate) fn wrap(inner: Incoming, open: Open, lease: Lease, deadline: Option<Bound>) -> Body {
        let passed = |bound: Bound| async move { bound.passed().await };
        let deadline = deadline.map(|bound| Box::pin(passed(bound)) as Pin<Box<_>>);
        let mut body = Self {
            inner,
            open: Some(open),
            lease: Some(lease),
            deadline,
        };
        if body.inner.is_end_stream() {
            body.complete();
            return Body::Empty;
        }
        Body::wrap(body)
    }

    fn complete(&mut self) {
        if let Some(mut open) = self.open.take() {
            open.complete = true;
        }
        if let Some(lease) = self.lease.take() {
            lease.finish();
        }
    }

    fn fail(&mut self, flag: &'static str, details: &'static str) {
        if let Some(mut open) = self.open.take() {
            open.complete = true;
            open.record.flags = flag.into();
            open.record.details = details.into();
        }
        self.lease = None;
    }

    fn passed(&mut self, frame: &Frame<Bytes>) {
        let Some(open) = &mut self.open else { return };
        if let Some(bytes) = frame.data_ref() {
            open.record.sent += bytes.len() as u64;
        } else if let Some(trailers) = frame.trailers_ref()
            && let Some(status) = grpc_status(trailers)
        {
            open.record.grpc_status = Some(status);
        }
        // Nobody asks for more after trailers (RFC 9110 §6.5).
        if frame.is_trailers() || self.inner.is_end_stream() {
            self.complete();
        }
    }
}

/// The gRPC status in headers or trailers.
pub(crate) fn grpc_status(headers: &http::HeaderMap) -> Option<u16> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        match Pin::new(&mut this.inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(mut frame))) => {
                if let Some(trailers) = frame.trailers_mut() {
                    trailers::clean(trailers);
                }
                this.passed(&frame);
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                this.fail(
                    "UC",
                    "upstream_reset_after_response_started{connection_termination}",
                );
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Ready(None) => {
                this.complete();
                Poll::Ready(None)
            }
            Poll::Pending => {
                let late = this
                    .deadline
                    .as_mut()
                    .is_some_and(|d| d.as_mut().poll(cx).is_ready());
                if late {
                    this.fail("UT", "response_timeout");
                    return Poll::Ready(Some(Err(Box::new(TooLate))));
                }
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.open.is_none() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
