//! Which backends can be asked about assets: those that are up, have assets (`--enable-assets`),
//! and know the caller's user.

use std::sync::Arc;

use futures_util::future::join_all;
use http::StatusCode;
use serde::Deserialize;

use super::super::Answer;
use super::super::forward::Target;
use super::super::jobs::with_status;
use super::{Session, bound};
use crate::comfy::reply;
use crate::fleet::backend::Backend;
use crate::fleet::user_ids::NoUserId;
use crate::front::comfy_user;
use crate::front::error::GatewayError;
use crate::routing::decision::Reason;
use crate::routing::placement::NoPlace;

/// Why no backend can be asked.
pub(super) enum NoServer {
    /// No backend keeps assets.
    Disabled,
    /// One keeps assets, but is down.
    Down(String),
    /// No backend is up.
    NoneUp,
    UnknownUser,
    /// This one could not be asked what it calls the user.
    NoUserThere(Arc<Backend>),
}

impl NoServer {
    /// The answer for the caller. If assets are turned off, it has ComfyUI's words.
    pub(super) fn answer(self) -> Answer {
        match self {
            Self::Disabled => {
                let message = "Assets system is disabled. Start the server with --enable-assets \
                    to use this feature.";
                let body = reply::asset_error("SERVICE_DISABLED", message, None);
                Ok(with_status(StatusCode::SERVICE_UNAVAILABLE, body))
            }
            Self::Down(backend) => Err(GatewayError::BackendDown { backend }),
            Self::NoneUp => Err(GatewayError::Refused(NoPlace::NoneReady.into())),
            Self::UnknownUser => Err(GatewayError::UnknownUser),
            Self::NoUserThere(backend) => Err(comfy_user::no_user(&backend, NoUserId::JustFailed)),
        }
    }
}

/// The backends that can be asked, in the order of the fleet.
pub(super) async fn of(session: &Session<'_>) -> Result<Vec<Arc<Backend>>, NoServer> {
    let front = session.front;
    let limit = front.shared.config().fleet.probe_timeout;
    let asked = front.shared.fleet.iter().filter(|it| it.is_up()).map(|backend| async move {
        let keeps_some = match says(&backend) {
            Some(says) => says,
            None => front.users.has_assets(&backend, limit).await,
        };
        if !keeps_some {
            return None;
        }
        let knows = session.is_known_at(&backend, limit).await;
        Some((Arc::clone(&backend), knows))
    });
    let with_assets: Vec<_> = join_all(asked).await.into_iter().flatten().collect();
    if with_assets.is_empty() {
        let is_down = |it: &Arc<Backend>| !it.is_up() && says(it) == Some(true);
        return Err(match front.shared.fleet.iter().find(is_down) {
            Some(down) => NoServer::Down(down.name().to_string()),
            None if front.shared.fleet.iter().any(|it| it.is_up()) => NoServer::Disabled,
            None => NoServer::NoneUp,
        });
    }
    let (servers, others): (Vec<_>, Vec<_>) = with_assets.into_iter().partition(|(_, it)| *it);
    match (servers.is_empty(), others.into_iter().next()) {
        (true, Some((other, _))) if session.sent_for.is_some() => Err(NoServer::NoUserThere(other)),
        (true, _) => Err(NoServer::UnknownUser),
        (false, _) => Ok(servers.into_iter().map(|(server, _)| server).collect()),
    }
}

/// Whether a server has assets, by its features. `None` if the features do not say.
fn says(backend: &Backend) -> Option<bool> {
    #[derive(Deserialize)]
    struct Features {
        assets: Option<bool>,
    }
    let features: Features = serde_json::from_str(&backend.features()?).ok()?;
    features.assets
}

/// The one of these where the caller's other reads go, or the first.
pub(super) fn nearest(
    session: &Session<'_>,
    servers: &[Arc<Backend>],
) -> Result<Target, GatewayError> {
    let is_one = |target: &Target| servers.iter().any(|it| it.id == target.backend.id);
    if let Some(target) = bound(session).filter(is_one) {
        return Ok(target);
    }
    let first = servers.first().ok_or(GatewayError::Refused(NoPlace::NoneReady.into()))?;
    Ok(Target { backend: Arc::clone(first), reason: Reason::Ledger })
}
