//! What attached clients see and type.

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

fn container(json: serde_json::Value) -> Container {
    serde_json::from_value(json).expect("a container")
}

/// Two clients type a word each and go; gives what the container then reads before its input ends, or `None`
/// when it does not end.
async fn typed(json: serde_json::Value) -> Option<String> {
    let container = container(json);
    let once = container.stdin_once == Some(true);
    let (stdin, input) = Input::new(&container).expect("an input");
    for word in ["one ", "two "] {
        if let Some(mut client) = input.writer(once).expect("a client's end") {
            client.write_all(word.as_bytes()).await.expect("room");
        }
    }
    let Ok(stdin) = stdin.try_clone().and_then(pipe::Receiver::from_owned_fd) else {
        return Some("null".to_owned());
    };
    let mut read = String::new();
    let mut stdin = stdin;
    // Both words are in the pipe already: what comes next is the end, or nothing at all.
    let ended = tokio::select! {
        biased;
        done = stdin.read_to_string(&mut read) => done.is_ok(),
        () = tokio::task::yield_now() => false,
    };
    ended.then_some(read)
}

#[tokio::test]
async fn input_ends_with_its_client_only_when_it_is_for_one() {
    assert_eq!(typed(json!({"name": "c"})).await.as_deref(), Some("null"));
    let once = json!({"name": "c", "stdin": true, "stdinOnce": true});
    assert_eq!(typed(once).await.as_deref(), Some("one "));
    assert_eq!(typed(json!({"name": "c", "stdin": true})).await, None);
}

#[tokio::test]
async fn output_reaches_a_client_as_it_comes() {
    let (sender, receiver) = tokio::sync::broadcast::channel(4);
    let (out_write, mut out) = tokio::io::duplex(64);
    let (err_write, mut err) = tokio::io::duplex(64);
    tokio::spawn(copy(receiver, out_write, err_write));
    for (stream, text) in [
        (Stream::Out, "no newline "),
        (Stream::Err, "oops"),
        (Stream::Out, "yet"),
    ] {
        sender
            .send((stream, Arc::from(text.as_bytes())))
            .expect("somebody listens");
    }
    drop(sender);
    let (mut said, mut complained) = (String::new(), String::new());
    out.read_to_string(&mut said).await.expect("text");
    err.read_to_string(&mut complained).await.expect("text");
    assert_eq!(
        (said.as_str(), complained.as_str()),
        ("no newline yet", "oops")
    );
}
