//! TLS settings.

use super::{name, text};
use lateen_model::tls::*;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

pub fn version() -> impl Strategy<Value = TlsVersion> {
    select(vec![TlsVersion::V1_2, TlsVersion::V1_3])
}

fn files() -> impl Strategy<Value = CertificateFiles> {
    let path = || option::of(text());
    (path(), path(), path(), path()).prop_map(|(chain, key, ca, crl)| CertificateFiles {
        chain,
        key,
        ca,
        crl,
    })
}

pub fn client() -> impl Strategy<Value = ClientTls> {
    let mode = select(vec![
        ClientTlsMode::Disable,
        ClientTlsMode::Simple,
        ClientTlsMode::Mutual,
        ClientTlsMode::IstioMutual,
    ]);
    (
        (mode, vec(text(), 0..3), option::of(text())),
        (option::of(name()), files(), any::<bool>()),
    )
        .prop_map(|(a, b)| ClientTls {
            mode: a.0,
            sans: a.1,
            sni: a.2,
            credential: b.0,
            files: b.1,
            skip_verify: b.2,
        })
}

pub fn server() -> impl Strategy<Value = ServerTls> {
    let mode = select(vec![
        ServerTlsMode::Simple,
        ServerTlsMode::Mutual,
        ServerTlsMode::OptionalMutual,
        ServerTlsMode::IstioMutual,
    ]);
    let names = || vec(text(), 0..3);
    (
        (mode, names(), option::of(text()), vec(files(), 0..3)),
        (names(), names(), names(), names()),
        (version(), version(), any::<bool>()),
    )
        .prop_map(|(a, b, c)| ServerTls {
            mode: a.0,
            credentials: a.1,
            ca_credential: a.2,
            files: a.3,
            sans: b.0,
            spki: b.1,
            hashes: b.2,
            curves: b.3.iter().rev().cloned().collect(),
            ciphers: b.3,
            min: c.0,
            max: c.1,
            skip_verify: c.2,
        })
}
