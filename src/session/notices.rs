//! Messages for pages whose backend is silent, so that people know what happens to their work.
//! Scripts do not get them; they need only the end.

use std::time::{Duration, Instant};

use super::subscriber::Audience;
use super::synthesize::server_for_people;
use super::{Client, State};
use crate::comfy::messages;
use crate::config::ShowDuration;
use crate::fleet::backend::Backend;
use crate::shared::Shared;
use crate::ws::Frame;

/// A backend that is away for less time may only have lost a socket.
const SETTLES: Duration = Duration::from_secs(1);

/// What is wrong with the backend of a client's work.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Notice {
    Away,
    Wedged,
}

impl Notice {
    fn of(backend: &Backend, now: Instant) -> Option<Self> {
        if backend.down_for(now).is_some_and(|away| SETTLES <= away) {
            return Some(Self::Away);
        }
        backend.wedged_for(now).map(|_| Self::Wedged)
    }

    fn text(self, backend: &Backend, grace: Duration) -> String {
        let name = backend.name();
        let (backend, grace) = (server_for_people(&name), ShowDuration(grace));
        let what = match self {
            Self::Away => "does not answer",
            Self::Wedged => "answers, but does not work any more",
        };
        format!("{backend} {what}. Your job is kept for up to {grace}.")
    }
}

impl Client {
    /// Tells its pages once when the backend of its work goes silent, and once when it is back.
    pub(super) fn take_notice(&self, shared: &Shared, now: Instant) {
        let mut state = self.state();
        let bound = state.core.bound().filter(|_| state.core.has_prompts_here());
        let backend = bound.map(|(backend, _)| shared.fleet.get(backend));
        let notice = backend.as_ref().and_then(|backend| Notice::of(backend, now));
        let before = std::mem::replace(&mut state.noticed, notice);
        let (Some(backend), true) = (backend, before != notice) else { return };
        let frame = match notice {
            Some(_) => state.notice(shared),
            None => {
                let back = format!("{} is back.", server_for_people(&backend.name()));
                Some(Frame::text(messages::notice("info", &back)))
            }
        };
        if let Some(frame) = frame {
            state.say(Audience::Pages, &frame);
        }
    }
}

impl State {
    /// The current notice, for a page that opens now.
    pub(super) fn notice(&self, shared: &Shared) -> Option<Frame> {
        let notice = self.noticed?;
        let (backend, _) = self.core.bound()?;
        let text = notice.text(&shared.fleet.get(backend), shared.config().fleet.grace);
        Some(Frame::text(messages::notice("warn", &text)))
    }
}
