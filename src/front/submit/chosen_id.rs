//! Decides whether a user's submission may have the id that it chose.
//!
//! The ledger forgets old prompts, and without a journal a restart forgets all of them. A backend
//! may still run or have a prompt with that id. A user who got the id would get that prompt: its
//! entry in lists, its outputs, and the right to end it. So if users are required, an id that a
//! backend has is not given out. Without users a prompt id is a secret, and a caller that knows it
//! may use it.

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
/// One of them has it, or does not answer.
pub(super) async fn check(
    front: &Front,
    realm: &Realm,
    chosen: Option<&PromptId>,
) -> Result<(), GatewayError> {
    let Some(prompt) = chosen else { return Ok(()) };
    // It may have belonged to another user, and the ledger has forgotten it.
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
