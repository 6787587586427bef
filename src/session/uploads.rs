//! Uploads on their way to a backend, and the backend that they reserve (promise B3).

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Instant;

use smallvec::SmallVec;

use super::Sessions;
use super::{Client, Decided, Gone};
use crate::net::now;
use crate::routing::client as core;
use crate::routing::decision::Decision;
use crate::routing::ids::BackendId;
use crate::routing::placement::{BackendView, FleetNow};

impl Client {
    /// A read that may belong to a dialogue with a node pack: for a while this client prefers the
    /// backend that the read goes to.
    ///
    /// # Errors
    /// As for [`Client::contact`].
    pub fn dialogue(self: &Arc<Self>, sessions: &Arc<Sessions>) -> Result<Decided, Gone> {
        let config = sessions.shared.config();
        let affinity = &config.affinity;
        let margin = u32::try_from(affinity.session_margin).unwrap_or(u32::MAX);
        self.route(sessions, |core, fleet, now| {
            core.dialogue((now + affinity.reservation, margin), fleet, now)
        })
    }

    /// A body for a node pack begins; it goes where reads go. The caller must end it with
    /// [`Client::upload_ended`].
    ///
    /// # Errors
    /// As for [`Client::contact`].
    pub fn body_began(self: &Arc<Self>, sessions: &Arc<Sessions>) -> Result<Decided, Gone> {
        self.route(sessions, core::Client::body_began)
    }

    /// An upload begins. The caller must end it with [`Client::upload_ended`].
    ///
    /// # Errors
    /// As for [`Client::contact`].
    pub fn upload_began(self: &Arc<Self>, sessions: &Arc<Sessions>) -> Result<Decided, Gone> {
        self.route(sessions, core::Client::upload_began)
    }

    /// The same for an upload that not every backend accepts: an idle client is placed on one that
    /// does. A held client stays where it is.
    ///
    /// # Errors
    /// As for [`Client::contact`].
    pub fn upload_began_among(
        self: &Arc<Self>,
        sessions: &Arc<Sessions>,
        takes_it: &dyn Fn(BackendId) -> bool,
    ) -> Result<Decided, Gone> {
        self.route(sessions, |core, fleet, now| {
            let full = |view: &BackendView| {
                let (load, max_pending) = (u32::MAX, Some(NonZeroU32::MIN));
                BackendView { load, max_pending, ..*view }
            };
            let seen = |view: &BackendView| if takes_it(view.id) { *view } else { full(view) };
            let views: SmallVec<[BackendView; 8]> = fleet.backends.iter().map(seen).collect();
            core.upload_began(FleetNow { backends: &views, ..fleet }, now)
        })
    }

    /// The upload is over. If it arrived, it reserves its backend.
    pub fn upload_ended(
        self: &Arc<Self>,
        sessions: &Arc<Sessions>,
        began: Decision,
        has_arrived: bool,
    ) {
        let reservation = has_arrived.then_some(sessions.shared.config().affinity.reservation);
        self.turn(sessions).act(|core| core.upload_ended(began, reservation, now()));
    }

    /// An upload without a name waits on `backend` for this client's first prompt.
    pub fn reserve(self: &Arc<Self>, sessions: &Arc<Sessions>, backend: BackendId, until: Instant) {
        let mut turn = self.turn(sessions);
        if !turn.is_gone {
            turn.act(|core| core.reserve(backend, until, now()));
        }
    }
}
