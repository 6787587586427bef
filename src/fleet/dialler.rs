//! How one backend is reached: its address, and what is between us and it.
//!
//! Whatever is said to a backend goes over a connection from here: requests, links, tunnels, probes
//! and copies of files.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::timeout_at;

use crate::config::{BackendConfig, BackendTls};
use crate::net::{Network, Stream, now};

/// Dials one backend.
#[derive(Debug)]
pub struct Dialler {
    network: Arc<dyn Network>,
    host: String,
    port: u16,
    /// `None` is plain HTTP. It may change while the backend is there.
    tls: ArcSwap<Option<BackendTls>>,
}

impl Dialler {
    #[must_use]
    pub(super) fn new(network: Arc<dyn Network>, settings: &BackendConfig) -> Self {
        let tls = ArcSwap::from_pointee(settings.tls.clone());
        Self { network, host: settings.host.clone(), port: settings.port, tls }
    }

    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How it is spoken to.
    #[must_use]
    pub fn tls(&self) -> Arc<Option<BackendTls>> {
        self.tls.load_full()
    }

    /// New connections are made so from now on. True if those before were made otherwise.
    pub(super) fn set_tls(&self, tls: Option<&BackendTls>) -> bool {
        let is_other = self.tls.load().as_ref().as_ref() != tls;
        if is_other {
            self.tls.store(Arc::new(tls.cloned()));
        }
        is_other
    }

    /// Opens a connection within `limit`, and secures it if that is configured.
    ///
    /// # Errors
    /// What the system said, or what is wrong with the certificate of the server;
    /// [`io::ErrorKind::TimedOut`] when the time is over.
    pub async fn dial(&self, limit: Duration) -> io::Result<Stream> {
        let due = now() + limit;
        let stream = self.network.connect_within(&self.host, self.port, limit).await?;
        let tls = self.tls();
        let Some(tls) = &*tls else { return Ok(stream) };
        let client = tls.client().map_err(|why| io::Error::other(format!("TLS: {why}")))?;
        let secured = Box::pin(client.connect(stream, &self.host));
        let late = || io::Error::new(io::ErrorKind::TimedOut, "no TLS handshake in time");
        timeout_at(due.into(), secured).await.unwrap_or_else(|_elapsed| Err(late()))
    }
}
