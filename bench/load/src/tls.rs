//! TLS towards a proxy, with its certificate as the only one that is trusted.

use std::io;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::args::{Args, wrong};

/// The name that the certificate of `bench/run` is for.
const NAME: &str = "comfy.example";

pub struct Tls(TlsConnector);

impl Tls {
    /// For `--tls FILE`, a certificate; `None` without it.
    pub fn of(args: &Args) -> io::Result<Option<Self>> {
        let Some(file) = args.text("tls") else { return Ok(None) };
        let certificate = CertificateDer::from_pem_file(file)
            .map_err(|error| wrong(format!("--tls {file}: {error}")))?;
        let mut roots = RootCertStore::empty();
        roots.add(certificate).map_err(|error| wrong(format!("--tls {file}: {error}")))?;
        let mut config =
            ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Some(Self(TlsConnector::from(Arc::new(config)))))
    }

    pub async fn connect(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(NAME).map_err(|error| wrong(error.to_string()))?;
        self.0.connect(name, stream).await
    }
}
