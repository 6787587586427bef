//! The end that dials: whom it trusts, and what it shows.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls_pki_types::ServerName;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;

use super::known::{Demand, Verifier};
use super::secured::Secured;
use super::{HTTP_1, explain, pem, provider};
use crate::net::{Buffered, Stream};

/// Whom a client trusts to be the server that it wants.
#[derive(Clone, Copy, Debug)]
pub enum Trust<'a> {
    /// Whom the authorities of the web vouch for (Mozilla's list, as it was when this was built).
    Web,
    /// Whom one of these authorities vouches for (PEM), or who is one of them.
    Authorities(&'a [u8]),
    /// Who shows the first of these certificates (PEM), by whatever name.
    Same(&'a [u8]),
    /// Everybody. Who is on the way reads and changes all that is said.
    Anybody,
}

/// The certificate that a client shows, with what is behind it, and its key (PEM).
#[derive(Clone, Copy)]
pub struct Shown<'a> {
    pub certificates: &'a [u8],
    pub key: &'a [u8],
}

impl fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shown")
    }
}

/// How a client secures its connections. A clone is another handle to the same.
#[derive(Clone)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
    /// The name that counts, in place of the host that was dialled.
    name: Option<ServerName<'static>>,
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls").field("name", &self.name).finish_non_exhaustive()
    }
}

impl ClientTls {
    /// # Errors
    /// What is wrong with the certificates, the key or the name.
    pub fn new(
        trust: Trust<'_>,
        name: Option<&str>,
        shown: Option<Shown<'_>>,
    ) -> Result<Self, String> {
        let provider = provider();
        let demand = match trust {
            Trust::Web => Demand::of_the_web(Arc::clone(&provider))?,
            Trust::Authorities(text) => {
                Demand::authorities(pem::certificates(text)?, Arc::clone(&provider))?
            }
            Trust::Same(text) => Demand::Same(pem::certificates(text)?.swap_remove(0)),
            Trust::Anybody => Demand::Nothing,
        };
        let verifier = Verifier::new(demand, Arc::clone(&provider));
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match shown {
            None => builder.with_no_client_auth(),
            Some(Shown { certificates, key }) => builder
                .with_client_auth_cert(pem::certificates(certificates)?, pem::private_key(key)?)
                .map_err(|error| super::server::pair(&error))?,
        };
        // Who could speak HTTP/2 too is told that we do not.
        config.alpn_protocols = vec![HTTP_1.to_vec()];
        let name = name.map(server_name).transpose()?;
        Ok(Self { config: Arc::new(config), name })
    }

    /// The same connection, secured. `host` is who was dialled.
    ///
    /// # Errors
    /// The other end is not who it should be, or speaks no TLS. The caller sets the deadline.
    pub async fn connect(&self, stream: Stream, host: &str) -> io::Result<Stream> {
        let name = match &self.name {
            Some(name) => name.clone(),
            None => server_name(host).map_err(io::Error::other)?,
        };
        let connector = TlsConnector::from(Arc::clone(&self.config));
        let opened = connector.connect(name, Buffered::new(stream)).await;
        let opened = opened.map_err(explain::handshake)?;
        Ok(Stream::secured(Secured::new(opened.into())))
    }
}

/// A name or an address that a certificate can be for.
///
/// # Errors
/// It is neither.
pub fn server_name(text: &str) -> Result<ServerName<'static>, String> {
    ServerName::try_from(text.to_owned())
        .map_err(|_| format!("`{text}` is neither a host name nor an IP address"))
}
