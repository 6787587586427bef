//! Which sessions their users have ended before their time. Pure, with the text of the file that
//! keeps it over a restart.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::session::Session;
use super::users::UserName;

/// How many ended sessions of one user are known one by one. Past it all are ended that he began
/// before the last of them.
const EACH_MAX: usize = 64;

/// A session that is older holds nowhere, whatever is configured: it is forgotten. In milliseconds.
pub const AGE_MAX: u64 = 31 * 24 * 3_600_000;

/// Sessions that were ended.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Logouts(BTreeMap<UserName, Ended>);

#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Ended {
    /// All that were issued until then, in milliseconds since 1970.
    until: u64,
    /// By their ids, and when they were issued.
    each: Vec<(u128, u64)>,
}

impl Ended {
    fn all_until(&mut self, until: u64) {
        self.until = self.until.max(until);
        let until = self.until;
        self.each.retain(|(_, issued)| until < *issued);
    }
}

impl Logouts {
    /// Ends one session.
    pub fn end(&mut self, session: &Session) {
        if self.has_ended(session) {
            return;
        }
        let ended = self.0.entry(session.user.clone()).or_default();
        ended.each.push((session.id, session.issued));
        if EACH_MAX < ended.each.len() {
            let newest = ended.each.iter().map(|(_, issued)| *issued).max();
            ended.all_until(newest.unwrap_or_default());
        }
    }

    /// Ends all sessions of a user that were issued until `now`.
    pub fn end_all(&mut self, user: &UserName, now: u64) {
        self.0.entry(user.clone()).or_default().all_until(now);
    }

    #[must_use]
    pub fn has_ended(&self, session: &Session) -> bool {
        self.0.get(&session.user).is_some_and(|ended| {
            let mut each = ended.each.iter();
            session.issued <= ended.until || each.any(|(id, _)| *id == session.id)
        })
    }

    /// Forgets what holds nowhere any more.
    pub fn forget(&mut self, now: u64) {
        let is_old = |issued: u64| AGE_MAX < now.saturating_sub(issued);
        self.0.retain(|_, ended| {
            ended.each.retain(|(_, issued)| !is_old(*issued));
            !ended.each.is_empty() || !is_old(ended.until)
        });
    }

    /// As it stands in the file: a line for each.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for (user, Ended { until, each }) in &self.0 {
            // Writing to a string does not fail.
            let _ = writeln!(text, "all {user} {until}");
            for (id, issued) in each {
                let _ = writeln!(text, "one {user} {issued} {id:032x}");
            }
        }
        text
    }

    /// Reads such a text.
    ///
    /// # Errors
    /// The line that is none.
    pub fn parse(text: &str) -> Result<Self, usize> {
        let mut logouts = Self::default();
        for (at, line) in text.lines().enumerate() {
            logouts.read(line).ok_or(at + 1)?;
        }
        Ok(logouts)
    }

    fn read(&mut self, line: &str) -> Option<()> {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["all", user, until] => {
                let until = until.parse().ok()?;
                self.0.entry(user.parse().ok()?).or_default().until = until;
            }
            ["one", user, issued, id] => {
                let one = (u128::from_str_radix(id, 16).ok()?, issued.parse().ok()?);
                self.0.entry(user.parse().ok()?).or_default().each.push(one);
            }
            _ => return None,
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(user: &str, id: u128, issued: u64) -> Session {
        let user = user.parse().unwrap();
        Session { id, browser: 1, user, generation: 1, issued, signed_by: 0 }
    }

    #[test]
    fn one_is_ended_or_all_that_were_begun() {
        let mut logouts = Logouts::default();
        logouts.end(&session("ada", 1, 10));
        assert!(logouts.has_ended(&session("ada", 1, 10)));
        assert!(!logouts.has_ended(&session("ada", 2, 10)));
        assert!(!logouts.has_ended(&session("bob", 1, 10)));
        logouts.end_all(&"ada".parse().unwrap(), 20);
        assert!(logouts.has_ended(&session("ada", 2, 20)));
        assert!(!logouts.has_ended(&session("ada", 3, 21)));
        assert!(!logouts.has_ended(&session("bob", 3, 5)));
    }

    #[test]
    fn whoever_logs_out_without_end_takes_little_room_and_brings_none_back() {
        let mut logouts = Logouts::default();
        for id in 0..10_000 {
            logouts.end(&session("ada", id, u64::try_from(id).unwrap() + 100));
        }
        let ended = &logouts.0[&"ada".parse().unwrap()];
        assert!(ended.each.len() <= EACH_MAX, "{}", ended.each.len());
        for id in 0..10_000 {
            assert!(logouts.has_ended(&session("ada", id, u64::try_from(id).unwrap() + 100)));
        }
        assert!(!logouts.has_ended(&session("ada", 20_000, 20_000)));
    }

    #[test]
    fn it_outlives_a_restart_and_is_forgotten_in_time() {
        let mut logouts = Logouts::default();
        logouts.end(&session("ada", 1, 10));
        logouts.end(&session("bob@example.org", u128::MAX, 30));
        logouts.end_all(&"bob@example.org".parse().unwrap(), 20);
        assert_eq!(Logouts::parse(&logouts.to_text()).as_ref(), Ok(&logouts));
        assert_eq!(Logouts::parse(""), Ok(Logouts::default()));
        for (text, line) in [("all ada", 1), ("all ada 1\nsome bob 2", 2), ("one ada 1 xyz", 1)] {
            assert_eq!(Logouts::parse(text), Err(line), "{text}");
        }
        logouts.forget(AGE_MAX + 10);
        assert!(logouts.has_ended(&session("ada", 1, 10)));
        logouts.forget(AGE_MAX + 11);
        assert!(!logouts.has_ended(&session("ada", 1, 10)));
        assert!(logouts.has_ended(&session("bob@example.org", u128::MAX, 30)));
    }
}
