//! How the endpoints of a cluster are called: plain, by the mesh's mutual TLS, or as a DestinationRule says.

use super::View;
use crate::decide::cluster::ClusterTls;
use crate::decide::security;
use crate::identity::SpiffeId;
use crate::tls::{ClientTls, ClientTlsMode};
use crate::workload::Workload;
use lateen_base::Str;
use std::sync::Arc;

/// How connections are secured: as the DestinationRule says, else mutual TLS where it can be had. A name of Istio's
/// form is made by `name`; `sans` are the names that the service itself gives, for rules that give none.
pub(super) fn tls(
    seen: &View<'_>,
    wanted: Option<&ClientTls>,
    sans: &[Str],
    name: impl FnOnce() -> String,
) -> ClusterTls {
    let mesh = |wanted: Option<&ClientTls>| ClusterTls::Mesh {
        server_name: match wanted.and_then(|w| w.sni.clone()) {
            Some(sni) => sni,
            None => name().into(),
        },
        sans: match wanted {
            Some(wanted) if !wanted.sans.is_empty() => wanted.sans.as_slice().into(),
            _ => sans.into(),
        },
        required: wanted.is_some(),
    };
    match wanted {
        None if seen.mesh.auto_mtls => mesh(None),
        None => ClusterTls::Plain,
        Some(tls) => match tls.mode {
            ClientTlsMode::Disable => ClusterTls::Plain,
            ClientTlsMode::IstioMutual => mesh(Some(tls)),
            ClientTlsMode::Simple | ClientTlsMode::Mutual => {
                let mut tls = tls.clone();
                if tls.sans.is_empty() {
                    tls.sans = sans.to_vec();
                }
                ClusterTls::Origin(Arc::new(tls))
            }
        },
    }
}

/// Whether an endpoint is called by mutual TLS, and who it must prove to be. Where a DestinationRule asks for mutual
/// TLS, what the server's side says of it does not count.
pub(super) fn proof(
    seen: &View<'_>,
    tls: &ClusterTls,
    workload: &Workload,
    port: u16,
) -> (bool, Option<SpiffeId>) {
    let mutual = match tls {
        ClusterTls::Plain | ClusterTls::Origin(_) => false,
        ClusterTls::Mesh { required, .. } => {
            *required || security::mutual(seen.modes, seen.mesh, workload, port)
        }
    };
    let identity = || security::identity(workload, seen.mesh);
    (mutual, mutual.then(identity).flatten())
}
