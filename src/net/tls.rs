//! TLS 1.2 and 1.3, as client and as server (rustls, with the cryptography of ring).
//!
//! - [`client`]: the side that dials, and the certificates that it trusts
//! - [`server`]: the side that listens, and the certificate that it presents
//! - [`pem`]: certificates and keys in files; [`dates`]: how long they are valid
//! - `explain`: error texts that tell an operator what is wrong

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

/// The name of HTTP/2 in a TLS handshake (RFC 7301 section 6, RFC 9113 section 3.1).
pub(in crate::net) const HTTP_2: &[u8] = b"h2";
const HTTP_1: &[u8] = b"http/1.1";

/// The provider of cryptography for all connections.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Adds TLS to a connection. The server must present a certificate for `name` (a host name or an
/// address) that one of the certificates in `roots` (PEM) confirms.
///
/// # Errors
/// The certificates cannot be read, or the server's certificate is not accepted.
pub async fn secured(stream: Stream, name: &str, roots: &[u8]) -> io::Result<Stream> {
    let tls = ClientTls::new(Trust::Authorities(roots), None, None).map_err(io::Error::other)?;
    tls.connect(stream, name).await
}
