//! What is counted of the CA, under the names that Istio gives it.

use super::{Counter, Family, Gauge, Page};

/// Counters and dates of the CA.
#[derive(Debug, Default)]
pub struct Authority {
    /// Requests for certificates.
    pub requests: Counter,
    /// Certificates given.
    pub issued: Counter,
    /// Calls without proof of who calls, of any service on the secured port.
    pub authentication_failures: Counter,
    /// Certificate requests that could not be read.
    pub csr_errors: Counter,
    /// Requests that could not be signed, by kind of error.
    pub sign_errors: Family,
    /// Secrets of the CA that could not be used.
    pub load_errors: Counter,
    /// When the root of the signing CA ends, in seconds since 1970; 0: there is none.
    pub root_expiry: Gauge,
    /// When the first certificate from the signing CA to its root ends, likewise.
    pub chain_expiry: Gauge,
}

impl Authority {
    pub(super) fn render(&self, page: &mut Page) {
        for (name, counter) in [
            ("csr_count", &self.requests),
            ("success_cert_issuance_count", &self.issued),
            (
                "authentication_failure_count",
                &self.authentication_failures,
            ),
            ("csr_parsing_err_count", &self.csr_errors),
            ("ca_load_err_count", &self.load_errors),
        ] {
            page.counter(&format!("citadel_server_{name}"), counter.value());
        }
        page.family(
            "citadel_server_csr_sign_err_count",
            "error",
            &self.sign_errors.snapshot(),
        );
        let root = self.root_expiry.value();
        page.gauge("citadel_server_root_cert_expiry_timestamp", root as f64);
        let chain = self.chain_expiry.value();
        page.gauge("citadel_server_cert_chain_expiry_timestamp", chain as f64);
    }
}
