//! One call of `grpc.health.v1.Health/Check`. The two messages have one field each, so they are encoded here
//! by hand.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::time::timeout;

/// Calls the health service and judges the answer.
///
/// # Errors
/// The sentence for an `Unhealthy` event.
pub(super) async fn check(to: SocketAddr, service: &str, most: Duration) -> Result<(), String> {
    match timeout(most, call(to, service, most)).await {
        Ok(result) => result,
        Err(_) => Err(format!(
            "timeout: failed to connect service \"{to}\" within {}s",
            most.as_secs()
        )),
    }
}

async fn call(to: SocketAddr, service: &str, most: Duration) -> Result<(), String> {
    let stream = super::connect(to, most).await?;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(|e| e.to_string())?;
    let driver = tokio::spawn(connection);
    let request = http::Request::post(format!("http://{to}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(message(service)?))
        .map_err(|e| e.to_string())?;
    let answer = sender
        .send_request(request)
        .await
        .map_err(|e| e.to_string())?;
    let status = answer.headers().get("grpc-status").cloned();
    let collected = answer
        .into_body()
        .collect()
        .await
        .map_err(|e| e.to_string())?;
    driver.abort();
    let status = status.or_else(|| collected.trailers()?.get("grpc-status").cloned());
    if status.is_none_or(|code| code != "0") {
        return Err("the health service answered with an error".into());
    }
    // Field 1 (varint) of the answer; 1 is SERVING. A missing field is UNKNOWN.
    match collected.to_bytes().get(5..) {
        Some([0x08, 1, ..]) => Ok(()),
        _ => Err(format!(
            "service unhealthy (service \"{service}\" is not SERVING)"
        )),
    }
}

/// A gRPC frame with one string field.
fn message(service: &str) -> Result<Bytes, String> {
    let length = u8::try_from(service.len())
        .ok()
        .filter(|length| *length < 0x80)
        .ok_or("the service name of a gRPC probe is too long")?;
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    if service.is_empty() {
        frame.put_u32(0);
    } else {
        frame.put_u32(u32::from(length) + 2);
        frame.put_u8(0x0a);
        frame.put_u8(length);
        frame.put_slice(service.as_bytes());
    }
    Ok(frame.freeze())
}
