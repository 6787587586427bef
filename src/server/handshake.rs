//! The first step of a connection on a listener that speaks TLS.
//!
//! A handshake and the first head share one time limit. The connection's own task waits for the
//! handshake, so a slow one delays nothing else.

use tracing::debug;

use super::Stopping;
use super::heads::Heads;
use crate::net::Buffered;
use crate::net::tls::ServerTls;
use crate::net::tls::server::FIRST_BYTE;

/// The result of a handshake.
#[derive(Debug)]
pub enum Opened {
    Secured(Buffered),
    /// The client does not speak TLS. Gives the connection with the bytes that were read from it.
    Plain(Buffered),
    /// The connection has ended, or the client was not accepted.
    Failed,
}

/// Does the handshake of a connection from which nothing was read yet.
pub async fn open(
    mut conn: Buffered,
    tls: &ServerTls,
    heads: &mut Heads,
    stopping: &mut Stopping<'_>,
) -> Opened {
    if !heads.more(&mut conn, stopping).await {
        return Opened::Failed;
    }
    if conn.read.first() != Some(&FIRST_BYTE) {
        return Opened::Plain(conn);
    }
    match heads.before_the_first(stopping, tls.accept(conn)).await {
        Some(Ok(stream)) => Opened::Secured(Buffered::new(stream)),
        Some(Err(error)) => {
            debug!(%error, "A TLS handshake failed.");
            Opened::Failed
        }
        None => Opened::Failed,
    }
}
