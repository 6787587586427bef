//! Lives in the database: they begin, are renewed, and end.

use std::time::Duration;

use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Error};

use super::schema::LOCK;
use crate::store::{Holder, Joined, Joining, LifeId};

const BEGIN: &str = "\
BEGIN ISOLATION LEVEL READ COMMITTED; \
SET LOCAL statement_timeout = '4s'; \
SET LOCAL idle_in_transaction_session_timeout = '2s'";

/// A renewal must not wait for a standby. One that is lost in a crash of the database harms nobody:
/// who waits for the end of a lease counts by the own clock.
const QUICK: &str = "SET LOCAL synchronous_commit = off";

/// A batch that is being written is waited for, and a later one writes nothing. A life that seemed
/// silent and was renewed meanwhile stays.
const BURY: &str = "\
WITH gone AS (
  DELETE FROM mooring.replicas
  WHERE life <> $1 AND (life = ANY ($2) OR life = $4 AND renewals = $5)
  RETURNING life, name
)
INSERT INTO mooring.departed
SELECT life, name, 'ended by ' || $3 || ', which has started', clock_timestamp() FROM gone
ON CONFLICT DO NOTHING";

const FORGET: &str =
    "DELETE FROM mooring.departed WHERE at < clock_timestamp() - interval '30 days'";

const OTHERS: &str = "\
SELECT life, name, process, renewals, lease
FROM mooring.replicas WHERE life <> $1 ORDER BY expires DESC LIMIT 1";

const JOIN: &str = "\
INSERT INTO mooring.replicas (life, name, process, version, since, renewals, lease, expires)
VALUES ($1, $2, $3, $4, clock_timestamp(), 0, $5, clock_timestamp() + $5 * interval '1 second')
ON CONFLICT (life) DO UPDATE
SET expires = excluded.expires, renewals = replicas.renewals + 1";

const COUNT: &str = "INSERT INTO mooring.batches VALUES ($1, 0) ON CONFLICT DO NOTHING";

const RENEW: &str = "\
UPDATE mooring.replicas
SET renewals = renewals + 1, expires = clock_timestamp() + $2 * interval '1 second'
WHERE life = $1";

const LEAVE: &str = "\
WITH gone AS (DELETE FROM mooring.replicas WHERE life = $1 RETURNING life, name)
INSERT INTO mooring.departed SELECT life, name, 'it stopped', clock_timestamp() FROM gone
ON CONFLICT DO NOTHING";

pub(super) async fn join(client: &Client, me: &Joining) -> Result<Joined, Error> {
    let Joining { life, name, process, lease, ended, silent } = me;
    let life = &**life;
    client.batch_execute(&format!("{BEGIN}; {LOCK}")).await?;
    let ended: Vec<&str> = ended.iter().map(|it| &**it).collect();
    let (silent, renewals) = match silent {
        Some((life, renewals)) => (Some(&**life), i64::try_from(*renewals).unwrap_or(i64::MAX)),
        None => (None, 0),
    };
    let params: [(&(dyn ToSql + Sync), Type); 5] = [
        (&life, Type::TEXT),
        (&ended, Type::TEXT_ARRAY),
        (name, Type::TEXT),
        (&silent, Type::TEXT),
        (&renewals, Type::INT8),
    ];
    client.execute_typed(BURY, &params).await?;
    client.execute_typed(FORGET, &[]).await?;
    if let Some(row) = client.query_typed_opt(OTHERS, &[(&life, Type::TEXT)]).await? {
        let (renewals, its_lease): (i64, f64) = (row.get(3), row.get(4));
        let holder = Holder {
            life: row.get::<_, &str>(0).into(),
            name: row.get(1),
            process: row.get(2),
            renewals: u64::try_from(renewals).unwrap_or(0),
            lease: Duration::try_from_secs_f64(its_lease).unwrap_or_default(),
        };
        client.batch_execute("COMMIT").await?;
        return Ok(Joined::Held(holder));
    }
    let (version, secs) = (env!("CARGO_PKG_VERSION"), lease.as_secs_f64());
    client
        .execute_typed(
            JOIN,
            &[
                (&life, Type::TEXT),
                (name, Type::TEXT),
                (process, Type::TEXT),
                (&version, Type::TEXT),
                (&secs, Type::FLOAT8),
            ],
        )
        .await?;
    client.execute_typed(COUNT, &[(&life, Type::TEXT)]).await?;
    client.batch_execute("COMMIT").await?;
    Ok(Joined::Joined)
}

/// False if the life is over.
pub(super) async fn renew(client: &Client, life: &LifeId, lease: Duration) -> Result<bool, Error> {
    client.batch_execute(&format!("{BEGIN}; {QUICK}")).await?;
    let (life, secs) = (&**life, lease.as_secs_f64());
    let params: [(&(dyn ToSql + Sync), Type); 2] = [(&life, Type::TEXT), (&secs, Type::FLOAT8)];
    let renewed = client.execute_typed(RENEW, &params).await?;
    client.batch_execute("COMMIT").await?;
    Ok(0 < renewed)
}

pub(super) async fn leave(client: &Client, life: &LifeId) -> Result<(), Error> {
    client.execute_typed(LEAVE, &[(&&**life, Type::TEXT)]).await.map(drop)
}

/// What is known of the end of a life.
pub(super) async fn why_over(client: &Client, life: &LifeId) -> String {
    const ASK: &str = "SELECT why || ' at ' || at FROM mooring.departed WHERE life = $1";
    let found = client.query_typed_opt(ASK, &[(&&**life, Type::TEXT)]).await;
    match found {
        Ok(Some(row)) => row.get(0),
        Ok(None) => "the store knows nothing of it: was an older copy restored?".to_owned(),
        Err(_unknown) => "the store does not know it any more".to_owned(),
    }
}
