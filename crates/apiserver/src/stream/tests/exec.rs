//! Commands and attaching, over WebSockets.

use super::*;

#[tokio::test]
async fn exec_over_websocket() {
    let (port, _deaths) = server().await;
    let run = async |query: &str, protocol: &str| {
        let mut client = websocket(
            port,
            &format!("/exec?stdout=true&stderr=true&{query}"),
            protocol,
        )
        .await;
        drain(&mut client).await
    };
    let [_, out, err, status] = run("command=both", V5).await;
    assert_eq!((out.as_str(), err.as_str()), ("out", "err"));
    assert_eq!(
        serde_json::from_str::<Value>(&status).unwrap()["status"],
        "Success"
    );

    let [_, out, _, status] = run("command=exit&command=3", "v4.channel.k8s.io").await;
    let status: Value = serde_json::from_str(&status).unwrap();
    assert_eq!(
        (out.as_str(), &status["reason"]),
        ("bye\n", &json!("NonZeroExitCode"))
    );
    assert_eq!(
        status["details"]["causes"][0],
        json!({"reason": "ExitCode", "message": "3"})
    );
}

#[tokio::test]
async fn stdin_its_end_and_resizing() {
    let (port, _deaths) = server().await;
    let mut client = websocket(port, "/exec?stdin=true&stdout=true&command=cat", V5).await;
    let long = "x".repeat(100_000);
    for bytes in [
        b"\0hello ".to_vec(),
        format!("\0{long}").into_bytes(),
        vec![255, 0],
    ] {
        client.send(Message::Binary(bytes.into())).await.unwrap();
    }
    let [_, out, _, status] = drain(&mut client).await;
    assert!(
        out == format!("hello {long}") && status.contains("Success"),
        "{} {status}",
        out.len()
    );

    let mut client = websocket(
        port,
        "/exec?stdin=true&stdout=true&tty=true&command=size",
        V5,
    )
    .await;
    client
        .send(Message::Binary(
            b"\x04{\"Width\":80,\"Height\":24}".to_vec().into(),
        ))
        .await
        .unwrap();
    assert_eq!(drain(&mut client).await[1], "80x24");
}

#[tokio::test]
async fn a_client_that_leaves_kills_its_command() {
    let (port, mut deaths) = server().await;
    let client = websocket(port, "/exec?stdout=true&command=forever", V5).await;
    drop(client);
    deaths.recv().await.unwrap();
}

#[tokio::test]
async fn refusals_before_the_upgrade() {
    for (uri, upgrade, part) in [
        (
            "/exec?stdout=true&command=nope",
            "websocket:v5.channel.k8s.io",
            "no program",
        ),
        (
            "/exec?stdout=true",
            "websocket:v5.channel.k8s.io",
            "at least 1 command",
        ),
        (
            "/exec?command=cat",
            "websocket:v5.channel.k8s.io",
            "at least 1 of stdin, stdout, stderr",
        ),
        (
            "/exec?stdout=true&command=both",
            "websocket:base64.channel.k8s.io",
            "unsupported protocol(s) requested",
        ),
        (
            "/exec?stdout=true&command=both",
            "",
            "Upgrade request required",
        ),
        (
            "/attach?stdin=true",
            "websocket:v5.channel.k8s.io",
            "no standard input",
        ),
        (
            "/portforward",
            "websocket:v4.channel.k8s.io",
            "\\\"ports\\\" is required",
        ),
        (
            "/portforward?ports=0",
            "websocket:v4.channel.k8s.io",
            "as a port",
        ),
    ] {
        let (code, body) = get(uri, upgrade).await;
        assert!(code == 400 && body.contains(part), "{uri} {code} {body}");
    }
}

#[tokio::test]
async fn attach_follows_the_log() {
    let (port, _deaths) = server().await;
    let mut client = websocket(port, "/attach?stdout=true", V5).await;
    let [_, out, _, status] = drain(&mut client).await;
    assert!(
        out.contains("follow: true")
            && out.contains("tail_lines: Some(0)")
            && status.contains("Success"),
        "{out}"
    );
}
