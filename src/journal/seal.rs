//! Seals the bodies of waiting prompts, which may hold API keys: in the journal they stand
//! encrypted and bound to the ids of their prompts (AES-256-GCM, by ring).
//!
//! The first key seals, and all keys open. A journal whose bodies none of them opens is not used,
//! unless the operator says that their prompts may be lost.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use sha2::{Digest as _, Sha256};

use super::JournalError;
use super::batch::by_prompt;
use super::record::{Batch, Saved};
use crate::routing::ids::PromptId;

/// The keys of the bodies. Invariant: there is one at least.
pub struct Seal {
    first: Key,
    others: Vec<Key>,
}

struct Key {
    id: String,
    key: LessSafeKey,
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<&str> = self.keys().map(|key| key.id.as_str()).collect();
        f.debug_tuple("Seal").field(&ids).finish()
    }
}

/// What is done about the bodies of pending prompts that no key opens.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OnUnopened {
    Refuse,
    Lose,
}

/// What was done with the bodies of a journal.
#[derive(Debug)]
pub struct Opened {
    /// What has to be written.
    pub anew: Batch,
    /// The bodies that were given up, because no key opens them.
    pub lost: usize,
}

/// Bodies that cannot be opened and are needed.
#[derive(Debug, Default)]
struct Closed {
    count: usize,
    /// The ids of the keys that sealed them.
    keys: BTreeSet<String>,
    /// One that is not what was sealed.
    changed: Option<PromptId>,
}

impl Closed {
    fn add(&mut self, prompt: &PromptId, why: Unopened) {
        self.count += 1;
        match why {
            Unopened::OtherKey(id) => drop(self.keys.insert(id)),
            Unopened::Changed => drop(self.changed.get_or_insert_with(|| prompt.clone())),
        }
    }

    fn error(&self, seal: Option<&Seal>) -> Option<JournalError> {
        let (count, lacks) = match seal {
            Some(_) => (self.count, "has other keys"),
            None => (self.count, "is not set"),
        };
        if !self.keys.is_empty() {
            let ids = self.keys.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            return Some(JournalError::Sealed { count, lacks, ids });
        }
        let prompt = self.changed.clone()?;
        Some(JournalError::Changed { count, prompt })
    }
}

/// Why a body is not opened.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Unopened {
    /// It was sealed with another key, which has this id.
    OtherKey(String),
    /// It is not what was sealed for this prompt.
    Changed,
}

impl Seal {
    /// `None` without a key.
    #[must_use]
    pub fn new<'a>(keys: impl IntoIterator<Item = &'a [u8; 32]>) -> Option<Self> {
        let mut keys = keys.into_iter().map(Key::new);
        Some(Self { first: keys.next()?, others: keys.collect() })
    }

    /// The id of the key that seals.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.first.id
    }

    /// The body as it is written.
    #[must_use]
    pub fn seal(&self, prompt: &PromptId, body: &str) -> String {
        // Random ones are safe for some thousand millions of bodies. By the system: the state of a
        // generator of our own may be there twice, in a machine that was copied while it ran.
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).expect("the system gives random bytes");
        let mut sealed = Vec::with_capacity(body.len() + AES_256_GCM.tag_len());
        sealed.extend_from_slice(body.as_bytes());
        let of = Nonce::assume_unique_for_key(nonce);
        let done = self.first.key.seal_in_place_append_tag(of, belongs_to(prompt), &mut sealed);
        done.expect("no body has 64 GiB");
        STANDARD_NO_PAD.encode([nonce.as_slice(), &sealed].concat())
    }

    /// The body that was sealed with the key of this id for this prompt.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(&self, prompt: &PromptId, id: &str, sealed: &str) -> Result<String, Unopened> {
        let key = self.keys().find(|key| key.id == id);
        let key = key.ok_or_else(|| Unopened::OtherKey(id.to_owned()))?;
        let mut sealed = STANDARD_NO_PAD.decode(sealed).map_err(|_| Unopened::Changed)?;
        let (nonce, sealed) =
            sealed.split_first_chunk_mut::<NONCE_LEN>().ok_or(Unopened::Changed)?;
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let body = key.key.open_in_place(nonce, belongs_to(prompt), sealed);
        let body = body.map_err(|_| Unopened::Changed)?;
        String::from_utf8(body.to_vec()).map_err(|_| Unopened::Changed)
    }

    /// Opens the bodies of `saved`, and says what has to be written anew, so that all of them are
    /// sealed with the first key. The bodies in `saved` are then as they were before they were
    /// sealed, and whole, but for those that never became whole.
    ///
    /// # Errors
    /// The body of a prompt that is pending cannot be opened, and is not to be lost.
    pub fn opens(
        seal: Option<&Self>,
        saved: &mut Saved,
        on_unopened: OnUnopened,
    ) -> Result<Opened, JournalError> {
        if seal.is_none() && saved.bodies.iter().all(|(_, body)| body.key().is_none()) {
            // Bodies may be large, so they are not copied for nothing.
            return Ok(Opened { anew: Batch::default(), lost: 0 });
        }
        let parts = by_prompt(saved.parts.clone());
        let pending: HashSet<&PromptId> =
            saved.prompts.iter().filter(|it| it.1.ended.is_none()).map(|it| &it.0).collect();
        let (none, mut anew, mut unopened) = (BTreeMap::new(), Batch::default(), Closed::default());
        let mut bodies = Vec::with_capacity(saved.bodies.len());
        for (prompt, body) in std::mem::take(&mut saved.bodies) {
            let key = body.key().map(str::to_owned);
            let is_current = key.as_deref() == seal.map(Self::id);
            let written = parts.get(&prompt).unwrap_or(&none);
            let Some(whole) = body.clone().whole(written) else {
                bodies.push((prompt, body));
                continue;
            };
            let opened = match (key.as_deref(), seal) {
                (None, _) => Ok(whole),
                (Some(id), None) => Err(Unopened::OtherKey(id.to_owned())),
                (Some(_), Some(seal)) => whole.opened(&prompt, seal),
            };
            let opened = match opened {
                Ok(opened) => opened,
                Err(why) => {
                    // Whose prompt is over is not needed: a crash came before it was deleted.
                    if pending.contains(&prompt) {
                        unopened.add(&prompt, why);
                    }
                    anew.forgets(&prompt, written.keys());
                    continue;
                }
            };
            if let Some(seal) = seal.filter(|_| !is_current) {
                anew.forgets(&prompt, written.keys());
                anew.bodies.insert(prompt.clone(), Some(opened.clone().sealed(&prompt, seal)));
            }
            bodies.push((prompt, opened));
        }
        if let (OnUnopened::Refuse, Some(error)) = (on_unopened, unopened.error(seal)) {
            return Err(error);
        }
        saved.bodies = bodies;
        saved.parts.retain(|(key, _)| !anew.parts.contains_key(key));
        Ok(Opened { anew, lost: unopened.count })
    }

    fn keys(&self) -> impl Iterator<Item = &Key> {
        std::iter::once(&self.first).chain(&self.others)
    }
}

impl Key {
    fn new(bytes: &[u8; 32]) -> Self {
        let key = UnboundKey::new(&AES_256_GCM, bytes).expect("the key has the right length");
        // Says which key it was, and nothing of it.
        let digest = Sha256::new().chain_update("mooring: id of a key").chain_update(bytes);
        let id = digest.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Self { id, key: LessSafeKey::new(key) }
    }
}

/// A body opens for its own prompt only.
fn belongs_to(prompt: &PromptId) -> Aad<String> {
    Aad::from(format!("mooring: body of {prompt}"))
}

#[cfg(test)]
mod tests {
    use super::super::record::{BodyRecord, PartKey, PartRecord, PromptRecord, Sent};
    use super::*;
    use crate::routing::ids::ClientId;

    fn id(text: &str) -> PromptId {
        PromptId::parse(text).unwrap()
    }

    #[test]
    fn a_body_opens_with_its_key_for_its_prompt_and_not_otherwise() {
        let [old, new] = [[1; 32], [2; 32]];
        let seal = Seal::new([&old]).unwrap();
        let sealed = seal.seal(&id("p"), "s3cret é");
        assert_ne!(seal.seal(&id("p"), "s3cret é"), sealed, "each has a nonce of its own");
        let open = |seal: &Seal, prompt, sealed: &str| {
            seal.open(&id(prompt), Seal::new([&old]).unwrap().id(), sealed)
        };
        assert_eq!(open(&seal, "p", &sealed).as_deref(), Ok("s3cret é"));
        let both = Seal::new([&new, &old]).unwrap();
        assert_eq!(open(&both, "p", &sealed).as_deref(), Ok("s3cret é"), "an older key opens");
        let other = Unopened::OtherKey(seal.id().to_owned());
        assert_eq!(open(&Seal::new([&new]).unwrap(), "p", &sealed), Err(other));
        assert_eq!(open(&seal, "q", &sealed), Err(Unopened::Changed), "it is another prompt's");
        for at in [0, 20, sealed.len() - 1] {
            let mut changed = sealed.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert_eq!(open(&seal, "p", &changed), Err(Unopened::Changed), "{at}");
        }
        assert_eq!(open(&seal, "p", ""), Err(Unopened::Changed));
        assert!(Seal::new([]).is_none());
        let shown = format!("{both:?}");
        assert_eq!(shown, format!("Seal([\"{}\", \"{}\"])", both.id(), seal.id()));
    }

    /// A journal with these bodies, the last of which is in parts.
    fn saved(bodies: [BodyRecord; 2]) -> Saved {
        let [small, large] = bodies;
        let texts =
            large.text().as_bytes().chunks(7).map(|part| std::str::from_utf8(part).unwrap());
        let part = |(part, text)| (PartKey { prompt: id("q"), part }, PartRecord::new(text));
        let parts: Vec<_> = (0..).zip(texts).map(part).collect();
        let count = u32::try_from(parts.len()).unwrap();
        let bodies = vec![(id("p"), small), (id("q"), large.in_parts(count))];
        let pending = |prompt| {
            let sent = Sent { backend: "a".into(), url: "h:1".into(), made: 5, order: 1 };
            (id(prompt), PromptRecord::new(&ClientId::parse("c").unwrap(), sent, Vec::new()))
        };
        let prompts = vec![pending("p"), pending("q")];
        Saved { bodies, parts, prompts, ..Saved::default() }
    }

    fn sealed(seal: &Seal) -> Saved {
        let body = |prompt| {
            BodyRecord::of_text("a body of some length".to_owned()).sealed(&id(prompt), seal)
        };
        saved([body("p"), body("q")])
    }

    fn opens(seal: Option<&Seal>, saved: &mut Saved) -> Result<Batch, JournalError> {
        let opened = Seal::opens(seal, saved, OnUnopened::Refuse)?;
        assert_eq!(opened.lost, 0);
        Ok(opened.anew)
    }

    fn texts(saved: &Saved) -> Vec<&str> {
        saved.bodies.iter().map(|(_, body)| body.text()).collect()
    }

    #[test]
    fn a_start_opens_all_bodies_and_writes_anew_what_the_first_key_has_not_sealed() {
        let [old, new] = [[1; 32], [2; 32]];
        let (one, both) = (Seal::new([&old]).unwrap(), Seal::new([&new, &old]).unwrap());
        let plain = ["a body of some length"; 2];
        let written = sealed(&one);
        let mut opened = written.clone();
        assert!(opens(Some(&one), &mut opened).unwrap().is_empty());
        assert_eq!(texts(&opened), plain);
        assert_eq!(opened.join_parts()[&id("q")], u32::try_from(written.parts.len()).unwrap());

        let unsealed = saved(["p", "q"].map(|_| BodyRecord::of_text(plain[0].to_owned())));
        for (before, seal) in [(written, &both), (unsealed, &both)] {
            let mut opened = before.clone();
            let anew = opens(Some(seal), &mut opened).unwrap();
            assert_eq!((texts(&opened), opened.parts.len()), (plain.to_vec(), 0));
            let mut again = before.after(&anew);
            assert!(again.parts.is_empty());
            let first = Seal::new([&new]).unwrap();
            assert!(opens(Some(&first), &mut again).unwrap().is_empty());
            again.bodies.sort_by(|a, b| a.0.cmp(&b.0));
            assert_eq!(texts(&again), plain, "the old key is not needed any more");
        }
    }

    #[test]
    fn a_journal_whose_bodies_cannot_be_opened_is_not_used_and_the_reason_is_told() {
        let [old, new] = [[1; 32], [2; 32]].map(|key| Seal::new([&key]).unwrap());
        let said = |seal: Option<&Seal>, mut saved: Saved| {
            opens(seal, &mut saved).unwrap_err().to_string()
        };
        let none = said(None, sealed(&old));
        assert!(none.contains("2 prompts") && none.contains("is not set"), "{none}");
        let other = said(Some(&new), sealed(&old));
        assert!(other.contains("has other keys") && other.contains(old.id()), "{other}");
        let mut swapped = sealed(&old);
        swapped.bodies[0].1 = BodyRecord::of_text("x".to_owned()).sealed(&id("r"), &old);
        let changed = said(Some(&old), swapped);
        assert!(changed.contains("1 prompts") && changed.contains("that of p"), "{changed}");
        let nothing = Saved::default();
        for seal in [None, Some(&new)] {
            assert!(opens(seal, &mut nothing.clone()).unwrap().is_empty());
        }
    }

    #[test]
    fn what_no_key_opens_can_be_given_up_and_nothing_else_is() {
        let [old, new] = [[1; 32], [2; 32]];
        let seal = Seal::new([&new]).unwrap();
        let mut mixed = sealed(&Seal::new([&old]).unwrap());
        mixed.bodies[0].1 = BodyRecord::of_text("good".to_owned()).sealed(&id("p"), &seal);
        let mut given_up = mixed.clone();
        let opened = Seal::opens(Some(&seal), &mut given_up, OnUnopened::Lose).unwrap();
        assert_eq!((opened.lost, texts(&given_up)), (1, vec!["good"]));
        let after = mixed.clone().after(&opened.anew);
        assert_eq!((after.bodies.len(), after.parts.len(), after.prompts.len()), (1, 0, 2));
    }

    #[test]
    fn what_is_not_needed_any_more_need_not_open() {
        let [old, new] = [[1; 32], [2; 32]].map(|key| Seal::new([&key]).unwrap());
        let mut over = sealed(&old);
        over.prompts.clear();
        let anew = opens(Some(&new), &mut over).unwrap();
        assert_eq!((over.bodies.len(), over.parts.len()), (0, 0));
        assert_eq!(anew.bodies.values().filter(|it| it.is_none()).count(), 2);
    }
}
