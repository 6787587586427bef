//! The sessions that were ended by a logout before their time. Pure. It also reads and writes the
//! text of the file that keeps them over a restart.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::session::{CLOCK_BACK, Session, millis};
use super::users::UserName;

/// How many ended sessions of one user are stored individually. If there are more, all sessions
/// count as ended that were issued no later than the newest of them.
const EACH_MAX: usize = 64;

/// An older session is not valid under any configuration, so its logout can be forgotten. In
/// milliseconds.
pub const AGE_MAX: u64 = 31 * 24 * 3_600_000;

/// Sessions that were ended.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Logouts(BTreeMap<UserName, Ended>);

#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Ended {
    /// All sessions that were issued up to this time have ended, in milliseconds since 1970.
    until: u64,
    /// The ids of individual sessions, and when they were issued.
    each: Vec<(u128, u64)>,
}

impl Ended {
    fn all_until(&mut self, until: u64) {
        self.until = self.until.max(until);
        let until = self.until;
        self.each.retain(|(_, issued)| until < *issued);
    }

    fn bound(&mut self) {
        if EACH_MAX < self.each.len() {
            let newest = self.each.iter().map(|(_, issued)| *issued).max();
            self.all_until(newest.unwrap_or_default());
        }
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
        ended.bound();
    }

    /// Ends all sessions of a user that were issued up to `now`.
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

    /// The time of issue for a session of this user that begins `now`: later than all that have
    /// ended.
    #[must_use]
    pub fn begins(&self, user: &UserName, now: u64) -> u64 {
        self.0.get(user).map_or(now, |ended| now.max(ended.until.saturating_add(1)))
    }

    /// True if a session of this user that begins `now` would be valid only later, because the
    /// clock was set back since the user's sessions were ended. [`Self::let_in`] solves that.
    #[must_use]
    pub fn is_ahead(&self, user: &UserName, now: u64) -> bool {
        self.0.get(user).is_some_and(|ended| ended.until > now.saturating_add(millis(CLOCK_BACK)))
    }

    /// Lets a user log in although the clock was set back: it limits how far in the future the end
    /// of the user's sessions may be. Sessions that were issued later by the other clock become
    /// valid again when their time comes. So this is done only for a user who is logging in.
    pub fn let_in(&mut self, user: &UserName, now: u64) {
        if let Some(ended) = self.0.get_mut(user) {
            ended.until = ended.until.min(now.saturating_add(millis(CLOCK_BACK)));
        }
    }

    /// Adds the logouts of another instance.
    pub fn merge(&mut self, other: Self) {
        for (user, more) in other.0 {
            let ended = self.0.entry(user).or_default();
            let new = more.each.into_iter().filter(|one| !ended.each.contains(one));
            let new: Vec<_> = new.collect();
            ended.each.extend(new);
            ended.all_until(more.until);
            ended.bound();
        }
    }

    /// Forgets sessions that would not be valid any more.
    pub fn forget(&mut self, now: u64) {
        let is_old = |issued: u64| AGE_MAX < now.saturating_sub(issued);
        self.0.retain(|_, ended| {
            ended.each.retain(|(_, issued)| !is_old(*issued));
            !ended.each.is_empty() || !is_old(ended.until)
        });
    }

    /// The text of the file: one line for each logout.
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

    /// Reads such a text, and returns the lines that are not valid. These are ignored; the others
    /// count.
    #[must_use]
    pub fn parse(text: &str) -> (Self, Vec<usize>) {
        let (mut logouts, mut bad) = (Self::default(), Vec::new());
        for (at, line) in text.lines().enumerate() {
            if logouts.read(line).is_none() {
                bad.push(at + 1);
            }
        }
        (logouts, bad)
    }

    fn read(&mut self, line: &str) -> Option<()> {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["all", user, until] => {
                let until = until.parse().ok()?;
                self.0.entry(user.parse().ok()?).or_default().all_until(until);
            }
            ["one", user, issued, id] => {
                let one = (u128::from_str_radix(id, 16).ok()?, issued.parse().ok()?);
                let ended = self.0.entry(user.parse().ok()?).or_default();
                ended.each.push(one);
                ended.bound();
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
        Session { id, browser: 1, user, user_mark: 1, issued, signed_by: 0 }
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
        assert_eq!(Logouts::parse(&logouts.to_text()), (logouts.clone(), Vec::new()));
        assert_eq!(Logouts::parse(""), (Logouts::default(), Vec::new()));
        logouts.forget(AGE_MAX + 10);
        assert!(logouts.has_ended(&session("ada", 1, 10)));
        logouts.forget(AGE_MAX + 11);
        assert!(!logouts.has_ended(&session("ada", 1, 10)));
        assert!(logouts.has_ended(&session("bob@example.org", u128::MAX, 30)));
    }

    #[test]
    fn a_line_that_is_none_costs_no_other() {
        let mut good = Logouts::default();
        good.end(&session("ada", 1, 10));
        good.end_all(&"bob".parse().unwrap(), 20);
        for bad in ["all ada", "some bob 2", "one ada 1 xyz", "all ada x", "\u{fffd}", " ", "one"] {
            let (read, lines) = Logouts::parse(&format!("{bad}\n{}{bad}\n", good.to_text()));
            assert_eq!(read, good, "{bad}");
            assert_eq!(lines, [1, 5], "{bad}");
        }
    }

    #[test]
    fn what_two_know_is_known_to_both() {
        let (mut one, mut other) = (Logouts::default(), Logouts::default());
        one.end(&session("ada", 1, 30));
        other.end(&session("ada", 2, 40));
        other.end(&session("ada", 3, 10));
        one.end_all(&"ada".parse().unwrap(), 20);
        other.end(&session("bob", 4, 10));
        let mut both = one.clone();
        both.merge(other.clone());
        for ended in [("ada", 1, 30), ("ada", 2, 40), ("ada", 3, 10), ("ada", 5, 20)] {
            assert!(both.has_ended(&session(ended.0, ended.1, ended.2)), "{ended:?}");
        }
        assert!(both.has_ended(&session("bob", 4, 10)) && !both.has_ended(&session("ada", 6, 35)));
        let before = both.clone();
        both.merge(one);
        both.merge(other);
        assert_eq!(both, before, "what is known is not added again");
    }

    #[test]
    fn a_clock_that_went_back_shuts_nobody_out() {
        const HOUR: u64 = 3_600_000;
        let (ada, now) = ("ada".parse().unwrap(), 1_800_000_000_000);
        let mut logouts = Logouts::default();
        assert_eq!(logouts.begins(&ada, now), now);
        logouts.end_all(&ada, now + HOUR);
        assert!(logouts.is_ahead(&ada, now) && !logouts.is_ahead(&ada, now + HOUR));
        let eve = "eve".parse().unwrap();
        logouts.end_all(&eve, now + HOUR);
        logouts.forget(now);
        logouts.let_in(&ada, now);
        assert!(!logouts.is_ahead(&ada, now));
        // The logouts of other users are unchanged, also when the clock goes on.
        assert!(logouts.has_ended(&session("eve", 3, now + HOUR)));
        let issued = logouts.begins(&ada, now);
        let new = session("ada", 1, issued);
        assert!(!logouts.has_ended(&new));
        let left = |now| new.left(std::time::Duration::from_secs(3_600), now);
        assert!(left(now + 1).is_some(), "by the time that its answer is there");
        assert!(logouts.has_ended(&session("ada", 2, now)), "what was ended stays so");
    }
}
