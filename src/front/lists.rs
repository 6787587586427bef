//! Lists for nobody in particular (promise R5).
//!
//! A widely used SDK looks for its prompt in `GET /queue` and says nothing of who it is. With one
//! client at its address that is answered by the client's backend; with several, by all of them.

use std::time::Duration;

use tracing::debug;

use super::{Answer, json};
use crate::comfy::lists::Positions;
use crate::error::GatewayError;
use crate::gateway::Gateway;
use crate::routing::place::NoPlace;

/// How long one backend may delay the list; it is left out after that.
const DEADLINE: Duration = Duration::from_secs(3);

/// `GET /queue` of nobody: ids and positions on every backend that is up.
///
/// # Errors
/// None is up.
pub async fn queue(gateway: &Gateway) -> Answer {
    let asked = gateway
        .fleet
        .iter()
        .filter(|backend| backend.is_up())
        .map(|backend| async move { (backend, backend.get_ok("/queue", DEADLINE).await) });
    let answers = futures_util::future::join_all(asked).await;
    if answers.is_empty() {
        return Err(GatewayError::Refused(NoPlace::NoneReady.into()));
    }
    let mut positions = Positions::default();
    for (backend, answer) in answers {
        let added = match answer {
            Ok(body) => positions.add(&body).map_err(Into::into),
            Err(error) => Err(error),
        };
        if let Err(error) = added {
            debug!(backend = %backend.name, %error, "A queue is left out of the list.");
        }
    }
    Ok(json(positions.to_json()))
}
