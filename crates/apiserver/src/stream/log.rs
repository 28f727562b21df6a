//! `GET …/pods/{name}/log`.

use super::target;
use crate::error::{ApiError, Cause};
use crate::pods::{LogOptions, PodAccess};
use crate::target::Query;
use crate::wire::Body;
use futures::TryStreamExt;
use http::{HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use jiff::Timestamp;
use serde_json::Value;
use std::sync::Arc;
use tokio_util::io::ReaderStream;

/// Answers with a container's log as plain text, streamed as it comes. The error is answered as `Status`.
pub async fn logs<B>(
    request: Request<B>,
    pods: Arc<dyn PodAccess>,
    pod: &Value,
) -> Result<Response<Body>, ApiError> {
    let query = Query::parse(request.uri().query());
    let target = target(pod, query.text("container"))?;
    let options = options(&query, &target.pod)?;
    // Without `follow`, nothing waits for a container that has not run yet: say so instead of an empty log.
    let container = target.container.clone().unwrap_or_default();
    if let Some(reason) = waiting(pod, &container).filter(|_| !options.previous) {
        let why = format!(
            "container \"{container}\" in pod \"{}\" is waiting to start: {reason}",
            target.pod
        );
        return Err(ApiError::bad_request(why));
    }
    let reader = pods.logs(target, options).await?;
    let frames = ReaderStream::with_capacity(reader, super::CHUNK).map_ok(Frame::data);
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}

fn options(query: &Query, pod: &str) -> Result<LogOptions, ApiError> {
    let invalid = |field: &str, value: &str, why: &str| {
        let cause = Cause::new(
            "FieldValueInvalid",
            field,
            format!("Invalid value: {value}: {why}"),
        );
        ApiError::invalid("", "PodLogOptions", pod, vec![cause])
    };
    let number = |field: &str, least: u64| match query.text(field) {
        None => Ok(None),
        Some(text) => match text
            .parse::<i64>()
            .ok()
            .and_then(|number| u64::try_from(number).ok())
        {
            Some(number) if number >= least => Ok(Some(number)),
            _ => Err(invalid(
                field,
                text,
                &format!("must be greater than or equal to {least}"),
            )),
        },
    };
    let mut since_seconds = number("sinceSeconds", 1)?;
    if let Some(text) = query.text("sinceTime") {
        if since_seconds.is_some() {
            return Err(invalid(
                "sinceTime",
                text,
                "at most one of `sinceTime` or `sinceSeconds` may be specified",
            ));
        }
        let time: Timestamp = text
            .parse()
            .map_err(|_| invalid("sinceTime", text, "must be an RFC 3339 time"))?;
        let age = Timestamp::now().as_second() - time.as_second();
        since_seconds = Some(u64::try_from(age).unwrap_or_default());
    }
    if let Some(stream) = query.text("stream").filter(|stream| *stream != "All") {
        return Err(invalid(
            "stream",
            stream,
            "only All is supported: the streams are kept together",
        ));
    }
    Ok(LogOptions {
        follow: query.flag("follow"),
        previous: query.flag("previous"),
        timestamps: query.flag("timestamps"),
        tail_lines: number("tailLines", 0)?,
        since_seconds,
        limit_bytes: number("limitBytes", 1)?,
    })
}

/// Why a container waits for its first start; absent when it runs, ran, or its status is not known.
fn waiting(pod: &Value, container: &str) -> Option<String> {
    let all = [
        "containerStatuses",
        "initContainerStatuses",
        "ephemeralContainerStatuses",
    ];
    let mut statuses = all
        .iter()
        .filter_map(|key| pod["status"][key].as_array())
        .flatten();
    let status = statuses.find(|status| status["name"] == container)?;
    let ran_before = status["restartCount"]
        .as_u64()
        .is_some_and(|count| count > 0);
    let reason = status["state"]["waiting"]["reason"].as_str()?;
    (!ran_before && status["lastState"]["terminated"].is_null()).then(|| reason.to_owned())
}
