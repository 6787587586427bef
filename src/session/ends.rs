//! What is done when prompts of a client have ended.
//!
//! # Invariants
//!
//! - An end that the gateway has decided itself, of a prompt whose body was kept, is told when the
//!   journal has it: after a kill the prompt would wait again, and run, although it was told to
//!   have ended.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::apply::{After, Turn};
use super::subscriber::Audience;
use super::tombstones::TombstoneReason;
use super::{Client, Sessions, State};
use crate::journal::record::Told;
use crate::metrics::EndedPrompt;
use crate::queue::Spent;
use crate::routing::effects::{Ended, KnownBy};
use crate::routing::ids::PromptId;
use crate::routing::pending::End;
use crate::ws::Frame;

/// An end that is told when it is durable.
pub(super) struct Untold {
    prompt: PromptId,
    end: End,
    at: Instant,
    audience: Audience,
    text: String,
}

impl Turn<'_> {
    /// Prompts ended: sends the ends that sockets have not been told, and drops what was kept for
    /// the prompts.
    pub(super) fn ended(&mut self, ended: Vec<Ended>, mut history: Option<Vec<Frame>>) {
        let sessions = self.sessions();
        let is_kept = sessions.shared.records.journal.is_kept();
        let mut cut_off = Vec::new();
        for ended in ended {
            let name = &sessions.shared.fleet.name_of(ended.backend);
            let counts = counts(&ended, name);
            let Ended { prompt, backend, end, ran, first_step, at, known, .. } = ended;
            let unkept = sessions.leaves_queue(&prompt, spent(end, first_step, known));
            let state: &mut State = self;
            let mut told = state.told();
            let mut untold = None;
            match (known, history.take()) {
                (KnownBy::Heard, _) => {}
                (KnownBy::Found, Some(history)) => state.tell_history(&prompt, history),
                (KnownBy::Found | KnownBy::GivenUp | KnownBy::CutOff, _) => {
                    let (audience, text) = state.end_of(&prompt, end, name);
                    if is_kept && unkept.is_some() {
                        let prompt = prompt.clone();
                        untold = Some(Untold { prompt, end, at, audience, text });
                        told = Told::No;
                    } else {
                        state.tell_end_as(audience, &prompt, text);
                    }
                }
            }
            // Events that are held back, or come late, must not follow. Nor come before an end that
            // is told in a moment.
            if matches!(known, KnownBy::GivenUp | KnownBy::CutOff) || untold.is_some() {
                state.tombstones.add(&prompt, TombstoneReason::Told);
            }
            let remembered = state.forget(&prompt, at);
            let bill = remembered.as_ref().and_then(|it| it.bill(end, ran));
            let waits = remembered.map(|remembered| remembered.completion());
            if let Some((payer, ran)) = bill {
                self.later(After::Ran { payer, ran });
            }
            if known == KnownBy::CutOff {
                cut_off.extend(backend.map(|backend| (prompt.clone(), backend)));
            }
            self.later(After::Ended { prompt, counts, told, waits });
            // After its note: that is what is waited for.
            unkept.into_iter().for_each(|unkept| self.later(unkept));
            untold.into_iter().for_each(|untold| self.later(After::Tell(untold)));
        }
        if !cut_off.is_empty() {
            self.later(After::Stop(cut_off));
        }
    }
}

impl Client {
    /// Tells an end when all that is noted now is durable.
    pub(super) fn tell_when_durable(
        self: &Arc<Self>,
        sessions: &Arc<Sessions>,
        Untold { prompt, end, at, audience, text }: Untold,
    ) {
        let (client, sessions) = (Arc::clone(self), Arc::clone(sessions));
        let tasks = sessions.shared.tasks.clone();
        tasks.spawn(async move {
            let records = &sessions.shared.records;
            // While the journal fails nobody would be told at all, so all are.
            let _told_anyway = records.journal.durable().await;
            let told = {
                let mut state = client.state();
                state.tell_end_as(audience, &prompt, text);
                state.log.ended(&prompt, at);
                state.told()
            };
            if told == Told::Yes {
                records.end_told(&prompt, end);
            }
        });
    }
}

/// What is counted of a prompt that ended. A lost one ran for nobody knows how long.
fn counts(ended: &Ended, backend: &Arc<str>) -> EndedPrompt {
    let Ended { end, started, decided, ran, .. } = *ended;
    let waited = decided.zip(started);
    let waited = waited.map(|(decided, started)| started.saturating_duration_since(decided));
    let ran = match end {
        End::Succeeded | End::Failed | End::Interrupted => ran.filter(|_| waited.is_some()),
        End::Deleted | End::Lost(_) => None,
    };
    EndedPrompt { backend: Arc::clone(backend), end, waited, ran }
}

/// What the queue learns of an end.
fn spent(end: End, first_step: Option<Duration>, known: KnownBy) -> Spent {
    match end {
        // When one ended that was found later is not known.
        End::Succeeded if known != KnownBy::Heard => Spent::Seen { first_step: None },
        End::Succeeded => Spent::Seen { first_step },
        End::Failed | End::Interrupted | End::Deleted | End::Lost(_) => Spent::Broke,
    }
}
