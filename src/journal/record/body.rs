//! The body of a prompt that waits, as it will be sent.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::super::people::{MakerRecord, PersonRecord, made_by, makers_of};
use super::VERSION;
use crate::routing::files::Maker;
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
}

impl BodyRecord {
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
        }
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
