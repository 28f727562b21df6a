//! Faults that a rule injects, as Envoy's filter of that name does: first the delay, then the abort.

use crate::exchange::Open;
use crate::fault;
use http::{HeaderValue, Response};
use lateen_model::route::{AbortStatus, FaultInjection};
use lateen_net::http::Body;

/// Holds the request up if it is one of those; says whether it ends here, and how.
pub(super) async fn inject(fault: &FaultInjection, open: &mut Open) -> Option<AbortStatus> {
    if let Some(delay) = &fault.delay
        && delay.share.takes(fastrand::u64(..))
    {
        open.add_flags("DI".into());
        tokio::time::sleep(delay.delay).await;
    }
    let abort = fault.abort.as_ref()?;
    let is_meant = abort.share.takes(fastrand::u64(..));
    is_meant.then_some(abort.status)
}

/// The answer to a request that ends here.
pub(super) fn answer(status: AbortStatus, open: &mut Open) -> Response<Body> {
    open.add_flags("FI".into());
    open.record.details = "fault_filter_abort".into();
    let text = "fault filter abort";
    match status {
        AbortStatus::Http(code) => fault::told(code, text, open.grpc),
        AbortStatus::Grpc(code) if open.grpc => {
            let mut answer = fault::told(200, text, true);
            let headers = answer.headers_mut();
            headers.insert("grpc-status", HeaderValue::from(code));
            answer
        }
        AbortStatus::Grpc(code) => fault::told(http_code(code), text, false),
    }
}

/// The HTTP status that stands for a gRPC status (gRPC: "HTTP to gRPC status code mapping", the other way).
fn http_code(grpc: u16) -> u16 {
    match grpc {
        0 => 200,
        1 => 499,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        12 => 501,
        14 => 503,
        16 => 401,
        _ => 500,
    }
}
