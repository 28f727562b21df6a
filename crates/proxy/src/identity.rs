//! The proxy's own identity: its certificate, and whom it believes, put in force together whenever one of them changes.
//! Where certificates come from is in `lateen_identity::source`.

use crate::config::{Certificates, ControlPlane, Identity};
use crate::shared::Shared;
use lateen_base::Str;
use lateen_identity::istiod::{Connector, RootsSource};
use lateen_identity::source::{self, AuthorityOptions, Clock, Origin, State};
use lateen_identity::svid::Svid;
use lateen_identity::tls::MeshTls;
use lateen_identity::trust::TrustBundles;
use lateen_model::decide::snapshot::Snapshot;
use lateen_model::identity::SpiffeId;
use lateen_model::security::TrustBundle;
use lateen_model::tls::TlsVersion;
use lateen_net::dial::exempt;
use lateen_xds::client::{Connect, Io};
use std::sync::Arc;
use std::time::SystemTime;
use tokio::sync::watch;

/// Who the proxy is and whom it believes; replaced as a whole.
pub(crate) struct Membership {
    /// Settings for both ends of the mesh's TLS.
    pub(crate) tls: Arc<MeshTls>,
    /// The certificate.
    pub(crate) svid: Arc<Svid>,
    /// The roots.
    pub(crate) bundles: TrustBundles,
    /// Counts replacements, from 1.
    pub(crate) generation: u64,
    made_of: MadeOf,
}

/// What a [`Membership`] was made of: nothing is made anew of the same.
#[derive(PartialEq)]
struct MadeOf {
    believed: Believed,
    min: TlsVersion,
}

/// Whose roots count.
#[derive(PartialEq, Clone)]
struct Believed {
    bundles: Vec<Arc<TrustBundle>>,
    /// Names that the mesh's trust domain had before: who has one of them is who has the present one.
    aliases: Vec<Str>,
    /// The mesh's trust domain.
    own: Str,
}

impl Membership {
    /// Whether an endpoint that was meant is the one that has shown itself: the same account, also under another of the
    /// names of the mesh's trust domain.
    pub(crate) fn is_same(&self, wanted: &SpiffeId, shown: &SpiffeId) -> bool {
        let Believed { own, aliases, .. } = &self.made_of.believed;
        let is_ours = |id: &SpiffeId| {
            let domain = id.trust_domain();
            **own == *domain || aliases.iter().any(|alias| **alias == *domain)
        };
        let account = |id: &SpiffeId| {
            let account = id.namespace().zip(id.service_account());
            account.map(|(namespace, name)| (namespace.to_owned(), name.to_owned()))
        };
        wanted == shown
            || is_ours(wanted)
                && is_ours(shown)
                && account(wanted).is_some()
                && account(wanted) == account(shown)
    }
}

impl Believed {
    /// What configuration and the certificate's source say together.
    fn of(snapshot: &Snapshot, state: &State, svid: &Svid) -> Self {
        let mesh = snapshot.mesh();
        let mut bundles = snapshot.trust_bundles().to_vec();
        // The Workload API's word counts beside configuration's: SPIRE's members and the mesh's may share a domain.
        for theirs in &state.bundles {
            match bundles
                .iter_mut()
                .find(|b| b.trust_domain == theirs.trust_domain)
            {
                Some(ours) => *ours = union(ours, theirs),
                None => bundles.push(Arc::clone(theirs)),
            }
        }
        // Until anybody tells of the roots, the issuer's word counts.
        let domain = svid.id.trust_domain();
        let told = bundles.iter().any(|b| *b.trust_domain == *domain);
        if !told && !state.roots.is_empty() {
            bundles.push(Arc::new(TrustBundle {
                trust_domain: domain.into(),
                roots: state.roots.as_str().into(),
                crls: "".into(),
            }));
        }
        Self {
            bundles,
            aliases: mesh.trust_domain_aliases.clone(),
            own: mesh.trust_domain.clone(),
        }
    }
}

/// Roots and revocation lists of both.
fn union(one: &Arc<TrustBundle>, other: &Arc<TrustBundle>) -> Arc<TrustBundle> {
    let join = |one: &Str, other: &Str| -> Str {
        match (&**one, &**other) {
            (one, other) if one.contains(other.trim()) => one.into(),
            (one, other) => format!("{one}\n{other}").into(),
        }
    };
    Arc::new(TrustBundle {
        trust_domain: one.trust_domain.clone(),
        roots: join(&one.roots, &other.roots),
        crls: join(&one.crls, &other.crls),
    })
}

/// Keeps the shared [`Membership`] true.
pub(crate) struct Keeper {
    state: watch::Receiver<State>,
    /// Tells the source whom the proxy believes: a certificate that is not believed itself is renewed.
    believed: watch::Sender<TrustBundles>,
    generation: u64,
    said: Option<String>,
}

impl Keeper {
    /// Starts asking for certificates.
    pub(crate) fn start(identity: Identity) -> Self {
        let (believed, heard) = watch::channel(TrustBundles::default());
        let (sender, state) = watch::channel(State::default());
        let origin = match identity.certificates {
            Certificates::Given(state) => return Self::of(state, believed),
            Certificates::WorkloadApi(socket) => Origin::WorkloadApi(socket),
            Certificates::Files(files) => Origin::Files(files),
            Certificates::Authority {
                address,
                server,
                key,
                lifetime,
            } => Origin::Authority(AuthorityOptions {
                connector: connector(&address, &server, &state),
                token: server.token,
                lifetime,
                key,
            }),
        };
        let options = source::Options {
            origin,
            cache: identity.cache,
            renew: Arc::default(),
            believed: Some(heard),
            clock: Clock::machine(),
        };
        tokio::spawn(source::run(options, sender));
        Self::of(state, believed)
    }

    fn of(state: watch::Receiver<State>, believed: watch::Sender<TrustBundles>) -> Self {
        Self {
            state,
            believed,
            generation: 0,
            said: None,
        }
    }

    /// What is known of the certificate.
    pub(crate) fn state(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// Resolves when there is news of the certificate; never, when there will be none.
    pub(crate) async fn changed(&mut self) {
        if self.state.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Puts certificate and trust in force; says whether anything changed.
    pub(crate) fn refresh(&mut self, shared: &Shared) -> bool {
        let state = self.state.borrow_and_update().clone();
        let Some(svid) = state.svid.clone() else {
            let why = state
                .last_error
                .unwrap_or_else(|| "the CA has not answered yet".to_owned());
            if self.said.as_ref() != Some(&why) {
                tracing::info!("no certificate yet: {why}");
                self.said = Some(why.clone());
            }
            shared.no_member.store(Arc::new(why));
            return false;
        };
        let live = shared.live.load();
        let made_of = MadeOf {
            believed: Believed::of(&live.snapshot, &state, &svid),
            min: live.snapshot.mesh().mesh_tls_min,
        };
        let current = shared.member.load();
        let same = |m: &&Arc<Membership>| Arc::ptr_eq(&m.svid, &svid) && m.made_of == made_of;
        if current.as_ref().filter(same).is_some() {
            return false;
        }
        self.replace(shared, svid, made_of)
    }

    /// Says when somebody must look after the certificate.
    pub(crate) fn alarm(&self) {
        if let Some((_, sentence)) = self.state.borrow().alarm(SystemTime::now()) {
            tracing::error!("{sentence}");
        }
    }

    fn replace(&mut self, shared: &Shared, svid: Arc<Svid>, made_of: MadeOf) -> bool {
        let believed = &made_of.believed;
        let before = shared.member.load_full();
        let good = before.as_ref().map(|m| m.bundles.clone());
        let (bundles, notices) = good.unwrap_or_default().followed_by(
            &believed.bundles,
            &believed.own,
            &believed.aliases,
        );
        for notice in notices {
            tracing::warn!("{notice}");
        }
        let sessions = shared.tls_sessions;
        let tls = match MeshTls::remembering(&svid, &bundles, made_of.min, sessions) {
            Ok(tls) => tls,
            Err(error) => {
                tracing::warn!(
                    "the new certificate cannot be used: {error}; the last one stays in force"
                );
                return false;
            }
        };
        self.generation += 1;
        // A certificate alone is no news of whom we believe: its source would be asked for the next one in a circle.
        let is_news = |before: &Arc<Membership>| before.made_of.believed != *believed;
        if before.as_ref().is_none_or(is_news) {
            self.believed.send_replace(bundles.clone());
        }
        tracing::info!(
            "certificate {} of {} in force, {}",
            svid.serial,
            svid.id,
            if bundles.is_empty() {
                "no roots known yet"
            } else {
                "with the roots of the mesh"
            },
        );
        shared.member.store(Some(Arc::new(Membership {
            tls,
            svid,
            bundles,
            generation: self.generation,
            made_of,
        })));
        true
    }
}

/// The way to a server of the control plane: shows the certificate once there is one.
fn connector(address: &str, server: &ControlPlane, state: &watch::Receiver<State>) -> Connector {
    let (shown, known) = (state.clone(), state.clone());
    Connector {
        address: address.to_owned(),
        names: server.names.clone(),
        roots: RootsSource {
            file: Some(server.roots.clone()),
            known: Some(Arc::new(move || known.borrow().roots.clone())),
        },
        client: Some(Arc::new(move || shown.borrow().svid.clone())),
        prepare: |socket| {
            exempt(socket);
            Ok(())
        },
    }
}

/// How connections for configuration are opened by TLS.
pub(crate) fn connect(
    address: &str,
    control_plane: &ControlPlane,
    state: &watch::Receiver<State>,
) -> Connect {
    let connector = Arc::new(connector(address, control_plane, state));
    Arc::new(move || {
        let connector = Arc::clone(&connector);
        Box::pin(async move {
            let stream = connector.connect().await?;
            Ok(Box::new(stream) as Box<dyn Io>)
        })
    })
}
