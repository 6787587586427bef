//! The store in PostgreSQL, 13 or newer.
//!
//! - `connect`: opens a connection to the primary; `failed`: what an error means
//! - [`schema`]: the tables, and the function that fences batches
//! - `lives`: joins, renews and leaves; `records`: commits and loads; `import`: a journal file
//!
//! Statements have no names, and settings end with their transaction, so that a pool of connections
//! such as PgBouncer may be in between.

mod connect;
mod failed;
mod import;
mod lives;
mod records;
pub mod schema;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::time::timeout;
use tokio_postgres::Client;

use super::{Joined, Joining, LifeId, Store, StoreError, for_size};
use crate::config::StoreUrl;
use crate::journal::record::{Batch, Saved};
use crate::net::tls::ClientTls;
use crate::net::{Boxed, Network};
use crate::tasks::Tasks;

/// How long a call may take, with the connection for it if there is none.
const CALL_WITHIN: Duration = Duration::from_secs(5);

/// How long reading everything may take.
const LOAD_WITHIN: Duration = Duration::from_secs(300);

/// A PostgreSQL database.
pub struct Postgres {
    url: StoreUrl,
    /// `None` if connections are never secured.
    tls: Option<ClientTls>,
    /// The fleet whose state is in it.
    fleet: String,
    network: Arc<dyn Network>,
    /// The connections.
    tasks: Tasks,
    /// The host that is tried first, by its place in the URL.
    first: AtomicUsize,
    commits: Line,
    /// A commit that hangs must not cost the lease.
    leases: Line,
}

/// One connection, which is opened when it is needed.
type Line = ArcSwapOption<Client>;

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Postgres {
    /// # Errors
    /// The certificates of the URL cannot be read.
    pub fn new(
        url: StoreUrl,
        fleet: String,
        network: Arc<dyn Network>,
        tasks: Tasks,
    ) -> Result<Self, StoreError> {
        let tls = connect::tls(&url)?;
        let (commits, leases) = (Line::empty(), Line::empty());
        let first = AtomicUsize::new(0);
        Ok(Self { url, tls, fleet, network, tasks, first, commits, leases })
    }

    /// Runs `call` on a line, within the time. The connection is kept only if that was done: after
    /// an error, or when nobody waits any more, what it is in the middle of must not meet the next
    /// call.
    async fn on<T>(
        &self,
        line: &Line,
        within: Duration,
        call: impl AsyncFnOnce(&Client) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let kept = line.swap(None).filter(|client| !client.is_closed());
        let mut is_asked = false;
        let asked = async {
            let client = match kept {
                Some(client) => client,
                None => Arc::new(self.connect().await?),
            };
            is_asked = true;
            Ok((call(&client).await?, client))
        };
        match timeout(within, asked).await {
            Ok(Ok((done, client))) => {
                line.store(Some(client));
                Ok(done)
            }
            Ok(Err(error)) => Err(error),
            Err(_elapsed) => {
                let what = format!("the store at {} does not answer", self.url.place());
                Err(if is_asked { StoreError::Unclear(what) } else { StoreError::Away(what) })
            }
        }
    }
}

impl Store for Postgres {
    fn join<'a>(&'a self, me: &'a Joining) -> Boxed<'a, Result<Joined, StoreError>> {
        Box::pin(self.on(&self.leases, CALL_WITHIN, async |client| {
            self.prepare(client).await?;
            lives::join(client, me).await.map_err(|error| self.failed(&error))
        }))
    }

    fn load(&self) -> Boxed<'_, Result<Saved, StoreError>> {
        Box::pin(self.on(&self.commits, LOAD_WITHIN, async |client| self.load_all(client).await))
    }

    fn renew<'a>(&'a self, life: &'a LifeId, lease: Duration) -> Boxed<'a, Result<(), StoreError>> {
        Box::pin(self.on(&self.leases, CALL_WITHIN, async move |client| {
            match lives::renew(client, life, lease).await {
                Ok(true) => Ok(()),
                Ok(false) => Err(StoreError::Over(lives::why_over(client, life).await)),
                Err(error) => Err(self.failed(&error)),
            }
        }))
    }

    fn commit<'a>(
        &'a self,
        life: &'a LifeId,
        number: u64,
        batch: Arc<Batch>,
    ) -> Boxed<'a, Result<(), StoreError>> {
        let limit = CALL_WITHIN + for_size(&batch);
        Box::pin(self.on(&self.commits, limit, async move |client| {
            let rows = records::rows_of(batch).await?;
            match records::commit(client, (life, number), &rows).await {
                Ok(()) => Ok(()),
                Err(error) if error.is_over() => {
                    Err(StoreError::Over(lives::why_over(client, life).await))
                }
                Err(error) => Err(error.told(self)),
            }
        }))
    }

    fn leave<'a>(&'a self, life: &'a LifeId) -> Boxed<'a, Result<(), StoreError>> {
        Box::pin(self.on(&self.leases, CALL_WITHIN, async |client| {
            lives::leave(client, life).await.map_err(|error| self.failed(&error))
        }))
    }
}
