//! Who is believed, and why somebody is not.

use super::*;
use crate::fixture::*;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, IsCa, SanType};

const SLEEP: &str = "spiffe://cluster.local/ns/default/sa/sleep";

/// Verifies a leaf of a root that is the one of `cluster.local`; the text is the id or the sentence.
fn check(uris: &[&str], change: impl FnOnce(&mut CertificateParams)) -> String {
    let root = Workshop::root("mesh");
    let (leaf, _) = root.leaf(uris, change);
    let bundle = root.bundle("cluster.local", "");
    let (bundles, _) = TrustBundles::of(&[bundle], "cluster.local", &[]);
    said(bundles.verify(&[leaf], now()))
}

fn said(result: Result<SpiffeId, TrustError>) -> String {
    match result {
        Ok(id) => id.to_string(),
        Err(error) => error.to_string(),
    }
}

#[track_caller]
fn assert_has(text: &str, part: &str) {
    assert!(text.contains(part), "{text:?} should have {part:?}");
}

#[test]
fn a_member_is_known_by_its_one_uri() {
    assert_eq!(check(&[SLEEP], |_| {}), SLEEP);
    let dns = |p: &mut CertificateParams| {
        let name = SanType::DnsName("sleep".try_into().expect("text"));
        p.subject_alt_names.push(name);
    };
    assert_eq!(check(&[SLEEP], dns), SLEEP);
    assert_has(&check(&[], |_| {}), "has 0 URI names");
    assert_has(
        &check(&[SLEEP, "spiffe://cluster.local/ns/b/sa/b"], |_| {}),
        "has 2 URI names",
    );
    assert_has(
        &check(&["https://example.com/a"], |_| {}),
        "names no identity",
    );
    assert_has(
        &check(&[&format!("{SLEEP}\0.evil")], |_| {}),
        "names no identity",
    );
    assert_has(
        &check(&["spiffe://Cluster.Local/ns/a/sa/b"], |_| {}),
        "names no identity",
    );
}

#[test]
fn dates_are_kept() {
    let past = |p: &mut CertificateParams| within(p, now() - DAY, now() - HOUR);
    assert_has(&check(&[SLEEP], past), "expired at");
    let future = |p: &mut CertificateParams| within(p, now() + HOUR, now() + DAY);
    assert_has(&check(&[SLEEP], future), "compare the clocks");
}

#[test]
fn usages_are_kept() {
    let usage = |usage| move |p: &mut CertificateParams| p.extended_key_usages = vec![usage];
    assert_eq!(
        check(&[SLEEP], usage(ExtendedKeyUsagePurpose::ClientAuth)),
        SLEEP
    );
    assert_eq!(
        check(&[SLEEP], usage(ExtendedKeyUsagePurpose::ServerAuth)),
        SLEEP
    );
    assert_has(
        &check(&[SLEEP], usage(ExtendedKeyUsagePurpose::CodeSigning)),
        "not acceptable",
    );
    let authority = |p: &mut CertificateParams| {
        p.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    };
    assert_has(&check(&[SLEEP], authority), "not acceptable");
}

#[test]
fn nobody_is_believed_without_roots() {
    let root = Workshop::root("mesh");
    let (leaf, _) = root.leaf(&[SLEEP], |_| {});
    let none = TrustBundles::default();
    assert!(none.is_empty());
    assert_has(
        &said(none.verify(std::slice::from_ref(&leaf), now())),
        "there are no roots at all",
    );
    let (other, _) = TrustBundles::of(
        &[Workshop::root("mesh").bundle("cluster.local", "")],
        "cluster.local",
        &[],
    );
    assert_has(
        &said(other.verify(std::slice::from_ref(&leaf), now())),
        "not signed by a root",
    );
    assert_has(&said(other.verify(&[], now())), "showed no certificate");
    let many = vec![leaf; LONGEST_CHAIN + 1];
    assert_has(&said(other.verify(&many, now())), "are the most");
}

#[test]
fn a_root_vouches_for_its_own_trust_domain_only() {
    let (ours, theirs) = (Workshop::root("ours"), Workshop::root("theirs"));
    let all = [
        ours.bundle("cluster.local", ""),
        theirs.bundle("partner.example", ""),
    ];
    let aliases = ["old.local".into(), "partner.example".into()];
    let (bundles, notices) = TrustBundles::of(&all, "cluster.local", &aliases);
    assert_eq!(notices, Vec::<String>::new());
    let check = |root: &Workshop, uri: &str| {
        let (leaf, _) = root.leaf(&[uri], |_| {});
        said(bundles.verify(&[leaf], now()))
    };
    let foreign = "spiffe://partner.example/ns/a/sa/b";
    assert_eq!(check(&ours, SLEEP), SLEEP);
    assert_eq!(check(&theirs, foreign), foreign);
    assert_has(&check(&theirs, SLEEP), "not signed by a root");
    assert_has(&check(&ours, foreign), "not signed by a root");
    let old = "spiffe://old.local/ns/a/sa/b";
    assert_eq!(check(&ours, old), old, "an alias");
    assert_has(&check(&theirs, old), "not signed by a root");
    assert_has(
        &check(&ours, "spiffe://nobody.local/ns/a/sa/b"),
        "of which no root is known (only of cluster.local, old.local, partner.example)",
    );
}

#[test]
fn what_is_revoked_is_refused_up_to_the_root() {
    let root = Workshop::root("root");
    let middle = root.intermediate("middle");
    let (leaf, _) = middle.leaf(&[SLEEP], |p| p.serial_number = Some(vec![0x42].into()));
    let chain = [leaf, middle.der.clone()];
    let check = |crls: &str| {
        let bundle = root.bundle("cluster.local", crls);
        let (bundles, notices) = TrustBundles::of(&[bundle], "cluster.local", &[]);
        let verdict = said(bundles.verify(&chain, now()));
        format!("{verdict} {}", notices.join(" "))
    };
    let of_middle = Facts::of(&middle.der).expect("readable").serial;
    assert_has(&check(""), SLEEP);
    assert_has(&check(&middle.revokes("43")), SLEEP);
    assert_has(&check(&middle.revokes("42")), "has been revoked");
    assert_has(&check(&root.revokes(&of_middle)), "has been revoked");
    let both = middle.revokes("43") + &root.revokes("7a");
    assert_has(&check(&both), SLEEP);
    // A list that nobody can read must not make everything good again.
    assert_has(
        &check("no list at all"),
        "nobody of trust domain cluster.local",
    );
    assert_has(
        &check("-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"),
        "nobody of trust domain cluster.local",
    );
}

#[test]
fn lists_of_two_authorities_of_one_name_do_not_mix() {
    let root = Workshop::root("root");
    let (old, new) = (root.intermediate("ca"), root.intermediate("ca"));
    let serial = |p: &mut CertificateParams| p.serial_number = Some(vec![0x42].into());
    let check = |signer: &Workshop, crls: &str| {
        let (leaf, _) = signer.leaf(&[SLEEP], serial);
        let bundle = root.bundle("cluster.local", crls);
        let (bundles, _) = TrustBundles::of(&[bundle], "cluster.local", &[]);
        // Twice: what was found out about a list is remembered.
        let chain = [leaf, signer.der.clone()];
        let first = said(bundles.verify(&chain, now()));
        assert_eq!(said(bundles.verify(&chain, now())), first);
        first
    };
    for crls in [
        old.revokes("42") + &new.revokes("43"),
        new.revokes("43") + &old.revokes("42"),
        old.revokes("42"),
    ] {
        assert_has(&check(&old, &crls), "has been revoked");
        assert_eq!(check(&new, &crls), SLEEP);
    }
}

#[test]
fn during_a_rotation_both_roots_count_and_expired_ones_do_not() {
    let (old, new) = (Workshop::root("mesh"), Workshop::root("mesh"));
    let both = Arc::new(TrustBundle {
        trust_domain: "cluster.local".into(),
        roots: (old.pem() + &new.pem()).into(),
        crls: "".into(),
    });
    let (bundles, _) = TrustBundles::of(&[both], "cluster.local", &[]);
    for root in [&old, &new] {
        let (leaf, _) = root.leaf(&[SLEEP], |_| {});
        assert_eq!(said(bundles.verify(&[leaf], now())), SLEEP);
    }
    let later = now() + 4000 * DAY;
    assert_eq!(bundles.not_after("cluster.local"), Some(now() + 3650 * DAY));
    let (leaf, _) = new.leaf(&[SLEEP], |p| within(p, now(), later + DAY));
    assert_eq!(
        said(bundles.verify(std::slice::from_ref(&leaf), now())),
        SLEEP
    );
    assert_has(&said(bundles.verify(&[leaf], later)), "every root");
}

#[test]
fn bad_roots_are_left_out_with_a_sentence() {
    let root = Workshop::root("mesh");
    let (leaf, _) = root.leaf(&[SLEEP], |_| {});
    let of = |roots: String| {
        let bundle = TrustBundle {
            trust_domain: "cluster.local".into(),
            roots: roots.into(),
            crls: "".into(),
        };
        let (bundles, notices) = TrustBundles::of(&[Arc::new(bundle)], "cluster.local", &[]);
        let verdict = said(bundles.verify(std::slice::from_ref(&leaf), now()));
        format!("{verdict}; {}", notices.join(" "))
    };
    let no_authority = crate::pem::encode("CERTIFICATE", &leaf);
    assert_has(&of(root.pem() + &no_authority), SLEEP);
    assert_has(&of(root.pem() + &no_authority), "basicConstraints");
    assert_has(&of(no_authority), "no usable root");
    assert_has(&of("nonsense".into()), "there is no certificate in it");
    let cut = root.pem().replace("-----END CERTIFICATE-----\n", "");
    assert_has(&of(cut), "certificate number 1 is not readable");
    assert_has(&of("x".repeat(2 << 20)), "longer than 1 MiB");
}

#[test]
fn a_bundle_that_cannot_be_used_leaves_the_last_good_in_force() {
    let root = Workshop::root("mesh");
    let (leaf, _) = root.leaf(&[SLEEP], |_| {});
    let chain = [leaf];
    let of = |before: &TrustBundles, roots: &str, crls: &str| {
        let bundle = Arc::new(TrustBundle {
            trust_domain: "cluster.local".into(),
            roots: roots.into(),
            crls: crls.into(),
        });
        before.followed_by(&[bundle], "cluster.local", &["old".into()])
    };
    let (good, _) = of(&TrustBundles::default(), &root.pem(), "");
    for (roots, crls) in [("no roots", ""), (root.pem().as_str(), "no list")] {
        let (next, notices) = of(&good, roots, crls);
        assert_has(&notices.concat(), "of before stay in force");
        assert_eq!(said(next.verify(&chain, now())), SLEEP);
        let (first, _) = of(&TrustBundles::default(), roots, crls);
        assert_has(&said(first.verify(&chain, now())), "nobody of trust domain");
    }
    // Another trust domain that is published no more is gone, and a good bundle replaces.
    let other = Workshop::root("other");
    let (next, notices) = of(&good, &other.pem(), "");
    assert_eq!(notices, Vec::<String>::new());
    assert_has(&said(next.verify(&chain, now())), "was not signed by");
}
