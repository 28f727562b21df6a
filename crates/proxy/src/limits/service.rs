//! Hits of a rate-limit service: from a lease, else asked for. A question goes on when who asked has no patience left, so
//! that its answer, and the connection, are there for the next one.

use super::leases::{Ended, Leases, Step, Subject, Verdict};
use super::standing::Standing;
use crate::external::quota;
use crate::worker::Worker;
use lateen_filters::external::Fingerprint;
use lateen_model::decide::limits::Values;
use lateen_model::decide::plan::ConnectionFacts;
use lateen_model::limit::Service;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Least time that a question may take in the background.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a service says, or has said before.
#[derive(Debug)]
pub(super) enum Answer {
    /// The request passes.
    Granted(Standing),
    /// It is too much.
    Over(Standing),
}

/// Takes one hit of these descriptors.
///
/// # Errors
/// The service cannot be asked, or has not answered in time; the text is part of a sentence.
pub(super) async fn ask(
    worker: &Rc<Worker>,
    facts: ConnectionFacts,
    service: &Service,
    descriptors: &[Values],
) -> Result<Answer, Rc<str>> {
    let asking = async {
        let subject = subject(service, descriptors);
        loop {
            let step = match service.leases {
                true => worker.leases.borrow_mut().take(&subject, Instant::now()),
                false => Step::Ask(1),
            };
            match step {
                Step::Granted(standing) => return Ok(Answer::Granted(standing)),
                Step::Over(standing) => return Ok(Answer::Over(standing)),
                Step::Wait(ended) => wait(ended).await?,
                Step::Ask(hits) => {
                    let asker = Asker {
                        worker: Rc::clone(worker),
                        facts,
                        service: service.clone(),
                        descriptors: descriptors.to_vec(),
                        subject,
                    };
                    return asker.send(hits).await;
                }
            }
        }
    };
    match tokio::time::timeout(service.timeout, asking).await {
        Ok(done) => done,
        Err(_) => Err("it did not answer in time".into()),
    }
}

async fn wait(mut ended: Ended) -> Result<(), Rc<str>> {
    match ended.wait_for(Option::is_some).await {
        Ok(how) => (*how).clone().unwrap_or(Ok(())),
        // Nobody asks any more.
        Err(_) => Ok(()),
    }
}

/// Tells descriptors of a service from others.
fn subject(service: &Service, descriptors: &[Values]) -> Subject {
    let port = service.port.to_be_bytes();
    let place: [&[u8]; 3] = [service.host.as_bytes(), &port, service.domain.as_bytes()];
    let part = |values: &Values| {
        let pairs = values.iter();
        let texts = pairs.flat_map(|(key, value)| [key.as_bytes(), value.as_bytes()]);
        Fingerprint::of(place.iter().copied().chain(texts).collect::<Vec<_>>())
    };
    let parts: Vec<Fingerprint> = descriptors.iter().map(part).collect();
    let whole = parts.iter().map(Fingerprint::as_bytes);
    Subject {
        whole: Fingerprint::of(whole.collect::<Vec<_>>()),
        parts,
    }
}

/// A question on its way.
struct Asker {
    worker: Rc<Worker>,
    facts: ConnectionFacts,
    service: Service,
    descriptors: Vec<Values>,
    subject: Subject,
}

impl Asker {
    async fn send(self, hits: u32) -> Result<Answer, Rc<str>> {
        let (tell, told) = oneshot::channel();
        tokio::task::spawn_local(async move {
            let _ = tell.send(self.ask(hits).await);
        });
        match told.await {
            Ok(answer) => answer,
            Err(_) => Err("the proxy ends".into()),
        }
    }

    async fn ask(&self, hits: u32) -> Result<Answer, Rc<str>> {
        // Also when this ends before its answer: nobody is to wait for ever.
        let guard = Guard(self);
        let mut hits = hits;
        loop {
            let question = quota::question(&self.service, &self.descriptors, hits);
            let tally = &self.worker.shared.tally;
            tally.asked.fetch_add(1, Ordering::Relaxed);
            let patience = self.service.timeout.max(PATIENCE);
            let asked = Instant::now();
            let asking = quota::ask(&self.worker, self.facts, &self.service, question, patience);
            let answer = match asking.await {
                Ok(answer) => answer,
                Err(why) => {
                    let why: Rc<str> = why.to_string().into();
                    self.fail(&why);
                    return Err(why);
                }
            };
            let verdict = match self.service.leases {
                true => {
                    self.worker
                        .leases
                        .borrow_mut()
                        .answered(&self.subject, (asked, hits), &answer)
                }
                // Nothing is kept of it.
                false => Leases::default().answered(&self.subject, (asked, hits), &answer),
            };
            match verdict {
                Verdict::Granted(standing) => {
                    drop(guard);
                    return Ok(Answer::Granted(standing));
                }
                Verdict::Over(standing) => return Ok(Answer::Over(standing)),
                Verdict::Fewer => hits = 1,
            }
        }
    }

    fn fail(&self, why: &Rc<str>) {
        if self.service.leases {
            self.worker.leases.borrow_mut().failed(&self.subject, why);
        }
    }
}

/// Ends the question, unless it has ended.
struct Guard<'a>(&'a Asker);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.0.fail(&"nobody asks it any more".into());
    }
}
