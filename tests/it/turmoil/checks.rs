//! The promises, as questions to the gateway, to the ledgers of the backends and to the book.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use mooring::front::Front;
use mooring::net::now;
use mooring::routing::ids::{BackendId, PromptId};
use mooring::routing::ledger::State;
use mooring::routing::pending::{Course, End, Pending, Phase};
use mooring::session::Client;
use mooring::sim::{Ledger, Sim};

use super::CHAOS;
use super::book::{Answer, Book, Said, Submitted};
use super::network::Links;

/// What has to be remembered from step to step.
#[derive(Debug, Default)]
pub(super) struct Checks {
    pub(super) links: Arc<Links>,
    /// Where each prompt is pending.
    places: BTreeMap<String, BackendId>,
    /// Since when a client waits although it need not.
    in_vain: BTreeMap<String, Duration>,
}

/// How long after the chaos a backend that could not be reached may not be tried.
const SETTLES: Duration = Duration::from_secs(12);

const WAITS_AT_MOST: Duration = Duration::from_secs(5);

/// Until it is sent, or known to have begun, it may still go elsewhere.
fn may_move(pending: &Pending) -> bool {
    pending.phase == Phase::Sending || matches!(pending.course(), Course::Kept | Course::Taken)
}

impl Checks {
    /// All pending prompts of a client are on the backend that it is bound to, and each stays
    /// where it was (invariants 2 and 3).
    pub(super) fn bindings(&mut self, gateway: &Front) -> Result<(), String> {
        let before = std::mem::take(&mut self.places);
        for client in gateway.sessions.clients.all() {
            let (bound, pending) = client.inspect(|core, _| {
                let at = core
                    .pending()
                    .iter()
                    .filter_map(|(id, it)| Some((id.clone(), it.backend()?, may_move(it))));
                (core.bound().map(|(backend, _)| backend), at.collect::<Vec<_>>())
            });
            for (prompt, backend, may_move) in pending {
                if bound != Some(backend) {
                    let id = &client.id;
                    return Err(format!("{id} is bound to {bound:?}; {prompt} is on {backend:?}"));
                }
                let prompt = prompt.to_string();
                if before.get(&prompt).is_some_and(|before| *before != backend) {
                    return Err(format!("{prompt} has moved to {backend:?}"));
                }
                if !may_move {
                    self.places.insert(prompt, backend);
                }
            }
        }
        Ok(())
    }

    /// After the chaos a prompt does not wait while a backend that may run it has had nothing to do
    /// for so long.
    pub(super) fn nothing_waits_in_vain(
        &mut self,
        gateway: &Front,
        elapsed: Duration,
    ) -> Result<(), String> {
        if elapsed < CHAOS + SETTLES {
            return Ok(());
        }
        let views = gateway.shared.fleet.views(now());
        let idle: BTreeSet<BackendId> = views
            .iter()
            .filter(|view| view.takes_work() && view.load == 0)
            .map(|view| view.id)
            .collect();
        // Where it is bound it stays until all of its prompts have ended.
        let works = |id: &BackendId| views.iter().any(|it| it.id == *id && it.takes_work());
        let may = |core: &mooring::routing::client::Client| {
            let bound = core.bound().map(|(bound, _)| bound).filter(works);
            core.held_at().or(bound).map_or(!idle.is_empty(), |it| idle.contains(&it))
        };
        let waits: BTreeSet<String> = gateway
            .sessions
            .clients
            .all()
            .iter()
            .filter(|client| client.inspect(|core, _| core.has_waiting() && may(core)))
            .map(|client| client.id.to_string())
            .collect();
        self.in_vain.retain(|client, _| waits.contains(client));
        for client in waits {
            let since = *self.in_vain.entry(client.clone()).or_insert(elapsed);
            if WAITS_AT_MOST <= elapsed - since {
                let told = self.why_it_waits(gateway, &client);
                return Err(format!("{client} waits, and {idle:?} do nothing: {told}"));
            }
        }
        Ok(())
    }

    /// What the queue says of a client's prompts that wait.
    fn why_it_waits(&self, gateway: &Front, client: &str) -> String {
        let clients = gateway.sessions.clients.all();
        let client = clients.iter().find(|it| it.id.to_string() == client).unwrap();
        let (bound, held, waits) = client.inspect(|core, _| {
            let waits: Vec<PromptId> = core
                .pending()
                .iter()
                .filter(|(_, pending)| pending.phase == Phase::Waiting)
                .map(|(id, _)| id.clone())
                .collect();
            (core.bound(), core.held_at(), waits)
        });
        let places: Vec<_> = waits
            .iter()
            .map(|id| format!("{id}: {:?}", gateway.sessions.waiting.places(id)))
            .collect();
        format!("bound {bound:?}, held {held:?}, {places:#?}")
    }

    /// At most one link for each client and backend (invariant 6).
    pub(super) fn links(&self) -> Result<(), String> {
        match self.links.take_doubled().pop() {
            Some(doubled) => Err(doubled),
            None => Ok(()),
        }
    }
}

/// The clients whose binding is held.
pub(super) fn held(gateway: &Front) -> Vec<String> {
    let all = gateway.sessions.clients.all();
    let is_held =
        |client: &&Arc<Client>| client.inspect(|core, _| core.is_held() || core.has_waiting());
    let held = all.iter().filter(is_held);
    held.map(|client| client.id.to_string()).collect()
}

/// A backend, and how often its dead processes began each prompt.
#[derive(Debug, Default)]
pub(super) struct Machine {
    pub(super) sim: OnceLock<Sim>,
    buried: Mutex<BTreeMap<String, u32>>,
    deaths: Mutex<Vec<Death>>,
}

/// What a process left that died.
#[derive(Clone, Debug, Default)]
struct Death {
    /// What it had in its queue behind a prompt that ran.
    behind: Vec<String>,
    /// How long the lists of its ledger were then.
    enqueued: usize,
    finished: usize,
    deleted: usize,
}

impl Death {
    fn of(ledger: &Ledger, before: &BTreeMap<String, u32>, last: &Self) -> Self {
        let has_begun = |prompt: &String| {
            ledger.executed.get(prompt).copied().unwrap_or(0)
                > before.get(prompt).copied().unwrap_or(0)
        };
        let ran = |prompt: &&String| {
            has_begun(prompt) && !ledger.finished[last.finished..].contains(prompt)
        };
        let here = &ledger.enqueued[last.enqueued..];
        let is_there = |prompt: &&String| {
            !has_begun(prompt) && !ledger.deleted[last.deleted..].contains(prompt)
        };
        let runs = here.iter().any(|prompt| ran(&prompt));
        let behind = here.iter().filter(|it| runs && is_there(it)).cloned().collect();
        Self {
            behind,
            enqueued: ledger.enqueued.len(),
            finished: ledger.finished.len(),
            deleted: ledger.deleted.len(),
        }
    }
}

impl Machine {
    /// Its process has died, and with it whatever it was told.
    pub(super) fn bury(&self) {
        if let Some(sim) = self.sim.get() {
            let ledger = sim.ledger();
            let mut deaths = self.deaths.lock().unwrap();
            let mut buried = self.buried.lock().unwrap();
            let last = deaths.last().cloned().unwrap_or_default();
            deaths.push(Death::of(&ledger, &buried, &last));
            *buried = ledger.executed;
        }
    }
}

/// How often a prompt was begun, over all backends.
#[derive(Clone, Copy, Debug, Default)]
struct Begun {
    /// By processes that live.
    alive: u32,
    /// By processes that have died since: nothing is left of it.
    buried: u32,
}

fn executed(backends: &[Arc<Machine>]) -> BTreeMap<String, Begun> {
    let mut executed: BTreeMap<String, Begun> = BTreeMap::new();
    for machine in backends {
        let Some(sim) = machine.sim.get() else { continue };
        let buried = machine.buried.lock().unwrap();
        for (prompt, count) in sim.ledger().executed {
            let dead = buried.get(&prompt).copied().unwrap_or(0);
            let begun = executed.entry(prompt).or_default();
            begun.alive += count - dead;
            begun.buried += dead;
        }
    }
    executed
}

/// No prompt was begun twice, wherever (invariant 5); but one that died with its backend may be
/// submitted again by its client.
pub(super) fn executions(backends: &[Arc<Machine>], book: &Book) -> Result<(), String> {
    for (prompt, begun) in executed(backends) {
        let tries = book.submitted.get(&prompt).map_or(1, |submitted| submitted.tries);
        // A gateway that was killed asks for what it had sent. Nobody knows what a process has done
        // that died meanwhile.
        if 1 < begun.alive || tries.max(1) + book.unseen < begun.alive + begun.buried {
            return Err(format!("{prompt} was submitted {tries} times and executed {begun:?}"));
        }
    }
    Ok(())
}

/// After it has become quiet.
pub(super) fn in_the_end(
    book: &Book,
    gateway: &Front,
    backends: &[Arc<Machine>],
) -> Result<(), String> {
    executions(backends, book)?;
    let executed = executed(backends);
    for (prompt, submitted) in &book.submitted {
        let lives = executed.get(prompt).is_some_and(|begun| 0 < begun.alive);
        answer_is_true(prompt, submitted, lives)?;
        end_is_told(book, prompt, submitted, lives)?;
        history_is_told(book, prompt, submitted, state_of(gateway, prompt), lives)?;
    }
    if gateway.shared.config().queue.is_used() {
        nothing_unbegun_is_lost(book, backends, &executed)?;
    }
    nobody_else_was_told(book)?;
    nameless(book, &executed)?;
    is_released(gateway)
}

/// An error means that it does not run, unless it says that this is not known (promise P2).
fn answer_is_true(prompt: &str, submitted: &Submitted, was_executed: bool) -> Result<(), String> {
    match &submitted.answer {
        Answer::Refused(why) if was_executed => {
            Err(format!("{prompt} was answered with {why} and executed"))
        }
        Answer::Waiting => Err(format!("{prompt} was never answered")),
        Answer::Taken | Answer::Refused(_) | Answer::Unknown(_) => Ok(()),
    }
}

/// What was taken is told from its start to its end, or is said to be lost (promises S3, P6).
///
/// `lives` says that the process that ran it lives, and with it its history.
fn end_is_told(
    book: &Book,
    prompt: &str,
    submitted: &Submitted,
    lives: bool,
) -> Result<(), String> {
    let told = book.told(&submitted.person, prompt);
    let wrong = |what: &str| Err(format!("{prompt} {what}: {told:?}"));
    match submitted.answer {
        Answer::Taken if !told.has_end() => return wrong("has no end"),
        // The journal need not know yet that it was withdrawn when the gateway is killed.
        // A reset ends what is being sent, and says so to both.
        Answer::Refused(_)
            if told.has_end() && (book.kills + book.resets == 0 || told.lost == 0) =>
        {
            return wrong("was refused and has an end");
        }
        Answer::Taken | Answer::Refused(_) | Answer::Unknown(_) | Answer::Waiting => {}
    }
    // Of a process that died nobody can ask for what was missed.
    if lives && 0 < told.succeeded && (told.starts == 0 || told.outputs == 0) {
        return wrong("succeeded without a start or an output");
    }
    if has_two_ends(&told.ends) {
        return wrong("has two ends");
    }
    Ok(())
}

/// What a gateway told in the moment of its death the next one has to find out, and a backend that
/// is away or died as well does not say it: then it is told to be lost. Any other end is the same
/// in all lives.
fn has_two_ends(ends: &BTreeSet<(u32, Said)>) -> bool {
    let lives: BTreeSet<u32> = ends.iter().map(|(life, _)| *life).collect();
    let found: BTreeSet<Said> =
        ends.iter().map(|(_, said)| *said).filter(|said| *said != Said::Lost).collect();
    lives.len() < ends.len() || 1 < found.len()
}

/// What had not begun when its backend died is not lost with it, if the gateway saw what ran there
/// and how it died.
fn nothing_unbegun_is_lost(
    book: &Book,
    backends: &[Arc<Machine>],
    executed: &BTreeMap<String, Begun>,
) -> Result<(), String> {
    for (index, machine) in backends.iter().enumerate() {
        let deaths = machine.deaths.lock().unwrap();
        let seen = book.deaths.iter().filter(|death| death.of == index);
        for (death, seen) in deaths.iter().zip(seen) {
            if !seen.is_clear {
                continue;
            }
            for prompt in &death.behind {
                let Some(submitted) = book.submitted.get(prompt) else { continue };
                let is_lost = 0 < book.told(&submitted.person, prompt).lost;
                let sent = backends
                    .iter()
                    .filter_map(|it| it.sim.get())
                    .map(|sim| sim.ledger().enqueued.iter().filter(|it| *it == prompt).count());
                if is_lost && !executed.contains_key(prompt) && sent.sum::<usize>() == 1 {
                    let at = seen.at;
                    return Err(format!("{prompt} had not begun when {index} died at {at:?}"));
                }
            }
        }
    }
    Ok(())
}

fn state_of(gateway: &Front, prompt: &str) -> Option<State> {
    let prompt = PromptId::parse(prompt).expect("people choose ids that can be");
    gateway.shared.records.ledger_of(&prompt).get(&prompt, now()).map(|record| record.state)
}

/// What was said to be lost has an entry that says so, or its own (promise P6).
fn history_is_told(
    book: &Book,
    prompt: &str,
    submitted: &Submitted,
    state: Option<State>,
    lives: bool,
) -> Result<(), String> {
    if book.told(&submitted.person, prompt).lost == 0 || !is_history_due(state, lives) {
        return Ok(());
    }
    let status = submitted.history.as_ref().map(|history| &history[prompt]["status"]);
    if status.is_none_or(|status| !status["status_str"].is_string()) {
        return Err(format!("{prompt} is lost, and its history says {:?}", submitted.history));
    }
    Ok(())
}

/// Whether a prompt that was said to be lost must have a history. The ledger makes one up for what
/// is still lost. What it was corrected about when its backend returned has only its backend's,
/// and no more than any other prompt once that has died, too.
fn is_history_due(state: Option<State>, lives: bool) -> bool {
    match state {
        Some(State::Ended(End::Succeeded | End::Failed | End::Interrupted)) => lives,
        Some(State::Pending | State::Learned | State::Ended(End::Deleted | End::Lost(_)))
        | None => true,
    }
}

/// Events of prompts whose id the gateway gave go to one client only.
fn nobody_else_was_told(book: &Book) -> Result<(), String> {
    let mut listeners: BTreeMap<&str, &str> = BTreeMap::new();
    for (person, prompt) in book.told.keys() {
        let owner = book.submitted.get(prompt).map(|it| it.person.as_str());
        let first = *listeners.entry(prompt).or_insert(owner.unwrap_or(person));
        if first != person {
            return Err(format!("{first} and {person} were told of {prompt}"));
        }
    }
    Ok(())
}

/// What runs without anybody knowing its id was submitted without one, and its answer was not an
/// error.
fn nameless(book: &Book, executed: &BTreeMap<String, Begun>) -> Result<(), String> {
    let unknown = |answer: &Answer| matches!(answer, Answer::Unknown(_));
    let excused = book.nameless.iter().filter(|(_, answer)| unknown(answer)).count();
    let alive = executed.iter().filter(|(_, begun)| 0 < begun.alive);
    let strays: Vec<&String> =
        alive.map(|(id, _)| id).filter(|id| !book.submitted.contains_key(*id)).collect();
    if excused < strays.len() {
        return Err(format!("{strays:?} ran; {excused} submissions have an unknown end"));
    }
    Ok(())
}

/// Nobody is held, and the books of the fleet agree (promise B3).
fn is_released(gateway: &Front) -> Result<(), String> {
    let held = held(gateway);
    if !held.is_empty() {
        return Err(format!("{held:?} are held after all has ended"));
    }
    for backend in gateway.shared.fleet.iter() {
        let bound = gateway.sessions.clients.all().iter().fold(0, |count, client| {
            let is_here = |(at, _)| at == backend.id;
            count + u32::from(client.inspect(|core, _| core.bound().is_some_and(is_here)))
        });
        // Each host has a clock of its own; by this time all has been counted.
        let report = backend.report(now() + Duration::from_secs(3_600));
        if (report.bound, report.load) != (bound, 0) {
            let name = &backend.name();
            return Err(format!("{name} counts {report:?}; {bound} are bound to it"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use mooring::routing::pending::Loss;

    use super::*;

    #[test]
    fn a_history_is_due_of_what_is_lost_and_of_what_ended_on_a_backend_that_lives() {
        let lost = Some(State::Ended(End::Lost(Loss::BackendGone)));
        let corrected = Some(State::Ended(End::Succeeded));
        assert!(is_history_due(lost, true) && is_history_due(lost, false));
        assert!(is_history_due(corrected, true));
        assert!(!is_history_due(corrected, false));
        // Whatever else it is, it was said to be lost.
        assert!(is_history_due(None, false) && is_history_due(Some(State::Pending), false));
    }

    #[test]
    fn two_ends_are_excused_only_by_two_lives_of_which_one_knew_of_a_loss_alone() {
        let told = |ends: &[(u32, Said)]| has_two_ends(&ends.iter().copied().collect());
        assert!(!told(&[(0, Said::Succeeded), (1, Said::Succeeded)]));
        assert!(!told(&[(0, Said::Succeeded), (1, Said::Lost)]));
        assert!(told(&[(0, Said::Succeeded), (0, Said::Lost)]));
        assert!(told(&[(0, Said::Succeeded), (1, Said::Failed)]));
    }
}
