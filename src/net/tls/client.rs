//! The side that dials: which servers it trusts, and which certificate it presents.

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

/// Which servers a client trusts.
#[derive(Clone, Copy, Debug)]
pub enum Trust<'a> {
    /// Those with a certificate from a public authority (Mozilla's list at the time of the build).
    Web,
    /// Those with a certificate from one of these authorities (PEM), or with one of these
    /// certificates.
    Authorities(&'a [u8]),
    /// Those that present the first of these certificates (PEM). The name does not matter.
    Same(&'a [u8]),
    /// All. Anybody between both ends can read and change the data.
    Anybody,
}

/// The certificate that a client presents, with its chain, and its key (PEM).
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

/// The TLS settings of a client. A clone shares them.
#[derive(Clone)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
    /// The name that the certificate must have, instead of the host that was dialled.
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
        // Tells a server which also speaks HTTP/2 that we do not.
        config.alpn_protocols = vec![HTTP_1.to_vec()];
        let name = name.map(server_name).transpose()?;
        Ok(Self { config: Arc::new(config), name })
    }

    /// The same for a server of this protocol, as it is named in the handshake.
    #[must_use]
    pub fn speaking(self, protocol: &[u8]) -> Self {
        let mut config = (*self.config).clone();
        config.alpn_protocols = vec![protocol.to_vec()];
        Self { config: Arc::new(config), ..self }
    }

    /// Adds TLS to a connection. `host` is the host that was dialled.
    ///
    /// # Errors
    /// The server's certificate is not accepted, or it does not speak TLS. The caller sets the
    /// deadline.
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

/// A host name or an address, in the form in which certificates are checked for it.
///
/// # Errors
/// The text is neither.
pub fn server_name(text: &str) -> Result<ServerName<'static>, String> {
    ServerName::try_from(text.to_owned())
        .map_err(|_| format!("`{text}` is neither a host name nor an IP address"))
}
