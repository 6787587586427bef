//! The three parts of a token, read so that there is one reading of each.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::{Fault, TOKEN_MAX};

/// A token, taken apart and not believed.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    /// What the signature is of.
    pub(super) signed: &'a [u8],
    pub(super) header: Vec<u8>,
    pub(super) claims: Vec<u8>,
    pub(super) signature: Vec<u8>,
}

impl<'a> Parts<'a> {
    /// Reads `HEADER.CLAIMS.SIGNATURE`, each in base64 for URLs without padding (RFC 7515
    /// section 7.1).
    pub(super) fn of(text: &'a [u8]) -> Result<Self, Fault> {
        if TOKEN_MAX < text.len() {
            return Err(Fault::Form);
        }
        let mut parts = text.split(|byte| *byte == b'.');
        let (Some(header), Some(claims), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Fault::Form);
        };
        // It refuses other letters, padding, and bits that mean nothing at the end.
        let decoded = |part: &[u8]| URL_SAFE_NO_PAD.decode(part).map_err(|_| Fault::Form);
        Ok(Self {
            signed: &text[..header.len() + 1 + claims.len()],
            header: decoded(header)?,
            claims: decoded(claims)?,
            signature: decoded(signature)?,
        })
    }
}

/// A JSON object that says nothing twice. Readers differ in which of two they take.
#[derive(Debug)]
pub(super) struct Object(Map<String, Value>);

impl Object {
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text).ok()
    }

    /// The header of a token that need not be good.
    pub(super) fn of_any(part: &[u8]) -> Option<Self> {
        let header = URL_SAFE_NO_PAD.decode(part).ok()?;
        let Value::Object(members) = serde_json::from_slice(&header).ok()? else { return None };
        Some(Self(members))
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(Value::as_str)
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut members = Map::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    if members.insert(name, value).is_some() {
                        return Err(A::Error::custom("a name is there twice"));
                    }
                }
                Ok(Object(members))
            }
        }
        deserializer.deserialize_map(Members)
    }
}
