//! Endpoints that have just started get less: their weight grows with their age (Envoy: slow start).

use super::Choice;
use crate::upstream::limits::State;
use lateen_model::decide::cluster::{Cluster, Endpoint};
use lateen_model::traffic::Warmup;
use std::time::Duration;
use tokio::time::Instant;

/// When the youngest endpoint will have warmed up; none when nobody warms up.
pub(super) fn until(
    cluster: &Cluster,
    endpoints: &[Endpoint],
    state: Option<&State>,
) -> Option<Instant> {
    let (settings, state) = (cluster.settings.warmup?, state?);
    let since = endpoints
        .iter()
        .filter_map(|e| state.known_since(e.address));
    since.max().map(|since| since + settings.duration)
}

/// What each endpoint weighs now.
pub(super) fn weights(
    cluster: &Cluster,
    endpoints: &[Endpoint],
    choice: &Choice<'_>,
) -> Option<Vec<f64>> {
    let settings = cluster.settings.warmup?;
    let (state, now) = (choice.state.as_ref()?, choice.now);
    let weight = |endpoint: &Endpoint| {
        let since = state.known_since(endpoint.address);
        let age = since.map_or(settings.duration, |since| {
            now.saturating_duration_since(since)
        });
        f64::from(endpoint.weight.max(1)) * factor(&settings, age)
    };
    Some(endpoints.iter().map(weight).collect())
}

/// The part of its weight that an endpoint of this age has.
fn factor(settings: &Warmup, age: Duration) -> f64 {
    if age >= settings.duration {
        return 1.0;
    }
    // As in Envoy, whole seconds count and the first is one already.
    let age = age
        .as_secs_f64()
        .max(1.0)
        .min(settings.duration.as_secs_f64());
    let share = age / settings.duration.as_secs_f64();
    share
        .powf(1.0 / settings.aggression)
        .max(settings.minimum_percent / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weight_grows_with_age() {
        let even = Warmup {
            duration: Duration::from_secs(100),
            minimum_percent: 10.0,
            aggression: 1.0,
        };
        let at = |settings: &Warmup, seconds| factor(settings, Duration::from_secs(seconds));
        assert_eq!(at(&even, 0), 0.1);
        assert_eq!(at(&even, 10), 0.1);
        assert_eq!(at(&even, 50), 0.5);
        assert_eq!(at(&even, 100), 1.0);
        assert_eq!(at(&even, 200), 1.0);
        let fast = Warmup {
            aggression: 2.0,
            ..even
        };
        assert_eq!(at(&fast, 25), 0.5);
        assert_eq!(at(&fast, 81), 0.9);
    }
}
