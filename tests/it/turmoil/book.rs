//! What is known outside of the gateway: what people submitted, what they were answered, and what
//! their sockets told them. The promises are checked against it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mooring::routing::placement::AdminState;
use serde_json::Value;

use super::trouble::{Act, Order};
use super::{BACKENDS, GATEWAY};

/// How long a gateway may need to see that a backend is a new process.
const UNSEEN_FOR: Duration = Duration::from_secs(3);

/// What became of the submissions of one prompt id, as far as its client was told.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Answer {
    /// None yet.
    Waiting,
    /// 200.
    Taken,
    /// An error that says that it does not run.
    Refused(String),
    /// 504, or the client lost its patience or its connection.
    Unknown(String),
}

/// A prompt as its client sees it.
#[derive(Clone, Debug)]
pub(super) struct Submitted {
    pub(super) person: String,
    pub(super) answer: Answer,
    /// How often it was submitted.
    pub(super) tries: u32,
    /// What `/history/{id}` said in the end.
    pub(super) history: Option<Value>,
}

/// How often a client was told what of a prompt, over all its sockets.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Told {
    pub(super) starts: u32,
    pub(super) outputs: u32,
    pub(super) succeeded: u32,
    pub(super) failed: u32,
    pub(super) interrupted: u32,
    pub(super) lost: u32,
    pub(super) last_words: u32,
    /// Which end was told by which life of the gateway.
    pub(super) ends: BTreeSet<(u32, Said)>,
}

impl Told {
    pub(super) fn has_end(&self) -> bool {
        let terminals = self.succeeded + self.failed + self.interrupted + self.lost;
        0 < terminals && 0 < self.last_words
    }
}

/// One thing that a socket told.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Said {
    Start,
    Output,
    Succeeded,
    Failed,
    Interrupted,
    Lost,
    LastWord,
}

impl Said {
    fn of(event: &Value) -> Option<Self> {
        let data = &event["data"];
        match event["type"].as_str()? {
            "execution_start" => Some(Self::Start),
            "executed" => Some(Self::Output),
            "execution_success" => Some(Self::Succeeded),
            "execution_error" if data["exception_type"] == "mooring.PromptLost" => Some(Self::Lost),
            "execution_error" => Some(Self::Failed),
            "execution_interrupted" => Some(Self::Interrupted),
            "executing" if data["node"].is_null() => Some(Self::LastWord),
            _ => None,
        }
    }
}

/// What one browser socket was told; nothing of it twice.
#[derive(Debug)]
pub(super) struct Hearing {
    heard: BTreeSet<(String, Said)>,
    life: u32,
}

impl Hearing {
    /// Of a socket that this life of the gateway took. What it said in the moment of its death may
    /// be heard after it.
    pub(super) fn of_life(life: u32) -> Self {
        Self { heard: BTreeSet::new(), life }
    }
}

/// Whether the story is told while it happens.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Tell {
    #[default]
    Nothing,
    AtOnce,
}

/// A backend died.
#[derive(Debug)]
pub(super) struct Died {
    pub(super) of: usize,
    pub(super) at: Duration,
    /// The gateway lived and had a clear view of it, some time before and after.
    pub(super) is_clear: bool,
}

/// How long something else makes doubtful what the gateway saw of a death.
const DOUBTFUL_FOR: Duration = Duration::from_secs(4);

/// How soon a process may be there again without anybody seeing that it was gone.
const GONE_FOR: Duration = Duration::from_millis(300);

#[derive(Debug, Default)]
pub(super) struct Book {
    pub(super) tell: Tell,
    pub(super) submitted: BTreeMap<String, Submitted>,
    /// Submissions without an id whose answer has not named one: whose.
    pub(super) nameless: Vec<(String, Answer)>,
    pub(super) told: BTreeMap<(String, String), Told>,
    pub(super) violations: Vec<String>,
    /// How often the gateway was killed.
    pub(super) kills: u32,
    /// How often a backend got a new process of which the gateway cannot know: it was away or could
    /// not reach it, or was killed a moment later.
    pub(super) unseen: u32,
    /// When a backend last got a new process.
    pub(super) restarted: Duration,
    /// Until when the gateway could not reach a backend, or since when it cannot.
    pub(super) cut: BTreeMap<&'static str, Option<Duration>>,
    /// Backends that died while the gateway was away.
    pub(super) died: BTreeSet<usize>,
    /// When which backend died, in this order.
    pub(super) deaths: Vec<Died>,
    links_lost: u64,
    /// When something was last done to a backend or to the way there, and to the gateway.
    touched: BTreeMap<usize, Duration>,
    misbehaves: BTreeSet<usize>,
    started: Duration,
    /// How often an operator turned a backend off by force.
    pub(super) resets: u32,
    /// All that happened, for the comparison of two runs and for the reader of a failure.
    pub(super) story: Vec<String>,
}

impl Book {
    pub(super) fn note(&mut self, at: Duration, what: &str) {
        let line = format!("{:>7.3} {what}", at.as_secs_f64());
        match self.tell {
            Tell::Nothing => {}
            Tell::AtOnce => eprintln!("{line}"),
        }
        self.story.push(line);
    }

    /// Remembers what excuses something.
    pub(super) fn happens(&mut self, now: Duration, act: &Act, is_away: bool) {
        self.sees(now, act, is_away);
        match act {
            Act::KillGateway => {
                self.kills += 1;
                let is_new = self.restarted != Duration::ZERO;
                self.unseen += u32::from(is_new && now - self.restarted <= UNSEEN_FOR);
            }
            Act::Backend(index, Order::Crash) if is_away => {
                self.died.insert(*index);
            }
            Act::Backend(index, Order::Restart) => {
                self.restarted = now;
                let line = self.cut.get(BACKENDS[*index]);
                let is_cut = line
                    .is_some_and(|mended| mended.is_none_or(|mended| now - mended <= UNSEEN_FOR));
                let was_away = self.died.remove(index);
                self.unseen += u32::from(is_away || was_away || is_cut);
            }
            Act::Cut(GATEWAY, to)
            | Act::CutOneWay(GATEWAY, to)
            | Act::CutOneWay(to, GATEWAY)
            | Act::Hold(GATEWAY, to) => drop(self.cut.insert(to, None)),
            Act::Mend(GATEWAY, to) | Act::LetGo(GATEWAY, to) => {
                self.cut.insert(to, Some(now));
            }
            Act::Operate(_, AdminState::Off) => self.resets += 1,
            Act::Cut(..)
            | Act::CutOneWay(..)
            | Act::Mend(..)
            | Act::Hold(..)
            | Act::LetGo(..)
            | Act::Backend(..)
            | Act::StartGateway
            | Act::Operate(..) => {}
        }
    }

    /// Whether the gateway has a clear view of the deaths of backends.
    fn sees(&mut self, now: Duration, act: &Act, is_away: bool) {
        let index = |name: &str| BACKENDS.iter().position(|it| *it == name);
        let is_near = |then: Duration| now - then <= DOUBTFUL_FOR;
        let touched = match act {
            Act::Backend(of, Order::Crash) => {
                let was_touched = self.touched.get(of).is_some_and(|then| is_near(*then));
                let is_cut = self.cut.get(BACKENDS[*of]).is_some_and(Option::is_none);
                let is_odd = was_touched || self.misbehaves.contains(of);
                let is_clear = !(is_away || is_odd || is_cut || is_near(self.started));
                self.deaths.push(Died { of: *of, at: now, is_clear });
                None
            }
            Act::Backend(of, Order::Restart) => {
                let soon = |it: &&mut Died| it.of == *of && now - it.at <= GONE_FOR;
                self.deaths.iter_mut().filter(soon).for_each(|it| it.is_clear = false);
                None
            }
            Act::KillGateway | Act::StartGateway => {
                self.started = now;
                self.deaths
                    .iter_mut()
                    .filter(|it| is_near(it.at))
                    .for_each(|it| it.is_clear = false);
                None
            }
            Act::Backend(of, Order::Misbehave(_)) => {
                if !self.misbehaves.remove(of) {
                    self.misbehaves.insert(*of);
                }
                Some(*of)
            }
            Act::Operate(of, _) => Some(*of),
            Act::Cut(GATEWAY, to)
            | Act::CutOneWay(GATEWAY, to)
            | Act::CutOneWay(to, GATEWAY)
            | Act::Hold(GATEWAY, to)
            | Act::Mend(GATEWAY, to)
            | Act::LetGo(GATEWAY, to) => index(to),
            Act::Cut(..) | Act::CutOneWay(..) | Act::Mend(..) | Act::Hold(..) | Act::LetGo(..) => {
                None
            }
        };
        if let Some(of) = touched {
            self.touched.insert(of, now);
            let near = |it: &&mut Died| it.of == of && is_near(it.at);
            self.deaths.iter_mut().filter(near).for_each(|it| it.is_clear = false);
        }
    }

    /// So many links of this gateway broke until now. A link that a crash breaks, and does not just
    /// close, may have lost the last events: then it is not certain what had begun.
    pub(super) fn links_lost(&mut self, now: Duration, count: u64) {
        if std::mem::replace(&mut self.links_lost, count) < count {
            let near = |it: &&mut Died| now - it.at <= DOUBTFUL_FOR;
            self.deaths.iter_mut().filter(near).for_each(|it| it.is_clear = false);
        }
    }

    /// The client submits this id, for the first time or again.
    pub(super) fn submits(&mut self, person: &str, prompt: &str) {
        let person = person.to_owned();
        let new = Submitted { person, answer: Answer::Waiting, tries: 0, history: None };
        let known = self.submitted.entry(prompt.to_owned()).or_insert(new);
        known.tries += 1;
        if matches!(known.answer, Answer::Refused(_)) {
            known.answer = Answer::Waiting;
        }
    }

    /// An answer to one of perhaps several submissions of this id: the strongest counts.
    pub(super) fn answered(&mut self, person: &str, prompt: &str, answer: Answer) {
        if !self.submitted.contains_key(prompt) {
            self.submits(person, prompt);
        }
        let Some(known) = self.submitted.get_mut(prompt) else { return };
        let is_stronger = match (&known.answer, &answer) {
            (Answer::Taken, _) => false,
            (Answer::Unknown(_), answer) => *answer == Answer::Taken,
            (Answer::Waiting | Answer::Refused(_), _) => true,
        };
        if is_stronger {
            known.answer = answer;
        }
    }

    /// The client submits something without an id: the number of that submission.
    pub(super) fn submits_nameless(&mut self, person: &str) -> usize {
        self.nameless.push((person.to_owned(), Answer::Waiting));
        self.nameless.len() - 1
    }

    /// An answer to a submission without an id, and the id that it names.
    pub(super) fn answered_nameless(&mut self, number: usize, named: Option<&str>, answer: Answer) {
        let person = self.nameless[number].0.clone();
        self.nameless[number].1 = answer.clone();
        if let Some(prompt) = named {
            self.answered(&person, prompt, answer);
        }
    }

    /// Takes an event that a socket of this client got.
    pub(super) fn heard(&mut self, at: Duration, person: &str, on: &mut Hearing, event: &Value) {
        let kind = event["type"].as_str().unwrap_or_default();
        if let Some(sid) = event["data"]["sid"].as_str()
            && sid != person
        {
            self.violations.push(format!("{person} is told that it is {sid}"));
        }
        let Some(prompt) = event["data"]["prompt_id"].as_str() else { return };
        self.is_own(person, prompt, kind);
        let Some(word) = Said::of(event) else { return };
        self.note(at, &format!("{person} hears {word:?} of {prompt}"));
        if word != Said::Output && !on.heard.insert((prompt.to_owned(), word)) {
            self.violations.push(format!("{person} hears {word:?} of {prompt} twice on a socket"));
        }
        let told = self.told.entry((person.to_owned(), prompt.to_owned())).or_default();
        if matches!(word, Said::Succeeded | Said::Failed | Said::Interrupted | Said::Lost) {
            told.ends.insert((on.life, word));
        }
        *match word {
            Said::Start => &mut told.starts,
            Said::Output => &mut told.outputs,
            Said::Succeeded => &mut told.succeeded,
            Said::Failed => &mut told.failed,
            Said::Interrupted => &mut told.interrupted,
            Said::Lost => &mut told.lost,
            Said::LastWord => &mut told.last_words,
        } += 1;
    }

    /// Ids that people choose say whose they are.
    fn is_own(&mut self, person: &str, prompt: &str, kind: &str) {
        if let Some(owner) = super::people::chosen_by(prompt)
            && owner != person
        {
            self.violations.push(format!("{person} is told {kind} of {prompt}"));
        }
    }

    pub(super) fn told(&self, person: &str, prompt: &str) -> Told {
        self.told.get(&(person.to_owned(), prompt.to_owned())).cloned().unwrap_or_default()
    }

    /// The prompts of this client that are to have an end and have none yet.
    pub(super) fn without_end(&self, person: &str) -> Vec<String> {
        self.submitted
            .iter()
            .filter(|(_, it)| it.person == person && it.answer == Answer::Taken)
            .filter(|(prompt, _)| !self.told(person, prompt).has_end())
            .map(|(prompt, _)| prompt.clone())
            .collect()
    }

    /// True while an answer is due to this client.
    pub(super) fn is_waiting(&self, person: &str) -> bool {
        let named = self.submitted.values().map(|it| (&it.person, &it.answer));
        let nameless = self.nameless.iter().map(|(whose, answer)| (whose, answer));
        named.chain(nameless).any(|(whose, answer)| whose == person && *answer == Answer::Waiting)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: Duration = Duration::ZERO;

    #[test]
    fn an_end_is_of_the_life_that_told_it_however_late_it_is_heard() {
        let mut book = Book::default();
        let mut socket = Hearing::of_life(1);
        book.kills = 1;
        let end = json!({ "type": "execution_success", "data": { "prompt_id": "x" } });
        book.heard(NOW, "p1", &mut socket, &end);
        assert_eq!(book.told("p1", "x").ends, [(1, Said::Succeeded)].into());
    }

    #[test]
    fn a_client_waits_for_the_answer_to_what_it_submitted_without_an_id() {
        let mut book = Book::default();
        let (first, second) = (book.submits_nameless("p1"), book.submits_nameless("p1"));
        assert!(book.is_waiting("p1") && !book.is_waiting("p2"));
        book.answered_nameless(second, Some("x"), Answer::Taken);
        assert!(book.is_waiting("p1"));
        book.answered_nameless(first, None, Answer::Unknown("no answer".to_owned()));
        assert!(!book.is_waiting("p1"));
        assert_eq!(book.without_end("p1"), ["x"]);
    }
}
