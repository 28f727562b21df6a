//! A panic ends the task in which it happens and nothing else; it is counted.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

static COUNT: AtomicU64 = AtomicU64::new(0);

/// The same future, ended by a panic as if it were done; what it holds is dropped then.
pub async fn caught(future: impl Future<Output = ()>) {
    let mut future = pin!(future);
    poll_fn(
        |cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
            Ok(polled) => polled,
            Err(_) => {
                COUNT.fetch_add(1, Ordering::Relaxed);
                Poll::Ready(())
            }
        },
    )
    .await;
}

/// How many tasks of this process ended by a panic in [`caught`].
pub fn count() -> u64 {
    COUNT.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_counted_and_the_rest_goes_on() {
        let before = count();
        caught(async { panic!("on purpose") }).await;
        assert_eq!(count(), before + 1);
        caught(async {}).await;
        assert_eq!(count(), before + 1);
    }
}
