//! What is asked of the control plane at the moment of its first use, and waiting for the answer. What has to be asked
//! is decided in `model`; how it travels is `xds`'s.
//!
//! A proxy that is sent everything never asks: nothing here costs it more than looking at a flag.

use lateen_model::decide::plan::{Fault, FaultReason};
use lateen_model::lookup::Lookup;
use parking_lot::{Mutex, RwLock};
use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Wait for an answer that a decision depends on. Without it the decision would be another one than the user wrote, so
/// what waits is refused.
const PATIENCE: Duration = Duration::from_secs(5);

/// Wait for an answer that only names a peer in metrics and logs.
const COURTESY: Duration = Duration::from_millis(100);

/// Questions that may wait to be sent.
const QUEUE: usize = 256;

/// Questions and what is known of their answers; shared by all threads.
#[derive(Debug)]
pub(crate) struct Demand {
    questions: mpsc::Sender<Lookup>,
    /// For the one who asks the control plane; absent once it has it.
    receiver: Mutex<Option<mpsc::Receiver<Lookup>>>,
    /// Answered, with what the answer brought in force.
    answered: RwLock<HashSet<Lookup>>,
    news: watch::Sender<()>,
    asked: AtomicU64,
    failed: AtomicU64,
}

impl Default for Demand {
    fn default() -> Self {
        let (questions, receiver) = mpsc::channel(QUEUE);
        Self {
            questions,
            receiver: Mutex::new(Some(receiver)),
            answered: RwLock::default(),
            news: watch::Sender::new(()),
            asked: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }
    }
}

impl Demand {
    /// Where questions come out; absent when it was taken already. Without a taker nobody waits: then what is there is
    /// all there is.
    pub(crate) fn take_questions(&self) -> Option<mpsc::Receiver<Lookup>> {
        self.receiver.lock().take()
    }

    /// Notes answers. What they brought must be in force before.
    pub(crate) fn found(&self, lookups: Vec<Lookup>) {
        self.answered.write().extend(lookups);
        self.news.send_replace(());
    }

    /// Answers that do not hold any more.
    pub(crate) fn forgotten(&self, lookups: &[Lookup]) {
        let mut answered = self.answered.write();
        for lookup in lookups {
            answered.remove(lookup);
        }
    }

    /// Waits until a snapshot loaded afterwards knows what there is to know about `lookup`.
    ///
    /// # Errors
    /// The control plane did not answer in time.
    pub(crate) async fn learn(&self, lookup: Lookup) -> Result<(), Fault> {
        let subject = match &lookup {
            Lookup::Host(host) => host.to_string(),
            Lookup::Address(ip) | Lookup::Peer(ip) => ip.to_string(),
        };
        let learnt = tokio::time::timeout(PATIENCE, self.asked(lookup)).await;
        learnt.map_err(|_| {
            self.failed.fetch_add(1, Ordering::Relaxed);
            Fault {
                reason: FaultReason::Undiscovered,
                origin: None,
                subject,
            }
        })
    }

    async fn asked(&self, lookup: Lookup) {
        let is_answered = || self.answered.read().contains(&lookup);
        if is_answered() || self.receiver.lock().is_some() {
            return;
        }
        let mut news = self.news.subscribe();
        self.asked.fetch_add(1, Ordering::Relaxed);
        if self.questions.send(lookup.clone()).await.is_err() {
            return std::future::pending().await;
        }
        while !is_answered() {
            if news.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Finds out who a peer is, if that does not take long: telemetry alone is worse without it.
    pub(crate) async fn meet(&self, peer: Lookup) {
        let _ = tokio::time::timeout(COURTESY, self.asked(peer)).await;
    }

    /// The counters as metrics.
    pub(crate) fn figures(&self) -> [(&'static str, u64); 2] {
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            ("lateen_discovery_lookups_total", value(&self.asked)),
            (
                "lateen_discovery_lookup_failures_total",
                value(&self.failed),
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(text: &str) -> Lookup {
        text.parse().expect(text)
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_waits_for_the_answer_and_not_for_ever() {
        let demand = Demand::default();
        let learnt = demand.learn(lookup("host/a")).await;
        assert_eq!(learnt, Ok(()), "nobody to be asked");
        let mut questions = demand.take_questions().expect("the first time");
        let answers = async {
            let asked = questions.recv().await.expect("a question");
            demand.found(vec![lookup("host/other")]);
            tokio::task::yield_now().await;
            demand.found(vec![asked]);
        };
        let (learnt, ()) = tokio::join!(demand.learn(lookup("host/a")), answers);
        assert_eq!(learnt, Ok(()));
        let refused = demand.learn(lookup("host/b")).await.expect_err("no answer");
        assert_eq!(refused.reason, FaultReason::Undiscovered);
        assert_eq!(&*refused.subject, "b");
        demand.forgotten(&[lookup("host/a")]);
        assert!(demand.learn(lookup("host/a")).await.is_err(), "asked anew");
        demand.meet(lookup("peer/10.0.0.1")).await;
        assert_eq!(demand.figures().map(|(_, value)| value), [4, 2]);
    }
}
