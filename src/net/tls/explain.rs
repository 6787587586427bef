//! Explains TLS errors in words that tell an operator what to do.

use std::io;

use rustls_pki_types::UnixTime;
use tokio_rustls::rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};

use super::dates::shown;

/// A failed handshake: an error of the same kind, with an explanation.
pub(super) fn handshake(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return io::Error::new(error.kind(), "TLS: it closed the connection in the handshake");
    }
    later(error)
}

/// The same for an error after the handshake. In TLS 1.3 a server may refuse a client's certificate
/// only after it (RFC 8446 section 4.4.2).
pub(super) fn later(error: io::Error) -> io::Error {
    let told = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()).map(tls);
    told.map_or(error, |told| io::Error::new(io::ErrorKind::InvalidData, format!("TLS: {told}")))
}

/// Explains a TLS error.
#[expect(clippy::wildcard_enum_match_arm, reason = "few of very many have words of their own")]
fn tls(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(bad) => certificate(bad),
        Error::InvalidMessage(_) => {
            "the server does not speak TLS: is the URL `http://`?".to_owned()
        }
        Error::AlertReceived(alert) => match alert {
            AlertDescription::CertificateRequired => {
                "it asks for a client certificate: set `client_cert` and `client_key`".to_owned()
            }
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateExpired
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::AccessDenied => {
                format!("it refuses our certificate (`client_cert`): {alert:?}")
            }
            AlertDescription::UnrecognisedName => {
                "it does not know the host name of the request: see `server_name`".to_owned()
            }
            other => format!("it refuses the connection: {other:?}"),
        },
        Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13) => {
            "it speaks neither TLS 1.2 nor 1.3".to_owned()
        }
        other => other.to_string(),
    }
}

/// Explains what is wrong with a certificate.
#[expect(clippy::wildcard_enum_match_arm, reason = "few of very many have words of their own")]
pub(super) fn certificate(bad: &CertificateError) -> String {
    match bad {
        CertificateError::Expired => "its certificate has expired".to_owned(),
        CertificateError::ExpiredContext { not_after, .. } => {
            format!("its certificate has expired on {}", at(*not_after))
        }
        CertificateError::NotValidYet => "its certificate is not valid yet".to_owned(),
        CertificateError::NotValidYetContext { not_before, .. } => {
            let from = at(*not_before);
            format!("its certificate is not valid before {from}: is a clock wrong?")
        }
        CertificateError::UnknownIssuer => {
            "no trusted authority has issued its certificate: set `ca`".to_owned()
        }
        CertificateError::ApplicationVerificationFailure => {
            "it presents another certificate than its file has: it may not have read a renewed \
             certificate yet, or the file is wrong"
                .to_owned()
        }
        CertificateError::BadSignature => {
            "it was not issued by the authority of `ca` that has the name of its issuer".to_owned()
        }
        CertificateError::NotValidForName => {
            "its certificate is for another name: see `server_name`".to_owned()
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            let expected = expected.to_str();
            let names = match presented.as_slice() {
                [] => "none that can be read".to_owned(),
                names => names.join(", "),
            };
            format!(
                "its certificate is not for `{expected}` but for {names}: `server_name` names what \
                 it is for"
            )
        }
        other => format!("its certificate cannot be used: {other}"),
    }
}

fn at(time: UnixTime) -> String {
    shown(i64::try_from(time.as_secs()).unwrap_or(i64::MAX))
}
