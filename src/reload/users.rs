//! The file of users, watched: who is removed from it is out within a second.
//!
//! It is read without the rest of the configuration. So a mistake elsewhere keeps nobody in.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tracing::{error, info};

use super::watch::{Known, prints};
use crate::auth::UserTable;
use crate::auth::file;
use crate::config::AuthMode;
use crate::front::Front;
use crate::net::sleep;

/// How often it is looked at; it is read once it was the same for so long.
const INTERVAL: Duration = Duration::from_millis(250);

/// Follows the file for as long as the process runs, while users count.
pub async fn watch(front: Arc<Front>) {
    let mut known = Known::default();
    loop {
        front.admission.asks_for_keys().await;
        sleep(INTERVAL).await;
        let auth = front.shared.config().auth.clone();
        let Some(path) = auth.users_file.filter(|_| auth.mode == AuthMode::Keys) else { continue };
        let files = vec![path.clone()];
        let Ok(now) = tokio::task::spawn_blocking(move || prints(&files)).await else { continue };
        if known.is_to_read(now) {
            read(&front, path).await;
        }
    }
}

async fn read(front: &Front, path: PathBuf) {
    let shown = path.display().to_string();
    let read = tokio::task::spawn_blocking(move || file::read(&path)).await;
    let guests = &front.shared.metrics.guests;
    match read.unwrap_or_else(|error| Err(format!("cannot be read: {error}"))) {
        Ok(users) => {
            guests.may_come(users.len());
            if users != *front.admission.users() {
                replace(front, users);
            }
        }
        Err(problem) => {
            guests.unread();
            error!(path = shown, problem, "The users were not read again: those before stay.");
        }
    }
}

fn replace(front: &Front, users: UserTable) {
    info!(users = users.len(), "The users were read again.");
    front.admission.replace_users(users);
}
