//! PeerAuthentications: ports and selector.

use super::Findings;
use super::attachment::selector;
use crate::meta::Config;
use crate::notice::{Notice, Subject};
use crate::path;
use crate::peer_authentication::PeerAuthentication;

/// Validates a PeerAuthentication.
pub fn peer_authentication(config: &Config<PeerAuthentication>) -> Vec<Notice> {
    let spec = &config.spec;
    let mut findings = Findings::new(Subject::new("PeerAuthentication", &config.meta));
    let f = &mut findings;
    if let Some(labels) = &spec.selector {
        selector(f, labels);
    }
    let selects = spec
        .selector
        .as_ref()
        .is_some_and(|s| !s.match_labels.is_empty());
    if !spec.port_level_mtls.is_empty() && !selects {
        f.error(
            "spec.portLevelMtls",
            "needs a selector: ports belong to workloads, name them by their labels",
        );
    }
    for port in spec.port_level_mtls.keys() {
        if !port.parse::<u16>().is_ok_and(|number| number > 0) {
            f.error(
                path::key("spec.portLevelMtls", port),
                format!("{port:?} is not a port; use the workload's port number, 1 to 65535"),
            );
        }
    }
    findings.notices
}
