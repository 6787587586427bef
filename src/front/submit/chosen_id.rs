//! May a user's submission have the id that it chose?
//!
//! The ledger forgets, and without a journal a restart forgets everything; a backend may still run
//! or have what went by that id. Whoever got the id would get that prompt: its entry in lists, its
//! outputs, and the right to end it. So where users are asked for, no id is given out that a
//! backend has. Among strangers a prompt id is a secret of its own, and whoever knows it may ask.

use futures_util::future::join_all;

use super::super::Front;
use super::super::history::asking_failed;
use crate::comfy::answers::Sighting;
use crate::front::error::GatewayError;
use crate::net::new_id;
use crate::routing::ids::PromptId;
use crate::routing::realm::Realm;

/// An id for a submission that chose none.
pub(super) fn another() -> PromptId {
    let text = new_id().to_string();
    PromptId::parse(&text).expect("a UUID is a prompt id")
}

/// Looks for the id on all backends that are up.
///
/// # Errors
/// One of them has it, or does not say.
pub(super) async fn check(
    front: &Front,
    realm: &Realm,
    chosen: Option<&PromptId>,
) -> Result<(), GatewayError> {
    let Some(prompt) = chosen else { return Ok(()) };
    // It may have been another's, whom the ledger has forgotten.
    front.history_cache.forget(prompt);
    if *realm == Realm::Everybody {
        return Ok(());
    }
    let limit = front.shared.config().fleet.probe_timeout;
    let asked: Vec<_> = front.shared.fleet.iter().filter(|backend| backend.is_up()).collect();
    let looks = asked.iter().map(|backend| async move {
        match backend.look_for_one(prompt, limit).await {
            Ok(Sighting::Absent) => Ok(()),
            Ok(Sighting::Queued { .. } | Sighting::Running { .. } | Sighting::Ended(_)) => {
                Err(GatewayError::PromptIdKnown)
            }
            Err(error) => Err(asking_failed(backend, &error)),
        }
    });
    join_all(looks).await.into_iter().collect()
}
