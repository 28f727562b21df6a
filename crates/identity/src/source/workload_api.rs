//! Certificates from the SPIFFE Workload API, as SPIRE's agent serves it on a Unix socket. The agent renews; this only
//! follows.

use super::State;
use crate::istiod::{Stream, channel};
use crate::pem;
use crate::svid::Svid;
use lateen_base::backoff::Backoff;
use lateen_model::security::TrustBundle;
use lateen_proto::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use lateen_proto::workload::{X509svid, X509svidRequest, X509svidResponse};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::sync::{Notify, watch};
use tokio::time::sleep;
use x509_parser::prelude::FromDer;

/// Largest message that is read, in bytes.
const LONGEST: usize = 4 << 20;

/// Follows the API until the end of the world: a lost stream is opened again.
pub(super) async fn follow(socket: &Path, renew: &Notify, state: &watch::Sender<State>) {
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
    loop {
        let before = state.borrow().renewals;
        let why = match stream(socket, state).await {
            Ok(()) => "the Workload API closed the stream".to_owned(),
            Err(why) => why,
        };
        if state.borrow().renewals != before {
            backoff.reset();
        }
        tracing::warn!(
            "the Workload API {} gives no certificates: {why}",
            socket.display()
        );
        state.send_modify(|state| {
            state.failures += 1;
            state.last_error = Some(why);
        });
        tokio::select! {
            () = sleep(backoff.next_delay()) => {}
            () = renew.notified() => {}
        }
    }
}

async fn stream(socket: &Path, state: &watch::Sender<State>) -> Result<(), String> {
    let path = socket.to_owned();
    let channel = channel(Box::new(move || {
        let path = path.clone();
        Box::pin(async move { Ok(Box::new(UnixStream::connect(path).await?) as Stream) })
    }))
    .await
    .map_err(|error| format!("the socket cannot be opened: {error}"))?;
    let mut request = tonic::Request::new(X509svidRequest {});
    // SPIFFE Workload Endpoint §4: proves that this is no request forged through a browser or proxy.
    let yes = tonic::metadata::MetadataValue::from_static("true");
    request.metadata_mut().insert("workload.spiffe.io", yes);
    let mut client = SpiffeWorkloadApiClient::new(channel).max_decoding_message_size(LONGEST);
    let told = |status: tonic::Status| {
        let text = format!("{:?}: {}", status.code(), status.message());
        match status.code() {
            tonic::Code::PermissionDenied => {
                format!("{text}; is the workload registered with SPIRE?")
            }
            _ => text,
        }
    };
    let answer = client.fetch_x509svid(request).await.map_err(told)?;
    let mut answers = answer.into_inner();
    while let Some(answer) = answers.message().await.map_err(told)? {
        match read(&answer) {
            Ok((svid, bundles)) => publish(svid, bundles, state),
            // The last good one stays in use.
            Err(why) => {
                tracing::warn!("an answer of the Workload API cannot be used: {why}");
                state.send_modify(|state| {
                    state.failures += 1;
                    state.last_error = Some(why);
                });
            }
        }
    }
    Ok(())
}

fn publish(svid: Svid, bundles: Vec<Arc<TrustBundle>>, state: &watch::Sender<State>) {
    tracing::info!(identity = %svid.id, serial = svid.serial, "new certificate from the Workload API");
    let own = bundles
        .iter()
        .find(|bundle| *bundle.trust_domain == *svid.id.trust_domain());
    let roots = own.map(|bundle| bundle.roots.to_string());
    state.send_modify(|state| {
        state.svid = Some(Arc::new(svid));
        state.roots = roots.unwrap_or_default();
        state.bundles = bundles;
        state.last_error = None;
        state.failures = 0;
        state.renewals += 1;
    });
}

/// Reads the first SVID, which is the default identity, and every bundle.
fn read(answer: &X509svidResponse) -> Result<(Svid, Vec<Arc<TrustBundle>>), String> {
    let first: &X509svid = answer.svids.first().ok_or("it holds no SVID")?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(first.x509_svid_key.clone()));
    let svid = Svid::new(certificates(&first.x509_svid)?, key).map_err(|e| e.to_string())?;
    if svid.id.uri() != first.spiffe_id {
        return Err(format!(
            "the certificate of {} is announced as {}",
            svid.id, first.spiffe_id
        ));
    }
    let crls: String = answer
        .crl
        .iter()
        .map(|der| pem::encode("X509 CRL", der))
        .collect();
    let bundle = |trust_domain: &str, ders: &[u8]| -> Result<_, String> {
        Ok(Arc::new(TrustBundle {
            trust_domain: trust_domain.into(),
            roots: pem::encode_chain(&certificates(ders)?).into(),
            crls: crls.as_str().into(),
        }))
    };
    let mut bundles = vec![bundle(svid.id.trust_domain(), &first.bundle)?];
    for (domain, ders) in &answer.federated_bundles {
        let name = domain.trim_start_matches("spiffe://").trim_end_matches('/');
        match bundle(name, ders) {
            Ok(bundle) if name != svid.id.trust_domain() => bundles.push(bundle),
            Ok(_) => {}
            Err(why) => tracing::warn!("the bundle of {domain} is left out: {why}"),
        }
    }
    Ok((svid, bundles))
}

/// Certificates that stand one after the other.
fn certificates(mut ders: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let mut out = Vec::new();
    while !ders.is_empty() {
        let (rest, _) = x509_parser::certificate::X509Certificate::from_der(ders)
            .map_err(|error| format!("a certificate cannot be read: {error}"))?;
        out.push(CertificateDer::from(
            ders[..ders.len() - rest.len()].to_vec(),
        ));
        ders = rest;
    }
    Ok(out)
}
