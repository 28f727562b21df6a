//! Published services: connections to a host address are carried to a service in the cluster. The listeners
//! are the host's; the connections onward are made in the node's network.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::{Publish, Target};
use crate::pod::cache::Cache;

/// Connections at a time per published service.
const CONNECTIONS: usize = 1024;

/// Carries connections until the node ends.
pub(super) async fn serve(listener: std::net::TcpListener, publish: Publish, cache: Cache) {
    let listener = match listener
        .set_nonblocking(true)
        .and_then(|()| TcpListener::from_std(listener))
    {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, listen = %publish.listen, "a published port cannot be served");
            return;
        }
    };
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, most likely: others will close.
                tracing::debug!(%error, "accept failed");
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
        };
        let (cache, publish) = (cache.clone(), publish.clone());
        tokio::spawn(async move {
            if let Err(message) = carry(stream, &publish.target, &cache).await {
                tracing::debug!(listen = %publish.listen, message, "a connection was not carried");
            }
            drop(permit);
        });
    }
}

async fn carry(mut from: TcpStream, target: &Target, cache: &Cache) -> Result<(), String> {
    let Target {
        namespace,
        service,
        port,
    } = target;
    let object = cache
        .service(namespace, service)
        .ok_or_else(|| format!("there is no service {service}.{namespace}"))?;
    let address = address(&object, port)
        .ok_or_else(|| format!("service {service}.{namespace} has no port {port}"))?;
    let connect = TcpStream::connect(address);
    let mut to = tokio::time::timeout(Duration::from_secs(10), connect)
        .await
        .map_err(|_| format!("{address} does not answer"))?
        .map_err(|e| format!("{address}: {e}"))?;
    let _ = from.set_nodelay(true);
    let _ = to.set_nodelay(true);
    // An error after this is one side's way to end the connection.
    let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
    Ok(())
}

/// The cluster address of a service's port by name or number.
fn address(service: &Service, port: &str) -> Option<SocketAddr> {
    let spec = service.spec.as_ref()?;
    let address: IpAddr = spec.cluster_ip.as_deref()?.parse().ok()?;
    let matches = |candidate: &&ServicePort| {
        candidate.name.as_deref() == Some(port) || port.parse() == Ok(candidate.port)
    };
    let found = spec.ports.iter().flatten().find(matches)?;
    Some((address, u16::try_from(found.port).ok()?).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_found_by_name_and_number() {
        let service: Service = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "gw"},
            "spec": {"clusterIP": "10.96.0.7", "ports": [
                {"name": "status-port", "port": 15021}, {"name": "http2", "port": 80}]}
        }))
        .expect("a service");
        let check = |port: &str, expected: Option<&str>| {
            let found = address(&service, port).map(|a| a.to_string());
            assert_eq!(found.as_deref(), expected);
        };
        check("80", Some("10.96.0.7:80"));
        check("http2", Some("10.96.0.7:80"));
        check("443", None);
    }
}
