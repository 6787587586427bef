//! Verifies the certificates of servers.

use std::fmt;
use std::sync::Arc;

use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::client::{WebPkiServerVerifier, verify_server_name};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::{
    CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

use super::dates::Validity;

/// What the certificate of a server must be.
#[derive(Clone, Debug)]
pub(super) enum Demand {
    /// It was issued by one of these authorities, or it is one of these certificates. It must be
    /// for the requested name.
    ///
    /// The second case is what `openssl req -x509` makes: a certificate that is its own authority.
    /// The usual rules do not allow a server to present one.
    Known { authorities: Arc<WebPkiServerVerifier>, own: Vec<CertificateDer<'static>> },
    /// Exactly this certificate. The name does not matter.
    Same(CertificateDer<'static>),
    /// Any certificate.
    Nothing,
}

/// Verifies servers by a [`Demand`]. It always checks that the server has the key of its
/// certificate.
pub(super) struct Verifier {
    demand: Demand,
    provider: Arc<CryptoProvider>,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").finish_non_exhaustive()
    }
}

impl Verifier {
    pub(super) fn new(demand: Demand, provider: Arc<CryptoProvider>) -> Arc<Self> {
        Arc::new(Self { demand, provider })
    }
}

impl Demand {
    pub(super) fn authorities(
        certificates: Vec<CertificateDer<'static>>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        for certificate in &certificates {
            roots.add(certificate.clone()).map_err(|error| format!("cannot be used: {error}"))?;
        }
        let own = certificates;
        Self::known(roots, own, provider)
    }

    /// The public authorities that browsers trust.
    pub(super) fn of_the_web(provider: Arc<CryptoProvider>) -> Result<Self, String> {
        let roots = webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect();
        Self::known(roots, Vec::new(), provider)
    }

    fn known(
        roots: RootCertStore,
        own: Vec<CertificateDer<'static>>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, String> {
        let built = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
        let authorities = built.map_err(|error| format!("cannot be used: {error}"))?;
        Ok(Self::Known { authorities, own })
    }
}

/// Whether one of the known certificates is valid now and for this name.
fn own_is_good(
    certificate: &CertificateDer<'_>,
    name: &ServerName<'_>,
    now: UnixTime,
) -> Result<(), Error> {
    let validity = Validity::of(certificate).ok_or(CertificateError::BadEncoding)?;
    let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let unix = |at: i64| {
        let seconds = u64::try_from(at).unwrap_or(0);
        UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds))
    };
    if validity.not_after < seconds {
        let not_after = unix(validity.not_after);
        return Err(CertificateError::ExpiredContext { time: now, not_after }.into());
    }
    if seconds < validity.not_before {
        let not_before = unix(validity.not_before);
        return Err(CertificateError::NotValidYetContext { time: now, not_before }.into());
    }
    verify_server_name(&ParsedCertificate::try_from(certificate)?, name)
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        stapled: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match &self.demand {
            Demand::Known { own, .. } if own.contains(end_entity) => {
                own_is_good(end_entity, name, now).map(|()| ServerCertVerified::assertion())
            }
            Demand::Known { authorities, .. } => {
                authorities.verify_server_cert(end_entity, intermediates, name, stapled, now)
            }
            Demand::Same(certificate) if certificate == end_entity => {
                Ok(ServerCertVerified::assertion())
            }
            // This error is used for nothing else, so its text can describe this case only.
            Demand::Same(_) => Err(CertificateError::ApplicationVerificationFailure.into()),
            Demand::Nothing => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
