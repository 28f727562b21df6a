//! One GET of a user's URI: bounded in time, size and redirects, and only to addresses that may be called. It knows
//! no proxies of the environment, keeps no connection and sends no credentials.

use super::{Options, Rules};
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_LENGTH, HOST, LOCATION, USER_AGENT};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Most bytes of an answer.
pub(super) const MOST_BODY: usize = 1 << 20;
/// Redirects followed, each checked anew.
const MOST_REDIRECTS: usize = 3;
/// Most bytes of an answer's head.
const MOST_HEAD: usize = 64 << 10;
/// Addresses of one name that are tried.
const MOST_ADDRESSES: usize = 4;

/// Fetches URIs.
pub(super) struct Client {
    rules: Rules,
    limit: Duration,
    tls: Arc<ClientConfig>,
}

/// A URI cannot be fetched. The sentence goes to the policy's author.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("{0:?} is not a URI of the form https://host/path: {1}")]
    BadUri(String, String),
    #[error("{host} must not be called: {why}")]
    Forbidden { host: String, why: String },
    #[error("{host} does not resolve: {why}")]
    Unresolved { host: String, why: String },
    #[error("cannot connect to {host}: {why}")]
    Unreachable { host: String, why: String },
    #[error("TLS with {host} failed: {why}")]
    Tls { host: String, why: String },
    #[error("{host} does not speak HTTP properly: {why}")]
    Broken { host: String, why: String },
    #[error("{host} answers with status {status}")]
    Status { host: String, status: StatusCode },
    #[error("the answer of {host} is larger than {MOST_BODY} bytes")]
    TooLarge { host: String },
    #[error("more than {MOST_REDIRECTS} redirects")]
    Redirects,
    #[error("no whole answer within {} s", .0.as_secs_f32())]
    Late(Duration),
}

/// Where a request goes.
#[derive(Debug, Clone)]
struct Target {
    secure: bool,
    authority: Authority,
    path: PathAndQuery,
}

/// What one request brings.
enum Step {
    Body(Bytes),
    Elsewhere(Target),
}

impl Client {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            rules: Rules {
                blocked: options.blocked.clone(),
                allow_loopback: options.allow_loopback,
            },
            limit: options.limit,
            tls: Arc::new(tls(options)),
        }
    }

    /// The body behind a URI.
    pub(super) async fn get(&self, uri: &str) -> Result<Bytes, FetchError> {
        let followed = async {
            let mut target = Target::read(uri)?;
            for _ in 0..=MOST_REDIRECTS {
                match self.step(&target).await? {
                    Step::Body(body) => return Ok(body),
                    Step::Elsewhere(next) => target = next,
                }
            }
            Err(FetchError::Redirects)
        };
        let bounded = tokio::time::timeout(self.limit, followed).await;
        bounded.unwrap_or(Err(FetchError::Late(self.limit)))
    }

    async fn step(&self, target: &Target) -> Result<Step, FetchError> {
        let stream = self.connect(target).await?;
        if !target.secure {
            return exchange(stream, target).await;
        }
        let failed = |e: &dyn Display| FetchError::Tls {
            host: target.authority.to_string(),
            why: e.to_string(),
        };
        let name = ServerName::try_from(target.host().to_owned()).map_err(|e| failed(&e))?;
        let connector = TlsConnector::from(Arc::clone(&self.tls));
        let stream = connector
            .connect(name, stream)
            .await
            .map_err(|e| failed(&e))?;
        exchange(stream, target).await
    }

    /// Connects to the first address of the host that may be called and answers.
    async fn connect(&self, target: &Target) -> Result<TcpStream, FetchError> {
        let host = || target.authority.to_string();
        let unresolved = |why: String| FetchError::Unresolved { host: host(), why };
        let named: Vec<SocketAddr> = match target.host().parse::<IpAddr>() {
            Ok(ip) => vec![(ip, target.port()).into()],
            Err(_) => tokio::net::lookup_host((target.host(), target.port()))
                .await
                .map_err(|e| unresolved(e.to_string()))?
                .collect(),
        };
        let mut last = unresolved("it has no address".to_owned());
        for address in named.into_iter().take(MOST_ADDRESSES) {
            if let Err(why) = self.rules.check(address.ip()) {
                last = FetchError::Forbidden { host: host(), why };
                continue;
            }
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(e) => {
                    let why = format!("{address}: {e}");
                    last = FetchError::Unreachable { host: host(), why };
                }
            }
        }
        Err(last)
    }
}

/// Sends the request and reads what comes back.
async fn exchange<S>(stream: S, target: &Target) -> Result<Step, FetchError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let host = || target.authority.to_string();
    let broken = |e: &dyn Display| FetchError::Broken {
        host: host(),
        why: e.to_string(),
    };
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(MOST_HEAD)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|e| broken(&e))?;
    // Ends with this function: whatever the server still says is not heard.
    let driver = tokio::spawn(connection);
    let _driver = AbortOnDrop(driver);
    let request = Request::get(target.path.as_str())
        .header(HOST, target.authority.as_str())
        .header(ACCEPT, "application/json")
        .header(USER_AGENT, concat!("lateen/", env!("CARGO_PKG_VERSION")))
        .body(Empty::<Bytes>::new())
        .map_err(|e| broken(&e))?;
    let response = sender.send_request(request).await.map_err(|e| broken(&e))?;
    let status = response.status();
    if status.is_redirection() {
        let location = response.headers().get(LOCATION);
        let location = location.and_then(|value| value.to_str().ok());
        let location = location.ok_or_else(|| broken(&"a redirect without a location"))?;
        return target.redirected(location).map(Step::Elsewhere);
    }
    if status != StatusCode::OK {
        return Err(FetchError::Status {
            host: host(),
            status,
        });
    }
    let declared = response.headers().get(CONTENT_LENGTH);
    let declared = declared.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|length| length > MOST_BODY as u64) {
        return Err(FetchError::TooLarge { host: host() });
    }
    match Limited::new(response.into_body(), MOST_BODY)
        .collect()
        .await
    {
        Ok(body) => Ok(Step::Body(body.to_bytes())),
        Err(e) if e.is::<http_body_util::LengthLimitError>() => {
            Err(FetchError::TooLarge { host: host() })
        }
        Err(e) => Err(broken(&e)),
    }
}

struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Target {
    fn read(uri: &str) -> Result<Self, FetchError> {
        let bad = |why: &str| FetchError::BadUri(uri.chars().take(200).collect(), why.to_owned());
        let bare = uri.split('#').next().unwrap_or_default();
        let parts = bare
            .parse::<Uri>()
            .map_err(|e| bad(&e.to_string()))?
            .into_parts();
        let secure = match parts.scheme {
            Some(scheme) if scheme == Scheme::HTTPS => true,
            Some(scheme) if scheme == Scheme::HTTP => false,
            _ => return Err(bad("its scheme must be https or http")),
        };
        let authority = parts.authority.ok_or_else(|| bad("it has no host"))?;
        if authority.as_str().contains('@') {
            return Err(bad("it must not contain a user or password"));
        }
        if authority.host().is_empty() {
            return Err(bad("it has no host"));
        }
        let path = parts
            .path_and_query
            .unwrap_or(PathAndQuery::from_static("/"));
        Ok(Self {
            secure,
            authority,
            path,
        })
    }

    fn host(&self) -> &str {
        self.authority.host().trim_matches(['[', ']'])
    }

    fn port(&self) -> u16 {
        let default = if self.secure { 443 } else { 80 };
        self.authority.port_u16().unwrap_or(default)
    }

    /// Where a redirect leads; never from https to http.
    fn redirected(&self, location: &str) -> Result<Self, FetchError> {
        let scheme = if self.secure { "https" } else { "http" };
        let authority = &self.authority;
        let whole = if location.contains("://") {
            location.to_owned()
        } else if location.starts_with("//") {
            format!("{scheme}:{location}")
        } else if location.starts_with('/') {
            format!("{scheme}://{authority}{location}")
        } else {
            let path = self.path.path();
            let folder = path.rfind('/').map_or("/", |at| &path[..=at]);
            format!("{scheme}://{authority}{folder}{location}")
        };
        let next = Self::read(&whole)?;
        if self.secure && !next.secure {
            return Err(FetchError::BadUri(
                whole,
                "a redirect must not lead from https to http".to_owned(),
            ));
        }
        Ok(next)
    }
}

/// The system's roots and the operator's. Files that cannot be read are told once and left out.
fn tls(options: &Options) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    for error in &system.errors {
        tracing::debug!("the system's root certificates: {error}");
    }
    roots.add_parsable_certificates(system.certs);
    for path in &options.extra_roots {
        let read =
            CertificateDer::pem_file_iter(path).and_then(|all| all.collect::<Result<Vec<_>, _>>());
        match read {
            Ok(all) if !all.is_empty() => {
                roots.add_parsable_certificates(all);
            }
            Ok(_) => tracing::error!("{} has no certificate in PEM", path.display()),
            Err(e) => tracing::error!("cannot read root certificates of {}: {e}", path.display()),
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has the default versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_are_read_with_suspicion() {
        let refused = |uri: &str, part: &str| {
            let error = Target::read(uri).expect_err(uri).to_string();
            assert!(error.contains(part), "{uri}: {error}");
        };
        refused("file:///etc/passwd", "not a URI");
        refused("/keys", "scheme");
        refused("https://user:pass@host/keys", "user or password");
        refused("gopher://host/", "scheme");
        let target = Target::read("https://[::1]:8443/keys?x=1#y").expect("valid");
        assert_eq!(
            (target.host(), target.port(), target.path.as_str()),
            ("::1", 8443, "/keys?x=1")
        );
    }

    #[test]
    fn redirects_are_resolved_and_never_weaker() {
        let from = Target::read("https://a:8443/x/keys").expect("valid");
        let check = |location: &str, expected: Option<&str>| {
            let next = from.redirected(location).ok();
            let next = next.map(|t| format!("{}{}", t.authority, t.path));
            assert_eq!(next.as_deref(), expected, "{location}");
        };
        check("/y", Some("a:8443/y"));
        check("z", Some("a:8443/x/z"));
        check("//b/y", Some("b/y"));
        check("https://c/y", Some("c/y"));
        check("http://c/y", None);
        check("file:///etc/passwd", None);
    }
}
