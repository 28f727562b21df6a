//! What the tests of this crate share: authorities, certificates with chosen faults, and a handshake in memory.

use crate::ca::{Authority, Files, KeyKind, ROOT_LIFETIME, Request};
use crate::pem;
use crate::svid::Svid;
use crate::trust::TrustBundles;
use lateen_model::identity::SpiffeId;
use lateen_model::security::TrustBundle;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType,
    SerialNumber,
};
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// A point in time as the certificate library counts it; its type has no name here.
macro_rules! time {
    ($at:expr) => {
        rcgen::date_time_ymd(1970, 1, 1)
            + SystemTime::duration_since(&($at), UNIX_EPOCH).expect("after 1970")
    };
}

pub(crate) const HOUR: Duration = Duration::from_secs(3600);
pub(crate) const DAY: Duration = Duration::from_secs(86_400);

/// The time when the tests began, in whole seconds: certificates know no fractions.
pub(crate) fn now() -> SystemTime {
    static NOW: OnceLock<SystemTime> = OnceLock::new();
    *NOW.get_or_init(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        UNIX_EPOCH + Duration::from_secs(since.expect("after 1970").as_secs())
    })
}

pub(crate) fn id(text: &str) -> SpiffeId {
    SpiffeId::parse(text).expect("an id")
}

pub(crate) fn sleep_id() -> SpiffeId {
    id("spiffe://cluster.local/ns/default/sa/sleep")
}

pub(crate) fn authority(trust_domain: &str) -> Authority {
    Authority::self_signed(trust_domain, ROOT_LIFETIME, now()).expect("an authority")
}

pub(crate) fn svid(authority: &Authority, id: &SpiffeId, validity: Duration) -> Svid {
    let request = Request::new(KeyKind::EcdsaP256, None).expect("a request");
    let chain = authority.sign(request.pem(), id, validity, now());
    let chain = chain.expect("a signed certificate").join("");
    request.answered(&chain).expect("an SVID")
}

pub(crate) fn bundles(of: &[(&str, &Authority)]) -> TrustBundles {
    let bundles: Vec<_> = of
        .iter()
        .map(|(domain, authority)| Arc::new(authority.bundle(domain)))
        .collect();
    let (bundles, notices) = TrustBundles::of(&bundles, of[0].0, &[]);
    assert_eq!(notices, Vec::<String>::new());
    bundles
}

/// An authority whose certificates can be made as wrong as one likes.
pub(crate) struct Workshop {
    pub(crate) params: CertificateParams,
    pub(crate) key: KeyPair,
    pub(crate) der: CertificateDer<'static>,
}

impl Workshop {
    pub(crate) fn root(name: &str) -> Self {
        let (params, key) = Self::params(name);
        let der = params.self_signed(&key).expect("a root").into();
        Self { params, key, der }
    }

    /// A root that ends after `lifetime`.
    pub(crate) fn ending(name: &str, lifetime: Duration) -> Self {
        let (mut params, key) = Self::params(name);
        within(&mut params, now() - HOUR, now() + lifetime);
        let der = params.self_signed(&key).expect("a root").into();
        Self { params, key, der }
    }

    pub(crate) fn intermediate(&self, name: &str) -> Self {
        let (params, key) = Self::params(name);
        let der = params.signed_by(&key, &self.issuer());
        let der = der.expect("an intermediate").into();
        Self { params, key, der }
    }

    fn params(name: &str) -> (CertificateParams, KeyPair) {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.use_authority_key_identifier_extension = true;
        within(&mut params, now() - HOUR, now() + 3650 * DAY);
        params.serial_number = Some(SerialNumber::from_slice(&[fastrand::u8(1..127), 7]));
        (params, KeyPair::generate().expect("a key"))
    }

    pub(crate) fn issuer(&self) -> Issuer<'_, &KeyPair> {
        Issuer::from_params(&self.params, &self.key)
    }

    pub(crate) fn pem(&self) -> String {
        pem::encode("CERTIFICATE", &self.der)
    }

    /// A leaf with URI names as given and whatever `change` does to it.
    pub(crate) fn leaf(
        &self,
        uris: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        within(&mut params, now() - HOUR, now() + HOUR);
        params.subject_alt_names = uris
            .iter()
            .map(|uri| SanType::URI((*uri).try_into().expect("text")))
            .collect();
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let der = params.signed_by(&key, &self.issuer()).expect("a leaf");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        (der.into(), key)
    }

    /// A list of it that revokes a serial number.
    pub(crate) fn revokes(&self, serial: &str) -> String {
        let serial: Vec<u8> = (0..serial.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&serial[at..at + 2], 16).expect("hexadecimal"))
            .collect();
        let at = time!(now() - HOUR);
        let list = CertificateRevocationListParams {
            this_update: at,
            next_update: time!(now() + DAY),
            crl_number: SerialNumber::from_slice(&[1]),
            issuing_distribution_point: None,
            revoked_certs: vec![RevokedCertParams {
                serial_number: SerialNumber::from_slice(&serial),
                revocation_time: at,
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.issuer()).expect("a list");
        list.pem().expect("PEM")
    }

    pub(crate) fn bundle(&self, trust_domain: &str, crls: &str) -> Arc<TrustBundle> {
        Arc::new(TrustBundle {
            trust_domain: trust_domain.into(),
            roots: self.pem().into(),
            crls: crls.into(),
        })
    }

    /// It as an authority with `root` above it.
    pub(crate) fn plugged(&self, root: &str, crl: &str) -> Result<Authority, crate::ca::CaError> {
        let files = Files {
            cert: &self.pem(),
            key: &self.key.serialize_pem(),
            root,
            crl,
            ..Files::default()
        };
        Authority::from_pem(&files, now())
    }
}

pub(crate) fn within(params: &mut CertificateParams, from: SystemTime, until: SystemTime) {
    params.not_before = time!(from);
    params.not_after = time!(until);
}

/// What both ends know after a handshake in memory.
#[derive(Debug)]
pub(crate) struct Met {
    pub(crate) alpn: Option<String>,
    pub(crate) version: String,
    pub(crate) resumed: bool,
    pub(crate) group: String,
    pub(crate) client: Vec<CertificateDer<'static>>,
    pub(crate) server: Vec<CertificateDer<'static>>,
}

/// A handshake with a byte each way, so that tickets arrive; the errors are those of client and server.
pub(crate) async fn meet(
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    name: &str,
) -> Result<Met, (String, String)> {
    let (near, far) = tokio::io::duplex(64 << 10);
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let (left, right) = tokio::join!(call(client, near, name), answer(server, far));
    let (mut left, right) = match (left, right) {
        (Ok(left), Ok(right)) => (left, right),
        (left, right) => {
            return Err((
                left.err().unwrap_or_default(),
                right.err().unwrap_or_default(),
            ));
        }
    };
    left.client = right;
    Ok(left)
}

async fn call(
    config: Arc<ClientConfig>,
    io: DuplexStream,
    name: ServerName<'static>,
) -> Result<Met, String> {
    let mut stream = tokio_rustls::TlsConnector::from(config)
        .connect(name, io)
        .await
        .map_err(text)?;
    stream.write_all(b"x").await.map_err(text)?;
    let mut byte = [0];
    stream.read_exact(&mut byte).await.map_err(text)?;
    let tls = stream.get_ref().1;
    Ok(Met {
        alpn: tls
            .alpn_protocol()
            .map(|name| String::from_utf8_lossy(name).into()),
        version: format!("{:?}", tls.protocol_version().expect("agreed")),
        resumed: tls.handshake_kind() == Some(rustls::HandshakeKind::Resumed),
        group: tls
            .negotiated_key_exchange_group()
            .map(|group| format!("{:?}", group.name()))
            .unwrap_or_default(),
        client: Vec::new(),
        server: owned(tls.peer_certificates()),
    })
}

async fn answer(
    config: Arc<ServerConfig>,
    io: DuplexStream,
) -> Result<Vec<CertificateDer<'static>>, String> {
    let mut stream = tokio_rustls::TlsAcceptor::from(config)
        .accept(io)
        .await
        .map_err(text)?;
    let mut byte = [0];
    stream.read_exact(&mut byte).await.map_err(text)?;
    stream.write_all(&byte).await.map_err(text)?;
    Ok(owned(stream.get_ref().1.peer_certificates()))
}

fn owned(chain: Option<&[CertificateDer<'static>]>) -> Vec<CertificateDer<'static>> {
    chain.unwrap_or_default().to_vec()
}

fn text(error: std::io::Error) -> String {
    match error
        .get_ref()
        .and_then(|e| e.downcast_ref::<rustls::Error>())
    {
        Some(tls) => crate::tls::explain(tls),
        None => error.to_string(),
    }
}
