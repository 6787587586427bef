//! TLS 1.2 and 1.3 over a connection, on both of its ends (rustls, with the cryptography of ring).
//!
//! - [`client`]: who dials, and whom he trusts
//! - [`server`]: who listens, and what he shows
//! - [`pem`]: certificates and keys, as files have them; [`dates`]: until when they hold
//! - `explain`: what is wrong, in words of an operator

pub mod client;
pub mod dates;
mod explain;
mod known;
pub mod pem;
pub(in crate::net) mod secured;
pub mod server;

use std::io;
use std::sync::Arc;

use tokio_rustls::rustls::crypto::{CryptoProvider, ring};

use super::Stream;
pub use client::{ClientTls, Trust};
pub use server::ServerTls;

/// What HTTP is called in a handshake (RFC 7301 section 6, RFC 9113 section 3.1).
pub(in crate::net) const HTTP_2: &[u8] = b"h2";
const HTTP_1: &[u8] = b"http/1.1";

/// The one provider of cryptography.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// The same connection, secured: at its other end is a server of that name (or address) that one of
/// these certificates (PEM) vouches for.
///
/// # Errors
/// The certificates cannot be read, or the server is not who it should be.
pub async fn secured(stream: Stream, name: &str, roots: &[u8]) -> io::Result<Stream> {
    let tls = ClientTls::new(Trust::Authorities(roots), None, None).map_err(io::Error::other)?;
    tls.connect(stream, name).await
}
