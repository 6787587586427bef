//! Limits how often somebody may guess a password.
//!
//! An address may be wrong five times at once, and then once in twelve seconds: at most ten times
//! in any minute. A login that succeeds does not count, so that many people behind one address can
//! log in. A browser from which a user has logged in before has a count of its own. So this user
//! can log in however many others guess from the same address ("Device cookies", OWASP).

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::front::shares::holder;
use crate::lock::{Lock, rank};
use crate::net::now;
use crate::routing::token_bucket::{Rate, TokenBucket};

/// How often each guesser may be wrong.
const EACH: Rate = Rate { burst: 5, every: Duration::from_secs(12) };

/// How often all guessers together may be wrong that have no count of their own.
const OTHERS: Rate = Rate { burst: 60, every: Duration::from_secs(1) };

/// How many guessers have a count of their own.
const GUESSERS_MAX: usize = 100_000;

/// A source of guesses.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) enum Guesser {
    /// For IPv6 this is the network of 64 bits, which belongs to one household or machine.
    Address(IpAddr),
    /// A browser from which this user has logged in before.
    Browser(u128),
}

impl Guesser {
    #[must_use]
    pub(super) fn at(address: IpAddr) -> Self {
        Self::Address(holder(address))
    }
}

/// The guessers that were wrong recently.
#[derive(Debug)]
pub(super) struct GuessLimiter(Lock<Guesses, { rank::GUESSES }>);

#[derive(Debug)]
struct Guesses {
    each: HashMap<Guesser, TokenBucket>,
    others: TokenBucket,
}

impl Default for GuessLimiter {
    fn default() -> Self {
        Self(Lock::new(Guesses { each: HashMap::new(), others: TokenBucket::new(now()) }))
    }
}

impl Guesses {
    fn bucket(&mut self, guesser: Guesser, now: Instant) -> (&mut TokenBucket, Rate) {
        if GUESSERS_MAX <= self.each.len() {
            self.each.retain(|_, bucket| !bucket.is_full(now));
        }
        if self.each.contains_key(&guesser) || self.each.len() < GUESSERS_MAX {
            (self.each.entry(guesser).or_insert_with(|| TokenBucket::new(now)), EACH)
        } else {
            (&mut self.others, OTHERS)
        }
    }
}

impl GuessLimiter {
    /// Counts a guess before its result is known, so that many guesses at once are not allowed more
    /// than the same number one after the other.
    ///
    /// # Errors
    /// The limit is reached. The value says how long to wait.
    pub(super) fn guess(&self, guesser: Guesser, now: Instant) -> Result<(), Duration> {
        let mut guesses = self.0.lock();
        let (bucket, rate) = guesses.bucket(guesser, now);
        if bucket.left(rate, now) == 0 {
            return Err(bucket.wait(rate, now));
        }
        bucket.take(1, rate, now);
        Ok(())
    }

    /// The guess was right, so it does not count.
    pub(super) fn was_right(&self, guesser: Guesser, now: Instant) {
        let mut guesses = self.0.lock();
        let (bucket, rate) = guesses.bucket(guesser, now);
        bucket.give_back(rate);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str) -> Guesser {
        Guesser::at(address.parse().unwrap())
    }

    #[test]
    fn ten_a_minute_are_heard_and_nobody_is_shut_out_for_ever() {
        let (guesses, t) = (GuessLimiter::default(), now());
        let heard =
            |guesser, at: Instant| (0..50).filter(|_| guesses.guess(guesser, at).is_ok()).count();
        let eve = at("192.0.2.1");
        assert_eq!(heard(eve, t), 5);
        assert_eq!(guesses.guess(eve, t), Err(Duration::from_secs(12)));
        // Other addresses are not affected, and a known browser has its own count.
        assert_eq!(heard(at("192.0.2.2"), t), 5);
        assert_eq!(heard(Guesser::Browser(7), t), 5);
        // The limit holds for every interval, however often somebody tries.
        let mut times = vec![0; 5];
        for second in 0..300 {
            let heard = heard(eve, t + Duration::from_secs(second));
            times.extend(std::iter::repeat_n(second, heard));
        }
        for from in 0..240 {
            let of_minute = times.iter().filter(|at| (from..from + 60).contains(*at)).count();
            assert!(of_minute <= 10, "{of_minute} from {from} s on");
        }
        assert_eq!(heard(eve, t + Duration::from_secs(1_000)), 5);
    }

    #[test]
    fn who_is_right_is_not_counted() {
        let (guesses, t) = (GuessLimiter::default(), now());
        let ada = at("192.0.2.1");
        for _ in 0..100 {
            assert_eq!(guesses.guess(ada, t), Ok(()));
            guesses.was_right(ada, t);
        }
        for _ in 0..5 {
            assert_eq!(guesses.guess(ada, t), Ok(()));
        }
        assert!(guesses.guess(ada, t).is_err());
    }

    #[test]
    fn of_ipv6_a_network_of_64_bits_is_one() {
        assert_eq!(at("2001:db8::1"), at("2001:db8::ffff:1:2:3"));
        assert_ne!(at("2001:db8::1"), at("2001:db8:0:1::1"));
        assert_eq!(at("::ffff:192.0.2.1"), at("192.0.2.1"));
    }

    #[test]
    fn addresses_without_end_take_bounded_room_and_share_what_is_left() {
        let (guesses, t) = (GuessLimiter::default(), now());
        let heard = (0..GUESSERS_MAX as u128 + 10_000)
            .filter(|it| guesses.guess(Guesser::Browser(*it), t).is_ok())
            .count();
        assert_eq!(heard, GUESSERS_MAX + OTHERS.burst as usize);
        assert_eq!(guesses.0.lock().each.len(), GUESSERS_MAX);
        // A guesser who has all attempts back is forgotten.
        let later = t + Duration::from_secs(12);
        assert!(guesses.guess(Guesser::Browser(u128::MAX), later).is_ok());
        assert_eq!(guesses.0.lock().each.len(), 1);
    }
}
