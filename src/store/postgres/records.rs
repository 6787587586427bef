//! Batches are written, and everything is read.

use std::pin::pin;
use std::sync::Arc;

use futures_util::TryStreamExt as _;
use futures_util::future::{BoxFuture, join_all};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Error, Row};

use super::Postgres;
use super::failed::{self, OVER};
use crate::journal::record::{BadRecord, Batch, Saved};
use crate::journal::rows::{self, BadRow, Rows, TABLES};
use crate::store::{LifeId, StoreError};

/// A server that lost its client ends such a transaction by itself, so that the next batch need not
/// wait for it.
const BEGIN: &str = "\
BEGIN ISOLATION LEVEL READ COMMITTED; \
SET LOCAL statement_timeout = '4s'; \
SET LOCAL idle_in_transaction_session_timeout = '5s'";

/// Why a batch was not written, or may not have been.
#[derive(Debug)]
pub(super) enum NotWritten {
    /// Before its commit.
    Before(Error),
    /// In its commit, so that it may be written.
    InCommit(Error),
}

impl NotWritten {
    pub(super) fn is_over(&self) -> bool {
        let (Self::Before(error) | Self::InCommit(error)) = self;
        error.code().is_some_and(|code| code.code() == OVER)
    }

    pub(super) fn told(&self, store: &Postgres) -> StoreError {
        match self {
            // Whether the server has read what was sent is not known.
            Self::Before(error) if error.as_db_error().is_some() => store.failed(error),
            Self::Before(error) | Self::InCommit(error) => StoreError::Unclear(format!(
                "the store at {}: {}",
                store.url.place(),
                failed::told(error)
            )),
        }
    }
}

/// Writes a batch in one transaction. All of it is sent at once: the server works in this order,
/// and does nothing more after the first error.
pub(super) async fn commit(
    client: &Client,
    (life, number): (&LifeId, u64),
    tables: &[Rows],
) -> Result<(), NotWritten> {
    let number = i64::try_from(number).unwrap_or(i64::MAX);
    let mut sent: Vec<BoxFuture<'_, Result<(), Error>>> = Vec::new();
    sent.push(Box::pin(client.batch_execute(BEGIN)));
    sent.push(Box::pin(async move {
        const FENCE: &str = "SELECT mooring.fence($1, $2)";
        let params: [(&(dyn ToSql + Sync), Type); 2] =
            [(&&**life, Type::TEXT), (&number, Type::INT8)];
        client.execute_typed(FENCE, &params).await.map(drop)
    }));
    for rows in tables {
        sent.extend(written(client, rows));
    }
    sent.push(Box::pin(client.batch_execute("COMMIT")));
    let mut results = join_all(sent).await;
    let committed = results.pop().unwrap_or(Ok(()));
    let before: Result<Vec<()>, Error> = results.into_iter().collect();
    before.map_err(NotWritten::Before)?;
    committed.map_err(NotWritten::InCommit)
}

/// So many rows are written by one statement, and so many bytes or one row more: one of a huge
/// batch must not take longer than a statement may, and that begins when its first byte arrives.
const ROWS_MAX: usize = 2_000;
const BYTES_MAX: usize = 1 << 20;

/// Rows in parts of that size.
fn parts(rows: &[(Vec<u8>, Vec<u8>)]) -> Vec<&[(Vec<u8>, Vec<u8>)]> {
    let (mut parts, mut begin, mut bytes) = (Vec::new(), 0, 0);
    for (at, (key, record)) in rows.iter().enumerate() {
        bytes += key.len() + record.len();
        if BYTES_MAX <= bytes || at + 1 - begin == ROWS_MAX {
            parts.push(&rows[begin..=at]);
            (begin, bytes) = (at + 1, 0);
        }
    }
    if begin < rows.len() {
        parts.push(&rows[begin..]);
    }
    parts
}

/// The statements that write one table.
pub(super) fn written<'a>(
    client: &'a Client,
    rows: &'a Rows,
) -> impl Iterator<Item = BoxFuture<'a, Result<(), Error>>> {
    let Rows { table, put, gone } = rows;
    let put = parts(put).into_iter().map(move |part| {
        let text = format!(
            "INSERT INTO mooring.{table} SELECT * FROM unnest($1, $2) \
             ON CONFLICT (key) DO UPDATE SET record = excluded.record"
        );
        let (keys, records): (Vec<&[u8]>, Vec<&[u8]>) =
            part.iter().map(|(key, record)| (&key[..], &record[..])).unzip();
        Box::pin(async move {
            let params: [(&(dyn ToSql + Sync), Type); 2] =
                [(&keys, Type::BYTEA_ARRAY), (&records, Type::BYTEA_ARRAY)];
            client.execute_typed(&text, &params).await.map(drop)
        }) as BoxFuture<'a, _>
    });
    let gone = gone.chunks(ROWS_MAX).map(move |part| {
        let text = format!("DELETE FROM mooring.{table} WHERE key = ANY ($1)");
        Box::pin(async move {
            client.execute_typed(&text, &[(&part, Type::BYTEA_ARRAY)]).await.map(drop)
        }) as BoxFuture<'a, _>
    });
    put.chain(gone)
}

/// The rows of a batch. Those of a large one are made on a thread that may block.
pub(super) async fn rows_of(batch: Arc<Batch>) -> Result<Vec<Rows>, StoreError> {
    const SMALL: usize = 256;
    if batch.len() <= SMALL && batch.bodies.is_empty() && batch.parts.is_empty() {
        return Ok(rows::rows(&batch));
    }
    let made = tokio::task::spawn_blocking(move || rows::rows(&batch)).await;
    made.map_err(|stopped| StoreError::Away(stopped.to_string()))
}

impl Postgres {
    pub(super) async fn load_all(&self, client: &Client) -> Result<Saved, StoreError> {
        let mut saved = Saved::default();
        for table in TABLES {
            let text = format!("SELECT key, record FROM mooring.{table}");
            let params: [(&(dyn ToSql + Sync), Type); 0] = [];
            let found = client.query_typed_raw(&text, params).await;
            let mut found = pin!(found.map_err(|error| self.failed(&error))?);
            while let Some(row) = found.try_next().await.map_err(|error| self.failed(&error))? {
                self.put(&mut saved, table, &row)?;
            }
        }
        Ok(saved)
    }

    fn put(&self, saved: &mut Saved, table: &'static str, row: &Row) -> Result<(), StoreError> {
        rows::read(saved, table, (row.get(0), row.get(1))).map_err(|bad| {
            let place = self.url.place();
            StoreError::Refused(match &bad {
                BadRow::Record { source: BadRecord::Newer { known, .. }, .. } => format!(
                    "the store at {place} was written by a newer Mooring: {bad}, this one reads up \
                     to {known}"
                ),
                BadRow::Record { source: BadRecord::Malformed(_), .. } | BadRow::Key { .. } => {
                    format!("the store at {place} is damaged: {bad}")
                }
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_written_in_parts_that_are_small_and_none_is_left_out() {
        let row = |bytes: usize| (vec![1], vec![0; bytes]);
        let counts = |rows: &[(Vec<u8>, Vec<u8>)]| {
            let parts = parts(rows);
            assert_eq!(parts.concat(), rows);
            parts.iter().map(|it| it.len()).collect::<Vec<_>>()
        };
        assert_eq!(counts(&[]), [0_usize; 0]);
        assert_eq!(counts(&vec![row(10); 2 * ROWS_MAX + 1]), [ROWS_MAX, ROWS_MAX, 1]);
        let large = BYTES_MAX / 2 + 1;
        assert_eq!(counts(&[row(large), row(large), row(10)]), [2, 1]);
        assert_eq!(counts(&[row(3 * BYTES_MAX), row(3 * BYTES_MAX)]), [1, 1]);
    }
}
