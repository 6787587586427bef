//! Reads how long a certificate is valid.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// The start and the end of a certificate's validity, in seconds since 1970 (RFC 5280 section
/// 4.1.2.5).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Validity {
    pub not_before: i64,
    pub not_after: i64,
}

impl Validity {
    /// Reads it from a certificate. `None` if the data is not a certificate.
    #[must_use]
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, read) = X509Certificate::from_der(certificate.as_ref()).ok()?;
        let validity = read.validity();
        let (not_before, not_after) =
            (validity.not_before.timestamp(), validity.not_after.timestamp());
        Some(Self { not_before, not_after })
    }
}

/// When the certificates of a listener expire, in seconds since 1970.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NotAfter {
    /// The listener's own certificate.
    pub own: i64,
    /// The first to expire of the whole chain.
    pub chain: i64,
}

impl NotAfter {
    /// Reads a chain that begins with the listener's own certificate. `None` if one cannot be read.
    #[must_use]
    pub fn of(chain: &[CertificateDer<'_>]) -> Option<Self> {
        let all = chain.iter().map(|it| Some(Validity::of(it)?.not_after));
        let all: Vec<i64> = all.collect::<Option<_>>()?;
        Some(Self { own: *all.first()?, chain: *all.iter().min()? })
    }
}

/// The time in readable form: `Sun, 29 Nov 2026 12:00:00 GMT`.
#[must_use]
pub fn shown(unix_seconds: i64) -> String {
    let seconds = u64::try_from(unix_seconds).unwrap_or(0);
    // The formatter cannot write a later time.
    const YEAR_9999: u64 = 253_402_300_799;
    let at: SystemTime = UNIX_EPOCH + Duration::from_secs(seconds.min(YEAR_9999));
    httpdate::fmt_http_date(at)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn until(year: i32) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec!["gw".to_owned()]).unwrap();
        params.not_after = date_time_ymd(year, 1, 1);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().into()
    }

    #[test]
    fn a_chain_holds_until_its_first_certificate_does_not() {
        let chain = [until(2050), until(2049), until(2051)];
        let ends = NotAfter::of(&chain).unwrap();
        assert_eq!(shown(ends.own), "Sat, 01 Jan 2050 00:00:00 GMT");
        assert_eq!(shown(ends.chain), "Fri, 01 Jan 2049 00:00:00 GMT");
        assert_eq!(NotAfter::of(&[]), None);
        assert_eq!(NotAfter::of(&[CertificateDer::from(vec![1, 2, 3])]), None);
    }

    #[test]
    fn any_moment_can_be_shown() {
        for at in [i64::MIN, -1, 0, i64::MAX] {
            assert!(shown(at).ends_with("GMT"));
        }
    }
}
