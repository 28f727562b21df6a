//! The HTTPS call to a webhook: where it is, whom to trust, how long to wait.

use super::MOST_CACHED;
use super::hook::Hook;
use crate::lookup::Lookup;
use crate::tls::provider;
use base64::Engine;
use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Largest answer read.
const MOST_BYTES: usize = crate::wire::MAX_BODY;

/// Makes the calls; TLS settings are kept by trust bundle, so that sessions resume.
#[derive(Default)]
pub(super) struct Connector {
    settings: Mutex<HashMap<String, Arc<ClientConfig>>>,
}

/// Why there is no answer. The texts follow Go's, which users search for.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    #[error("service \"{0}\" not found")]
    NoService(String),
    #[error("Post \"{0}\": no endpoints available for service \"{1}\"")]
    NoEndpoints(String, String),
    #[error("clientConfig {0}")]
    Client(String),
    #[error("Post \"{0}\": dial tcp {1}: {2}")]
    Dial(String, String, std::io::Error),
    #[error("Post \"{0}\": tls: {1}; check the webhook's caBundle and the certificate it serves")]
    Tls(String, std::io::Error),
    #[error("Post \"{0}\": {1}")]
    Http(String, String),
    #[error("Post \"{0}\": context deadline exceeded (no answer within {1} s)")]
    Timeout(String, u64),
    #[error("the webhook answered HTTP {0} instead of 200: {1}")]
    Code(StatusCode, String),
}

/// Where a webhook is.
struct Endpoint {
    /// What to connect to.
    host: String,
    port: u16,
    /// Name in the certificate and in the Host header.
    name: String,
    path: String,
    url: String,
}

impl Connector {
    /// Posts a review and returns the answer's body, all within the webhook's timeout.
    pub(super) async fn call(
        &self,
        lookup: &dyn Lookup,
        hook: &Hook,
        body: &[u8],
    ) -> Result<Bytes, CallError> {
        let endpoint = Endpoint::find(lookup, hook)?;
        let settings = self.settings(hook.client()["caBundle"].as_str().unwrap_or_default())?;
        let exchange = exchange(&endpoint, settings, Bytes::copy_from_slice(body));
        match tokio::time::timeout(hook.timeout, exchange).await {
            Ok(outcome) => outcome,
            Err(_) => Err(CallError::Timeout(endpoint.url, hook.timeout.as_secs())),
        }
    }

    fn settings(&self, bundle: &str) -> Result<Arc<ClientConfig>, CallError> {
        if let Some(known) = self.settings.lock().get(bundle) {
            return Ok(known.clone());
        }
        let wrong = |why: String| CallError::Client(format!("caBundle is not usable: {why}"));
        let pem = base64::engine::general_purpose::STANDARD
            .decode(bundle)
            .map_err(|error| wrong(error.to_string()))?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
            roots
                .add(certificate)
                .map_err(|error| wrong(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(wrong(
                "it holds no certificate, and nothing else is trusted".into(),
            ));
        }
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let config = Arc::new(config);
        let mut settings = self.settings.lock();
        if settings.len() >= MOST_CACHED {
            settings.clear();
        }
        settings.insert(bundle.to_owned(), config.clone());
        Ok(config)
    }
}

impl Endpoint {
    fn find(lookup: &dyn Lookup, hook: &Hook) -> Result<Self, CallError> {
        let client = hook.client();
        let timeout = hook.timeout.as_secs();
        match (client["url"].as_str(), &client["service"]) {
            (Some(url), Value::Null) => Self::of_url(url, timeout),
            (None, service) if service.is_object() => Self::of_service(lookup, service, timeout),
            _ => Err(CallError::Client(
                "must have exactly one of url and service".into(),
            )),
        }
    }

    fn of_url(url: &str, timeout: u64) -> Result<Self, CallError> {
        let wrong = || CallError::Client(format!("url \"{url}\" must be https://host[:port]/path"));
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let host = uri
            .host()
            .filter(|_| uri.scheme_str() == Some("https"))
            .ok_or_else(wrong)?;
        let host = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let path = format!("{}?timeout={timeout}s", uri.path());
        let port = uri.port_u16().unwrap_or(443);
        Ok(Self {
            name: host.clone(),
            host,
            port,
            url: format!("{url}?timeout={timeout}s"),
            path,
        })
    }

    fn of_service(lookup: &dyn Lookup, reference: &Value, timeout: u64) -> Result<Self, CallError> {
        let text = |key: &str| reference[key].as_str().unwrap_or_default();
        let (namespace, service) = (text("namespace"), text("name"));
        let port = reference["port"]
            .as_u64()
            .and_then(|port| u16::try_from(port).ok())
            .unwrap_or(443);
        let name = format!("{service}.{namespace}.svc");
        let path = format!(
            "/{}?timeout={timeout}s",
            text("path").trim_start_matches('/')
        );
        let url = format!("https://{name}:{port}{path}");
        let object = lookup
            .find("", "services", Some(namespace), service)
            .ok_or_else(|| CallError::NoService(service.to_owned()))?;
        let spec = &object["spec"];
        let (host, port) = match (spec["type"].as_str(), spec["clusterIP"].as_str()) {
            (Some("ExternalName"), _) => (
                spec["externalName"].as_str().unwrap_or_default().to_owned(),
                port,
            ),
            (_, Some(address)) if !address.is_empty() && address != "None" => {
                if known_to_be_empty(lookup, namespace, service) {
                    return Err(CallError::NoEndpoints(url, service.to_owned()));
                }
                (address.to_owned(), port)
            }
            _ => headless(lookup, namespace, service, &object, port)
                .ok_or_else(|| CallError::NoEndpoints(url.clone(), service.to_owned()))?,
        };
        Ok(Self {
            host,
            port,
            name,
            path,
            url,
        })
    }
}

async fn exchange(
    endpoint: &Endpoint,
    settings: Arc<ClientConfig>,
    body: Bytes,
) -> Result<Bytes, CallError> {
    let url = || endpoint.url.clone();
    let stream = TcpStream::connect((endpoint.host.as_str(), endpoint.port))
        .await
        .map_err(|error| {
            CallError::Dial(url(), format!("{}:{}", endpoint.host, endpoint.port), error)
        })?;
    // Small request, small answer: waiting to fill segments only costs time.
    let _ = stream.set_nodelay(true);
    let name = ServerName::try_from(endpoint.name.clone()).map_err(|_| {
        CallError::Client(format!(
            "names \"{}\", which is no host name",
            endpoint.name
        ))
    })?;
    let stream = TlsConnector::from(settings)
        .connect(name, stream)
        .await
        .map_err(|error| CallError::Tls(url(), error))?;
    let broken = |error: &dyn std::fmt::Display| CallError::Http(url(), error.to_string());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| broken(&error))?;
    let connection = tokio::spawn(connection);
    let request = Request::post(&endpoint.path)
        .header(header::HOST, format!("{}:{}", endpoint.name, endpoint.port))
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT, "application/json")
        .header(header::USER_AGENT, "kube-apiserver-admission")
        .body(Full::new(body))
        .map_err(|error| broken(&error))?;
    let response = sender
        .send_request(request)
        .await
        .map_err(|error| broken(&error))?;
    let code = response.status();
    let body = Limited::new(response.into_body(), MOST_BYTES)
        .collect()
        .await
        .map_err(|error| broken(&error))?;
    connection.abort();
    let body = body.to_bytes();
    if code != StatusCode::OK {
        let text: String = String::from_utf8_lossy(&body)
            .trim()
            .chars()
            .take(200)
            .collect();
        return Err(CallError::Code(code, text));
    }
    Ok(body)
}

/// Addresses of a service's slices, with whether each is ready and the slice's first port.
fn slices(lookup: &dyn Lookup, namespace: &str, service: &str) -> Vec<Arc<Value>> {
    let mut slices = lookup.list("discovery.k8s.io", "endpointslices", Some(namespace));
    slices.retain(|slice| slice["metadata"]["labels"]["kubernetes.io/service-name"] == service);
    slices
}

fn ready(slice: &Value) -> impl Iterator<Item = &Value> {
    let endpoints = slice["endpoints"].as_array().into_iter().flatten();
    endpoints.filter(|endpoint| endpoint["conditions"]["ready"] != false)
}

/// Whether there are slices and none of them has a ready endpoint: then a connection could only time out.
fn known_to_be_empty(lookup: &dyn Lookup, namespace: &str, service: &str) -> bool {
    let slices = slices(lookup, namespace, service);
    !slices.is_empty() && slices.iter().all(|slice| ready(slice).next().is_none())
}

/// An endpoint of a service without cluster IP, and the port behind the service's port.
fn headless(
    lookup: &dyn Lookup,
    namespace: &str,
    service: &str,
    object: &Value,
    port: u16,
) -> Option<(String, u16)> {
    let ports = object["spec"]["ports"].as_array().into_iter().flatten();
    let named = ports.into_iter().find(|one| one["port"] == port)?["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    slices(lookup, namespace, service).iter().find_map(|slice| {
        let address = ready(slice).next()?["addresses"][0].as_str()?.to_owned();
        let mut ports = slice["ports"].as_array().into_iter().flatten();
        let port = ports.find(|one| one["name"].as_str().unwrap_or_default() == named)?["port"]
            .as_u64()?;
        Some((address, u16::try_from(port).ok()?))
    })
}
