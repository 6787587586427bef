//! Finds ends by asking (promises P3, P5, P6): events can be lost with a link, and ComfyUI does not
//! report some ends at all.
//!
//! Prompts that have been silent for long, whose link broke, or whose deletion was requested are
//! looked for on their backend: first in its queue, which is read once for all of them, then each
//! in the history. [`crate::routing::pending`] decides what the findings mean.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::timeout;
use tracing::debug;

use super::Sessions;
use super::control;
use super::losses::{processes_gone, settle_doubts, take_back};
use super::relay::Asked;
use super::{Client, worker_health};
use crate::comfy::answers::{Outcome, Sighting};
use crate::fleet::api::ApiError;
use crate::fleet::backend::Backend;
use crate::journal::restore::Undelivered;
use crate::lock::{Lock, rank};
use crate::net::{now, sleep};
use crate::routing::ids::{BackendId, PromptId};
use crate::routing::pending::{End, Fate, Loss, Observation, Pending, Process, process_since};
use crate::shared::Shared;
use crate::tasks::heartbeat::Heart;

/// The pause between two rounds, unless one is requested sooner.
const ROUND: Duration = Duration::from_millis(500);

/// The least pause between two rounds.
const ROUND_MIN: Duration = Duration::from_millis(50);

/// How long a round waits for one backend.
const ROUND_MAX: Duration = Duration::from_secs(2);

/// How many prompts are asked about per backend and round; the rest waits for the next.
const PER_ROUND: usize = 64;

/// Collects the questions of each round and hands them to each backend's own task, until the
/// process stops. So a slow or silent backend does not delay the ends at others.
pub async fn reconcile(sessions: Arc<Sessions>) {
    let mut desks: BTreeMap<BackendId, Arc<Desk>> = BTreeMap::new();
    let heart = sessions.shared.tasks.hearts().heart("reconciler");
    loop {
        heart.beat();
        tokio::select! {
            biased;
            () = sleep(ROUND) => {}
            () = sessions.reconcile_asked() => sleep(ROUND_MIN).await,
            () = sessions.shared.tasks.stopping() => return,
        }
        presume_lost(&sessions);
        let working = sessions.clients.working();
        processes_gone(&sessions, &working);
        take_back(&sessions, &working);
        for client in &working {
            client.take_notice(&sessions.shared, now());
        }
        let mut questions = questions(&sessions.shared, &working);
        for backend in sessions.shared.fleet.iter() {
            let desk = desks.entry(backend.id).or_insert_with(|| Desk::open(&sessions, &backend));
            desk.put(questions.remove(&backend.id).unwrap_or_default());
        }
        desks.retain(|id, _| !sessions.shared.fleet.get(*id).has_left());
    }
}

/// Where a backend's task finds its questions: always those of the latest round, if it is late.
#[derive(Debug)]
struct Desk {
    round: Lock<Option<Questions>, { rank::DESK }>,
    came: Notify,
    heart: Arc<Heart>,
}

impl Desk {
    fn open(sessions: &Arc<Sessions>, backend: &Arc<Backend>) -> Arc<Self> {
        let heart = sessions.shared.tasks.hearts().heart("reconciler of a backend");
        let desk = Arc::new(Self { round: Lock::new(None), came: Notify::new(), heart });
        let (sessions, backend, opened) =
            (Arc::clone(sessions), Arc::clone(backend), Arc::clone(&desk));
        sessions.clone().shared.tasks.spawn_again(move || {
            work_at(Arc::clone(&opened), Arc::clone(&sessions), Arc::clone(&backend))
        });
        desk
    }

    fn put(&self, questions: Questions) {
        *self.round.lock() = Some(questions);
        self.came.notify_one();
    }

    async fn next(&self) -> Questions {
        loop {
            let round = self.round.lock().take();
            match round {
                Some(questions) => return questions,
                None => self.came.notified().await,
            }
        }
    }
}

/// Asks one backend, round by round, until it leaves the fleet.
async fn work_at(desk: Arc<Desk>, sessions: Arc<Sessions>, backend: Arc<Backend>) {
    let mut returned = Returned::default();
    loop {
        desk.heart.beat();
        let questions = tokio::select! {
            biased;
            () = backend.leaves() => return,
            questions = desk.next() => questions,
        };
        if !backend.is_up() {
            continue;
        }
        worker_health::round(&sessions.shared, &backend, &questions.running).await;
        returned.look_around(&sessions.shared, &backend);
        round(&sessions, &backend, &questions).await;
        returned.round(&sessions, &backend).await;
        let _late = timeout(ROUND_MAX, settle_doubts(&sessions, &backend)).await;
    }
}

/// The questions for one backend in one round.
#[derive(Debug, Default)]
struct Questions {
    pending: Vec<(Arc<Client>, PromptId, Asked)>,
    /// Ends from before a restart, which must be sent again.
    undelivered: Vec<(Arc<Client>, Undelivered)>,
    /// The clients with prompts that run there: their events show whether its worker is alive.
    /// Collected once for all backends, because it takes a look at every client with work.
    running: Vec<Arc<Client>>,
}

async fn round(sessions: &Arc<Sessions>, backend: &Arc<Backend>, questions: &Questions) {
    // Answers that came were applied, even if the round did not finish.
    match timeout(ROUND_MAX, ask(sessions, backend, questions)).await {
        Ok(Ok(())) | Err(_) => {}
        Ok(Err(error)) => debug!(backend = %backend.name(), %error, "Asking about prompts failed."),
    }
}

fn questions(shared: &Shared, working: &[Arc<Client>]) -> BTreeMap<BackendId, Questions> {
    let now = now();
    let silent_after = shared.config().prompts.silent_after;
    let mut all: BTreeMap<BackendId, Questions> = BTreeMap::new();
    for client in working {
        if let Some(backend) = client.runs_at() {
            all.entry(backend).or_default().running.push(Arc::clone(client));
        }
        let to_ask = client.inspect(|core, _| {
            let to_ask = core.to_ask(silent_after, now).into_iter();
            let asked = |prompt: &PromptId| core.pending().get(prompt).and_then(Asked::of);
            to_ask.map(|(prompt, _)| (asked(&prompt), prompt)).collect::<Vec<_>>()
        });
        for (asked, prompt) in to_ask {
            let Some(asked) = asked else { continue };
            let pending = &mut all.entry(asked.backend).or_default().pending;
            if pending.len() < PER_ROUND {
                pending.push((Arc::clone(client), prompt, asked));
            }
        }
        for found in client.undelivered() {
            let Some(backend) = found.backend else { continue };
            let undelivered = &mut all.entry(backend).or_default().undelivered;
            if undelivered.len() < PER_ROUND {
                undelivered.push((Arc::clone(client), found));
            }
        }
    }
    all
}

async fn ask(
    sessions: &Arc<Sessions>,
    backend: &Backend,
    questions: &Questions,
) -> Result<(), ApiError> {
    let limit = sessions.shared.config().fleet.probe_timeout;
    let asked = now();
    let mut looks = Looks { backend, limit, queue: None };
    for (client, prompt, place) in &questions.pending {
        let sighting = match looks.look(prompt).await {
            Ok(sighting) => sighting,
            // One unreadable entry must not stop the questions about all others.
            Err(error) if error.is_about_this_question() => {
                debug!(%prompt, backend = %backend.name(), %error, "Asking failed.");
                continue;
            }
            Err(error) => return Err(error),
        };
        let known = client.inspect(|core, _| {
            let found = core.pending().get(prompt)?;
            Some((found.sent(), found.heard, found.is_on_trial()))
        });
        let Some((sent, heard, is_on_trial)) = known else { continue };
        if is_on_trial && matches!(sighting, Sighting::Queued { .. }) {
            // It went there for a verdict, behind all others, and was not taken back: its gateway
            // was killed, or the backend did not answer. Or the backend is to be left. The next
            // rounds find it gone.
            client.takes_back(sessions, backend, (prompt, *place, asked)).await;
            continue;
        }
        if asked < heard && matches!(sighting, Sighting::Queued { .. }) {
            // It waited when it was asked about, but an event has come since, so it no longer
            // waits.
            continue;
        }
        let process = process_since(sent, backend.restarted());
        let (sighted, history) = match &sighting {
            Sighting::Queued { .. } => (Observation::Queued, None),
            Sighting::Running { .. } => (Observation::Running, None),
            Sighting::Ended(ended) => (Observation::InHistory(end_of(ended.outcome)), Some(ended)),
            Sighting::Absent => (Observation::Absent(process), None),
        };
        if sighted == Observation::Absent(Process::Restarted)
            && client.process_gone(sessions, backend, prompt) != Fate::Stays
        {
            continue;
        }
        client.on_probe(sessions, (prompt, *place, asked), sighted, history, now());
    }
    for (client, undelivered) in &questions.undelivered {
        let history = match backend.history_of(&undelivered.prompt, limit).await {
            Ok(history) => history,
            // Its end is known; it is sent without its outputs.
            Err(error) if error.is_about_this_question() => None,
            Err(error) => return Err(error),
        };
        let undelivered = (undelivered, backend.id);
        client.tell_again(&sessions.shared, undelivered, history.as_ref());
    }
    Ok(())
}

/// The questions of one round to one backend: one small question per prompt if the server supports
/// it, else its queue once for all prompts and the history of each.
struct Looks<'a> {
    backend: &'a Backend,
    limit: Duration,
    queue: Option<Bytes>,
}

impl Looks<'_> {
    async fn look(&mut self, prompt: &PromptId) -> Result<Sighting, ApiError> {
        if self.backend.version().is_some_and(|version| version.has_jobs()) {
            return self.backend.look_for_one(prompt, self.limit).await;
        }
        let queue = match &self.queue {
            Some(queue) => queue.clone(),
            None => self.queue.insert(self.backend.get_ok("/queue", self.limit).await?).clone(),
        };
        self.backend.look_in(&queue, prompt, self.limit).await
    }
}

/// A backend that came back after its prompts were presumed lost (P6). Those that still wait there
/// are deleted. For those that run or have ended, the ledger is corrected.
#[derive(Debug, Default)]
struct Returned {
    /// The count of its changes between up and down at the last check.
    turned: Option<u64>,
    /// The prompts that are still to be asked about.
    prompts: Vec<PromptId>,
}

impl Returned {
    fn look_around(&mut self, shared: &Shared, backend: &Backend) {
        let turned = backend.up_state();
        if turned.up && self.turned.replace(turned.times) != Some(turned.times) {
            self.prompts = shared.records.presumed_lost(backend.id);
        }
    }

    async fn round(&mut self, sessions: &Arc<Sessions>, backend: &Arc<Backend>) {
        let few: Vec<PromptId> = self.prompts.iter().take(PER_ROUND).cloned().collect();
        let mut completion = Vec::new();
        let asked = async {
            for prompt in &few {
                if tell_apart(sessions, backend, prompt).await {
                    completion.push(prompt);
                }
            }
        };
        let _ = timeout(ROUND_MAX, asked).await;
        self.prompts.retain(|prompt| !completion.contains(&prompt));
        // Prompts that are not settled are asked about last.
        let left = (few.len() - completion.len()).min(self.prompts.len());
        self.prompts.rotate_left(left);
    }
}

/// Finds out what happened to a prompt that was presumed lost. False if it must be asked about
/// again.
async fn tell_apart(sessions: &Arc<Sessions>, backend: &Arc<Backend>, prompt: &PromptId) -> bool {
    let limit = sessions.shared.config().fleet.probe_timeout;
    match backend.look_for_one(prompt, limit).await {
        Ok(Sighting::Queued { .. }) => {
            control::revoke(sessions, backend, prompt);
            // Until it is seen to be gone.
            false
        }
        Ok(Sighting::Ended(ended)) => {
            sessions.shared.records.prompt_corrected(prompt, end_of(ended.outcome));
            true
        }
        Ok(Sighting::Absent) => true,
        Ok(Sighting::Running { .. }) | Err(_) => false,
    }
}

/// The end of a prompt according to its history entry.
#[must_use]
pub fn end_of(outcome: Outcome) -> End {
    match outcome {
        Outcome::Succeeded => End::Succeeded,
        Outcome::Failed => End::Failed,
        Outcome::Interrupted => End::Interrupted,
    }
}

/// Presumes the prompts lost of backends that have been away, or ran nothing, for longer than their
/// grace (P6, P9).
fn presume_lost(sessions: &Arc<Sessions>) {
    let now = now();
    let grace = sessions.shared.config().fleet.grace;
    let is_past = |since: Option<Duration>| since.is_some_and(|since| grace <= since);
    let is_lost = |backend: Arc<Backend>| {
        if is_past(backend.down_for(now)) {
            return Some((backend.id, Loss::BackendGone));
        }
        is_past(backend.wedged_for(now)).then_some((backend.id, Loss::BackendWedged))
    };
    let lost: Vec<(BackendId, Loss)> = sessions.shared.fleet.iter().filter_map(is_lost).collect();
    let has_left = |backend: BackendId| sessions.shared.fleet.get(backend).has_left();
    if lost.is_empty() && sessions.shared.fleet.left().is_empty() {
        return;
    }
    for client in sessions.clients.working() {
        // Many left backends are remembered, and hardly any has pending prompts.
        let gone = client.inspect(|core, _| {
            let on = core.pending().values().filter_map(Pending::backend);
            on.filter(|backend| has_left(*backend)).collect::<BTreeSet<_>>()
        });
        let gone = gone.into_iter().map(|backend| (backend, Loss::BackendGone));
        for (backend, loss) in gone.chain(lost.iter().copied()) {
            client.presume_lost(sessions, backend, loss, now);
        }
    }
}
