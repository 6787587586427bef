//! What a client does when its link opens, breaks or ends.

use std::sync::Arc;

use super::Sessions;
use super::apply::Turn;
use super::link::Link;
use super::link_end::LinkEnd;
use super::{Client, Missed, State};
use crate::comfy::messages;
use crate::fleet::api::ApiError;
use crate::net::now;
use crate::routing::ids::BackendId;
use crate::routing::pending::Phase;
use crate::shared::Shared;

impl Client {
    /// The link opened: sends again what the backend must know.
    pub(super) fn link_opened(self: &Arc<Self>, sessions: &Arc<Sessions>, link: &Arc<Link>) {
        let mut state = self.turn(sessions);
        // Ends between the last answer and this moment reached no link.
        state.act(|core| core.must_ask_again(link.backend, now()));
        state.may_have_missed(link.backend, |phase| phase != Phase::Sending);
        let wants_logs = state.wants_logs;
        drop(state);
        if wants_logs {
            let (sessions, client) = (Arc::clone(sessions), Arc::clone(self));
            let backend = link.backend;
            sessions.clone().shared.tasks.spawn(async move {
                if let Err(error) = client.subscribe_logs(&sessions.shared, backend).await {
                    tracing::debug!(%error, "The log subscription could not be repeated.");
                }
            });
        }
    }

    async fn subscribe_logs(&self, shared: &Shared, backend: BackendId) -> Result<(), ApiError> {
        let body = messages::log_subscription(&self.id);
        let limit = shared.config().fleet.probe_timeout;
        let backend = shared.fleet.get(backend);
        backend.patch("/internal/logs/subscribe", body, limit).await.map(|_| ())
    }

    /// The link broke: events may be lost, so all prompts that are pending there must be asked
    /// about.
    pub(super) fn link_broke(
        self: &Arc<Self>,
        sessions: &Arc<Sessions>,
        link: &Arc<Link>,
        end: LinkEnd,
    ) {
        let mut state = self.turn(sessions);
        state.link_closed(link, end);
        state.act(|core| core.deaf(link.backend));
        state.runs = None;
        // Prompts that are in the log but not pending were submitted by others under this name.
        // They are not asked about, and their end events are lost.
        state.end_strangers();
        state.may_have_missed(link.backend, |_any| true);
    }

    /// The link's TCP connection has ended for good.
    pub(super) fn link_ended(&self, link: &Arc<Link>) {
        let mut state = self.state();
        if let Some(closing) = state.closing.made() {
            closing.retain(|closing| !Arc::ptr_eq(closing, link));
        }
        if state.link.as_ref().is_some_and(|current| Arc::ptr_eq(current, link)) {
            state.link = None;
        }
    }
}

impl Turn<'_> {
    /// A prompt has started: earlier prompts with missed events are over, if they ever started.
    pub(super) fn ask_for_ends(&mut self, backend: BackendId) {
        let State { missed, holdback, .. } = &mut **self;
        for (prompt, missed) in missed {
            if !holdback.made().is_some_and(|it| it.is_waiting(prompt)) {
                *missed = Missed::IsOver;
            }
        }
        self.act(|core| core.must_ask(backend));
    }
}

impl State {
    /// Ends the prompts of the log that are not pending and have not ended.
    fn end_strangers(&mut self) {
        for prompt in self.log.running_prompts() {
            if !self.core.pending().contains_key(&prompt) {
                self.log.ended(&prompt, now());
            }
        }
    }
}
