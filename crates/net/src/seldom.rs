//! Waiting for what seldom happens, beside what often does: a future that is asked only after it has called.

use futures::task::AtomicWaker;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

/// A future that is polled only after it has woken its task, however often the task wakes for something else. Polling
/// it in between costs next to nothing, whatever it waits for: timers, notices, locks.
#[derive(Debug)]
pub struct Seldom<F> {
    inner: Pin<Box<F>>,
    bell: Arc<Bell>,
    waker: Waker,
}

#[derive(Debug)]
struct Bell {
    rung: AtomicBool,
    task: AtomicWaker,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::Release);
        self.task.wake();
    }
}

impl<F: Future> Seldom<F> {
    /// Waits for `inner`, which has not been polled yet.
    pub fn new(inner: F) -> Self {
        let bell = Arc::new(Bell {
            rung: AtomicBool::new(true),
            task: AtomicWaker::new(),
        });
        Self {
            inner: Box::pin(inner),
            waker: Waker::from(Arc::clone(&bell)),
            bell,
        }
    }
}

impl<F: Future> Future for Seldom<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.get_mut();
        // First who is called, then whether it rang: a ring in between finds the task.
        this.bell.task.register(cx.waker());
        if !this.bell.rung.swap(false, Ordering::AcqRel) {
            return Poll::Pending;
        }
        this.inner
            .as_mut()
            .poll(&mut Context::from_waker(&this.waker))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::future::poll_fn;
    use tokio::sync::Notify;

    #[tokio::test]
    async fn it_is_asked_once_for_each_call_and_not_when_others_wake_the_task() {
        let (news, other, asked) = (Notify::new(), Notify::new(), Cell::new(0));
        let waiting = async {
            let mut told = std::pin::pin!(news.notified());
            poll_fn(|cx| {
                asked.set(asked.get() + 1);
                told.as_mut().poll(cx)
            })
            .await;
        };
        let mut seldom = Seldom::new(waiting);
        for _ in 0..10 {
            other.notify_one();
            tokio::select! {
                biased;
                () = &mut seldom => panic!("nothing has happened"),
                () = other.notified() => {}
            }
        }
        assert_eq!(asked.get(), 1);
        let tell = async {
            tokio::task::yield_now().await;
            news.notify_one();
        };
        tokio::join!(seldom, tell);
        assert_eq!(asked.get(), 2);
    }
}
