//! A mesh with certificates: a CA in the test's own hands, and two proxies that meet.

use super::mesh::{origin, pod, service};
use super::*;
use crate::{Certificates, Identity};
use lateen_base::Str;
use lateen_identity::ca::{Authority, KeyKind, Request};
use lateen_identity::source::State;
use lateen_identity::svid::Svid;
use lateen_identity::tls::MeshTls;
use lateen_identity::trust::TrustBundles;
use lateen_model::identity::SpiffeId;
use lateen_model::mesh::{Role, Scope};
use lateen_model::name::Visibility;
use lateen_model::security::{
    Action, AuthorizationPolicy, MtlsMode, PeerAuthentication, Rule, Selection, Source, TrustBundle,
};
use lateen_model::service::Protocol;
use lateen_model::tls::TlsVersion;
use lateen_xds::client::Update;
use rcgen::{
    CertificateRevocationListParams, Issuer, KeyIdMethod, KeyPair, RevokedCertParams, SerialNumber,
};
use std::time::SystemTime;
use tokio::sync::watch;

pub(super) const DOMAIN: &str = "cluster.local";

/// A CA.
pub(super) struct Ca(pub(super) Authority);

impl Ca {
    pub(super) fn new() -> Self {
        let year = Duration::from_secs(365 * 24 * 3600);
        Self(Authority::self_signed(DOMAIN, year, SystemTime::now()).unwrap())
    }

    /// A new certificate of a service account.
    pub(super) fn svid(&self, account: &str) -> Arc<Svid> {
        self.svid_of(&id(account))
    }

    /// A new certificate of whoever this is.
    pub(super) fn svid_of(&self, id: &SpiffeId) -> Arc<Svid> {
        let request = Request::new(KeyKind::EcdsaP256, None).unwrap();
        let day = Duration::from_secs(24 * 3600);
        let chain = self.0.sign(request.pem(), id, day, SystemTime::now());
        Arc::new(request.answered(&chain.unwrap().concat()).unwrap())
    }

    pub(super) fn state(&self, account: &str) -> State {
        State {
            svid: Some(self.svid(account)),
            ..State::default()
        }
    }

    /// Settings for both ends of the mesh's TLS, with a new certificate of a service account.
    pub(super) fn tls(&self, svid: &Svid) -> Arc<MeshTls> {
        let bundle = Arc::new(self.0.bundle(DOMAIN));
        let (bundles, _) = TrustBundles::of(&[bundle], DOMAIN, &[]);
        MeshTls::new(svid, &bundles, TlsVersion::V1_2).unwrap()
    }

    /// Its root alone.
    pub(super) fn trust(&self) -> Resource {
        trust(self.0.root_pem(), "")
    }

    /// A revocation list with one certificate, as PEM.
    pub(super) fn revokes(&self, svid: &Svid) -> String {
        let key = KeyPair::from_pem(&self.0.key_pem()).unwrap();
        let cert = self.0.cert_pem();
        let issuer = Issuer::from_ca_cert_pem(&cert, &key).unwrap();
        let serial: Vec<u8> = (0..svid.serial.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&svid.serial[at..at + 2], 16).unwrap())
            .collect();
        let day = 24 * 3600;
        let now = rcgen::date_time_ymd(2020, 1, 1);
        let params = CertificateRevocationListParams {
            this_update: now,
            next_update: now + Duration::from_secs(day * 365 * 50),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![RevokedCertParams {
                serial_number: SerialNumber::from_slice(&serial),
                revocation_time: now,
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&issuer).unwrap().pem().unwrap()
    }
}

pub(super) fn id(account: &str) -> SpiffeId {
    SpiffeId::of_account(DOMAIN, "default", account).unwrap()
}

pub(super) fn trust(roots: &str, crls: &str) -> Resource {
    Resource::TrustBundle(TrustBundle {
        trust_domain: DOMAIN.into(),
        roots: roots.into(),
        crls: crls.into(),
    })
}

/// A pod whose proxy takes mutual TLS.
pub(super) fn member(name: &str, port: u16, address: SocketAddr) -> Resource {
    match pod(name, "v1", port, address) {
        Resource::Workload(workload) => Resource::Workload(lateen_model::workload::Workload {
            takes_mtls: true,
            ..workload
        }),
        other => other,
    }
}

pub(super) fn peer_mode(mode: MtlsMode) -> Resource {
    Resource::PeerAuthentication(PeerAuthentication {
        origin: origin("PeerAuthentication", "default"),
        selector: Default::default(),
        mode: Some(mode),
        ports: Default::default(),
    })
}

/// Denies who has this principal.
pub(super) fn deny(account: &str) -> Resource {
    policy(Action::Deny, account)
}

/// Allows nobody but who has this principal.
pub(super) fn allow(account: &str) -> Resource {
    policy(Action::Allow, account)
}

fn policy(action: Action, account: &str) -> Resource {
    let who = id(account);
    Resource::AuthorizationPolicy(AuthorizationPolicy {
        origin: origin("AuthorizationPolicy", "who"),
        selection: Selection::default(),
        visibility: Visibility::Public,
        action,
        dry_run: false,
        rules: vec![Rule {
            from: vec![Source {
                principals: vec![who.principal().into()],
                ..Source::default()
            }],
            ..Rule::default()
        }],
    })
}

/// A proxy with a certificate that the test can replace.
pub(super) struct Member {
    pub(super) bench: Bench,
    pub(super) certificate: watch::Sender<State>,
}

impl Member {
    pub(super) async fn start(mut config: Config, state: State, resources: Vec<Resource>) -> Self {
        let (certificate, given) = watch::channel(state);
        config.identity = Some(Identity {
            certificates: Certificates::Given(given),
            cache: None,
            control_plane: None,
        });
        Self {
            bench: Bench::with(config, resources).await,
            certificate,
        }
    }

    /// Applies resources as a control plane would.
    pub(super) async fn apply(&self, changed: Vec<Resource>) {
        self.change(changed, Vec::new()).await;
    }

    pub(super) async fn change(&self, changed: Vec<Resource>, removed: Vec<Resource>) {
        let removed = removed.iter().map(Resource::key).collect();
        let update = Update::Changed { changed, removed };
        self.bench.proxy.feed.send(update).await.unwrap();
    }

    /// Waits until the proxy has had this many certificates and trust bundles.
    pub(super) async fn generation(&self, wanted: u64) {
        let name = "lateen_certificate_generation ";
        loop {
            let lines = self.bench.metrics(name).await;
            if lines[0][name.len()..].parse::<u64>().unwrap() >= wanted {
                return;
            }
        }
    }

    pub(super) fn inbound(&self) -> SocketAddr {
        self.bench.proxy.addresses().inbound.unwrap()
    }
}

/// A client's sidecar (account `sleep`) and a server's (account `a`), with the application behind it.
pub(super) struct Pair {
    pub(super) client: Member,
    pub(super) server: Member,
}

pub(super) const VIP: &str = "10.96.0.1:80";

/// What the server's sidecar knows, beside its policies.
pub(super) fn at_server(protocol: Protocol, app: SocketAddr) -> (Config, Vec<Resource>) {
    let mut config = Config::new(Scope {
        on_demand: false,
        addresses: vec![app.ip()],
        service_account: "a".into(),
        labels: [(Str::from("app"), Str::from("a"))].into(),
        ..mesh::scope(Role::Sidecar)
    });
    config.destinations = Destinations::Fixed(app);
    let resources = vec![
        service("a", "10.96.0.1", 80, protocol),
        member("a", 80, app),
    ];
    (config, resources)
}

impl Pair {
    pub(super) async fn new(
        ca: &Ca,
        protocol: Protocol,
        app: SocketAddr,
        policies: Vec<Resource>,
    ) -> Self {
        let (config, mut resources) = at_server(protocol, app);
        resources.push(ca.trust());
        resources.extend(policies.clone());
        let server = Member::start(config, ca.state("a"), resources).await;
        let mut config = Config::new(mesh::scope(Role::Sidecar));
        config.destinations = Destinations::Fixed(VIP.parse().unwrap());
        let mut resources = vec![
            service("a", "10.96.0.1", 80, protocol),
            member("a", 80, server.inbound()),
            ca.trust(),
        ];
        resources.extend(policies);
        let client = Member::start(config, ca.state("sleep"), resources).await;
        Self { client, server }
    }
}
