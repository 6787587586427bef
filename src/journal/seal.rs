//! Seals the bodies of waiting prompts, which may hold API keys: in the journal they stand
//! encrypted and bound to the ids of their prompts (AES-256-GCM, by ring).
//!
//! The first key seals, and all keys open. A journal whose bodies none of them opens is not used:
//! its prompts would be lost.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use sha2::{Digest as _, Sha256};

use super::JournalError;
use super::batch::by_prompt;
use super::record::{Batch, PartKey, Saved};
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

/// Why a body is not opened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unopened {
    /// It was sealed with another key.
    OtherKey,
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
        // Random ones are safe for some thousand millions of bodies.
        let nonce: [u8; NONCE_LEN] = rand::random();
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
        let key = self.keys().find(|key| key.id == id).ok_or(Unopened::OtherKey)?;
        let mut sealed = STANDARD_NO_PAD.decode(sealed).map_err(|_| Unopened::Changed)?;
        let (nonce, sealed) =
            sealed.split_first_chunk_mut::<NONCE_LEN>().ok_or(Unopened::Changed)?;
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let body = key.key.open_in_place(nonce, belongs_to(prompt), sealed);
        let body = body.map_err(|_| Unopened::Changed)?;
        String::from_utf8(body.to_vec()).map_err(|_| Unopened::Changed)
    }

    /// What has to be written anew, so that all bodies of `saved` are sealed with the first key.
    /// The bodies in `saved` are as they were before they were sealed, and whole, but for those
    /// that never became whole.
    ///
    /// # Errors
    /// A body cannot be opened. Nothing may be lost silently, so the journal is not used.
    pub fn opens(seal: Option<&Self>, saved: &mut Saved) -> Result<Batch, JournalError> {
        let keys = saved.bodies.iter().filter_map(|(_, body)| body.key());
        let is_missing = |id: &&str| !seal.is_some_and(|seal| seal.keys().any(|it| it.id == **id));
        let missing: Vec<&str> = keys.filter(is_missing).collect();
        if let Some(id) = missing.first() {
            let lacks = if seal.is_some() { "has another key" } else { "is not set" };
            return Err(JournalError::Sealed { count: missing.len(), lacks, id: (*id).to_owned() });
        }
        let mut anew = Batch::default();
        let Some(seal) = seal else { return Ok(anew) };
        let parts = by_prompt(saved.parts.clone());
        let none = BTreeMap::new();
        for (prompt, body) in &mut saved.bodies {
            let is_current = body.key() == Some(seal.id());
            let written = parts.get(prompt).unwrap_or(&none);
            let Some(whole) = body.clone().whole(written) else { continue };
            let changed = |_| JournalError::Changed { prompt: prompt.clone() };
            *body = whole.opened(prompt, seal).map_err(changed)?;
            if !is_current {
                let sealed = body.clone().sealed(prompt, seal);
                anew.bodies.insert(prompt.clone(), Some(sealed));
                let keys =
                    written.keys().map(|part| PartKey { prompt: prompt.clone(), part: *part });
                anew.parts.extend(keys.map(|key| (key, None)));
            }
        }
        saved.parts.retain(|(key, _)| !anew.parts.contains_key(key));
        Ok(anew)
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
    use super::super::record::{BodyRecord, PartRecord};
    use super::*;

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
        assert_eq!(open(&Seal::new([&new]).unwrap(), "p", &sealed), Err(Unopened::OtherKey));
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
        Saved { bodies, parts, ..Saved::default() }
    }

    fn sealed(seal: &Seal) -> Saved {
        let body = |prompt| {
            BodyRecord::of_text("a body of some length".to_owned()).sealed(&id(prompt), seal)
        };
        saved([body("p"), body("q")])
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
        assert!(Seal::opens(Some(&one), &mut opened).unwrap().is_empty());
        assert_eq!(texts(&opened), plain);
        assert_eq!(opened.join_parts()[&id("q")], u32::try_from(written.parts.len()).unwrap());

        let unsealed = saved(["p", "q"].map(|_| BodyRecord::of_text(plain[0].to_owned())));
        for (before, seal) in [(written, &both), (unsealed, &both)] {
            let mut opened = before.clone();
            let anew = Seal::opens(Some(seal), &mut opened).unwrap();
            assert_eq!((texts(&opened), opened.parts.len()), (plain.to_vec(), 0));
            let mut again = before.after(&anew);
            assert!(again.parts.is_empty());
            let first = Seal::new([&new]).unwrap();
            assert!(Seal::opens(Some(&first), &mut again).unwrap().is_empty());
            again.bodies.sort_by(|a, b| a.0.cmp(&b.0));
            assert_eq!(texts(&again), plain, "the old key is not needed any more");
        }
    }

    #[test]
    fn a_journal_whose_bodies_cannot_be_opened_is_not_used_and_the_reason_is_told() {
        let [old, new] = [[1; 32], [2; 32]].map(|key| Seal::new([&key]).unwrap());
        let said = |seal: Option<&Seal>, mut saved: Saved| {
            Seal::opens(seal, &mut saved).unwrap_err().to_string()
        };
        let none = said(None, sealed(&old));
        assert!(none.contains("2 prompts") && none.contains("is not set"), "{none}");
        let other = said(Some(&new), sealed(&old));
        assert!(other.contains("has another key") && other.contains(old.id()), "{other}");
        let mut swapped = sealed(&old);
        swapped.bodies[0].1 = BodyRecord::of_text("x".to_owned()).sealed(&id("r"), &old);
        assert!(said(Some(&old), swapped).contains("the body of prompt p"));
        let nothing = Saved::default();
        for seal in [None, Some(&new)] {
            assert!(Seal::opens(seal, &mut nothing.clone()).unwrap().is_empty());
        }
    }
}
