//! The verbs for the database that keeps the state. The gateway need not run.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use super::args::{ImportArgs, InitStoreArgs, Overrides, ReplicasVerb, StoreConfig};
use super::{EXIT_CONFIG, say, sources};
use crate::config;
use crate::journal::Store as _;
use crate::journal::disk::{Disk, FILE};
use crate::net::Tcp;
use crate::store::postgres::{Postgres, schema};
use crate::tasks::Tasks;

/// `mooring replicas …`.
pub(super) async fn replicas(verb: ReplicasVerb) -> ExitCode {
    let done = match verb {
        ReplicasVerb::Init(InitStoreArgs { print: true, .. }) => {
            Ok(format!("BEGIN;\n{}COMMIT;\n", schema::statements()))
        }
        ReplicasVerb::Init(args) => init(args.from).await,
        ReplicasVerb::Import(args) => import(args).await,
    };
    match done {
        Ok(text) => {
            say::line(text.trim_end());
            ExitCode::SUCCESS
        }
        Err(Failed::Config(problems)) => {
            say::note(&problems);
            EXIT_CONFIG.into()
        }
        Err(Failed::Other(what)) => say::failure(&what),
    }
}

enum Failed {
    Config(String),
    Other(String),
}

async fn init(from: StoreConfig) -> Result<String, Failed> {
    let (store, place) = store(from)?;
    store.init().await.map_err(|error| Failed::Other(error.to_string()))?;
    Ok(format!("{place} can keep the state"))
}

async fn import(args: ImportArgs) -> Result<String, Failed> {
    let ImportArgs { dir, from } = args;
    let (store, place) = store(from)?;
    let other = |what: String| Failed::Other(what);
    let saved = read(&dir).map_err(other)?;
    let count = store.import(saved).await.map_err(|error| other(error.to_string()))?;
    Ok(format!("{count} records were copied to {place}; the folder is not used any more"))
}

fn read(dir: &Path) -> Result<crate::journal::record::Saved, String> {
    // Opening a file that is not there would create it.
    if !dir.join(FILE).is_file() {
        return Err(format!("there is no {FILE} in {}", dir.display()));
    }
    Disk::open(dir).and_then(|mut disk| disk.load()).map_err(|error| error.to_string())
}

/// The store that the configuration names, and where it is.
fn store(from: StoreConfig) -> Result<(Postgres, String), Failed> {
    let overrides = Overrides { set: from.set, ..Overrides::default() };
    let sources = sources(from.config, overrides, std::env::vars_os());
    let replicas = config::load(&sources).map_err(|it| Failed::Config(it.to_string()))?.replicas;
    let Some(url) = replicas.store else {
        let what = "mooring: the configuration names no `replicas.store`";
        return Err(Failed::Config(what.to_owned()));
    };
    let place = url.place();
    let store = Postgres::new(url, replicas.fleet, Arc::new(Tcp), Tasks::default());
    Ok((store.map_err(|error| Failed::Other(error.to_string()))?, place))
}
