//! The tables in the schema `mooring`.
//!
//! A format only adds: a newer Mooring reads what an older one has written. What a Mooring does not
//! know makes it refuse to start.

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::Postgres;
use crate::journal::rows::TABLES;
use crate::store::StoreError;

/// The newest format of the tables that is known.
pub const FORMAT: i64 = 1;

/// Held by whoever creates tables, joins or imports, until its transaction ends. It is "mooring" in
/// ASCII.
pub(super) const LOCK: &str = "SELECT pg_advisory_xact_lock(30803296913026663)";

const LIVES: &str = "\
CREATE SCHEMA IF NOT EXISTS mooring;

-- The format of these tables, and whose state they keep.
CREATE TABLE IF NOT EXISTS mooring.meta (key text PRIMARY KEY, value text NOT NULL);

-- The process that uses the store now.
CREATE TABLE IF NOT EXISTS mooring.replicas (
  life text PRIMARY KEY,
  name text NOT NULL,
  process text,
  version text NOT NULL,
  since timestamptz NOT NULL,
  renewals int8 NOT NULL,
  lease float8 NOT NULL,
  expires timestamptz NOT NULL
);

-- The number of the last batch of a life. It is not in the table above, whose rows are renewed
-- while a batch is written.
CREATE TABLE IF NOT EXISTS mooring.batches (
  life text PRIMARY KEY REFERENCES mooring.replicas ON DELETE CASCADE,
  batch int8 NOT NULL
);

-- Lives that have ended, for operators.
CREATE TABLE IF NOT EXISTS mooring.departed (
  life text PRIMARY KEY,
  name text NOT NULL,
  why text NOT NULL,
  at timestamptz NOT NULL
);

-- Lets a batch be written, unless its life is over or a later batch was written.
CREATE OR REPLACE FUNCTION mooring.fence(the_life text, the_batch int8) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
  PERFORM 1 FROM mooring.replicas WHERE life = the_life FOR KEY SHARE;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'the life % is over', the_life USING ERRCODE = 'MO001';
  END IF;
  UPDATE mooring.batches SET batch = the_batch WHERE life = the_life AND batch < the_batch;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'a later batch than % was written', the_batch USING ERRCODE = 'MO002';
  END IF;
END $$;

-- The records, by kind. Keys and records are UTF-8; records are JSON.
";

/// The statements that create everything. They change nothing of what is there.
#[must_use]
pub fn statements() -> String {
    let tables = TABLES.map(|table| {
        format!(
            "CREATE TABLE IF NOT EXISTS mooring.{table} (key bytea PRIMARY KEY, record bytea NOT \
             NULL);\n"
        )
    });
    let format = format!("INSERT INTO mooring.meta VALUES ('format', '{FORMAT}')");
    format!("{LIVES}{}\n{format} ON CONFLICT DO NOTHING;\n", tables.concat())
}

impl Postgres {
    /// Creates what is missing, and checks that the state of this fleet is in it.
    pub(super) async fn prepare(&self, client: &Client) -> Result<(), StoreError> {
        if !self.is_there(client).await? {
            self.create(client).await?;
        }
        const ASK: &str = "SELECT key, value FROM mooring.meta";
        let rows = client.query_typed(ASK, &[]).await.map_err(|error| self.failed(&error))?;
        let value = |name: &str| {
            rows.iter().find(|row| row.get::<_, &str>(0) == name).map(|row| row.get::<_, &str>(1))
        };
        let place = self.url.place();
        let format = value("format").and_then(|it| it.parse().ok()).unwrap_or(i64::MAX);
        if FORMAT < format {
            return Err(StoreError::Refused(format!(
                "the store at {place} was written by a newer Mooring: it has format {format}, this \
                 one knows up to {FORMAT}"
            )));
        }
        match value("fleet") {
            Some(fleet) if fleet != self.fleet => Err(StoreError::Refused(format!(
                "the store at {place} keeps the state of the fleet {fleet:?}, and `replicas.fleet` \
                 is {:?}",
                self.fleet
            ))),
            Some(_same) => Ok(()),
            None => self.take_for_fleet(client).await,
        }
    }

    async fn is_there(&self, client: &Client) -> Result<bool, StoreError> {
        const ASK: &str = "SELECT to_regclass('mooring.meta') IS NOT NULL";
        let row = client.query_typed_one(ASK, &[]).await.map_err(|error| self.failed(&error))?;
        Ok(row.get(0))
    }

    /// Creates everything that is missing.
    pub(super) async fn create(&self, client: &Client) -> Result<(), StoreError> {
        // One at a time: `IF NOT EXISTS` does not see what another one is creating.
        let all = format!("BEGIN; {LOCK}; {} COMMIT", statements());
        client.batch_execute(&all).await.map_err(|error| self.failed(&error))
    }

    async fn take_for_fleet(&self, client: &Client) -> Result<(), StoreError> {
        const TAKE: &str = "INSERT INTO mooring.meta VALUES ('fleet', $1)";
        let taken = client.execute_typed(TAKE, &[(&self.fleet, Type::TEXT)]).await;
        taken.map(drop).map_err(|error| self.failed(&error))
    }

    /// Creates the tables, and says for which fleet.
    ///
    /// # Errors
    /// The database cannot be used, or keeps the state of another fleet.
    pub async fn init(&self) -> Result<(), StoreError> {
        self.on(&self.commits, super::CALL_WITHIN, async |client| {
            self.create(client).await?;
            self.prepare(client).await
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_table_for_each_kind_of_record() {
        let all = statements();
        for table in TABLES {
            assert!(all.contains(&format!("mooring.{table} (key bytea")), "{table}");
        }
    }
}
