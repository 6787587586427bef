//! Synthesizes events that no backend sent, in ComfyUI's format: ends found by asking, ends that
//! ComfyUI does not report, and the start of a prompt whose start event was missed.

use std::time::Instant;

use super::event_log::Kept;
use super::submissions::{Account, Remembered};
use super::subscriber::Audience;
use super::{Missed, State};
use crate::comfy::event::{self, Event};
use crate::comfy::labels::Label;
use crate::comfy::messages;
use crate::net::unix_millis;
use crate::routing::ids::{BackendId, PromptId};
use crate::routing::pending::{End, Loss, Phase};
use crate::ws::Frame;

impl State {
    /// A prompt has ended and its closing event was sent: the log drops its progress. Returns what
    /// was remembered of its submission.
    pub(super) fn forget(&mut self, prompt: &PromptId, ended: Instant) -> Option<Remembered> {
        self.log.ended(prompt, ended);
        self.runs = self.runs.take().filter(|running| running != prompt);
        self.missed.remove(prompt);
        self.remembered.remove(prompt)
    }

    /// Keeps what counts the prompts that were pending before this client was there.
    pub(super) fn keep_accounts(&mut self, accounts: Vec<(PromptId, Account)>) {
        let is_counted = |account: &Account| account.place.is_some() || account.payer.is_some();
        for (prompt, account) in accounts.into_iter().filter(|(_, it)| is_counted(it)) {
            let remembered = self.remembered.remove(&prompt).unwrap_or_default();
            self.remembered.insert(prompt, remembered.counted(account));
        }
    }

    /// There was no link for a while: events of prompts in a matching phase that are pending on
    /// `backend` may have been missed.
    pub(super) fn may_have_missed(&mut self, backend: BackendId, is_meant: impl Fn(Phase) -> bool) {
        let pending = self.core.pending().iter();
        let there = pending.filter(|(_, it)| it.is_on(backend) && is_meant(it.phase));
        for (prompt, _) in there {
            self.missed.entry(prompt.clone()).or_insert(Missed::GoesOn);
        }
    }

    /// Sends the sockets those events from the history that they have not received.
    pub(super) fn tell_history(&mut self, prompt: &PromptId, history: Vec<Frame>) {
        for made_up in history {
            let kept = match event::read(&made_up.payload) {
                Event::Start { .. } if self.log.has_start(prompt.as_str()) => continue,
                Event::Start { .. } => Kept::Start,
                Event::Cached { .. } => Kept::Cached,
                Event::Executed { .. } if self.has_told_output(prompt, &made_up.payload) => {
                    continue;
                }
                Event::Executed { .. } => Kept::Output,
                Event::Executing { .. } => Kept::LastWord,
                Event::Success { .. } | Event::Failed { .. } | Event::Interrupted { .. }
                    if self.log.has_terminal(prompt.as_str()) =>
                {
                    continue;
                }
                Event::Success { .. } | Event::Failed { .. } | Event::Interrupted { .. } => {
                    Kept::Terminal
                }
                Event::Status { .. }
                | Event::Progress { .. }
                | Event::ProgressState { .. }
                | Event::Blocked { .. }
                | Event::FeatureFlags
                | Event::Logs
                | Event::Seeding
                | Event::Seeded
                | Event::Other => continue,
            };
            self.tell(prompt, kept, made_up);
        }
        self.tell_whereabouts(prompt);
    }

    /// True if the output of the same node was sent.
    fn has_told_output(&self, prompt: &PromptId, executed: &[u8]) -> bool {
        let node = event::executed_node(executed);
        let same = |frame: &Frame| event::executed_node(&frame.payload) == node;
        node.is_some() && self.log.has_output_of(prompt.as_str(), same)
    }

    /// The prompt runs, and its start was not received. Synthesizes the start, so that a client
    /// that returns sees it run, and its current node, if the backend has sent that.
    pub(super) fn tell_running(&mut self, prompt: &PromptId) {
        self.runs = Some(prompt.clone());
        if !self.log.has_start(prompt.as_str()) {
            let start = Frame::text(messages::execution_start(prompt, unix_millis()));
            self.tell(prompt, Kept::Start, start);
        }
        if let Some(frame) = self.unclaimed.take()
            && let Some(text) = event::with_prompt(&frame.payload, prompt.as_str())
        {
            self.tell(prompt, Kept::Executing, Frame::text(text));
        }
    }

    /// Tells the sockets of an end that ComfyUI does not report, with ComfyUI's own events.
    pub(super) fn tell_end(&mut self, prompt: &PromptId, end: End, backend: &str) {
        let (audience, text) = self.end_of(prompt, end, backend);
        self.tell_end_as(audience, prompt, text);
    }

    /// The event that tells such an end, and who gets it.
    pub(super) fn end_of(&self, prompt: &PromptId, end: End, backend: &str) -> (Audience, String) {
        let at = unix_millis();
        let text = match end {
            End::Lost(loss) => self.loss_of(prompt, loss, backend, at),
            End::Failed => {
                let message = format!("The job failed on {}.", server_for_people(backend));
                messages::execution_error(prompt, "mooring.PromptFailed", &message, None, at)
            }
            End::Deleted | End::Interrupted => messages::execution_interrupted(prompt, at),
            End::Succeeded => messages::execution_success(prompt, at),
        };
        // As with ComfyUI, a page is told of a prompt that never started only by its `status`.
        let is_quiet = end == End::Deleted && !self.log.has_start(prompt.as_str());
        (if is_quiet { Audience::Scripts } else { Audience::All }, text)
    }

    fn loss_of(&self, prompt: &PromptId, loss: Loss, backend: &str, at: u64) -> String {
        let remembered = self.remembered.get(prompt);
        let refusal = remembered.and_then(|it| it.refusal.clone());
        if let (Loss::Refused, Some(why)) = (loss, refusal) {
            return messages::execution_error(prompt, "mooring.PromptRefused", &why, None, at);
        }
        let worked = self.worked_on(prompt);
        let was_at = worked.as_ref().map(|label| label.for_people());
        let message = lost_message(loss, backend, was_at.as_deref());
        let at_node = worked.or_else(|| remembered?.labels.first());
        messages::execution_error(prompt, "mooring.PromptLost", &message, at_node, at)
    }

    pub(super) fn tell_end_as(&mut self, audience: Audience, prompt: &PromptId, text: String) {
        if !self.log.has_terminal(prompt.as_str()) {
            self.tell_to(audience, prompt, Kept::Terminal, Frame::text(text));
        }
        let last_word = Frame::text(messages::executing(prompt, None));
        self.tell_to(audience, prompt, Kept::LastWord, last_word);
        if audience == Audience::All {
            self.tell_whereabouts(prompt);
        }
    }

    /// The node that ran last, according to the events of a prompt.
    fn worked_on(&self, prompt: &PromptId) -> Option<&Label> {
        let node = event::executing_node(&self.log.executing(prompt.as_str())?.payload)?;
        self.remembered.get(prompt)?.labels.get(&node)
    }

    /// A page shows one active job, and takes any end for that job's. So it is told again what
    /// runs, if that is another prompt than `ended`.
    fn tell_whereabouts(&mut self, ended: &PromptId) {
        let Some(running) = self.log.running().filter(|running| *running != ended) else { return };
        for frame in self.log.whereabouts(running.as_str()) {
            self.say(Audience::Pages, &frame);
        }
    }

    fn tell(&mut self, prompt: &PromptId, kept: Kept, frame: Frame) {
        self.tell_to(Audience::All, prompt, kept, frame);
    }

    fn tell_to(&mut self, audience: Audience, prompt: &PromptId, kept: Kept, frame: Frame) {
        self.say(audience, &frame);
        self.log.keep(prompt, kept, frame);
    }
}

/// The message in the page when work is lost: why, at which node, and what happens next.
#[must_use]
pub fn lost_message(loss: Loss, backend: &str, worked_on: Option<&str>) -> String {
    let backend = server_for_people(backend);
    let why = match loss {
        Loss::BackendRestarted => format!("{backend} was restarted while it had this job"),
        Loss::BackendDied => format!("{backend} ended while it had this job"),
        Loss::BackendGone => format!("{backend} has not answered for too long"),
        Loss::BackendWedged => format!("{backend} answers, but does not work any more"),
        Loss::Vanished => format!("{backend} does not know this job any more"),
        Loss::Reset => "a forced reset ended it".to_owned(),
        Loss::GatewayRestarted => {
            format!("Mooring was restarted while it was sent, and {backend} does not have it")
        }
        Loss::Refused => {
            format!("each server that could run it refused it, the last one was {backend}")
        }
        Loss::WaitedTooLong => "it waited longer than it may".to_owned(),
        Loss::BackendRemoved => format!("{backend} is not configured any more"),
    };
    let at = worked_on.map(|node| format!(" It was at {node}.")).unwrap_or_default();
    format!("The job is lost: {why}.{at} It was not submitted again.")
}

/// A backend's name for people. An unnamed backend has its address as name, which tells people
/// nothing.
#[must_use]
pub fn server_for_people(name: &str) -> &str {
    if is_address(name) { "its server" } else { name }
}

/// True for the name of a backend that was given none.
#[must_use]
pub fn is_address(name: &str) -> bool {
    let is_port = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    name.rsplit_once(':').is_some_and(|(_, port)| is_port(port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_is_told_in_peoples_words_and_once() {
        let told = lost_message(Loss::BackendGone, "gpu-b", Some("KSampler (node 3)"));
        assert_eq!(
            told,
            "The job is lost: gpu-b has not answered for too long. It was at KSampler (node 3). \
             It was not submitted again."
        );
        let nameless = lost_message(Loss::BackendGone, "127.0.0.1:48432", None);
        assert!(!nameless.contains("127.0.0.1") && nameless.contains("its server"), "{nameless}");
    }

    #[test]
    fn a_person_reads_of_jobs_and_servers() {
        for end in End::ALL {
            let End::Lost(loss) = end else { continue };
            let text = lost_message(loss, "gpu-1", None);
            assert!(text.contains("The job is lost"), "{text}");
            let foreign = ["prompt", "backend", "client"].iter().find(|word| text.contains(*word));
            assert_eq!(foreign, None, "{text}");
        }
    }
}
