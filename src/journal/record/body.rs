//! The body of a prompt that waits, as it will be sent.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::super::people::{MakerRecord, PersonRecord, made_by, makers_of};
use super::super::seal::{Seal, Unopened};
use super::VERSION;
use super::versions::{IN_PARTS, SEALED};
use crate::routing::files::Maker;
use crate::routing::ids::PromptId;
use crate::routing::owners::Person;

/// What is needed to send a prompt that waits.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    /// With its ids in it.
    pub body: Bytes,
    /// `Comfy-Usage-Source`: the one header of a submission that ComfyUI reads.
    pub usage_source: Option<Arc<str>>,
    /// The makers whose files its plain names refer to.
    pub askers: Vec<Maker>,
    /// Who has submitted it: within a share, these take turns. `None` if nobody is known.
    pub sharer: Option<Person>,
    /// Whose share and limits it counts against: the user, or without users the address.
    pub payer: Option<Person>,
    /// Its place among the prompts of its client.
    pub number: f64,
}

/// The same as a record.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct BodyRecord {
    v: u32,
    number: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    usage_source: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    askers: Vec<MakerRecord>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sharer: Option<PersonRecord>,
    /// `None` if it is the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    payer: Option<PersonRecord>,
    body: String,
    /// In how many parts the body was written; 0 if it is here.
    #[serde(default, skip_serializing_if = "is_zero")]
    parts: u32,
    /// The id of the key that has sealed the body; `None` if it is as it will be sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sealed: Option<String>,
}

/// Identifies a part of a large body.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PartKey {
    pub prompt: PromptId,
    pub part: u32,
}

/// A part of a large body.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct PartRecord {
    v: u32,
    text: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_zero(parts: &u32) -> bool {
    *parts == 0
}

impl PartKey {
    /// The key as it is written.
    #[must_use]
    pub fn to_text(&self) -> String {
        format!("{}\0{:06}", self.prompt, self.part)
    }

    /// Parses a key; `None` if it is not valid.
    #[must_use]
    pub fn of_text(text: &str) -> Option<Self> {
        let (prompt, part) = text.rsplit_once('\0')?;
        Some(Self { prompt: PromptId::parse(prompt).ok()?, part: part.parse().ok()? })
    }
}

impl PartRecord {
    /// How many bytes of the body are in it.
    pub(in crate::journal) fn len(&self) -> usize {
        self.text.len()
    }

    #[must_use]
    pub fn new(text: &str) -> Self {
        Self { v: VERSION, text: text.to_owned() }
    }
}

impl BodyRecord {
    /// How many bytes of the body are in it.
    pub(in crate::journal) fn len(&self) -> usize {
        self.body.len()
    }

    #[must_use]
    pub fn new(kept: &Kept) -> Self {
        let Kept { body, usage_source, askers, sharer, payer, number } = kept;
        let other_payer = payer.as_ref().filter(|_| payer != sharer);
        Self {
            v: VERSION,
            number: *number,
            usage_source: usage_source.clone(),
            askers: makers_of(askers),
            sharer: sharer.as_ref().map(PersonRecord::new),
            payer: other_payer.map(PersonRecord::new),
            // A body that was read is JSON, and so UTF-8.
            body: String::from_utf8_lossy(body).into_owned(),
            parts: 0,
            sealed: None,
        }
    }

    /// The same record, with its body sealed.
    #[must_use]
    pub(in crate::journal) fn sealed(self, prompt: &PromptId, seal: &Seal) -> Self {
        let (body, sealed) = (seal.seal(prompt, &self.body), Some(seal.id().to_owned()));
        Self { v: SEALED, body, sealed, ..self }
    }

    /// The id of the key that has sealed it.
    #[must_use]
    pub(in crate::journal) fn key(&self) -> Option<&str> {
        self.sealed.as_deref()
    }

    /// The same record, as it was before it was sealed.
    pub(in crate::journal) fn opened(
        self,
        prompt: &PromptId,
        seal: &Seal,
    ) -> Result<Self, Unopened> {
        let Some(id) = &self.sealed else { return Ok(self) };
        let body = seal.open(prompt, id, &self.body)?;
        Ok(Self { v: VERSION, body, sealed: None, ..self })
    }

    #[must_use]
    pub(in crate::journal) fn text(&self) -> &str {
        &self.body
    }

    /// The same record without the body, which is in so many parts. An older Mooring must not take
    /// it for an empty one.
    #[must_use]
    pub(in crate::journal) fn in_parts(self, parts: u32) -> Self {
        Self { v: self.v.max(IN_PARTS), body: String::new(), parts, ..self }
    }

    /// The same record with its body, if all parts are there.
    #[must_use]
    pub(in crate::journal) fn whole(self, parts: &BTreeMap<u32, PartRecord>) -> Option<Self> {
        if self.parts == 0 {
            return Some(self);
        }
        let texts = (0..self.parts).map(|part| parts.get(&part).map(|part| part.text.as_str()));
        let body = texts.collect::<Option<String>>()?;
        let v = if self.sealed.is_some() { SEALED } else { VERSION };
        Some(Self { v, parts: 0, body, ..self })
    }

    #[cfg(test)]
    pub(in crate::journal) fn of_text(body: String) -> Self {
        let kept = Kept {
            body: Bytes::from(body),
            usage_source: None,
            askers: Vec::new(),
            sharer: None,
            payer: None,
            number: 1.0,
        };
        Self::new(&kept)
    }

    #[must_use]
    pub fn kept(&self) -> Kept {
        let sharer = self.sharer.as_ref().and_then(PersonRecord::person);
        let payer = self.payer.as_ref().and_then(PersonRecord::person);
        Kept {
            body: Bytes::copy_from_slice(self.body.as_bytes()),
            usage_source: self.usage_source.clone(),
            askers: made_by(&self.askers).collect(),
            payer: payer.or_else(|| sharer.clone()),
            sharer,
            number: self.number,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{decode, encode};
    use super::*;

    #[test]
    fn a_body_is_read_as_it_was_written() {
        let kept = Kept {
            body: Bytes::from_static(br#"{"prompt": {"1": "\u00e9 \"\n"}}"#),
            usage_source: Some("comfyui".into()),
            askers: vec![Maker::Address([10, 0, 0, 1].into()), Maker::Browser(7)],
            sharer: Some(Person::Browser(7)),
            payer: Some(Person::Address([10, 0, 0, 1].into())),
            number: -3.5,
        };
        let user = Some(Person::User("ada".into()));
        let of_user = Kept { sharer: user.clone(), payer: user, ..kept.clone() };
        for kept in [kept, of_user] {
            let read: BodyRecord = decode(&encode(&BodyRecord::new(&kept))).unwrap();
            assert_eq!(read.kept(), kept);
        }
    }
}
