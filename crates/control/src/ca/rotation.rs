//! Which CA signs and which roots the mesh trusts, while one CA takes over from another. Pure: time and the proxies'
//! acknowledgements come from outside.
//!
//! ```text
//! offer(new) --> new root trusted beside the old, old CA signs --(every proxy knows, or time is up)-->
//!     new CA signs, old root trusted --(its last certificate could have expired)--> new root alone
//! ```
//! So no two members of the mesh ever meet of which one does not know the other's root.

#[cfg(test)]
mod tests;

pub(crate) use crate::ca::record::{Record, Retiring, Revoked, Root};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// Most bytes of revocation lists together, as PEM: whoever reads them takes no more.
const MOST_LISTS: usize = 1 << 20;

/// How long a takeover takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// At least this long both roots are trusted before the new CA signs, so that proxies which were just
    /// reconnecting, and other replicas of the control plane, hear of it.
    pub least: Duration,
    /// After this the new CA signs even when a proxy has not acknowledged.
    pub most: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            least: Duration::from_secs(5),
            most: Duration::from_secs(60),
        }
    }
}

/// The state. `S` is what signs.
#[derive(Debug)]
pub(crate) struct Rotation<S> {
    timing: Timing,
    /// Absent after a start during a takeover: the old key is not known, nobody signs until the new CA may.
    signer: Option<S>,
    active: Vec<Root>,
    pending: Option<Pending<S>>,
    retiring: Vec<Retiring>,
    /// Revocation lists of every CA whose root is trusted, the newest CA last.
    revoked: Vec<Revoked>,
    /// Root and certificate of the CA that was read last: of its lists, the Secret alone decides.
    own: Option<(Root, String)>,
    longest: Duration,
}

#[derive(Debug)]
struct Pending<S> {
    signer: S,
    roots: Vec<Root>,
    since: Instant,
}

impl<S> Rotation<S> {
    /// Continues from what was recorded. `validity` is the usual validity of certificates.
    pub(crate) fn restore(record: Record, validity: Duration, timing: Timing) -> Self {
        Self {
            timing,
            signer: None,
            active: record.active,
            pending: None,
            retiring: record.retiring,
            revoked: record.revoked,
            own: None,
            longest: validity.max(Duration::from_secs(record.longest)),
        }
    }

    /// Takes a CA whose certificates chain to the first of `roots`. It signs at once when there was no other or when
    /// its root is trusted already; else it waits. A CA that waits is replaced: it never signed.
    pub(crate) fn offer(&mut self, signer: S, roots: Vec<Root>, now: Instant, clock: SystemTime) {
        let trusted = |root: &Root| {
            self.active.contains(root) || self.retiring.iter().any(|old| old.root == *root)
        };
        if self.active.is_empty() || roots.first().is_some_and(trusted) {
            self.pending = None;
            self.take_over(signer, roots, clock);
            return;
        }
        let since = match self.pending.take() {
            Some(waiting) if waiting.roots == roots => waiting.since,
            _ => now,
        };
        self.pending = Some(Pending {
            signer,
            roots,
            since,
        });
    }

    /// Moves on: `known` says that every connected proxy has acknowledged the present roots. Tells whether anything
    /// changed.
    pub(crate) fn advance(&mut self, known: bool, now: Instant, clock: SystemTime) -> bool {
        let ripe = self.pending.as_ref().is_some_and(|pending| {
            let waited = now.saturating_duration_since(pending.since);
            waited >= self.timing.most || (known && waited >= self.timing.least)
        });
        let mut changed = false;
        if ripe && let Some(pending) = self.pending.take() {
            self.take_over(pending.signer, pending.roots, clock);
            changed = true;
        }
        let before = self.retiring.len();
        let seconds = seconds(clock);
        self.retiring.retain(|old| old.until > seconds);
        let bundle = self.bundle();
        self.revoked
            .retain(|of| bundle.contains(&of.root) && of.until.is_none_or(|at| at > seconds));
        changed || self.retiring.len() != before
    }

    /// Takes the revocation lists (PEM, may be empty) of a CA that was just offered, in place of those that it had
    /// before. `signer` tells its certificate from others below the same root: what those revoked stays revoked until
    /// the last certificate of theirs has expired.
    pub(crate) fn revoke(&mut self, root: Root, signer: String, crl: &str, clock: SystemTime) {
        let until = seconds(clock + self.longest);
        self.revoked
            .retain(|of| of.root != root || of.signer != signer);
        for of in self.revoked.iter_mut().filter(|of| of.root == root) {
            of.until.get_or_insert(until);
        }
        self.own = Some((root.clone(), signer.clone()));
        if !crl.is_empty() {
            self.revoked.push(Revoked {
                root,
                signer,
                crl: crl.to_owned(),
                until: None,
            });
        }
    }

    /// The revocation lists of every trusted root as PEM, each once, the newest CA's first; and whether some are left
    /// out because they are too long together.
    pub(crate) fn lists(&self) -> (String, bool) {
        let (mut text, mut cut) = (String::new(), false);
        let mut seen = Vec::new();
        for of in self.revoked.iter().rev() {
            for (der, pem) in crate::ca::record::lists_of(&of.crl) {
                if seen.contains(&der) {
                    continue;
                }
                match text.len() + pem.len() > MOST_LISTS {
                    true => cut = true,
                    false => text.push_str(&pem),
                }
                seen.push(der);
            }
        }
        (text, cut)
    }

    fn take_over(&mut self, signer: S, roots: Vec<Root>, clock: SystemTime) {
        let until = seconds(clock + self.longest);
        let old = std::mem::replace(&mut self.active, roots);
        for root in old {
            if !self.active.contains(&root) {
                self.retire(Retiring { root, until });
            }
        }
        let active = &self.active;
        self.retiring.retain(|old| !active.contains(&old.root));
        self.signer = Some(signer);
    }

    fn retire(&mut self, old: Retiring) {
        match self
            .retiring
            .iter_mut()
            .find(|known| known.root == old.root)
        {
            Some(known) => known.until = known.until.max(old.until),
            None => self.retiring.push(old),
        }
    }

    /// Takes over what another replica recorded: a root that it still trusts is trusted here too.
    pub(crate) fn merge(&mut self, record: &Record) {
        for old in &record.retiring {
            let known = |root: &Root| self.active.contains(root);
            if !known(&old.root) {
                self.retire(old.clone());
            }
        }
        let bundle = self.bundle();
        for of in &record.revoked {
            let same = |root: &Root, signer: &String| *root == of.root && *signer == of.signer;
            let own = self.own.as_ref();
            let known = own.is_some_and(|(root, signer)| same(root, signer))
                || self.revoked.iter().any(|of| same(&of.root, &of.signer));
            if bundle.contains(&of.root) && !known {
                self.revoked.insert(0, of.clone());
            }
        }
        self.longest = self.longest.max(Duration::from_secs(record.longest));
    }

    /// Trusts no root any more that does not sign.
    pub(crate) fn forget(&mut self) {
        self.retiring.clear();
        let bundle = self.bundle();
        self.revoked.retain(|of| bundle.contains(&of.root));
    }

    /// Notes that a certificate with this validity is about to be signed. Tells whether the record changes.
    pub(crate) fn granted(&mut self, validity: Duration) -> bool {
        let longer = validity > self.longest;
        self.longest = self.longest.max(validity);
        longer
    }

    /// When [`Self::advance`] should be called next, apart from acknowledgements.
    pub(crate) fn due(&self) -> Option<(Instant, Instant)> {
        let pending = self.pending.as_ref()?;
        Some((
            pending.since + self.timing.least,
            pending.since + self.timing.most,
        ))
    }

    /// The CA that signs now.
    pub(crate) fn signer(&self) -> Option<&S> {
        self.signer.as_ref()
    }

    /// Whether a CA waits to take over.
    pub(crate) fn is_waiting(&self) -> bool {
        self.pending.is_some()
    }

    /// The roots of the CA that waits.
    pub(crate) fn waiting(&self) -> &[Root] {
        self.pending.as_ref().map_or(&[], |pending| &pending.roots)
    }

    /// Every root that is trusted: that of the CA which signs first, then those that come, then those that go.
    pub(crate) fn bundle(&self) -> Vec<Root> {
        let mut all: Vec<Root> = Vec::new();
        let coming = self.waiting().iter();
        let going = self.retiring.iter().map(|old| &old.root);
        for root in self.active.iter().chain(coming).chain(going) {
            if !all.contains(root) {
                all.push(root.clone());
            }
        }
        all
    }

    /// Roots that are trusted for what they signed in the past, and until when.
    pub(crate) fn retiring(&self) -> &[Retiring] {
        &self.retiring
    }

    /// What must outlive this process.
    pub(crate) fn record(&self) -> Record {
        Record {
            active: self.active.clone(),
            retiring: self.retiring.clone(),
            revoked: self.revoked.clone(),
            longest: self.longest.as_secs(),
        }
    }
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
