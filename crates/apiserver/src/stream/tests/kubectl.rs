//! The real kubectl streams from pods made of pipes, with WebSockets and with SPDY.

use super::*;
use crate::auth::tests::kubectl::Cluster;
use tokio::io::{AsyncBufReadExt, BufReader};

const POD: &str = "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: main, image: i}]}}";

async fn cluster() -> Option<Cluster> {
    let (killed, _deaths) = mpsc::unbounded_channel();
    let cluster = Cluster::start(Arc::new(Fake { killed })).await?;
    cluster.good("apply -f -", POD).await;
    cluster
        .good(
            "patch pod p --subresource=status --type=merge -p {\"status\":{\"phase\":\"Running\"}}",
            "",
        )
        .await;
    Some(cluster)
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_and_exec() {
    let Some(cluster) = cluster().await else {
        return;
    };
    let log = cluster.good("logs p --tail=5 --timestamps", "").await;
    assert!(
        log.contains("tail_lines: Some(5)") && log.contains("timestamps: true"),
        "{log}"
    );
    assert_eq!(
        cluster.good("exec -i p -- cat", "through kubectl").await,
        "through kubectl"
    );
    let ran = cluster.run("exec p -- both", "").await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "out"));
    assert!(ran.err.contains("err"), "{}", ran.err);
    let ran = cluster.run("exec p -- exit 7", "").await;
    assert_eq!((ran.code, ran.out.as_str()), (7, "bye\n"));
    assert!(
        ran.err.contains("command terminated with exit code 7"),
        "{}",
        ran.err
    );
    let ran = cluster.run("exec p -- nope", "").await;
    assert!(
        ran.code != 0 && ran.err.contains("no program"),
        "{}",
        ran.err
    );
    cluster.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn port_forward() {
    let Some(cluster) = cluster().await else {
        return;
    };
    let mut child = cluster.spawn("port-forward pod/p :81 --address 127.0.0.1");
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = lines.next_line().await.unwrap().unwrap();
    // `Forwarding from 127.0.0.1:PORT -> 81`
    let address = line.split(' ').nth(2).unwrap().to_owned();
    let many = (0..10).map(|_| {
        let address = address.clone();
        tokio::spawn(async move {
            let mut text = String::new();
            TcpStream::connect(&address)
                .await
                .unwrap()
                .read_to_string(&mut text)
                .await
                .unwrap();
            assert_eq!(text, "hello from 81");
        })
    });
    for one in many.collect::<Vec<_>>() {
        one.await.unwrap();
    }
    child.kill().await.unwrap();
    cluster.server.stop().await;
}
