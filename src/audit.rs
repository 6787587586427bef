//! The audit log: who changed what, as one JSON object a line (`log.audit`).
//!
//! Whoever notes something never waits ([`crate::lines`]).
//!
//! An entry never has a clientId, a key or the value of a session: clients are masked
//! ([`crate::masked`]), as in the log.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::metrics::counter::Counter;
use serde_json::{Value, json};

use crate::lines::{Lines, Sink, timestamp};
use crate::net::unix_millis;
use crate::tasks::Tasks;

/// How many refused requests are noted in a second. Whoever guesses must not fill the disk.
const REFUSALS_MAX: u64 = 20;

/// Takes entries, if there is an audit log.
#[derive(Debug)]
pub struct Audit {
    lines: Lines,
    /// A second, and how many refusals were noted in it.
    refusals: AtomicU64,
}

/// Who did something, as far as it is known.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Who {
    pub user: Option<String>,
    pub role: Option<&'static str>,
    pub address: Option<IpAddr>,
    /// What did it, if no request did: `SIGHUP`, `files`. Or the name that an operator gave.
    pub by: Option<String>,
}

impl Who {
    #[must_use]
    pub fn at(address: IpAddr) -> Self {
        Self { address: Some(address), ..Self::default() }
    }

    #[must_use]
    pub fn user(name: &str, role: &'static str, address: IpAddr) -> Self {
        Self { user: Some(name.to_owned()), role: Some(role), ..Self::at(address) }
    }

    #[must_use]
    pub fn by(by: &str) -> Self {
        Self { by: Some(by.to_owned()), ..Self::default() }
    }

    fn to_json(&self) -> Value {
        let address = self.address.map(|it| it.to_string());
        json!({ "user": self.user, "role": self.role, "address": address, "by": self.by })
    }
}

/// One thing that was done, or refused.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub who: Who,
    /// What was done: `backend.state`, `login`.
    pub what: &'static str,
    /// To whom or to what.
    pub on: Value,
    pub before: Value,
    pub after: Value,
    /// `done`, or why not.
    pub result: String,
}

impl Entry {
    /// Something that was done, with nothing before and after.
    #[must_use]
    pub fn done(who: Who, what: &'static str, on: Value) -> Self {
        let (before, after) = (Value::Null, Value::Null);
        Self { who, what, on, before, after, result: "done".to_owned() }
    }

    /// Something that was refused.
    #[must_use]
    pub fn refused(who: Who, what: &'static str, on: Value, why: &str) -> Self {
        Self { result: format!("refused: {why}"), ..Self::done(who, what, on) }
    }

    fn to_line(&self, time: &str) -> String {
        let Self { who, what, on, before, after, result } = self;
        let line = json!({
            "time": time, "who": who.to_json(), "what": what, "on": on,
            "before": before, "after": after, "result": result,
        });
        format!("{line}\n")
    }
}

impl Audit {
    /// It takes nothing until it is started. `lost` counts lines that were lost.
    #[must_use]
    pub fn new(lost: Counter) -> Self {
        Self { lines: Lines::new("audit log", lost), refusals: AtomicU64::new(0) }
    }

    /// Begins to write. It ends with `tasks`, after what was noted until then.
    pub fn start(&self, sink: Sink, tasks: &Tasks) {
        self.lines.start(sink, tasks);
    }

    #[must_use]
    pub fn is_on(&self) -> bool {
        self.lines.is_on()
    }

    /// Notes an entry. It is made only if there is an audit log.
    pub fn note(&self, entry: impl FnOnce() -> Entry) {
        self.lines.put(|| entry().to_line(&timestamp()));
    }

    /// The same for a request that was refused: no more than 20 in a second.
    pub fn note_refusal(&self, entry: impl FnOnce() -> Entry) {
        if !self.is_on() {
            return;
        }
        match self.takes_refusal(unix_millis() / 1_000) {
            true => self.note(entry),
            false => self.lines.lose(),
        }
    }

    fn takes_refusal(&self, second: u64) -> bool {
        const COUNT_BITS: u32 = 8;
        let counted = |state: u64| {
            let count = if state >> COUNT_BITS == second { state & 0xFF } else { 0 };
            (count < REFUSALS_MAX).then_some(second << COUNT_BITS | (count + 1))
        };
        self.refusals.fetch_update(Ordering::Relaxed, Ordering::Relaxed, counted).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_one_line_whatever_is_in_it() {
        let who = Who { user: Some("ada\nb".to_owned()), ..Who::at([10, 0, 0, 1].into()) };
        let entry = Entry {
            before: json!("ready"),
            after: json!("off"),
            ..Entry::done(who, "backend.state", json!("gpu \"a\""))
        };
        let line = entry.to_line("2026-11-29T20:00:00Z");
        assert_eq!(line.lines().count(), 1);
        let read: Value = serde_json::from_str(&line).unwrap();
        let who = json!({ "user": "ada\nb", "role": null, "address": "10.0.0.1", "by": null });
        let expected = json!({
            "time": "2026-11-29T20:00:00Z", "who": who, "what": "backend.state",
            "on": "gpu \"a\"", "before": "ready", "after": "off", "result": "done",
        });
        assert_eq!(read, expected);
    }

    #[test]
    fn so_many_refusals_are_noted_in_a_second() {
        let audit = Audit::new(Counter::default());
        let taken = |second| (0..100).filter(|_| audit.takes_refusal(second)).count();
        assert_eq!([taken(7), taken(7), taken(8)], [20, 0, 20]);
    }

    #[tokio::test]
    async fn what_was_noted_is_written_before_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let sink = Sink::file("log.audit", path.clone()).unwrap();
        let (audit, tasks) = (Audit::new(Counter::default()), Tasks::default());
        audit.note(|| Entry::done(Who::default(), "before", Value::Null));
        audit.start(sink, &tasks);
        for _ in 0..1_000 {
            audit.note(|| Entry::done(Who::by("test"), "login", Value::Null));
        }
        tasks.stop();
        assert_eq!(tasks.drain(std::time::Duration::from_secs(20)).await, 0);
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!((text.lines().count(), text.matches("before\"").count()), (1_000, 1_000));
        assert_eq!(audit.lines.lost(), 0);
    }
}
