//! Opens a connection to the primary of a database.

use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config, NoTls};
use tracing::debug;

use super::Postgres;
use crate::config::{StoreTls, StoreUrl};
use crate::net::tls::{ClientTls, Trust};
use crate::net::{Buffered, Stream};
use crate::store::StoreError;

/// How long one host may take until it can be used: another one is to have its turn.
const DIAL_WITHIN: Duration = Duration::from_secs(2);

/// The oldest server that has all that is used.
const VERSION_MIN: i32 = 130_000;

/// The request for TLS: its length, and a number in place of a version (PostgreSQL, "Message
/// Formats", `SSLRequest`).
const ASK_FOR_TLS: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// The name of PostgreSQL in a TLS handshake.
const PROTOCOL: &[u8] = b"postgresql";

/// How connections are secured.
pub(super) fn tls(url: &StoreUrl) -> Result<Option<ClientTls>, StoreError> {
    let file;
    let trust = match &url.tls {
        StoreTls::Off => return Ok(None),
        StoreTls::IfOffered | StoreTls::Always => Trust::Anybody,
        StoreTls::Verified(None) => Trust::Web,
        StoreTls::Verified(Some(path)) => {
            let refused = |error: io::Error| {
                StoreError::Refused(format!("cannot read `{}`: {error}", path.display()))
            };
            file = std::fs::read(path).map_err(refused)?;
            Trust::Authorities(&file)
        }
    };
    let tls = ClientTls::new(trust, None, None).map_err(StoreError::Refused)?;
    Ok(Some(tls.speaking(PROTOCOL)))
}

impl Postgres {
    /// Connects to the first of the hosts that is the primary, from the one that was it last. If
    /// none is, the error is that of the last host, unless an operator must do something about an
    /// earlier one.
    pub(super) async fn connect(&self) -> Result<Client, StoreError> {
        let mut last = StoreError::Away("the store has no host".to_owned());
        let (hosts, first) = (&self.url.hosts, self.first.load(Ordering::Relaxed));
        for at in (0..hosts.len()).map(|it| (first + it) % hosts.len()) {
            let (host, port) = &hosts[at];
            // Whoever asks may have less time than all hosts together: it goes on with the next.
            self.first.store(at + 1, Ordering::Relaxed);
            let late = |_elapsed| {
                let what = format!("the store at {host}:{port} does not answer");
                Err(StoreError::Away(what))
            };
            let connected = timeout(DIAL_WITHIN, self.connect_to(host, *port)).await;
            match connected.unwrap_or_else(late) {
                Ok(client) => {
                    self.first.store(at, Ordering::Relaxed);
                    return Ok(client);
                }
                Err(error) => {
                    debug!(host, port, %error, "A host of the store cannot be used.");
                    if !matches!(last, StoreError::Refused(_)) {
                        last = error;
                    }
                }
            }
        }
        Err(last)
    }

    async fn connect_to(&self, host: &str, port: u16) -> Result<Client, StoreError> {
        let away = |error: io::Error| {
            StoreError::Away(format!("cannot connect to the store at {host}:{port}: {error}"))
        };
        let stream = self.network.connect_within(host, port, DIAL_WITHIN).await.map_err(away)?;
        let stream = self.secured(stream, (host, port)).await?;
        let mut login: Config = self.url.login.clone();
        // The connection is secured already, or is not to be.
        login.ssl_mode(SslMode::Disable).application_name("mooring");
        let opened = login.connect_raw(Buffered::new(stream), NoTls).await;
        let (client, connection) = opened.map_err(|error| self.failed(&error))?;
        self.tasks.spawn(async move {
            if let Err(error) = connection.await {
                debug!(%error, "A connection to the store has ended.");
            }
        });
        self.check(&client, host).await?;
        Ok(client)
    }

    async fn secured(
        &self,
        mut stream: Stream,
        (host, port): (&str, u16),
    ) -> Result<Stream, StoreError> {
        let Some(tls) = &self.tls else { return Ok(stream) };
        let told = |error: &io::Error| format!("the store at {host}:{port}: {error}");
        let mut answer = [0];
        let asked = async {
            stream.write_all(&ASK_FOR_TLS).await?;
            stream.read_exact(&mut answer).await
        };
        asked.await.map_err(|error| StoreError::Away(told(&error)))?;
        if !matches!(&answer, b"S" | b"N") {
            // A server that cannot take a connection now answers with an error.
            return Err(StoreError::Away(format!("the store at {host}:{port} has no room now")));
        }
        if answer == *b"N" {
            return match self.url.tls {
                StoreTls::IfOffered => Ok(stream),
                StoreTls::Off | StoreTls::Always | StoreTls::Verified(_) => {
                    Err(StoreError::Refused(format!(
                        "the store at {host}:{port} has no TLS, and `sslmode` asks for it"
                    )))
                }
            };
        }
        // A certificate that is not accepted is data that is not valid.
        tls.connect(stream, host).await.map_err(|error| {
            match error.kind() == io::ErrorKind::InvalidData {
                true => StoreError::Refused(told(&error)),
                false => StoreError::Away(told(&error)),
            }
        })
    }

    /// Whether the server can be used, and is the one that takes writes.
    async fn check(&self, client: &Client, host: &str) -> Result<(), StoreError> {
        const ASK: &str = "SELECT pg_is_in_recovery(), current_setting('server_version_num')::int4";
        let row = client.query_typed_one(ASK, &[]).await.map_err(|error| self.failed(&error))?;
        let (is_standby, version): (bool, i32) = (row.get(0), row.get(1));
        if version < VERSION_MIN {
            let (has, needs) = (version / 10_000, VERSION_MIN / 10_000);
            return Err(StoreError::Refused(format!(
                "the store at {host} is PostgreSQL {has}; Mooring needs {needs} or newer"
            )));
        }
        if is_standby {
            return Err(StoreError::Away(format!("the store at {host} is a standby")));
        }
        Ok(())
    }
}
