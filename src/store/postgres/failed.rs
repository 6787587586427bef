//! What an error of the database means.

use std::error::Error as _;

use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

use super::Postgres;
use crate::store::StoreError;

/// What our own function raises for a life that is over.
pub(super) const OVER: &str = "MO001";

/// The text of an error: its own says only what was tried.
pub(super) fn told(error: &Error) -> String {
    if let Some(db) = error.as_db_error() {
        let more = db.detail().map(|it| format!(" ({it})")).unwrap_or_default();
        return format!("{}{more}", db.message());
    }
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

impl Postgres {
    /// The meaning of an error before anything was to be committed.
    pub(super) fn failed(&self, error: &Error) -> StoreError {
        let place = self.url.place();
        let Some(db) = error.as_db_error() else {
            let what = told(error);
            // The server wants to know a password, and the URL has none.
            if what.contains("password missing") {
                return StoreError::Refused(format!(
                    "the store at {place} asks for a password, and its URL has none"
                ));
            }
            // Of the error alone: a host may be called so, too.
            let lasts = what.contains("authentication");
            let what = format!("the store at {place}: {what}");
            return if lasts { StoreError::Refused(what) } else { StoreError::Away(what) };
        };
        let what = format!("the store at {place}: {}", told(error));
        if *db.code() == SqlState::INSUFFICIENT_PRIVILEGE {
            return StoreError::Refused(format!(
                "{what}; `mooring replicas init --print` prints what has to be there, for somebody \
                 who may create it"
            ));
        }
        // Classes of what is not allowed, not there, not known, not valid or damaged: it stays so
        // until somebody changes something.
        const LAST: [&str; 8] = ["28", "3D", "3F", "42", "0A", "22", "XX001", "XX002"];
        let lasts = LAST.iter().any(|it| db.code().code().starts_with(it));
        match lasts {
            true => StoreError::Refused(what),
            false => StoreError::Away(what),
        }
    }
}
