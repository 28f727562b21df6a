//! One HTTP GET as a kubelet's probe sends it: any status from 200 to 399 is good, and only the status
//! line is read.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, HTTPGetAction};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// Sends the request and judges the answer.
///
/// # Errors
/// The sentence for an `Unhealthy` event.
pub(crate) async fn get(
    container: &Container,
    pod: Ipv4Addr,
    action: &HTTPGetAction,
    most: Duration,
) -> Result<(), String> {
    let port = super::port(container, &action.port)?;
    let host = super::host(action.host.as_deref(), pod)?;
    let scheme = action.scheme.as_deref().unwrap_or("HTTP").to_lowercase();
    let path = action
        .path
        .as_deref()
        .filter(|p| !p.is_empty())
        .unwrap_or("/");
    let url = format!("{scheme}://{host}:{port}{path}");
    let exchange = async {
        let stream = super::connect((host, port).into(), most).await?;
        let request = request(action, path, &format!("{host}:{port}"))?;
        if scheme == "https" {
            let name = ServerName::from(host);
            let connector = tokio_rustls::TlsConnector::from(any_certificate()?);
            let stream = connector
                .connect(name, stream)
                .await
                .map_err(|e| e.to_string())?;
            status(stream, &request).await
        } else {
            status(stream, &request).await
        }
    };
    match timeout(most, exchange).await {
        Ok(Ok(code @ 200..400)) => {
            tracing::trace!(url, code, "probe");
            Ok(())
        }
        Ok(Ok(code)) => Err(format!("HTTP probe failed with statuscode: {code}")),
        Ok(Err(message)) => Err(format!("Get \"{url}\": {message}")),
        Err(_) => Err(format!(
            "Get \"{url}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        )),
    }
}

fn request(action: &HTTPGetAction, path: &str, authority: &str) -> Result<String, String> {
    let mut text = format!("GET {path} HTTP/1.1\r\n");
    let headers = action.http_headers.as_deref().unwrap_or_default();
    let own = |name: &str| headers.iter().any(|h| h.name.eq_ignore_ascii_case(name));
    for (name, value) in [
        ("Host", authority),
        ("User-Agent", "kube-probe/1.33"),
        ("Accept", "*/*"),
    ] {
        if !own(name) {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    for header in headers {
        text.push_str(&format!("{}: {}\r\n", header.name, header.value));
    }
    text.push_str("Connection: close\r\n\r\n");
    let lines = headers.len();
    let breaks = |s: &str| s.contains(['\r', '\n']);
    if breaks(path)
        || headers
            .iter()
            .take(lines)
            .any(|h| breaks(&h.name) || breaks(&h.value))
    {
        return Err("a probe's path and headers must not contain line breaks".into());
    }
    Ok(text)
}

async fn status(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    request: &str,
) -> Result<u16, String> {
    stream
        .write_all(request.as_bytes())
        .await
        .map_err(|e| e.to_string())?;
    stream.flush().await.map_err(|e| e.to_string())?;
    let mut head = Vec::new();
    let mut buffer = [0u8; 512];
    while !head.contains(&b'\n') && head.len() < 4096 {
        match stream.read(&mut buffer).await {
            Ok(0) => break,
            Ok(length) => head.extend_from_slice(&buffer[..length]),
            Err(e) => return Err(format!("read: {e}")),
        }
    }
    if head.is_empty() {
        return Err("EOF".into());
    }
    let line = String::from_utf8_lossy(&head);
    line.strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split(' ').nth(1)?.trim().parse().ok())
        .ok_or_else(|| "malformed HTTP response".to_owned())
}

fn any_certificate() -> Result<Arc<rustls::ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Kubernetes: probes over HTTPS skip the verification of certificates.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
