//! Takes over the records of a journal file.

use std::time::Duration;

use tokio_postgres::{Client, Error};

use super::Postgres;
use super::records::written;
use super::schema::LOCK;
use crate::journal::record::Saved;
use crate::journal::rows::{TABLES, batch_of, rows};
use crate::store::StoreError;

/// How long an import may take.
const IMPORT_WITHIN: Duration = Duration::from_secs(3_600);

impl Postgres {
    /// Writes everything into an empty store, all or nothing. Returns how many records it wrote.
    ///
    /// # Errors
    /// The store cannot be used, has records, or is used by a process.
    pub async fn import(&self, saved: Saved) -> Result<usize, StoreError> {
        let tables = rows(&batch_of(saved));
        self.on(&self.commits, IMPORT_WITHIN, async |client| {
            self.prepare(client).await?;
            let done = |done: Result<(), Error>| done.map_err(|error| self.failed(&error));
            done(
                client
                    .batch_execute(&format!("BEGIN ISOLATION LEVEL READ COMMITTED; {LOCK}"))
                    .await,
            )?;
            self.is_free(client).await?;
            for rows in &tables {
                for sent in written(client, rows) {
                    done(sent.await)?;
                }
            }
            client.batch_execute("COMMIT").await.map_err(|error| {
                StoreError::Unclear(format!("the store at {}: {error}", self.url.place()))
            })?;
            Ok(tables.iter().map(|rows| rows.put.len()).sum())
        })
        .await
    }

    /// No process uses the store, and nothing is in it.
    async fn is_free(&self, client: &Client) -> Result<(), StoreError> {
        let place = self.url.place();
        const BURY: &str = "DELETE FROM mooring.replicas WHERE expires <= clock_timestamp()";
        client.execute_typed(BURY, &[]).await.map_err(|error| self.failed(&error))?;
        const USED: &str = "SELECT name FROM mooring.replicas LIMIT 1";
        let used = client.query_typed_opt(USED, &[]).await.map_err(|error| self.failed(&error))?;
        if let Some(row) = used {
            let name: &str = row.get(0);
            return Err(StoreError::Refused(format!(
                "the store at {place} is used by a Mooring ({name:?}): stop it first"
            )));
        }
        let any =
            TABLES.map(|table| format!("EXISTS (SELECT 1 FROM mooring.{table})")).join(" OR ");
        let found = client.query_typed_one(&format!("SELECT {any}"), &[]).await;
        let is_used: bool = found.map_err(|error| self.failed(&error))?.get(0);
        match is_used {
            true => Err(StoreError::Refused(format!(
                "the store at {place} has records already: import into an empty one"
            ))),
            false => Ok(()),
        }
    }
}
