//! What `kubectl logs` shows of what a program wrote.

use lateen_apiserver::pods::LogOptions;
use tokio::io::AsyncReadExt;

use super::reader::select;
use super::*;

fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

fn check(written: &[&str], options: LogOptions, shown: &str) {
    let mut lines = Lines::new(Stream::Out);
    for piece in written {
        lines.push(piece.as_bytes(), now());
    }
    lines.finish(now());
    let mut out = Vec::new();
    select(&lines.ready, &options, &mut out);
    assert_eq!(String::from_utf8_lossy(&out), shown);
}

#[test]
fn lines_come_back_as_written_and_tail_counts_whole_lines() {
    let tail = |n| LogOptions {
        tail_lines: Some(n),
        ..LogOptions::default()
    };
    check(&["a\nb", "c\n", "d"], LogOptions::default(), "a\nbc\nd\n");
    check(&["a\nb\nc\n"], tail(2), "b\nc\n");
    check(&["a\n"], tail(0), "");
    check(&["a\n"], tail(9), "a\n");
    let long = "x".repeat(LINE_LIMIT * 2 + 5);
    check(&["a\n", &long, "\n"], tail(1), &format!("{long}\n"));
    check(&["\n\n"], LogOptions::default(), "\n\n");
}

#[test]
fn old_lines_are_left_out_when_since_is_given() {
    let mut lines = Lines::new(Stream::Err);
    let hour_ago = now() - jiff::SignedDuration::from_hours(1);
    lines.push(b"old\n", hour_ago);
    lines.push(b"new\n", now());
    let mut out = Vec::new();
    let options = LogOptions {
        since_seconds: Some(60),
        ..LogOptions::default()
    };
    select(&lines.ready, &options, &mut out);
    assert_eq!(out, b"new\n");
}

#[tokio::test]
async fn a_follower_sees_lines_across_a_full_file_until_the_end() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let log = Log::new(directory.path().join("0.log"));
    let mut lines = Lines::new(Stream::Out);
    let text = "y".repeat(1000);
    let options = LogOptions {
        follow: true,
        ..LogOptions::default()
    };
    let mut reader = open(log.clone(), options);
    let expected = 5000;
    let writer = async {
        for _ in 0..expected {
            lines.push(format!("{text}\n").as_bytes(), now());
            log.append(&lines.ready).await.expect("written");
            lines.ready.clear();
            tokio::task::yield_now().await;
        }
        log.state.send_modify(|state| state.closed = true);
    };
    let mut seen = String::new();
    let (_, read) = tokio::join!(writer, reader.read_to_string(&mut seen));
    read.expect("read");
    assert_eq!(seen.lines().count(), expected);
    assert!(directory.path().join("0.log.1").exists());
    assert!(log.tail(3, 100).len() <= 100);
}
