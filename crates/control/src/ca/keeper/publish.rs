//! What the keeper tells others: roots and revocation lists, what signs, the page, alarms.

use super::{Keeper, Signer};
use crate::ca::page::{self, Page, RootEntry};
use crate::ca::rotation::{Root, Rotation};
use crate::ca::{Domains, Trusted};
use lateen_identity::trust::TrustBundles;
use lateen_model::resource::{Key, Kind, Resource};
use lateen_model::security::TrustBundle;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Days left at which the log warns.
const ALARMS: [u64; 3] = [30, 7, 1];

impl Keeper {
    /// Publishes roots and revocation lists; tells whether they changed.
    pub(super) fn publish_trust(&mut self) -> bool {
        let (Some(rotation), Some(domains)) = (&self.rotation, &self.domains) else {
            return false;
        };
        let bundle = rotation.bundle();
        if bundle.is_empty() {
            return false;
        }
        let (crls, cut) = rotation.lists();
        let text = |roots: &[Root]| roots.iter().map(Root::pem).collect::<String>();
        let fresh = TrustBundle {
            trust_domain: domains.own.clone(),
            roots: text(&bundle).into(),
            crls: crls.as_str().into(),
        };
        let old = self.published.take();
        let mut removed = Vec::new();
        let (trust, notices) =
            TrustBundles::of(&[Arc::new(fresh.clone())], &domains.own, &domains.aliases);
        if let Some((old, generation)) = old {
            if old == fresh {
                self.published = Some((old, generation));
                return false;
            }
            if old.trust_domain != fresh.trust_domain {
                let name = old.trust_domain;
                let kind = Kind::TrustBundle;
                removed.push(Key { kind, name });
            }
        }
        if cut {
            tracing::error!(
                "the revocation lists of all trusted CAs have more than 1 MiB: those of past CAs are left out"
            );
        }
        for notice in notices {
            tracing::warn!("{notice}");
        }
        let applied = self
            .parts
            .store
            .apply(vec![Resource::TrustBundle(fresh.clone())], removed);
        self.published = Some((fresh, applied.generation));
        self.parts.out.trust.send_replace(trust);
        let mut sorted = bundle;
        sorted.sort();
        self.parts.out.trusted.send_replace(Trusted {
            roots: text(&sorted).into(),
            crl: crls.into(),
        });
        true
    }

    /// Tells what signs, and shows the state.
    pub(super) fn publish(&self) {
        let (Some(rotation), Some(domains)) = (&self.rotation, &self.domains) else {
            return;
        };
        let signer = rotation.signer();
        let authority = signer.map(|signer| Arc::clone(&signer.authority));
        let why = match &self.error {
            Some(error) => error.clone(),
            None => "the CA was replaced while the control plane was away: it signs in a few seconds, once proxies \
                     trust its root"
                .to_owned(),
        };
        self.parts.out.signing.send_if_modified(|signing| {
            let same = match (&signing.authority, &authority) {
                (Some(old), Some(new)) => Arc::ptr_eq(old, new),
                (None, None) => *signing.why == *why,
                _ => false,
            };
            let same = same && signing.trust_domain == domains.own;
            signing.authority.clone_from(&authority);
            signing.why = why.into();
            signing.trust_domain = domains.own.clone();
            !same
        });
        let metrics = &self.parts.metrics.ca;
        let root = rotation
            .bundle()
            .first()
            .and_then(|root| page::end_of(root.pem()));
        metrics.root_expiry.set(root.map_or(0, page::seconds));
        let chain = authority.as_ref().map(|authority| authority.not_after());
        metrics.chain_expiry.set(chain.map_or(0, page::seconds));
        self.parts.out.page.send_if_modified(|page| {
            let fresh = self.page(rotation, domains);
            let differs = *page != fresh;
            *page = fresh;
            differs
        });
    }

    fn page(&self, rotation: &Rotation<Arc<Signer>>, domains: &Domains) -> Page {
        let entry = |root: &Root| {
            let going = rotation.retiring().iter().find(|old| old.root == *root);
            let until = going.map(|old| SystemTime::UNIX_EPOCH + Duration::from_secs(old.until));
            let state = match (going.is_some(), rotation.waiting().contains(root)) {
                (true, _) => "going",
                (false, true) => "coming",
                (false, false) => "signing",
            };
            RootEntry {
                sha256: page::sha256(root.pem()),
                state,
                expires: page::end_of(root.pem()).and_then(page::time),
                until: until.and_then(page::time),
            }
        };
        let signer = rotation.signer();
        let crl = self
            .published
            .as_ref()
            .is_some_and(|(b, _)| !b.crls.is_empty());
        Page {
            trust_domain: domains.own.to_string(),
            secret: signer.map(|signer| signer.secret.to_owned()),
            expires: signer.and_then(|signer| page::time(signer.authority.not_after())),
            roots: rotation.bundle().iter().map(entry).collect(),
            crl,
            error: self.error.clone(),
        }
    }

    /// Warns when the end of the CA comes near.
    pub(super) fn alarm(&mut self) {
        let signer = self.rotation.as_ref().and_then(Rotation::signer);
        let Some(signer) = signer else {
            return;
        };
        let end = signer.authority.not_after();
        let left = end.duration_since(SystemTime::now()).unwrap_or_default();
        let days = left.as_secs().div_ceil(24 * 3600);
        let due = ALARMS.iter().take_while(|limit| days <= **limit).count();
        let due = due + usize::from(left.is_zero());
        if due > self.alarm {
            let name = signer.secret;
            let text = match left.is_zero() {
                true => format!(
                    "the CA of the secret {name} has expired: nothing is signed any more; give the mesh a new one"
                ),
                false => format!(
                    "the CA of the secret {name} expires in {days} days or less: give the mesh a new one"
                ),
            };
            tracing::warn!("{text}");
        }
        self.alarm = due;
    }
}
