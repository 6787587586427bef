//! Graphs that a backend has accepted lately: the same graph with another seed is valid too. These
//! are the second to the hundredth prompt of a batch.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::journal::record::Kept;
use crate::lock::{Lock, rank};

/// How many graphs are remembered.
const GRAPHS_MAX: usize = 10_000;

/// How long a graph counts as valid: files and models come and go.
const GOOD_FOR: Duration = Duration::from_secs(600);

/// The largest body that is looked at: a graph has a few hundred nodes, and this is on the way of
/// every submission.
const BODY_MAX: usize = 1 << 20;

/// Inputs whose whole numbers change nothing about whether a graph is valid.
const SEEDS: [&str; 2] = ["seed", "noise_seed"];

/// A hash of a graph without its seeds.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(in crate::front) struct GraphHash(u64);

#[derive(Debug, Default)]
pub(in crate::front) struct KnownGood(Lock<Known, { rank::KNOWN_GOOD }>);

#[derive(Debug, Default)]
struct Known {
    until: std::collections::HashMap<GraphHash, Instant>,
    /// In the order in which they were first seen.
    order: VecDeque<GraphHash>,
}

impl GraphHash {
    /// What somebody else has sent is not known: nobody is to learn of it. Nor is what was sent
    /// before the fleet has changed. `None` if the body has no graph, or one that is too large to
    /// be read for this.
    pub(in crate::front) fn of(kept: &Kept, fleet_changes: u64) -> Option<Self> {
        let body = Self::of_body(&kept.body)?;
        let mut hasher = DefaultHasher::new();
        (&kept.sharer, fleet_changes, body.0).hash(&mut hasher);
        Some(Self(hasher.finish()))
    }

    fn of_body(body: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Body {
            prompt: Hashed,
            #[serde(default)]
            partial_execution_targets: Hashed,
        }
        if BODY_MAX < body.len() {
            return None;
        }
        let body: Body = serde_json::from_slice(body).ok()?;
        let mut hasher = DefaultHasher::new();
        (body.prompt.0, body.partial_execution_targets.0).hash(&mut hasher);
        Some(Self(hasher.finish()))
    }
}

/// The hash of a value. The value itself is never in memory: what is read is hashed, and forgotten.
#[derive(Default)]
struct Hashed(u64);

impl<'de> Deserialize<'de> for Hashed {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut hasher = DefaultHasher::new();
        Hashing { hasher: &mut hasher, is_seed: false }.deserialize(from)?;
        Ok(Self(hasher.finish()))
    }
}

/// Hashes a value that is read.
struct Hashing<'h> {
    hasher: &'h mut DefaultHasher,
    /// Whole numbers count as one.
    is_seed: bool,
}

/// What is told apart, besides the values themselves.
#[derive(Clone, Copy, Hash)]
enum Token {
    Null,
    Bool,
    Whole,
    Float,
    Text,
    List,
    Object,
    End,
    Seed,
}

impl Hashing<'_> {
    fn whole(self, number: impl Hash) {
        match self.is_seed {
            true => Token::Seed.hash(self.hasher),
            false => (Token::Whole, number).hash(self.hasher),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Hashing<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Hashing<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Token::Null.hash(self.hasher);
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        (Token::Bool, value).hash(self.hasher);
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.whole(i128::from(value));
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.whole(i128::from(value));
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        (Token::Float, value.to_bits()).hash(self.hasher);
        Ok(())
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        (Token::Text, value).hash(self.hasher);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Self { hasher, .. } = self;
        Token::List.hash(hasher);
        while list.next_element_seed(Hashing { hasher: &mut *hasher, is_seed: false })?.is_some() {}
        Token::End.hash(hasher);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let Self { hasher, .. } = self;
        Token::Object.hash(hasher);
        while let Some(key) = members.next_key::<Cow<'de, str>>()? {
            (Token::Text, &*key).hash(hasher);
            let is_seed = SEEDS.contains(&&*key);
            members.next_value_seed(Hashing { hasher: &mut *hasher, is_seed })?;
        }
        Token::End.hash(hasher);
        Ok(())
    }
}

impl KnownGood {
    /// A backend has accepted this graph, without an error at any node.
    pub(in crate::front) fn add(&self, graph: GraphHash, now: Instant) {
        let mut known = self.0.lock();
        if known.until.insert(graph, now + GOOD_FOR).is_none() {
            known.order.push_back(graph);
        }
        while GRAPHS_MAX < known.order.len() {
            let Some(oldest) = known.order.pop_front() else { break };
            known.until.remove(&oldest);
        }
    }

    pub(in crate::front) fn has(&self, graph: GraphHash, now: Instant) -> bool {
        self.0.lock().until.get(&graph).is_some_and(|until| now < *until)
    }

    /// A backend has refused what was known as good.
    pub(in crate::front) fn forget(&self, graph: GraphHash) {
        if let Some(until) = self.0.lock().until.get_mut(&graph) {
            let past = until.checked_sub(GOOD_FOR);
            *until = past.unwrap_or(*until);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> GraphHash {
        GraphHash::of_body(format!(r#"{{"prompt": {text}, "client_id": "c"}}"#).as_bytes()).unwrap()
    }

    #[test]
    fn a_seed_changes_nothing_and_everything_else_does() {
        let one = of(r#"{"1": {"inputs": {"seed": 1, "steps": 20, "m": ["2", 0]}}}"#);
        assert_eq!(one, of(r#"{"1": {"inputs": {"seed": 99, "steps": 20, "m": ["2", 0]}}}"#));
        let others = [
            r#"{"1": {"inputs": {"seed": 1, "steps": 21, "m": ["2", 0]}}}"#,
            r#"{"1": {"inputs": {"seed": ["3", 0], "steps": 20, "m": ["2", 0]}}}"#,
            r#"{"2": {"inputs": {"seed": 1, "steps": 20, "m": ["2", 0]}}}"#,
            r#"{"1": {"inputs": {"seed": 1, "steps": "20", "m": ["2", 0]}}}"#,
        ];
        assert!(others.iter().all(|other| of(other) != one));
    }

    #[test]
    fn what_is_too_large_or_no_graph_has_no_hash() {
        let zeros = "0,".repeat(BODY_MAX / 2);
        let large = format!(r#"{{"prompt": {{"1": {{"inputs": {{"x": [{zeros}0]}}}}}}}}"#);
        let deep = format!(r#"{{"prompt": {}{}}}"#, "[".repeat(9_999), "]".repeat(9_999));
        for body in [&*large, &*deep, "{}", "", r#"{"prompt": {"x": NaN}}"#] {
            assert_eq!(GraphHash::of_body(body.as_bytes()), None);
        }
        assert_ne!(of("[[1], 2]"), of("[[1, 2]]"), "what is nested is told apart");
        assert_ne!(of(r#"{"a": {"b": 1}, "c": 2}"#), of(r#"{"a": {"b": 1, "c": 2}}"#));
        assert_ne!(of("-1"), of("18446744073709551615"));
        assert_eq!(of(r#"{"\u0061": 1}"#), of(r#"{"a": 1}"#));
    }

    #[test]
    fn what_was_accepted_is_good_for_a_while() {
        #[expect(clippy::disallowed_methods, reason = "any instant will do")]
        let now = Instant::now();
        let (known, graph) = (KnownGood::default(), of("{}"));
        assert!(!known.has(graph, now));
        known.add(graph, now);
        assert!(known.has(graph, now) && !known.has(graph, now + GOOD_FOR));
        known.forget(graph);
        assert!(!known.has(graph, now));
    }
}
