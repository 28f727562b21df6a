//! The certificate of the secured port: signed by the mesh's CA, renewed at half of its life and, some time after
//! another CA took over, signed anew. Connections keep what they were opened with.

use crate::ca::secured::AnyCertificate;
use crate::ca::{Settings, Signing};
use lateen_identity::ca::{Authority, Serving};
use rustls::server::NoServerSessionStorage;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Wait after a failure.
const AGAIN: Duration = Duration::from_secs(10);

/// TLS settings that always show a valid certificate for `names`, once there is a CA.
pub(super) fn keep(
    mut signing: watch::Receiver<Signing>,
    names: Vec<String>,
    settings: &Settings,
    shutdown: &CancellationToken,
) -> super::secured::Settings {
    let (sender, receiver) = watch::channel(None);
    let validity = settings.validity.default;
    // Clients read the roots from files that follow late: the old root, trusted for as long as its certificates
    // live, serves them meanwhile.
    let patience = settings.timing.most.min(validity / 2);
    let shutdown = shutdown.clone();
    tokio::spawn(async move {
        let mut shown: Option<(Arc<Authority>, Instant)> = None;
        loop {
            let authority = signing.borrow_and_update().authority.clone();
            let due = match (&authority, &shown) {
                (None, _) => None,
                (Some(_), None) => Some(Instant::now()),
                (Some(now), Some((then, renew))) => {
                    let replaced = !Arc::ptr_eq(now, then);
                    let soon = Instant::now() + patience;
                    Some(if replaced { soon.min(*renew) } else { *renew })
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                changed = signing.changed() => match changed {
                    // What is due already must not be put off by a change.
                    Ok(()) if due.is_none_or(|at| at > Instant::now()) => continue,
                    Ok(()) => {}
                    Err(_) => return,
                },
                () = sleep(due) => {}
            }
            let Some(authority) = authority else {
                continue;
            };
            let renew = match make(&authority, &names, validity) {
                Ok((tls, renew)) => {
                    sender.send_replace(Some(tls));
                    renew
                }
                Err(e) => {
                    tracing::error!("the certificate of the secured port cannot be made: {e}");
                    AGAIN
                }
            };
            shown = Some((authority, Instant::now() + renew));
        }
    });
    receiver
}

async fn sleep(until: Option<Instant>) {
    match until {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// TLS settings with a new certificate, and how long to keep them.
fn make(
    authority: &Authority,
    names: &[String],
    validity: Duration,
) -> Result<(Arc<rustls::ServerConfig>, Duration), String> {
    let now = SystemTime::now();
    let serving = authority
        .serve_certificate(names, None, validity, now)
        .map_err(|e| e.to_string())?;
    let left = serving.not_after.duration_since(now).unwrap_or_default();
    let tls = tls(serving).map_err(|e| e.to_string())?;
    Ok((Arc::new(tls), left / 2))
}

fn tls(serving: Serving) -> Result<rustls::ServerConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let clients = Arc::new(AnyCertificate::new(&provider));
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(clients)
        .with_single_cert(serving.chain, serving.key)?;
    tls.alpn_protocols = vec![b"h2".to_vec()];
    // Every connection proves anew who it is.
    tls.session_storage = Arc::new(NoServerSessionStorage {});
    tls.send_tls13_tickets = 0;
    Ok(tls)
}
