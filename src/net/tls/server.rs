//! The side that listens: which certificate it presents, and which clients it accepts.

use std::fmt;
use std::io;
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{Error, InconsistentKeys, RootCertStore, ServerConfig};

use super::dates::NotAfter;
use super::secured::Secured;
use super::{HTTP_1, HTTP_2, pem, provider};
use crate::net::{Buffered, Stream};

/// The first byte of every TLS connection: the type of a handshake record (RFC 8446 section 5.1).
/// No method of HTTP begins with it.
pub const FIRST_BYTE: u8 = 0x16;

/// The TLS settings of a listener. A clone shares them.
#[derive(Clone)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
    not_after: NotAfter,
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

/// The parts of a listener's settings, to say which of them is wrong.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Part {
    Certificate,
    Key,
    ClientAuthorities,
}

impl ServerTls {
    /// Creates the settings from the certificate followed by its chain, its key, and the
    /// authorities of clients if clients need a certificate (all PEM).
    ///
    /// # Errors
    /// What is wrong, and in which part.
    pub fn new(
        certificates: &[u8],
        key: &[u8],
        client_authorities: Option<&[u8]>,
    ) -> Result<Self, (Part, String)> {
        let provider = provider();
        let chain = pem::certificates(certificates).map_err(|what| (Part::Certificate, what))?;
        let key = pem::private_key(key).map_err(|what| (Part::Key, what))?;
        let unreadable = || (Part::Certificate, "is no X.509 certificate".to_owned());
        let not_after = NotAfter::of(&chain).ok_or_else(unreadable)?;
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| (Part::Certificate, error.to_string()))?;
        let builder = match client_authorities {
            None => builder.with_no_client_auth(),
            Some(text) => {
                let of_clients = |what: String| (Part::ClientAuthorities, what);
                let mut roots = RootCertStore::empty();
                for it in pem::certificates(text).map_err(of_clients)? {
                    roots
                        .add(it)
                        .map_err(|error| of_clients(format!("cannot be used: {error}")))?;
                }
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                builder.with_client_cert_verifier(
                    verifier.map_err(|error| of_clients(error.to_string()))?,
                )
            }
        };
        let config = builder.with_single_cert(chain, key);
        let mut config = config.map_err(|error| (Part::Key, pair(&error)))?;
        config.alpn_protocols = vec![HTTP_2.to_vec(), HTTP_1.to_vec()];
        // A browser that reconnects can skip most of the handshake. New settings get a new
        // ticketer, so that nobody is accepted because of certificates that do not count any more.
        if let Ok(ticketer) = ring::Ticketer::new() {
            config.ticketer = ticketer;
        }
        Ok(Self { config: Arc::new(config), not_after })
    }

    /// When the certificates of the listener expire.
    #[must_use]
    pub fn not_after(&self) -> NotAfter {
        self.not_after
    }

    /// Does the handshake of an accepted connection. Some of its bytes may have been read already.
    /// The caller sets the deadline.
    ///
    /// # Errors
    /// The client does not speak TLS or no supported version of it, or it is not accepted.
    pub async fn accept(&self, conn: Buffered) -> io::Result<Stream> {
        let opened = TlsAcceptor::from(Arc::clone(&self.config)).accept(conn).await?;
        Ok(Stream::secured(Secured::new(opened.into())))
    }
}

/// Explains why a certificate and a key do not fit together.
#[expect(clippy::wildcard_enum_match_arm, reason = "few of very many have words of their own")]
pub(super) fn pair(error: &Error) -> String {
    match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            "is not the key of the certificate".to_owned()
        }
        Error::InvalidCertificate(bad) => format!("cannot be used with its certificate: {bad}"),
        other => format!("cannot be used: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn pair_of(name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    #[test]
    fn a_pair_that_is_none_says_which_of_it_is_wrong() {
        let (certificate, key) = pair_of("gw");
        let (_, other) = pair_of("gw");
        let made = |certificate: &str, key: &str, ca: Option<&str>| {
            let ca = ca.map(str::as_bytes);
            ServerTls::new(certificate.as_bytes(), key.as_bytes(), ca).map(|_| ())
        };
        assert_eq!(made(&certificate, &key, None), Ok(()));
        assert_eq!(made(&certificate, &key, Some(&certificate)), Ok(()));
        let told = made(&certificate, &other, None).unwrap_err();
        assert_eq!(told, (Part::Key, "is not the key of the certificate".to_owned()));
        assert_eq!(made(&key, &key, None).unwrap_err().0, Part::Certificate);
        assert_eq!(made(&certificate, &certificate, None).unwrap_err().0, Part::Key);
        let told = made(&certificate, &key, Some(&key)).unwrap_err();
        assert_eq!(told.0, Part::ClientAuthorities);
    }
}
