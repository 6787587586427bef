//! The promises, as questions to the gateway, to the ledgers of the backends and to the book.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use mooring::gateway::Gateway;
use mooring::net::now;
use mooring::routing::ids::BackendId;
use mooring::routing::pending::Phase;
use mooring::sim::Sim;

use super::book::{Answer, Book, Submitted};
use super::network::Links;

/// What has to be remembered from step to step.
#[derive(Debug, Default)]
pub(super) struct Checks {
    pub(super) links: Arc<Links>,
    /// Where each prompt is pending.
    places: BTreeMap<String, BackendId>,
}

impl Checks {
    /// All pending prompts of a client are on the backend that it is bound to, and each stays
    /// where it was (invariants 2 and 3).
    pub(super) fn bindings(&mut self, gateway: &Gateway) -> Result<(), String> {
        let before = std::mem::take(&mut self.places);
        for client in gateway.clients.all() {
            let (bound, pending) = client.inspect(|core, _| {
                let at = core.pending().iter().map(|(id, it)| (id.clone(), it.backend, it.phase));
                (core.bound().map(|(backend, _)| backend), at.collect::<Vec<_>>())
            });
            for (prompt, backend, phase) in pending {
                if bound != Some(backend) {
                    let id = &client.id;
                    return Err(format!("{id} is bound to {bound:?}; {prompt} is on {backend:?}"));
                }
                let prompt = prompt.to_string();
                if before.get(&prompt).is_some_and(|before| *before != backend) {
                    return Err(format!("{prompt} has moved to {backend:?}"));
                }
                // Until it is sent it may still go elsewhere.
                if phase != Phase::Sending {
                    self.places.insert(prompt, backend);
                }
            }
        }
        Ok(())
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
pub(super) fn held(gateway: &Gateway) -> Vec<String> {
    let all = gateway.clients.all();
    let held = all.iter().filter(|client| client.inspect(|core, _| core.is_held()));
    held.map(|client| client.id.to_string()).collect()
}

/// A backend, and how often its dead processes began each prompt.
#[derive(Debug, Default)]
pub(super) struct Machine {
    pub(super) sim: OnceLock<Sim>,
    buried: Mutex<BTreeMap<String, u32>>,
}

impl Machine {
    /// Its process has died, and with it whatever it was told.
    pub(super) fn bury(&self) {
        if let Some(sim) = self.sim.get() {
            *self.buried.lock().unwrap() = sim.ledger().executed;
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
        if 1 < begun.alive || tries.max(1) < begun.alive + begun.buried {
            return Err(format!("{prompt} was submitted {tries} times and executed {begun:?}"));
        }
    }
    Ok(())
}

/// After it has become quiet.
pub(super) fn in_the_end(
    book: &Book,
    gateway: &Gateway,
    backends: &[Arc<Machine>],
) -> Result<(), String> {
    executions(backends, book)?;
    let executed = executed(backends);
    for (prompt, submitted) in &book.submitted {
        let lives = executed.get(prompt).is_some_and(|begun| 0 < begun.alive);
        answer_is_true(prompt, submitted, lives)?;
        end_is_told(book, prompt, submitted, lives)?;
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
        Answer::Refused(_) if told.has_end() && (book.kills == 0 || told.lost == 0) => {
            return wrong("was refused and has an end");
        }
        Answer::Taken | Answer::Refused(_) | Answer::Unknown(_) | Answer::Waiting => {}
    }
    // Of a process that died nobody can ask for what was missed.
    if lives && 0 < told.succeeded && (told.starts == 0 || told.outputs == 0) {
        return wrong("succeeded without a start or an output");
    }
    // What a gateway told in the moment of its death the next one has to find out, and a backend
    // that died as well knows nothing of it.
    let lives: BTreeSet<u32> = told.ends.iter().map(|(life, _)| *life).collect();
    if lives.len() < told.ends.len() {
        return wrong("has two ends");
    }
    if 0 < told.lost {
        let history = submitted.history.as_ref().map(|history| &history[prompt]["status"]);
        if history.is_none_or(|status| !status["status_str"].is_string()) {
            return Err(format!("{prompt} is lost, and its history says {:?}", submitted.history));
        }
    }
    Ok(())
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
fn is_released(gateway: &Gateway) -> Result<(), String> {
    let held = held(gateway);
    if !held.is_empty() {
        return Err(format!("{held:?} are held after all has ended"));
    }
    for backend in gateway.fleet.iter() {
        let bound = gateway.clients.all().iter().fold(0, |count, client| {
            let is_here = |(at, _)| at == backend.id;
            count + u32::from(client.inspect(|core, _| core.bound().is_some_and(is_here)))
        });
        // Each host has a clock of its own; by this time all has been counted.
        let report = backend.report(now() + Duration::from_secs(3_600));
        if (report.bound, report.load) != (bound, 0) {
            let name = &backend.name;
            return Err(format!("{name} counts {report:?}; {bound} are bound to it"));
        }
    }
    Ok(())
}
