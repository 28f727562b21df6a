//! What one certificate says of itself. Whether it may be believed is decided in [`crate::trust`].

use rustls_pki_types::CertificateDer;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use x509_parser::certificate::X509Certificate;
use x509_parser::time::ASN1Time;

/// Facts of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
    /// Hexadecimal, lower case, no colons.
    pub(crate) serial: String,
    pub(crate) subject: String,
    /// Whether it may sign others: CA, and its key usage (if any) says so.
    pub(crate) may_sign: bool,
    /// Whether subject and issuer are the same.
    pub(crate) self_issued: bool,
}

impl Facts {
    /// Reads them; the error says what is wrong with the certificate.
    pub(crate) fn of(der: &CertificateDer<'_>) -> Result<Self, String> {
        let parsed = parse(der)?;
        let may_sign = parsed.is_ca()
            && parsed
                .key_usage()
                .ok()
                .is_some_and(|usage| usage.is_none_or(|usage| usage.value.key_cert_sign()));
        Ok(Self {
            not_before: time(parsed.validity().not_before),
            not_after: time(parsed.validity().not_after),
            serial: parsed
                .raw_serial()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect(),
            subject: parsed.subject().to_string(),
            may_sign,
            self_issued: parsed.subject().as_raw() == parsed.issuer().as_raw(),
        })
    }

    /// Whether `now` is within its validity.
    pub(crate) fn is_current(&self, now: SystemTime) -> bool {
        self.not_before <= now && now <= self.not_after
    }
}

/// Reads a certificate whole.
pub(crate) fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, String> {
    match x509_parser::parse_x509_certificate(der) {
        Ok(([], parsed)) => Ok(parsed),
        Ok(_) => Err("bytes follow the certificate".into()),
        Err(error) => Err(error.to_string()),
    }
}

/// A time of a certificate; times before 1970 count as 1970.
pub(crate) fn time(time: ASN1Time) -> SystemTime {
    let seconds = u64::try_from(time.timestamp()).unwrap_or_default();
    UNIX_EPOCH + Duration::from_secs(seconds)
}

/// A time as UTC text, such as `2026-11-22T20:40:00Z`, for sentences.
pub(crate) fn show(time: SystemTime) -> String {
    let seconds = time
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
}

/// The date that is `days` after 1970-01-01 in the Gregorian calendar.
fn civil(days: u64) -> (u64, u64, u64) {
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    // 400 years always have the same number of days.
    let (mut year, mut rest) = (1970 + days / 146_097 * 400, days % 146_097);
    while rest >= 365 + u64::from(leap(year)) {
        rest -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [
        31,
        28 + u64::from(leap(year)),
        31,
        30,
        31,
        30,
        31,
        31,
        30,
        31,
        30,
        31,
    ];
    let mut month = 1;
    for length in lengths {
        if rest < length {
            break;
        }
        rest -= length;
        month += 1;
    }
    (year, month, rest + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_as_people_write_them() {
        let show = |seconds| show(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(show(0), "1970-01-01T00:00:00Z");
        assert_eq!(show(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(show(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(show(1_795_379_722), "2026-11-22T20:35:22Z");
        assert_eq!(show(4_102_444_800), "2100-01-01T00:00:00Z");
    }
}
