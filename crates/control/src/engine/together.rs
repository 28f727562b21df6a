//! When it is looked at what objects mean together: a while after changes, on another thread, and so seldom that it
//! never costs more than a tenth of one core.

use super::Engine;
use crate::graph::{Found, Question};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Wait after the first change: more of it may come.
const AFTER: Duration = Duration::from_millis(200);
/// Rest after each look, in times of what it took.
const REST: u32 = 9;

/// What comes next.
pub(super) enum Step {
    /// It is time to look.
    Due,
    /// This was found.
    Found(Found),
}

/// The state of looking.
#[derive(Default)]
pub(super) struct Look {
    /// When to look; absent: nothing changed.
    due: Option<Instant>,
    under_way: Option<(Instant, JoinHandle<Found>)>,
    /// Not before; absent: nobody looked yet.
    rested: Option<Instant>,
    last: Found,
}

impl Look {
    /// Something changed.
    pub(super) fn note(&mut self) {
        let soon = Instant::now() + AFTER;
        let at = self.rested.map_or(soon, |rested| rested.max(soon));
        self.due.get_or_insert(at);
    }

    /// Looks at `question` on another thread.
    fn begin(&mut self, question: Question) {
        let task = tokio::task::spawn_blocking(move || question.answer());
        self.under_way = Some((Instant::now(), task));
    }

    /// Waits for what comes next. It may be dropped at any time.
    pub(super) async fn step(&mut self) -> Step {
        if let Some((began, task)) = &mut self.under_way {
            let answer = task.await;
            self.rested = Some(Instant::now() + began.elapsed() * REST);
            self.under_way = None;
            if let Ok(found) = answer {
                return Step::Found(found);
            }
        }
        match self.due {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
        self.due = None;
        Step::Due
    }

    /// Whether this differs from what was found last.
    fn is_news(&mut self, found: &Found) -> bool {
        let is_news = self.last != *found;
        self.last.clone_from(found);
        is_news
    }
}

impl Engine {
    /// Looks, or takes what was found.
    pub(super) fn look(&mut self, step: Step) {
        match step {
            Step::Due => {
                if let Some(question) = self.graph.question() {
                    self.look.begin(question);
                }
            }
            Step::Found(found) => {
                if self.look.is_news(&found) {
                    self.graph.take_found(found);
                    self.note(Instant::now());
                }
            }
        }
    }
}
