//! TLS over a connection, for servers that are known by their own authority.

use std::io;
use std::sync::Arc;

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::Stream;

/// The same connection, secured: at its other end is a server of that name (or address) that one of
/// these certificates (PEM) vouches for.
///
/// # Errors
/// The certificates cannot be read, or the server is not who it should be.
pub async fn secured(stream: Stream, name: &str, roots: &[u8]) -> io::Result<Stream> {
    let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
    let connector = TlsConnector::from(Arc::new(config(roots)?));
    Ok(Stream::simulated(connector.connect(name, stream).await?))
}

fn config(roots: &[u8]) -> io::Result<ClientConfig> {
    let mut trusted = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(roots) {
        let certificate = certificate.map_err(io::Error::other)?;
        trusted.add(certificate).map_err(io::Error::other)?;
    }
    if trusted.is_empty() {
        return Err(io::Error::other("there is no certificate of an authority"));
    }
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    Ok(config.with_root_certificates(trusted).with_no_client_auth())
}
