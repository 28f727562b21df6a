//! The page `/certs`, in Envoy's form: what the proxy shows to others, whom it believes, and until when. Never a key.

use super::Admin;
use jiff::Timestamp;
use lateen_identity::source::{Alarm, State};
use serde_json::{Value, json};
use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

const DAY: u64 = 24 * 60 * 60;

impl Admin {
    /// Certificates in force.
    pub(super) fn certificates(&self) -> Value {
        let Some(member) = self.shared.member.load_full() else {
            return json!({ "certificates": [] });
        };
        let svid = &member.svid;
        let shown = json!({
            "path": "<inline>",
            "serial_number": svid.serial,
            "subject_alt_names": [{ "uri": svid.id.uri() }],
            "days_until_expiration": days(svid.not_after).to_string(),
            "valid_from": text(svid.not_before),
            "expiration_time": text(svid.not_after),
        });
        let live = self.shared.live.load();
        let mut domains: Vec<&str> = live
            .snapshot
            .trust_bundles()
            .iter()
            .map(|b| &*b.trust_domain)
            .collect();
        if !domains.contains(&svid.id.trust_domain()) {
            domains.push(svid.id.trust_domain());
        }
        let roots = domains.into_iter().filter_map(|domain| {
            let until = member.bundles.not_after(domain)?;
            Some(json!({
                "path": "<inline>",
                "subject_alt_names": [{ "uri": format!("spiffe://{domain}") }],
                "days_until_expiration": days(until).to_string(),
                "expiration_time": text(until),
            }))
        });
        json!({ "certificates": [{ "ca_cert": roots.collect::<Vec<_>>(), "cert_chain": [shown] }] })
    }

    /// The certificate's state for `/config_dump` and the like; null without an identity.
    pub(super) fn identity(&self) -> Value {
        let Some(state) = self.state_of_certificate() else {
            return Value::Null;
        };
        let member = self.shared.member.load_full();
        json!({
            "id": member.as_ref().map(|m| m.svid.id.uri().to_owned()),
            "serial": member.as_ref().map(|m| m.svid.serial.clone()),
            "expiration_time": member.as_ref().map(|m| text(m.svid.not_after)),
            "generation": self.shared.generation(),
            "last_error": state.last_error,
        })
    }

    fn state_of_certificate(&self) -> Option<State> {
        Some(self.certificate.get()?.borrow().clone())
    }

    /// Metrics of the certificate in Prometheus' text format; nothing without an identity.
    pub(super) fn certificate_metrics(&self, out: &mut String) {
        let Some(state) = self.state_of_certificate() else {
            return;
        };
        let mut put = |name: &str, kind: &str, labels: &str, value: u64| {
            // Writing to a string cannot fail.
            let _ = writeln!(out, "# TYPE {name} {kind}\n{name}{labels} {value}");
        };
        if let Some(member) = self.shared.member.load_full() {
            let until = member.svid.not_after;
            let seconds = until.duration_since(UNIX_EPOCH).unwrap_or_default();
            put(
                "lateen_certificate_expiration_timestamp_seconds",
                "gauge",
                &format!("{{id=\"{}\"}}", member.svid.id),
                seconds.as_secs(),
            );
            put(
                "envoy_server_days_until_first_cert_expiring",
                "gauge",
                "",
                days(until),
            );
        }
        put(
            "lateen_certificate_generation",
            "counter",
            "",
            self.shared.generation(),
        );
        put(
            "lateen_certificate_alarm",
            "gauge",
            "",
            match state.alarm(SystemTime::now()) {
                None => 0,
                Some((Alarm::Expiring, _)) => 1,
                Some((Alarm::Expired, _)) => 2,
            },
        );
        put(
            "lateen_certificate_renewal_failed",
            "gauge",
            "",
            u64::from(state.last_error.is_some()),
        );
    }
}

fn days(until: SystemTime) -> u64 {
    let left = until.duration_since(SystemTime::now()).unwrap_or_default();
    left.as_secs() / DAY
}

fn text(time: SystemTime) -> String {
    // A certificate's dates are within the years that can be written.
    let time = Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH);
    format!("{time:.0}")
}
