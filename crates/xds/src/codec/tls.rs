//! TLS settings of both ends.

use super::parts::{Read, known, optional, strs, texts};
use lateen_base::Str;
use lateen_model::tls::{
    CertificateFiles, ClientTls, ClientTlsMode, ServerTls, ServerTlsMode, TlsVersion,
};
use lateen_proto::mesh as proto;

pub(super) fn encode_client(from: &ClientTls) -> proto::ClientTls {
    proto::ClientTls {
        mode: match from.mode {
            ClientTlsMode::Disable => proto::ClientTlsMode::Disable,
            ClientTlsMode::Simple => proto::ClientTlsMode::Simple,
            ClientTlsMode::Mutual => proto::ClientTlsMode::Mutual,
            ClientTlsMode::IstioMutual => proto::ClientTlsMode::IstioMutual,
        }
        .into(),
        sans: texts(&from.sans),
        sni: optional(&from.sni),
        credential: optional(&from.credential),
        files: Some(encode_files(&from.files)),
        skip_verify: from.skip_verify,
    }
}

pub(super) fn decode_client(from: proto::ClientTls) -> Read<ClientTls> {
    let mode = match from.mode() {
        proto::ClientTlsMode::Unspecified => None,
        proto::ClientTlsMode::Disable => Some(ClientTlsMode::Disable),
        proto::ClientTlsMode::Simple => Some(ClientTlsMode::Simple),
        proto::ClientTlsMode::Mutual => Some(ClientTlsMode::Mutual),
        proto::ClientTlsMode::IstioMutual => Some(ClientTlsMode::IstioMutual),
    };
    Ok(ClientTls {
        mode: known(mode, from.mode, "mode")?,
        sans: strs(from.sans),
        sni: from.sni.map(Into::into),
        credential: from.credential.map(Into::into),
        files: from.files.map(decode_files).unwrap_or_default(),
        skip_verify: from.skip_verify,
    })
}

pub(super) fn encode_server(from: &ServerTls) -> proto::ServerTls {
    proto::ServerTls {
        mode: match from.mode {
            ServerTlsMode::Simple => proto::ServerTlsMode::Simple,
            ServerTlsMode::Mutual => proto::ServerTlsMode::Mutual,
            ServerTlsMode::OptionalMutual => proto::ServerTlsMode::OptionalMutual,
            ServerTlsMode::IstioMutual => proto::ServerTlsMode::IstioMutual,
        }
        .into(),
        credentials: texts(&from.credentials),
        ca_credential: optional(&from.ca_credential),
        files: from.files.iter().map(encode_files).collect(),
        sans: texts(&from.sans),
        spki: texts(&from.spki),
        hashes: texts(&from.hashes),
        min: version(from.min),
        max: version(from.max),
        ciphers: texts(&from.ciphers),
        curves: texts(&from.curves),
        skip_verify: from.skip_verify,
    }
}

pub(super) fn decode_server(from: proto::ServerTls) -> Read<ServerTls> {
    let mode = match from.mode() {
        proto::ServerTlsMode::Unspecified => None,
        proto::ServerTlsMode::Simple => Some(ServerTlsMode::Simple),
        proto::ServerTlsMode::Mutual => Some(ServerTlsMode::Mutual),
        proto::ServerTlsMode::OptionalMutual => Some(ServerTlsMode::OptionalMutual),
        proto::ServerTlsMode::IstioMutual => Some(ServerTlsMode::IstioMutual),
    };
    Ok(ServerTls {
        mode: known(mode, from.mode, "mode")?,
        credentials: strs(from.credentials),
        ca_credential: from.ca_credential.map(Into::into),
        files: from.files.into_iter().map(decode_files).collect(),
        sans: strs(from.sans),
        spki: strs(from.spki),
        hashes: strs(from.hashes),
        min: read_version(from.min, "min")?,
        max: read_version(from.max, "max")?,
        ciphers: strs(from.ciphers),
        curves: strs(from.curves),
        skip_verify: from.skip_verify,
    })
}

pub(super) fn version(from: TlsVersion) -> i32 {
    match from {
        TlsVersion::V1_2 => proto::TlsVersion::TlsVersion12,
        TlsVersion::V1_3 => proto::TlsVersion::TlsVersion13,
    }
    .into()
}

pub(super) fn read_version(from: i32, field: &str) -> Read<TlsVersion> {
    let version = match proto::TlsVersion::try_from(from).ok() {
        None | Some(proto::TlsVersion::Unspecified) => None,
        Some(proto::TlsVersion::TlsVersion12) => Some(TlsVersion::V1_2),
        Some(proto::TlsVersion::TlsVersion13) => Some(TlsVersion::V1_3),
    };
    known(version, from, field)
}

fn encode_files(from: &CertificateFiles) -> proto::CertificateFiles {
    proto::CertificateFiles {
        chain: optional(&from.chain),
        key: optional(&from.key),
        ca: optional(&from.ca),
        crl: optional(&from.crl),
    }
}

fn decode_files(from: proto::CertificateFiles) -> CertificateFiles {
    let path = |p: Option<String>| p.map(Str::from);
    CertificateFiles {
        chain: path(from.chain),
        key: path(from.key),
        ca: path(from.ca),
        crl: path(from.crl),
    }
}
