//! Keeps the journal's records in a database, so that a gateway needs no disk of its own.
//!
//! Several processes can reach a store, and only one may act on its records. So a process joins the
//! store with a *life* of its own: a row that it renews while it runs. A process that starts while
//! another life is renewed is refused. A life that was not renewed in time is *buried* by the next
//! process: its row is deleted, and nothing that it writes is taken any more (`MO001`).
//!
//! - [`Store`]: what a database must do; [`postgres`] is the one there is
//! - [`joining`]: begins a life; [`keeping`]: renews it, ends it, and writes the journal with it
//! - `process`: proves that an earlier process of this machine has ended

pub mod joining;
pub mod keeping;
pub mod postgres;
mod process;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::journal::record::{Batch, Saved};
use crate::net::Boxed;

/// The name of one run of a process, as a UUID.
pub type LifeId = Arc<str>;

/// A database that keeps the records. Every call has a deadline, and each is done whole or not at
/// all.
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// Buries the lives of which the caller knows that they are over. Then begins a life, unless
    /// another one is left.
    ///
    /// # Errors
    /// The store cannot be used.
    fn join<'a>(&'a self, me: &'a Joining) -> Boxed<'a, Result<Joined, StoreError>>;

    /// Everything that was committed.
    ///
    /// # Errors
    /// It cannot be read, is damaged, or is of a newer Mooring.
    fn load(&self) -> Boxed<'_, Result<Saved, StoreError>>;

    /// Renews a life: it holds for `lease` from now on.
    ///
    /// # Errors
    /// [`StoreError::Over`] if it was buried.
    fn renew<'a>(&'a self, life: &'a LifeId, lease: Duration) -> Boxed<'a, Result<(), StoreError>>;

    /// Makes a batch durable. Its number is higher than that of each earlier one of this life. A
    /// batch that arrives after a later one is not written.
    ///
    /// # Errors
    /// [`StoreError::Over`] if the life was buried: nothing is written.
    fn commit<'a>(
        &'a self,
        life: &'a LifeId,
        number: u64,
        batch: Arc<Batch>,
    ) -> Boxed<'a, Result<(), StoreError>>;

    /// Ends a life, so that the next process need not wait.
    ///
    /// # Errors
    /// The store cannot be reached: the life ends with its lease.
    fn leave<'a>(&'a self, life: &'a LifeId) -> Boxed<'a, Result<(), StoreError>>;
}

/// How much longer a batch may take because of its size: 5,000 records and 2 MB a second at least.
fn for_size(batch: &Batch) -> Duration {
    let millis = batch.len() / 5 + batch.body_bytes() / 2_000;
    Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
}

/// Who wants to join.
#[derive(Clone, Debug)]
pub struct Joining {
    pub life: LifeId,
    /// The name of the gateway, for people.
    pub name: String,
    /// Which process it is, if the system says so.
    pub process: Option<String>,
    pub lease: Duration,
    /// Lives whose processes have certainly ended.
    pub ended: Vec<LifeId>,
    /// A life that was not renewed for its whole lease, and how often it had been.
    pub silent: Option<(LifeId, u64)>,
}

/// What became of the wish to join.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Joined {
    Joined,
    /// Another life is there.
    Held(Holder),
}

/// The life that has the store.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Holder {
    pub life: LifeId,
    pub name: String,
    /// As it gave it when it joined.
    pub process: Option<String>,
    /// How often it was renewed.
    pub renewals: u64,
    /// For how long it is renewed each time.
    pub lease: Duration,
}

/// Why a store did not do what it was asked.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum StoreError {
    #[error("the life of this process is over: {0}")]
    Over(String),
    /// Nothing has happened, and it can be tried again.
    #[error("{0}")]
    Away(String),
    /// It may have happened. It can be tried again.
    #[error("{0}; it may have been written")]
    Unclear(String),
    /// An operator must change something.
    #[error("{0}")]
    Refused(String),
}
