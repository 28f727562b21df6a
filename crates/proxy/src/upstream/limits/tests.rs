//! Counts, and who waits for what.

use super::*;
use std::sync::atomic::AtomicBool;

#[test]
fn no_more_than_the_limit_on_any_thread() {
    let state = Arc::new(State::default());
    let over = Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (state, over) = (Arc::clone(&state), Arc::clone(&over));
            std::thread::spawn(move || {
                for _ in 0..2000 {
                    let slot = state.begin(Kind::Request, Some(2));
                    if state.active(Kind::Request) > 2 {
                        over.store(true, Ordering::SeqCst);
                    }
                    drop(slot);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert!(!over.load(Ordering::SeqCst));
    assert_eq!(state.active(Kind::Request), 0);
}

#[tokio::test]
async fn who_waits_for_a_connection_gets_the_next_and_ends_an_idle_one() {
    let state = Arc::new(State::default());
    let first = state.connection(Some(1)).await;
    let end = Arc::new(Notify::new());
    state.lend(&end);
    let waiting = {
        let state = Arc::clone(&state);
        tokio::spawn(async move { state.connection(Some(1)).await })
    };
    end.notified().await;
    assert!(!waiting.is_finished());
    drop(first);
    let second = waiting.await.unwrap();
    assert_eq!(state.active(Kind::Connection), 1);
    drop(second);
    assert_eq!(state.active(Kind::Connection), 0);
}

#[test]
fn a_budget_grows_with_what_is_under_way() {
    let state = Arc::new(State::default());
    let settings = ClusterSettings {
        retry_budget: Some(RetryBudget {
            percent: 20.0,
            least: 1,
        }),
        ..ClusterSettings::default()
    };
    let one = state.retry(&settings);
    assert!(one.is_some() && state.retry(&settings).is_none());
    let requests: Vec<_> = (0..10)
        .map(|_| state.begin(Kind::Request, None).unwrap())
        .collect();
    let two = state.retry(&settings);
    assert!(two.is_some() && state.retry(&settings).is_none());
    drop(requests);
}
