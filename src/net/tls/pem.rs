//! Reads certificates and keys from files (PEM, RFC 7468).

use rustls_pki_types::pem::{Error, PemObject as _};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// All certificates of a text, in their order. There is at least one.
///
/// # Errors
/// The text has no certificate, or a damaged one.
pub fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    let certificates = read.map_err(|error| format!("is no PEM text: {}", what(&error)))?;
    if certificates.is_empty() {
        return Err("has no certificate (`-----BEGIN CERTIFICATE-----`)".to_owned());
    }
    Ok(certificates)
}

/// The first private key of a text. An error never contains any part of it.
///
/// # Errors
/// The text has no key, or one that is damaged or encrypted.
pub fn private_key(text: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    const ENCRYPTED: &[u8] = b"-----BEGIN ENCRYPTED PRIVATE KEY-----";
    let is_encrypted = text.windows(ENCRYPTED.len()).any(|part| part == ENCRYPTED);
    match PrivateKeyDer::from_pem_slice(text) {
        Ok(key) => Ok(key),
        Err(_) if is_encrypted => {
            Err("is encrypted: write it without a password (`openssl pkey -in … -out …`)"
                .to_owned())
        }
        Err(Error::NoItemsFound) => {
            Err("has no private key (`-----BEGIN PRIVATE KEY-----`)".to_owned())
        }
        Err(error) => Err(format!("is no PEM text: {}", what(&error))),
    }
}

/// Describes the error without quoting the text, which may contain a key.
#[expect(clippy::wildcard_enum_match_arm, reason = "there may be others some day")]
fn what(error: &Error) -> &'static str {
    match error {
        Error::MissingSectionEnd { .. } => "a section has no end",
        Error::IllegalSectionStart { .. } => "a line that begins a section is damaged",
        Error::Base64Decode(_) => "its base64 is damaged",
        Error::NoItemsFound => "nothing is in it",
        Error::SectionTooLarge => "a section is too large",
        _ => "it cannot be read",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_holds_nothing_says_what_was_looked_for() {
        assert!(certificates(b"").unwrap_err().contains("BEGIN CERTIFICATE"));
        assert!(private_key(b"").unwrap_err().contains("BEGIN PRIVATE KEY"));
        let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
        assert!(certificates(key.as_bytes()).unwrap_err().contains("has no certificate"));
        assert!(private_key(key.as_bytes()).is_ok());
    }

    #[test]
    fn a_damaged_text_is_told_without_its_content() {
        let cut = b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n";
        let told = private_key(cut).unwrap_err();
        assert_eq!(told, "is no PEM text: a section has no end");
        let odd = b"-----BEGIN CERTIFICATE-----\nc2Vjc!\n-----END CERTIFICATE-----\n";
        assert_eq!(certificates(odd).unwrap_err(), "is no PEM text: its base64 is damaged");
        let locked = b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAA==\n\
                       -----END ENCRYPTED PRIVATE KEY-----\n";
        assert!(private_key(locked).unwrap_err().contains("is encrypted"));
    }
}
