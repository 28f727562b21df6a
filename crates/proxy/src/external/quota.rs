//! Questions to a rate-limit service (`envoy.service.ratelimit.v3`).

use super::grpc::{Wire, origin};
use super::{LARGEST_ANSWER, Unavailable, Way};
use crate::upstream::Lease;
use crate::worker::Worker;
use lateen_model::decide::limits::Values;
use lateen_model::decide::plan::ConnectionFacts;
use lateen_model::limit::Service;
use lateen_proto::ratelimit::rate_limit_descriptor::Entry;
use lateen_proto::ratelimit::rate_limit_service_client::RateLimitServiceClient;
use lateen_proto::ratelimit::{RateLimitDescriptor, RateLimitRequest, RateLimitResponse};
use std::rc::Rc;
use std::time::Duration;

/// A question: hits of these descriptors.
pub(crate) fn question(service: &Service, descriptors: &[Values], hits: u32) -> RateLimitRequest {
    let entry = |(key, value): &(lateen_base::Str, String)| Entry {
        key: key.to_string(),
        value: value.clone(),
    };
    let descriptor = |values: &Values| RateLimitDescriptor {
        entries: values.iter().map(entry).collect(),
        ..RateLimitDescriptor::default()
    };
    RateLimitRequest {
        domain: service.domain.to_string(),
        descriptors: descriptors.iter().map(descriptor).collect(),
        hits_addend: hits,
    }
}

/// Asks a service, over the mesh's own way out.
///
/// # Errors
/// It is not known, cannot be reached, does not answer within `patience`, or answers with an error.
pub(crate) async fn ask(
    worker: &Rc<Worker>,
    facts: ConnectionFacts,
    service: &Service,
    question: RateLimitRequest,
    patience: Duration,
) -> Result<RateLimitResponse, Unavailable> {
    let place = (&*service.host, service.port);
    let way = Way::at(worker, facts, place, patience)?;
    let (wire, lease) = Wire::over(&way);
    let mut client = RateLimitServiceClient::with_origin(wire, origin(&way))
        .max_decoding_message_size(LARGEST_ANSWER);
    let asking = client.should_rate_limit(tonic::Request::new(question));
    let answer = tokio::time::timeout(patience, asking)
        .await
        .map_err(|_| super::late())?
        .map_err(|status| Unavailable(format!("{:?}: {}", status.code(), status.message())))?;
    if let Some(lease) = lease.borrow_mut().take() {
        Lease::finish(lease);
    }
    Ok(answer.into_inner())
}
