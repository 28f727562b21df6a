//! Requests that wait for their signature, the most urgent first.

use parking_lot::Mutex;
use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::time::SystemTime;
use tokio::sync::Notify;

/// How urgent a request is; the lesser is served first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Urgency {
    /// The caller has no certificate: it cannot work yet.
    Without,
    /// The caller's certificate is valid until then.
    Until(SystemTime),
}

/// A bounded queue: urgent requests first, equals in order of arrival.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    waiting: Mutex<Waiting<T>>,
    come: Notify,
    most: usize,
}

#[derive(Debug)]
struct Waiting<T> {
    heap: BinaryHeap<Entry<T>>,
    next: u64,
}

#[derive(Debug)]
struct Entry<T> {
    urgency: Urgency,
    number: u64,
    request: T,
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Entry<T> {
    /// The heap gives the greatest: the most urgent.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.urgency, other.number).cmp(&(self.urgency, self.number))
    }
}

impl<T> Queue<T> {
    /// An empty queue for at most `most` requests.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            waiting: Mutex::new(Waiting {
                heap: BinaryHeap::new(),
                next: 0,
            }),
            come: Notify::new(),
            most,
        }
    }

    /// Puts a request in; gives it back when the queue is full.
    pub(crate) fn push(&self, urgency: Urgency, request: T) -> Result<(), T> {
        let mut waiting = self.waiting.lock();
        if waiting.heap.len() >= self.most {
            return Err(request);
        }
        let number = waiting.next;
        waiting.next += 1;
        waiting.heap.push(Entry {
            urgency,
            number,
            request,
        });
        drop(waiting);
        self.come.notify_one();
        Ok(())
    }

    /// The most urgent request; waits for one.
    pub(crate) async fn pop(&self) -> T {
        loop {
            let come = self.come.notified();
            if let Some(entry) = self.waiting.lock().heap.pop() {
                return entry.request;
            }
            come.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    #[tokio::test]
    async fn who_has_no_certificate_comes_first_then_who_loses_it_first() {
        let queue = Queue::new(5);
        let until = |seconds| Urgency::Until(UNIX_EPOCH + Duration::from_secs(seconds));
        for (urgency, name) in [
            (until(300), "late"),
            (until(100), "soon"),
            (Urgency::Without, "new"),
            (until(100), "soon too"),
            (Urgency::Without, "new too"),
        ] {
            queue.push(urgency, name).expect("there is room");
        }
        assert_eq!(queue.push(Urgency::Without, "more"), Err("more"));
        let mut order = Vec::new();
        for _ in 0..5 {
            order.push(queue.pop().await);
        }
        assert_eq!(order, ["new", "new too", "soon", "soon too", "late"]);
    }
}
