//! The first step of a connection on a listener that speaks TLS.
//!
//! A handshake shares the time limit of the first head. The connection's own task waits for it, so
//! a slow one delays nobody else.

use tracing::debug;

use super::Stopping;
use super::heads::Heads;
use crate::net::Buffered;
use crate::net::tls::ServerTls;
use crate::net::tls::server::FIRST_BYTE;

/// What becomes of a connection that should be secured.
#[derive(Debug)]
pub enum Opened {
    Secured(Buffered),
    /// Its client speaks something else. The connection, with what was read of it.
    Plain(Buffered),
    /// It has ended, or nobody is to be let in on it.
    Failed,
}

/// Secures a connection of which nothing was read.
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
