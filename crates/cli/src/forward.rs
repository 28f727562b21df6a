//! Reaching ports inside pods through the API server's port-forward: one HTTP GET, or a local port.

use crate::cluster::Cluster;
use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

/// A byte stream to a pod's port.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Opens a stream to `port` of a pod.
///
/// # Errors
/// The pod is not there or the API server refuses.
pub async fn open(
    cluster: &Cluster,
    namespace: &str,
    pod: &str,
    port: u16,
) -> Result<Box<dyn Stream>> {
    let pods: Api<Pod> = Api::namespaced(cluster.client().clone(), namespace);
    let mut forwarder = pods
        .portforward(pod, &[port])
        .await
        .with_context(|| format!("pod {namespace}/{pod} cannot be reached"))?;
    let stream = forwarder
        .take_stream(port)
        .context("the API server opened no stream")?;
    tokio::spawn(async move {
        let _ = forwarder.join().await;
    });
    Ok(Box::new(stream))
}

/// GETs `path` from a pod's port and returns the body.
///
/// # Errors
/// No answer within ten seconds, or a status other than 200.
pub async fn fetch(
    cluster: &Cluster,
    namespace: &str,
    pod: &str,
    port: u16,
    path: &str,
) -> Result<Bytes> {
    let exchange = async {
        let stream = open(cluster, namespace, pod, port).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let request = Request::get(path)
            .header(header::HOST, "localhost")
            .body(Empty::<Bytes>::new())?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        ensure!(
            status == 200,
            "{path} answers {status}: {}",
            String::from_utf8_lossy(&body)
        );
        Ok(body)
    };
    tokio::time::timeout(Duration::from_secs(10), exchange)
        .await
        .with_context(|| {
            format!("pod {namespace}/{pod} does not answer on port {port} within 10 s")
        })?
}

/// Listens on a free local port whose connections lead to a pod's port, until the runtime ends.
///
/// # Errors
/// No local port is free.
pub async fn listen(
    cluster: &Cluster,
    namespace: &str,
    pod: &str,
    port: u16,
) -> Result<SocketAddr> {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let pods: Api<Pod> = Api::namespaced(cluster.client().clone(), namespace);
    let pod = pod.to_owned();
    tokio::spawn(async move {
        while let Ok((mut local, _)) = listener.accept().await {
            let (pods, pod) = (pods.clone(), pod.clone());
            tokio::spawn(async move {
                let Ok(mut forwarder) = pods.portforward(&pod, &[port]).await else {
                    return;
                };
                if let Some(mut remote) = forwarder.take_stream(port) {
                    let _ = tokio::io::copy_bidirectional(&mut local, &mut remote).await;
                }
            });
        }
    });
    Ok(address)
}
